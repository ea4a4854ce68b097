"""The endings in which a request is never read: `server-unread` and `crash`.

Both wait until the request lies in the socket. Then one closes it, and the other has a process of
its own killed with the socket open; the kernel answers both with RST (tcp_close: TCPAbortOnClose).
"""

import asyncio
import socket

from twbench.model.endings import Departure
from twbench.server.ledger import Ledger
from twbench.server.victims import Victims, departure_of_close

_AT_ONCE = 64
_REST_S = 0.01
_MOST_VICTIMS = 128


class AbruptListener:
    """Accepts connections on a listening socket and ends each without an answer.

    A client that sends nothing is waited for `hold_s` seconds.
    """

    def __init__(self, sock: socket.socket, ledger: Ledger, *, crash: bool, hold_s: float) -> None:
        """Start accepting; `crash` chooses the second of the two endings."""
        self._sock = sock
        self._ledger = ledger
        self._hold_s = hold_s
        self._meet = self._crash if crash else self._await_request
        self._waiting: dict[socket.socket, float] = {}
        self._victims = Victims(hold_s=hold_s)
        self._resting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if len(self._victims) >= _MOST_VICTIMS:
                self._rest()
                return
            try:
                connection, _ = self._sock.accept()
            except BlockingIOError:
                return
            except OSError:
                self._ledger.report.not_accepted += 1
                self._rest()
                return
            connection.settimeout(0)
            self._ledger.accepted(None, {})
            self._meet(connection)

    def _rest(self) -> None:
        """Leave the queue alone for a moment."""
        if self._resting is None:
            self._loop.remove_reader(self._sock)
            self._resting = self._loop.call_later(_REST_S, self._resume)

    def _resume(self) -> None:
        self.reap()
        self._resting = None
        self._loop.add_reader(self._sock, self._accept)

    def _await_request(self, connection: socket.socket) -> None:
        self._waiting[connection] = self._loop.time() + self._hold_s
        self._loop.add_reader(connection, self._leave_unread, connection)

    def _leave_unread(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection)
        del self._waiting[connection]
        self._close(connection)

    def _close(self, connection: socket.socket) -> Departure:
        how = departure_of_close(connection)
        connection.close()
        self._ledger.departed(how, None, {})
        return how

    def _crash(self, connection: socket.socket) -> None:
        """Hand the connection to a process that is killed as soon as the request has come."""
        try:
            self._victims.take(connection)
        except OSError:
            # fork(2): no memory, or no more processes for this user
            closed_first = self._close(connection) is Departure.ACTIVE_CLOSE
            self._ledger.report.closed_early += closed_first
            self._rest()

    def reap(self) -> None:
        """Bury the processes that have been killed; wait no longer for what sends nothing."""
        for how in self._victims.bury():
            self._ledger.departed(how, None, {})
        now_s = self._loop.time()
        for connection in [c for c, until_s in self._waiting.items() if until_s <= now_s]:
            self._leave_unread(connection)

    def close(self) -> None:
        """Accept nothing more, end every connection and every process, and book them."""
        self._loop.remove_reader(self._sock)
        if self._resting is not None:
            self._resting.cancel()
        self._sock.close()
        for connection in tuple(self._waiting):
            self._leave_unread(connection)
        for how in self._victims.end():
            self._ledger.departed(how, None, {})
