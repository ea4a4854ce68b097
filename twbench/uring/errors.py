"""What the room raises of its own: OSErrors that say what could be done."""


class RingRefusedError(OSError):
    """The kernel gives no ring, or not one that can be used; the text is one sentence for people.

    `errno` is the kernel's, or EOPNOTSUPP where its io_uring is too old.
    """


class RingFullError(OSError):
    """The submission queue has no room although the kernel was asked to take what is in it.

    `errno` is EAGAIN (no memory for requests) or EBUSY (completions wait to be reaped).
    """


class RingClosedError(OSError):
    """The ring was closed before; `errno` is EBADF."""
