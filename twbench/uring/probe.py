"""What this kernel's io_uring can do, found by asking and trying, never by version."""

import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from twbench.uring import operations
from twbench.uring.memory import Memory
from twbench.uring.operations import Slot, SocketCommand
from twbench.uring.params import Setup
from twbench.uring.ring import Ring
from twbench.uring.sqe import Flag, Op, Sqe

Ability = Op | SocketCommand

SINCE: Mapping[str, str] = {
    "SOCKET": "5.19",
    "URING_CMD": "5.19",
    "SIOCINQ": "6.5",
    "SIOCOUTQ": "6.5",
    "GETSOCKOPT": "6.7",
    "SETSOCKOPT": "6.7",
    "FIXED_FD_INSTALL": "6.8",
    "BIND": "6.11",
    "LISTEN": "6.11",
}
"""The Linux that brought what the oldest usable ring has not; for people, never asked."""

_CLOSES_LATE = (
    "this kernel's io_uring closes a socket only after operations on others are over"
    " (Linux 6.13 does not)"
)
_REGISTER_PROBE = 8
_PROBE_HEAD = struct.Struct("=BB14x")
_PROBE_OP = struct.Struct("=BBHI")
_SUPPORTED = 1
_MOST_OPS = 256
_ENTRIES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Abilities:
    """What a ring can do here; where there is none, `refusal` says why in a sentence."""

    operations: frozenset[Op] = frozenset()
    commands: frozenset[SocketCommand] = frozenset()
    setup: Setup | None = None
    refusal: str | None = None

    def missing(self, wanted: Iterable[Ability]) -> tuple[str, ...]:
        """Return the names of those that are not to be had, in the order of `wanted`."""
        # An Op and a SocketCommand of the same number are equal, so each is sought among its own.
        return tuple(
            each.name
            for each in wanted
            if each not in (self.operations if isinstance(each, Op) else self.commands)
        )

    def why_not(self, wanted: Iterable[Ability]) -> str | None:
        """Return one sentence on why this cannot be done here, or None where it can."""
        if self.refusal:
            return self.refusal
        lacking = [
            f"{name} (Linux {SINCE[name]})" if name in SINCE else name
            for name in self.missing(wanted)
        ]
        return f"this kernel's io_uring lacks {', '.join(lacking)}" if lacking else None


def probe() -> Abilities:
    """Return what a ring made here and now can do; takes a millisecond and leaves nothing."""
    try:
        with Ring(entries=_ENTRIES, completions=_ENTRIES) as ring:
            return Abilities(
                operations=operations_of(ring),
                commands=commands_of(ring),
                setup=ring.layout.setup,
                refusal=None if closes_at_once(ring) else _CLOSES_LATE,
            )
    except OSError as error:
        return Abilities(refusal=error.strerror or str(error))


def closes_at_once(ring: Ring) -> bool:
    """Return whether a slot that is closed lets go of its file while another one waits.

    Before Linux 6.13 it did not: files left in the order in which all operations had begun
    (io_rsrc_node), so one idle receive held back every FIN.
    """
    ring.register_files(2)
    memory = Memory(8)
    waiting, closing = socket.socketpair(), socket.socketpair()
    try:
        for slot, pair in enumerate((waiting, closing)):
            ring.place(slot, pair[0].fileno())
            pair[0].close()
        receive = operations.recv(Slot(0), addr=memory.reserve(1), length=1)
        ring.push(receive.pack())
        ring.push(operations.close(Slot(1), flags=Flag.CQE_SKIP_SUCCESS).pack())
        ring.turn()
        # closed at the end of that call
        ring.turn()
        closing[1].setblocking(False)  # noqa: FBT003 - the socket module's own
        try:
            return closing[1].recv(1) == b""
        except BlockingIOError:
            return False
    finally:
        for pair in (waiting, closing):
            pair[1].close()
        ring.close()
        memory.close()


def operations_of(ring: Ring) -> frozenset[Op]:
    """Return the operations the kernel says it has (IORING_REGISTER_PROBE)."""
    raw = bytearray(_PROBE_HEAD.size + _MOST_OPS * _PROBE_OP.size)
    ring.register(_REGISTER_PROBE, raw, _MOST_OPS)
    return decode_probe(raw)


def decode_probe(raw: bytes | bytearray) -> frozenset[Op]:
    """Return the known operations that struct io_uring_probe marks as supported."""
    _, count = _PROBE_HEAD.unpack_from(raw)
    rows = _PROBE_OP.iter_unpack(raw[_PROBE_HEAD.size :][: count * _PROBE_OP.size])
    numbers = {number for number, _, flags, _ in rows if flags & _SUPPORTED}
    return frozenset(op for op in Op if op in numbers)


def commands_of(ring: Ring) -> frozenset[SocketCommand]:
    """Return the socket commands that work, by trying each once on a socket of its own."""
    memory = Memory(8)
    try:
        with socket.socket() as trial:
            return frozenset(
                command
                for command, operation in _trials(trial.fileno(), memory.reserve(4)).items()
                if _result(ring, operation) not in {-errno.EOPNOTSUPP, -errno.EINVAL}
            )
    finally:
        memory.close()


def _trials(fd: int, addr: int) -> Mapping[SocketCommand, Sqe]:
    level, name = socket.SOL_SOCKET, socket.SO_KEEPALIVE
    get = operations.getsockopt(fd, level=level, name=name, addr=addr, length=4)
    put = operations.setsockopt(fd, level=level, name=name, addr=addr, length=4)
    return {
        SocketCommand.SIOCINQ: operations.queued(fd, SocketCommand.SIOCINQ),
        SocketCommand.SIOCOUTQ: operations.queued(fd, SocketCommand.SIOCOUTQ),
        SocketCommand.GETSOCKOPT: get,
        SocketCommand.SETSOCKOPT: put,
    }


def _result(ring: Ring, operation: Sqe) -> int:
    ring.push(operation.pack())
    ((_, result, _),) = ring.turn(wait=1)
    return result
