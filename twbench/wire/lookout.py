"""What a stage sees of one host: its sockets by sock_diag, and its counters."""

import socket
from contextlib import ExitStack
from typing import Protocol

from twbench.kernel.netlink import DiagSocket
from twbench.kernel.readers import TickReader
from twbench.kernel.sockdiag import ALL_STATES, Sockets, join
from twbench.model.states import TcpState
from twbench.wire.ladder import EndState


class Hosts(Protocol):
    """What a stage needs of a lab: files and sockets of its stacks, and fresh stacks."""

    def open(self, stack: str, path: str) -> int:
        """Open a file of a stack."""

    def socket(self, stack: str, family: int, kind: int, proto: int = 0) -> socket.socket:
        """Make a socket on a stack."""

    def reboot(self, host: str) -> None:
        """Give a host a fresh stack with the same addresses."""


class Lookout:
    """The readers of one host, from its making to `close`."""

    def __init__(self, hosts: Hosts, host: str) -> None:
        """Open the readers. Raises OSError."""
        with ExitStack() as opened:
            self._diag = DiagSocket(lambda *kind: hosts.socket(host, *kind))
            opened.callback(self._diag.close)
            self._ticks = TickReader(lambda path: hosts.open(host, path))
            opened.callback(self._ticks.close)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the readers; a second call does nothing."""
        self._opened.close()

    def sockets(self) -> Sockets:
        """Return every TCP socket, TIME_WAIT and listeners included."""
        return join(self._diag.dump(states=ALL_STATES).parts)

    def between(self, here: int, there: int) -> Sockets:
        """Return the connection between a local and a remote port: no row, or one."""
        rows = self.sockets()
        of_it: Sockets = rows[(rows["sport"] == here) & (rows["dport"] == there)]
        return of_it

    def listens(self) -> bool:
        """Return whether any socket listens."""
        return bool((self.sockets()["state"] == TcpState.LISTEN).any())

    def destroy(self, here: int, there: int) -> int:
        """Destroy the connection between these ports (SOCK_DESTROY); return how many there were.

        Raises OSError where the kernel refuses.
        """
        rows = self.between(here, there)
        for row in rows:
            self._diag.destroy(row)
        return len(rows)

    def counters(self) -> dict[str, int]:
        """Return the counters by nstat's names, and sockstat's as `sockstat_tw` and so on."""
        tick = self._ticks.tick()
        return tick.counters | {f"sockstat_{name}": n for name, n in tick.sockstat.items()}


def end_state(rows: Sockets) -> EndState:
    """Return the state that the row of a connection tells of; CLOSED where there is none."""
    if not len(rows):
        return EndState()
    row = rows[0]
    return EndState(
        state=TcpState(int(row["state"])),
        expires_s=int(row["expires_ms"]) / 1000,
        timer=int(row["timer"]),
        retransmits=int(row["retransmits"]),
    )
