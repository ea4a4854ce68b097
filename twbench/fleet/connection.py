"""One client connection as an asyncio Protocol: requests, answers, and the chosen ending."""

import asyncio
import errno
import time
from typing import ClassVar, Protocol

from twbench.fleet.answers import HeadReader, MalformedAnswerError
from twbench.fleet.ledger import Ledger
from twbench.model.endings import Departure
from twbench.model.outcomes import Phase, errno_name
from twbench.process.sockets import Fin, half_close, reset_on_close, send_fin


class Owner(Protocol):
    """What a connection needs from its engine."""

    loop: asyncio.AbstractEventLoop
    ledger: Ledger
    heads: HeadReader
    ending: str
    half_closes: bool
    hold_ns: int
    idle_ns: int
    request_timeout_ns: int

    def ended(self, connection: "Connection") -> None:
        """Hear that the connection is over."""


class Connection(asyncio.Protocol):
    """Carries one exchange at a time.

    Each exchange is answered through `outcome`, a future of whether it went well. For the last
    exchange of a connection it is resolved only when the connection is over: the chosen first
    closer has closed, and the other side has seen it.
    """

    __slots__ = (
        "_body_due",
        "_departure",
        "_eof",
        "_intended_ns",
        "_last",
        "_ok",
        "_owner",
        "_pending",
        "_request",
        "awaiting",
        "began_ns",
        "deadline_ns",
        "exchanges",
        "outcome",
        "over",
        "transport",
    )

    def __init__(self, owner: Owner, request: bytes, *, intended_ns: int, last: bool) -> None:
        """Begin with the first request, which goes out as soon as the connection is made."""
        self._owner = owner
        self._departure: Departure | None = None
        self._eof = False
        self._pending = b""
        self._body_due = 0
        self.exchanges = 0
        self.over = False
        self.transport: asyncio.Transport
        self._prepare(request, intended_ns, last=last)

    def _prepare(self, request: bytes, intended_ns: int, *, last: bool) -> None:
        owner = self._owner
        self._request = request
        self.began_ns = began_ns = time.monotonic_ns()
        self._intended_ns = intended_ns
        self._last = last
        self._ok = False
        self.awaiting = True
        self.exchanges += 1
        self.deadline_ns = began_ns + owner.request_timeout_ns
        self.outcome: asyncio.Future[bool] = owner.loop.create_future()

    def exchange(self, request: bytes, *, intended_ns: int, last: bool) -> asyncio.Future[bool]:
        """Send a further request on an idle connection; return the future of its outcome."""
        self._prepare(request, intended_ns, last=last)
        self._send()
        return self.outcome

    def _send(self) -> None:
        self.transport.write(self._request)
        # a write that failed has closed the transport already
        if self._last and self._owner.half_closes and not self.transport.is_closing():
            self._departure = Departure.ACTIVE_CLOSE
            half_close(self.transport)

    @property
    def usable(self) -> bool:
        """Return whether a further request may go over it."""
        return not (self.over or self._last or self.transport.is_closing())

    @property
    def reused(self) -> bool:
        """Return whether an earlier exchange went over this connection."""
        return self.exchanges > 1

    # what the event loop tells

    # TCP transports are whole ones; a cast would cost every connection a call
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection and send the first request."""
        self.transport = transport
        ledger = self._owner.ledger
        ledger.report.established += 1
        ledger.connect_ns.append(time.monotonic_ns() - self.began_ns)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer; when it is complete, book it and go on to what follows."""
        if not self._body_due:
            if self._pending:
                data = self._pending + data
            try:
                head = self._owner.heads.read(data) if self.awaiting else None
            except MalformedAnswerError:
                head = None
                self._malformed()
                return
            if head is None:
                if not self.awaiting:
                    self._malformed()
                self._pending = data
                return
            self._pending = b""
            self._body_due = len(head.raw) + head.body_bytes
            self._last = self._last or head.closes
            self._ok = not head.failed
        self._body_due -= len(data)
        self._owner.ledger.report.received_bytes += len(data)
        if self._body_due < 0:
            self._malformed()
        elif self._body_due == 0:
            self._complete()

    def eof_received(self) -> None:
        """Hear the peer's FIN: where an answer was due, the exchange has failed."""
        self._eof = True
        if self._departure is None:
            self._departure = Departure.PASSIVE_CLOSE
        if self.awaiting:
            self._fail(Phase.READ, "SHORT" if self._partly_answered else "EOF")
        elif not self._last:
            self._owner.ledger.connection_error(Phase.IDLE, "EOF")

    def connection_lost(self, exc: Exception | None) -> None:
        """Book how the connection ended and resolve what still waits for it."""
        if exc is not None:
            self._lost(exc)
        departure = self._departure or Departure.ACTIVE_CLOSE
        self._owner.ledger.report.departures[departure] += 1
        self.over = True
        self._owner.ended(self)
        if not self.outcome.done():
            self.outcome.set_result(self._ok)

    def _lost(self, exc: Exception) -> None:
        number = exc.errno if isinstance(exc, OSError) else None
        if number in _RESETS or self._departure is None:
            self._departure = Departure.RESET_BY_PEER
        error = errno_name(number)
        if self.awaiting:
            wrote = number != errno.EPIPE and not self.transport.get_write_buffer_size()
            self._fail(Phase.READ if wrote else Phase.WRITE, error)
        else:
            self._owner.ledger.connection_error(Phase.CLOSE if self._last else Phase.IDLE, error)

    # what becomes of an exchange

    @property
    def _partly_answered(self) -> bool:
        return bool(self._pending or self._body_due)

    def _complete(self) -> None:
        now_ns = time.monotonic_ns()
        self.awaiting = False
        ledger = self._owner.ledger
        if self._ok:
            ledger.report.ok += 1
        else:
            ledger.error(Phase.READ, "STATUS", reused=self.reused, now_ns=now_ns)
        ledger.request_ns.append(now_ns - self.began_ns)
        if self._intended_ns:
            ledger.intended_ns.append(now_ns - self._intended_ns)
        if self._last:
            self._end(now_ns)
        else:
            self.deadline_ns = now_ns + self._owner.idle_ns
            self.outcome.set_result(self._ok)

    def _fail(self, phase: Phase, error: str) -> None:
        reused = self.reused and not self._partly_answered
        now_ns = time.monotonic_ns()
        self.awaiting = self._ok = False
        self._last = True
        self._owner.ledger.error(phase, error, reused=reused, now_ns=now_ns)

    def _malformed(self) -> None:
        if self.awaiting:
            self._fail(Phase.READ, "PROTOCOL")
        self.leave()

    def expire(self) -> None:
        """Give up at the deadline: of an answer, of the other side's close, of lying idle."""
        if self.awaiting:
            unsent = self.transport.get_write_buffer_size()
            self._fail(Phase.WRITE if unsent else Phase.READ, "TIMEOUT")
        elif self._last:
            self._owner.ledger.connection_error(Phase.CLOSE, "TIMEOUT")
        self.leave()

    def cut_off(self) -> None:
        """End with the run, whatever is still due."""
        if self.awaiting:
            self._fail(Phase.READ, "CANCELLED")
        self.leave()

    def leave(self) -> None:
        """Close outside of the ending."""
        if self._departure is None:
            # the peer's FIN may have come without having been read yet
            fin = send_fin(self.transport)
            second = fin is Fin.SECOND
            self._departure = Departure.PASSIVE_CLOSE if second else Departure.ACTIVE_CLOSE
            self._owner.ledger.report.closed_early += not second
            self._owner.ledger.report.crossed += fin is Fin.CROSSED
        # not close(): that would wait for what a deaf peer never takes
        self.transport.abort()

    # endings

    def _end(self, now_ns: int) -> None:
        """Let the ending's first closer close: this side now, or the other while this one waits."""
        self.deadline_ns = now_ns + self._owner.hold_ns
        if move := self._MOVES.get(self._owner.ending):
            move(self)

    def close(self) -> None:
        """Close with FIN."""
        if self._departure is None:
            self._departure = Departure.ACTIVE_CLOSE
        self.transport.close()

    def reset(self) -> None:
        """Close with RST (SO_LINGER 0), unless the peer has left before."""
        if self._departure is None:
            self._departure = Departure.ACTIVE_RESET
            reset_on_close(self.transport)
        self.transport.abort()

    _MOVES: ClassVar = {"client-fin": close, "client-rst": reset, "simultaneous": close}


_RESETS = frozenset({errno.ECONNRESET, errno.EPIPE})
