"""The three system calls of io_uring, by ctypes; they let other threads run meanwhile.

Their numbers are the same on every architecture but alpha and mips.
"""

import ctypes
import os

_SETUP, _ENTER, _REGISTER = 425, 426, 427

_libc = ctypes.CDLL(None, use_errno=True)

_long, _uint, _pointer = ctypes.c_long, ctypes.c_uint, ctypes.c_void_p
_setup = ctypes.CFUNCTYPE(_long, _long, _uint, _pointer, use_errno=True)(("syscall", _libc))
_enter = ctypes.CFUNCTYPE(
    *(_long, _long, _uint, _uint, _uint, _uint, _pointer, ctypes.c_size_t), use_errno=True
)(("syscall", _libc))
_register = ctypes.CFUNCTYPE(_long, _long, _uint, _uint, _pointer, _uint, use_errno=True)(
    ("syscall", _libc)
)


def address_of(buffer: bytearray) -> int:
    """Return where the bytes lie: true only while the buffer lives and keeps its size."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def setup(entries: int, params: bytearray) -> int:
    """Make a ring; return its descriptor, and its shape in `params`. Raises OSError."""
    return _checked(_setup(_SETUP, entries, address_of(params)), "io_uring_setup")


def enter(ring: int, submit: int, wait: int, flags: int, arg: int | None, arg_bytes: int) -> int:
    """Submit and wait; return how many were taken, or minus the errno."""
    taken: int = _enter(_ENTER, ring, submit, wait, flags, arg, arg_bytes)
    return taken if taken >= 0 else -ctypes.get_errno()


def register(ring: int, what: int, arg: bytearray | None, count: int) -> int:
    """Register or unregister; return what the kernel returns. Raises OSError."""
    address = None if arg is None else address_of(arg)
    return _checked(_register(_REGISTER, ring, what, address, count), "io_uring_register")


def _checked(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
