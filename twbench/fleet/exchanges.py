"""A connection's exchanges and its end, whatever carries the bytes: what is read, and booked.

Both engines build on this, so that the same course of events is the same outcome in their books.
"""

import errno
import time
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from twbench.fleet.answers import HeadReader, MalformedAnswerError
from twbench.fleet.ledger import Ledger
from twbench.fleet.part import NEVER_NS
from twbench.model.endings import Departure
from twbench.model.outcomes import Phase, errno_name
from twbench.process.sockets import Fin

RESETS = frozenset({errno.ECONNRESET, errno.EPIPE})
# as plain strings: an enum's members are hashed in Python, twice for each count
ACTIVE_CLOSE, PASSIVE_CLOSE, ACTIVE_RESET, RESET_BY_PEER = (
    departure.value
    for departure in (
        Departure.ACTIVE_CLOSE,
        Departure.PASSIVE_CLOSE,
        Departure.ACTIVE_RESET,
        Departure.RESET_BY_PEER,
    )
)


class Owner(Protocol):
    """What a connection needs from its engine."""

    ledger: Ledger
    heads: HeadReader
    ending: str
    hold_ns: int
    idle_ns: int
    request_timeout_ns: int


class Exchanges(ABC):
    """Carries one exchange at a time, and the chosen ending after the last.

    The methods that hear of a connection are named as those of asyncio.Protocol.
    """

    __slots__ = (
        "_body_due",
        "_departure",
        "_intended_ns",
        "_last",
        "_ok",
        "_owner",
        "_pending",
        "awaiting",
        "began_ns",
        "deadline_ns",
        "exchanges",
        "over",
    )

    _owner: Owner

    def _open(self, intended_ns: int, *, last: bool) -> None:
        """Begin a connection's life, and with it the first exchange."""
        self._departure: str | None = None
        self._pending = b""
        self._body_due = 0
        self.exchanges = 1
        self.over = self._ok = False
        self.awaiting = True
        self._last = last
        self._intended_ns = intended_ns
        # how long connecting may take is the engine's to say
        self.deadline_ns = NEVER_NS
        self.began_ns = time.monotonic_ns()

    def _begin(self, intended_ns: int, *, last: bool) -> None:
        """Begin a further exchange."""
        self._ok = False
        self.awaiting = True
        self._last = last
        self._intended_ns = intended_ns
        self.exchanges += 1
        self.began_ns = began_ns = time.monotonic_ns()
        self.deadline_ns = began_ns + self._owner.request_timeout_ns

    @property
    def reused(self) -> bool:
        """Return whether an earlier exchange went over this connection."""
        return self.exchanges > 1

    # what the carrier of the bytes does

    @abstractmethod
    def leave(self) -> None:
        """Close outside of the ending, at once, and book which side's FIN was the first."""

    @abstractmethod
    def _close(self) -> None:
        """Close with FIN."""

    @abstractmethod
    def _reset(self) -> None:
        """Close with RST."""

    @abstractmethod
    def _has_unsent(self) -> bool:
        """Return whether a part of the request has not left the program."""

    @abstractmethod
    def _resolve(self) -> None:
        """Tell whoever waits that the exchange is over, and whether it went well (`_ok`)."""

    # what it tells

    def _established(self) -> None:
        """Count a connection that has been made."""
        owner = self._owner
        ledger, began_ns = owner.ledger, self.began_ns
        ledger.report.established += 1
        ledger.connect_ns.append(time.monotonic_ns() - began_ns)
        self.deadline_ns = began_ns + owner.request_timeout_ns

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer; when it is complete, book it and go on to what follows."""
        if not self._body_due:
            if self._pending:
                data = self._pending + data
            try:
                head = self._owner.heads.read(data) if self.awaiting else None
            except MalformedAnswerError:
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
        self._take(len(data))

    def _take(self, size: int) -> None:
        """Take so many bytes of an answer whose head has been read."""
        self._body_due -= size
        self._owner.ledger.report.received_bytes += size
        if self._body_due < 0:
            self._malformed()
        elif self._body_due == 0:
            self._complete()

    def eof_received(self) -> None:
        """Hear the peer's FIN: where an answer was due, the exchange has failed."""
        if self._departure is None:
            self._departure = PASSIVE_CLOSE
        if self.awaiting:
            self._fail(Phase.READ, "SHORT" if self._partly_answered else "EOF")
        elif not self._last:
            self._owner.ledger.connection_error(Phase.IDLE, "EOF")

    def connection_lost(self, exc: Exception | None) -> None:
        """Book how the connection ended and resolve what still waits for it."""
        if exc is not None:
            self._lost(exc.errno if isinstance(exc, OSError) else None)
        departure = self._departure or ACTIVE_CLOSE
        self._owner.ledger.report.departures[departure] += 1
        self.over = True
        self._resolve()

    def _lost(self, number: int | None) -> None:
        if number in RESETS or self._departure is None:
            self._departure = RESET_BY_PEER
        error = errno_name(number)
        if self.awaiting:
            wrote = number != errno.EPIPE and not self._has_unsent()
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
        owner = self._owner
        ledger = owner.ledger
        if self._ok:
            ledger.report.ok += 1
        else:
            ledger.error(Phase.READ, "STATUS", reused=self.reused, now_ns=now_ns)
        ledger.request_ns.append(now_ns - self.began_ns)
        if self._intended_ns:
            ledger.intended_ns.append(now_ns - self._intended_ns)
        if not self._last:
            self.deadline_ns = now_ns + owner.idle_ns
            self._resolve()
            return
        # the ending's first closer closes: this side now, or the other while this one waits
        self.deadline_ns = now_ns + owner.hold_ns
        if move := self.MOVES.get(owner.ending):
            move(self)

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
            self._fail(Phase.WRITE if self._has_unsent() else Phase.READ, "TIMEOUT")
        elif self._last:
            self._owner.ledger.connection_error(Phase.CLOSE, "TIMEOUT")
        self.leave()

    def cut_off(self) -> None:
        """End with the run, whatever is still due."""
        if self.awaiting:
            self._fail(Phase.READ, "CANCELLED")
        self.leave()

    def _left(self, fin: Fin) -> None:
        """Book a close outside of the ending, of which this was the order of the FINs."""
        second = fin is Fin.SECOND
        self._departure = PASSIVE_CLOSE if second else ACTIVE_CLOSE
        self._owner.ledger.report.closed_early += not second
        self._owner.ledger.report.crossed += fin is Fin.CROSSED

    # endings

    def close(self) -> None:
        """Close with FIN."""
        if self._departure is None:
            self._departure = ACTIVE_CLOSE
        self._close()

    def reset(self) -> None:
        """Close with RST (SO_LINGER 0), unless the peer has left before."""
        if self._departure is None:
            self._departure = ACTIVE_RESET
            self._reset()
        else:
            self._close()

    MOVES: ClassVar = {"client-fin": close, "client-rst": reset, "simultaneous": close}
