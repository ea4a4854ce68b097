"""struct io_uring_sqe as a table of fields, with holes for what is known only later. Pure.

Source: include/uapi/linux/io_uring.h.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import NamedTuple

SQE_BYTES = 64


class Op(IntEnum):
    """enum io_uring_op, as far as it is used here."""

    NOP = 0
    POLL_ADD = 6
    TIMEOUT = 11
    ACCEPT = 13
    ASYNC_CANCEL = 14
    LINK_TIMEOUT = 15
    CONNECT = 16
    CLOSE = 19
    READ = 22
    WRITE = 23
    SEND = 26
    RECV = 27
    SHUTDOWN = 34
    SOCKET = 45
    URING_CMD = 46
    FIXED_FD_INSTALL = 54
    BIND = 56
    LISTEN = 57


class Flag(IntFlag):
    """IOSQE_*: how an operation is carried out.

    IO_LINK starts the next operation after this one succeeded, IO_HARDLINK also after it failed.
    CQE_SKIP_SUCCESS keeps a success silent; if such an operation fails, it says so, and the rest
    of its chain is then cancelled in silence (req_set_fail, io_fail_links).
    """

    NONE = 0
    FIXED_FILE = 1
    IO_DRAIN = 2
    IO_LINK = 4
    IO_HARDLINK = 8
    ASYNC = 16
    BUFFER_SELECT = 32
    CQE_SKIP_SUCCESS = 64


class Hole(NamedTuple):
    """A value that is filled in later, by name; `plus` is added to it then."""

    name: str
    plus: int = 0

    def offset(self, by: int) -> "Hole":
        """Return the same hole whose value is `by` higher."""
        return Hole(self.name, self.plus + by)


Value = int | Hole


class Field(NamedTuple):
    """Where a field of the struct lies, and its format for `struct`."""

    offset: int
    format: str


FIELDS: Mapping[str, Field] = {
    "opcode": Field(0, "B"),
    "flags": Field(1, "B"),
    "ioprio": Field(2, "H"),
    "fd": Field(4, "i"),
    "off": Field(8, "Q"),
    "addr": Field(16, "Q"),
    "len": Field(24, "I"),
    "op_flags": Field(28, "I"),
    "user_data": Field(32, "Q"),
    "buf_index": Field(40, "H"),
    "personality": Field(42, "H"),
    "file_index": Field(44, "I"),
    "addr3": Field(48, "Q"),
}
"""struct io_uring_sqe, each union under one name; the last 8 bytes are padding."""

_LAYOUT = struct.Struct("=" + "".join(field.format for field in FIELDS.values()) + "8x")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sqe:
    """One operation, its fields named as in `FIELDS`; zero is what the kernel wants of the rest."""

    opcode: Op
    flags: Flag = Flag.NONE
    ioprio: int = 0
    fd: Value = 0
    off: Value = 0
    addr: Value = 0
    len: Value = 0
    op_flags: Value = 0
    user_data: Value = 0
    buf_index: Value = 0
    personality: int = 0
    file_index: Value = 0
    addr3: Value = 0

    def holes(self) -> Mapping[str, Hole]:
        """Return the fields that are still to be filled in."""
        values = ((name, getattr(self, name)) for name in FIELDS)
        return {name: value for name, value in values if isinstance(value, Hole)}

    def pack(self) -> bytes:
        """Return the 64 bytes, with zeros in the holes. Raises struct.error if out of range."""
        values = (getattr(self, name) for name in FIELDS)
        return _LAYOUT.pack(*(0 if isinstance(value, Hole) else value for value in values))

    def with_flags(self, flags: Flag) -> "Sqe":
        """Return the operation with these flags added."""
        return replace(self, flags=self.flags | flags)


def unpack(raw: bytes | memoryview) -> Sqe:
    """Return the operation of 64 bytes. Raises ValueError for an opcode that is not in `Op`."""
    values = dict(zip(FIELDS, _LAYOUT.unpack(raw), strict=True))
    return Sqe(**values | {"opcode": Op(values["opcode"]), "flags": Flag(values["flags"])})
