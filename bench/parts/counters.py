"""A host's kernel counters, read through descriptors that stay open."""

import os
from types import TracebackType
from typing import NamedTuple, Self

from twbench.lab.lab import Lab

_FILES = ("/proc/net/snmp", "/proc/net/netstat", "/proc/net/sockstat")
_ROOM_BYTES = 1 << 16


class Counts(NamedTuple):
    """Counters since the host was made, and what there is now."""

    opened: int
    """Connections that came in (TcpPassiveOpens)."""
    waited: int
    """Entries into TIME_WAIT (TcpExtTW and TWKilled)."""
    waiting: int
    """Sockets in TIME_WAIT now (sockstat `tw`)."""


def counts(snmp: str, netstat: str, sockstat: str) -> Counts:
    """Read the three files' text. Pure; KeyError for a counter that is not there."""
    tcp, extra = _row(snmp, "Tcp:"), _row(netstat, "TcpExt:")
    words = next(line.split() for line in sockstat.splitlines() if line.startswith("TCP:"))
    now = dict(zip(words[1::2], words[2::2], strict=True))
    return Counts(
        opened=int(tcp["PassiveOpens"]),
        waited=int(extra["TW"]) + int(extra["TWKilled"]),
        waiting=int(now["tw"]),
    )


def _row(text: str, head: str) -> dict[str, str]:
    """Return a protocol's two lines, names and numbers, as one table."""
    names, numbers = (line.split() for line in text.splitlines() if line.startswith(head))
    return dict(zip(names, numbers, strict=True))


class Counters:
    """The counters of one of the lab's stacks."""

    def __init__(self, lab: Lab, stack: str) -> None:
        self._open = [lab.open(stack, path) for path in _FILES]

    def read(self) -> Counts:
        """Read them now."""
        snmp, netstat, sockstat = (os.pread(fd, _ROOM_BYTES, 0).decode() for fd in self._open)
        return counts(snmp, netstat, sockstat)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self._open:
            os.close(descriptor)
