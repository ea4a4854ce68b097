"""Processes that hold one connection each and are killed (SIGKILL) as soon as its request is there.

Each holds nothing else of the server's but the reading end of a pipe, whose end tells it that the
server is over, however that came.
"""

import array
import fcntl
import os
import select
import signal
import socket
import termios
from typing import NoReturn

from twbench.model.endings import Departure
from twbench.model.states import TcpState
from twbench.process.sockets import tcp_state

_DEPARTURES = tuple(Departure)
_BY_STATE = {TcpState.CLOSE: Departure.RESET_BY_PEER, TcpState.CLOSE_WAIT: Departure.PASSIVE_CLOSE}


def departure_of_close(connection: socket.socket) -> Departure:
    """Return what closing the connection now amounts to (tcp_close)."""
    state = tcp_state(connection)
    unread = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, unread)
    if unread[0] and state is not TcpState.CLOSE:
        return Departure.ACTIVE_RESET
    return _BY_STATE.get(state, Departure.ACTIVE_CLOSE)


class Victims:
    """The processes of one listener; they wait `hold_s` seconds for a request."""

    def __init__(self, *, hold_s: float) -> None:
        """Begin with none."""
        self._hold_s = hold_s
        self._pids: set[int] = set()
        self._reading, self._lifeline = os.pipe()

    def __len__(self) -> int:
        return len(self._pids)

    def take(self, connection: socket.socket) -> None:
        """Give the connection to a new process; it stays the caller's where OSError is raised."""
        pid = os.fork()
        if not pid:
            _be_killed(connection, self._reading, self._hold_s)
        connection.close()
        self._pids.add(pid)

    def bury(self) -> list[Departure]:
        """Return how the connections ended of those that have died since the last call."""
        return self._wait(os.WNOHANG)

    def end(self) -> list[Departure]:
        """Have all of them leave now; return how the connections ended of those that were left."""
        os.close(self._lifeline)
        os.close(self._reading)
        return self._wait(0)

    def _wait(self, options: int) -> list[Departure]:
        over = []
        for pid in tuple(self._pids):
            ended, status = os.waitpid(pid, options)
            if ended:
                self._pids.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                over.append(Departure.ACTIVE_RESET if code < 0 else _DEPARTURES[code])
        return over


def _be_killed(connection: socket.socket, reading: int, hold_s: float) -> NoReturn:
    """Await the request and be killed; without one, exit with the number of the departure."""
    how = Departure.ACTIVE_CLOSE
    try:
        _close_all_but(connection.fileno(), reading)
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        poll.register(reading, select.POLLIN)
        poll.poll(hold_s * 1000)
        how = departure_of_close(connection)
        if how is Departure.ACTIVE_RESET:
            os.kill(os.getpid(), signal.SIGKILL)
    finally:
        os._exit(_DEPARTURES.index(how))


def _close_all_but(*kept: int) -> None:
    """Close the listener, the streams and the event loop's own, which a fork has inherited."""
    first = 0
    for descriptor in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, descriptor)
        first = descriptor + 1
