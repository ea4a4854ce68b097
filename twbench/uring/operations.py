"""A constructor for each operation: which fields it wants, the rest being zero. Pure.

Every one takes `user_data`, the token its completions carry, and `flags`. An address is that of
memory which stays until the completion came, unless it says that it is read at once. Source: the
*_prep functions in io_uring/{net,timeout,cancel,poll,openclose,rw,uring_cmd}.c.
"""

import struct
import sys
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import TypedDict, Unpack

from twbench.uring.sqe import Flag, Hole, Op, Sqe, Value

_FREE_SLOT = 0xFFFF_FFFF
"""IORING_FILE_INDEX_ALLOC."""
_CURRENT_POSITION = 0xFFFF_FFFF_FFFF_FFFF


class SocketCommand(IntEnum):
    """enum io_uring_socket_op: what URING_CMD can do to a socket."""

    SIOCINQ = 0
    SIOCOUTQ = 1
    GETSOCKOPT = 2
    SETSOCKOPT = 3


class CancelFlag(IntFlag):
    """IORING_ASYNC_CANCEL_*: how the operations to cancel are found."""

    NONE = 0
    ALL = 1
    FD = 2
    ANY = 4
    FD_FIXED = 8


class TimeoutFlag(IntFlag):
    """IORING_TIMEOUT_*. Without ABS a span; the clock is CLOCK_MONOTONIC either way."""

    NONE = 0
    ABS = 1
    ETIME_SUCCESS = 32


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the ring's own file table; such a socket never gets a descriptor."""

    index: Value


class Into(Enum):
    """Where a new socket goes, if not to a certain slot."""

    FREE_SLOT = _FREE_SLOT
    """The kernel picks a slot: its number is the result (ENFILE when there is none)."""
    DESCRIPTOR = 0
    """An ordinary descriptor of the process: the result."""


File = Slot | int | Hole
"""What an operation works on: a slot, or an ordinary descriptor."""


class Common(TypedDict, total=False):
    """What every constructor takes besides its own: the token of the completion, and flags."""

    user_data: Value
    flags: Flag


def _sqe(opcode: Op, common: Common, file: File | None = None, **values: Value) -> Sqe:
    flags = common.get("flags", Flag.NONE)
    if isinstance(file, Slot):
        values["fd"] = file.index
        flags |= Flag.FIXED_FILE
    elif file is not None:
        values["fd"] = file
    return Sqe(
        opcode=opcode,
        flags=flags,
        user_data=common.get("user_data", 0),
        **values,  # type: ignore[arg-type]  # one name for fields of several types
    )


def _file_index(into: Slot | Into) -> Value:
    """Return `file_index`: 0 for a descriptor, a slot's number plus one, or "any"."""
    if isinstance(into, Into):
        return into.value
    return into.index.offset(1) if isinstance(into.index, Hole) else into.index + 1


def _two(first: int, second: int) -> int:
    """Return two u32 that lie one after the other as the u64 in their place."""
    return int.from_bytes(struct.pack("=II", first, second), sys.byteorder)


def nop(**common: Unpack[Common]) -> Sqe:
    """Do nothing; the result is 0."""
    return _sqe(Op.NOP, common)


def socket(
    into: Slot | Into, *, family: int, kind: int, protocol: int = 0, **common: Unpack[Common]
) -> Sqe:
    """Make a socket. SOCK_CLOEXEC is for a descriptor alone; a slot in use is emptied first."""
    return _sqe(Op.SOCKET, common, family, off=kind, len=protocol, file_index=_file_index(into))


def connect(file: File, *, addr: Value, addr_bytes: int, **common: Unpack[Common]) -> Sqe:
    """Connect to the sockaddr at address `addr` (copied when submitted); the result is 0."""
    return _sqe(Op.CONNECT, common, file, addr=addr, off=addr_bytes)


def bind(file: File, *, addr: Value, addr_bytes: int, **common: Unpack[Common]) -> Sqe:
    """Bind to the sockaddr at address `addr` (Linux 6.11)."""
    return _sqe(Op.BIND, common, file, addr=addr, off=addr_bytes)


def listen(file: File, *, backlog: int, **common: Unpack[Common]) -> Sqe:
    """Listen (Linux 6.11)."""
    return _sqe(Op.LISTEN, common, file, len=backlog)


def accept(
    file: File,
    into: Slot | Into,
    *,
    addr: Value = 0,
    addr_bytes_at: Value = 0,
    multishot: bool = False,
    **common: Unpack[Common],
) -> Sqe:
    """Accept one connection, or with `multishot` each that comes: a completion for each.

    The peer's sockaddr goes to `addr`; the u32 at `addr_bytes_at` says how much room is there, and
    is then its length. Multishot takes neither address nor a certain slot, and is over when a
    completion comes without cqe.MORE.
    """
    ioprio = 1 if multishot else 0  # IORING_ACCEPT_MULTISHOT
    return _sqe(
        Op.ACCEPT,
        common,
        file,
        ioprio=ioprio,
        file_index=_file_index(into),
        addr=addr,
        off=addr_bytes_at,
    )


def send(
    file: File, *, addr: Value, length: Value, msg_flags: int = 0, **common: Unpack[Common]
) -> Sqe:
    """Send `length` bytes at `addr`; the result is how many left.

    With MSG_WAITALL the kernel goes on until all have left, and fewer break a chain (io_send).
    """
    return _sqe(Op.SEND, common, file, addr=addr, len=length, op_flags=msg_flags)


def recv(
    file: File, *, addr: Value, length: Value, msg_flags: int = 0, **common: Unpack[Common]
) -> Sqe:
    """Receive up to `length` bytes to `addr`; the result is how many came, 0 at the FIN.

    With MSG_WAITALL it waits for all of them or the FIN, and fewer break a chain (io_recv).
    """
    return _sqe(Op.RECV, common, file, addr=addr, len=length, op_flags=msg_flags)


def shutdown(file: File, *, how: int, **common: Unpack[Common]) -> Sqe:
    """Shut down SHUT_RD, SHUT_WR or SHUT_RDWR."""
    return _sqe(Op.SHUTDOWN, common, file, len=how)


def close(file: File, **common: Unpack[Common]) -> Sqe:
    """Close a descriptor, or empty a slot (EBADF when it is empty already)."""
    if isinstance(file, Slot):
        return _sqe(Op.CLOSE, common, file_index=_file_index(file))
    return _sqe(Op.CLOSE, common, file)


def install(slot: Slot, **common: Unpack[Common]) -> Sqe:
    """Give the file of a slot an ordinary descriptor too: the result (Linux 6.8)."""
    return _sqe(Op.FIXED_FD_INSTALL, common, slot)


def setsockopt(
    file: File, *, level: int, name: int, addr: Value, length: int, **common: Unpack[Common]
) -> Sqe:
    """Set a socket option to the `length` bytes at `addr` (Linux 6.7)."""
    return _sqe(
        Op.URING_CMD,
        common,
        file,
        off=_two(SocketCommand.SETSOCKOPT, 0),
        addr=_two(level, name),
        file_index=length,
        addr3=addr,
    )


def getsockopt(
    file: File, *, level: int, name: int, addr: Value, length: int, **common: Unpack[Common]
) -> Sqe:
    """Read a socket option of SOL_SOCKET to `addr` (Linux 6.7); the result is its length."""
    return _sqe(
        Op.URING_CMD,
        common,
        file,
        off=_two(SocketCommand.GETSOCKOPT, 0),
        addr=_two(level, name),
        file_index=length,
        addr3=addr,
    )


def queued(file: File, command: SocketCommand, **common: Unpack[Common]) -> Sqe:
    """Ask how many bytes wait to be read (SIOCINQ) or acknowledged (SIOCOUTQ): the result."""
    return _sqe(Op.URING_CMD, common, file, off=_two(command, 0))


def poll(file: File, *, events: int, multishot: bool = False, **common: Unpack[Common]) -> Sqe:
    """Wait until one of `events` (select.POLL*) is so; the result is which."""
    words = events if sys.byteorder == "little" else (events << 16 | events >> 16) & 0xFFFF_FFFF
    return _sqe(Op.POLL_ADD, common, file, op_flags=words, len=1 if multishot else 0)


def timeout(
    *,
    addr: Value,
    count: int = 0,
    how: TimeoutFlag = TimeoutFlag.NONE,
    **common: Unpack[Common],
) -> Sqe:
    """End with ETIME once the timespec at `addr` is over, or with 0 after `count` completions."""
    return _sqe(Op.TIMEOUT, common, addr=addr, len=1, off=count, op_flags=how)


def link_timeout(
    *, addr: Value, how: TimeoutFlag = TimeoutFlag.NONE, **common: Unpack[Common]
) -> Sqe:
    """Cancel the operation that stands before it in a chain once the timespec at `addr` is over.

    The result is ETIME then, and ECANCELED when the operation was over before; CQE_SKIP_SUCCESS
    silences both. The operation so cancelled says ECANCELED. The chain goes on behind the time-out
    as the operation's own link says.
    """
    return _sqe(Op.LINK_TIMEOUT, common, addr=addr, len=1, op_flags=how)


def cancel(
    *,
    token: Value = 0,
    file: File | None = None,
    how: CancelFlag = CancelFlag.NONE,
    **common: Unpack[Common],
) -> Sqe:
    """Cancel the operation whose user_data is `token`, or those on `file`, or (ANY) every one.

    The result is 0 or, with ALL or ANY, how many; ENOENT: none; EALREADY: too late to stop. What
    still waits in a chain is not found, even between two of its steps: repeat until the chain is
    over.
    """
    if file is not None:
        how |= CancelFlag.FD
        if isinstance(file, Slot):
            how |= CancelFlag.FD_FIXED
            file = file.index
    return _sqe(Op.ASYNC_CANCEL, common, file, addr=token, op_flags=how)


def read(file: File, *, addr: Value, length: Value, **common: Unpack[Common]) -> Sqe:
    """Read up to `length` bytes to `addr`, at the current position if there is one."""
    return _sqe(Op.READ, common, file, addr=addr, len=length, off=_CURRENT_POSITION)


def write(file: File, *, addr: Value, length: Value, **common: Unpack[Common]) -> Sqe:
    """Write up to `length` bytes from `addr`, at the current position if there is one."""
    return _sqe(Op.WRITE, common, file, addr=addr, len=length, off=_CURRENT_POSITION)
