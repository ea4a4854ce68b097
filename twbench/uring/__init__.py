"""io_uring in pure Python: operations as bytes, a ring to put them on, and what a kernel can do.

What an HTTP client and server need of it, and no more. The codecs (`sqe`, `template`, `cqe`,
`structs`, `params`) are pure: values in, bytes out, and back. `syscalls`, `memory`, `ring` and
`probe` are the I/O, and `pump` keeps a ring going in an event loop. It knows no other room and
chooses no policy; whatever is refused raises OSError.
"""
