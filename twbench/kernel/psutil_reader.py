"""The same readings through psutil, where the kernel's own interfaces are not to be had.

Counters are not to be had either, nor timers and queues: those fields stay empty or 0.
"""

import socket
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import psutil

from twbench.kernel.readers import Look, Owner, Tick
from twbench.kernel.sockdiag import SOCKETS, Sockets
from twbench.model.errors import LabError
from twbench.model.states import TcpState

STATES = {
    psutil.CONN_ESTABLISHED: TcpState.ESTABLISHED,
    psutil.CONN_SYN_SENT: TcpState.SYN_SENT,
    psutil.CONN_SYN_RECV: TcpState.SYN_RECV,
    psutil.CONN_FIN_WAIT1: TcpState.FIN_WAIT1,
    psutil.CONN_FIN_WAIT2: TcpState.FIN_WAIT2,
    psutil.CONN_TIME_WAIT: TcpState.TIME_WAIT,
    psutil.CONN_CLOSE: TcpState.CLOSE,
    psutil.CONN_CLOSE_WAIT: TcpState.CLOSE_WAIT,
    psutil.CONN_LAST_ACK: TcpState.LAST_ACK,
    psutil.CONN_LISTEN: TcpState.LISTEN,
    psutil.CONN_CLOSING: TcpState.CLOSING,
}
"""From psutil's word to the kernel's number; a word that is not here becomes 0, unknown."""


class PsutilReader(Owner):
    """Ticks and looks of this machine by psutil.net_connections."""

    source = "psutil"

    def __init__(self, *, cpu_ns: Callable[[], int] = time.thread_time_ns) -> None:
        super().__init__()
        self._cpu_ns = cpu_ns

    def tick(self) -> Tick:
        """Count the sockets: `tw` and `inuse`, no counters. Costs as much as a look."""
        states = Counter(int(state) for state in self._sockets()["state"])
        waiting = states.pop(TcpState.TIME_WAIT, 0)
        return Tick(
            sockstat={"inuse": states.total(), "tw": waiting}, counters={}, source=self.source
        )

    def look(self) -> Look:
        """Read every socket now. Raises LabError when psutil may not."""
        started_ns = self._cpu_ns()
        sockets = self._sockets()
        return Look(
            parts=(sockets,),
            source=self.source,
            interrupted=False,
            cost_ns=self._cpu_ns() - started_ns,
        )

    @staticmethod
    def _sockets() -> Sockets:
        try:
            connections = psutil.net_connections("tcp")
        except psutil.AccessDenied as error:
            raise LabError(
                "this system shows its sockets to root alone", remedy="run with sudo"
            ) from error
        rows = np.zeros(len(connections), SOCKETS)
        for row, connection in zip(rows, connections, strict=True):
            row["family"] = connection.family
            row["state"] = STATES.get(connection.status, 0)
            row["src"], row["sport"] = _endpoint(connection.family, connection.laddr)
            row["dst"], row["dport"] = _endpoint(connection.family, connection.raddr)
        return rows


def _endpoint(family: int, address: tuple[()] | tuple[str, int]) -> tuple[bytes, int]:
    """Return (16 bytes, port) of psutil's address, which is empty for a socket without a peer."""
    if not address:
        return bytes(16), 0
    return socket.inet_pton(family, address[0]).ljust(16, b"\0"), address[1]
