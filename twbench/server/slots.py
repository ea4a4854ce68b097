"""A place in the ring's file table, and the connections that it has, one after another.

What comes most is answered here: a plain request that was seen before. Everything else is
promoted: an HttpConnection on a RingTransport goes on with the connection.
"""

import errno
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

from twbench.model.endings import Departure
from twbench.server.chains import Chains, Step, cancel, token
from twbench.server.http import RESETS, Due, HttpConnection, Past
from twbench.server.transport import RingTransport

if TYPE_CHECKING:
    from twbench.server.uring import UringListener, UringServer

_NS_PER_S = 1_000_000_000
_NEVER_S = float("inf")
_AGAIN_NS = 100_000_000
_PORT_BYTES = 2
_NO_PORT = bytes(_PORT_BYTES)


class Phase(Enum):
    """Where a slot's connection stands."""

    AWAITED = auto()
    """Accept is under way, or was silently successful and nothing came yet."""
    OPEN = auto()
    """A request may come."""
    ASKED = auto()
    """The last one has come, and is answered after the client's FIN."""
    HOLDING = auto()
    """The last answer is given; the client is to close first."""
    LEAVING = auto()
    """It is being closed."""


_AWAITED, _OPEN, _LEAVING = Phase.AWAITED, Phase.OPEN, Phase.LEAVING

AFTER_LAST = {
    "server-fin": _LEAVING,
    "server-idle": _LEAVING,
    "client-fin": Phase.HOLDING,
    "client-rst": Phase.HOLDING,
    "client-half-close": Phase.ASKED,
}
"""Where the last request leads, for the endings that need no more than a chain."""


class SlotConnection:
    """One slot."""

    __slots__ = (
        "_buffer",
        "_chains",
        "_departure",
        "_idle_from_ns",
        "_listener",
        "_peer",
        "_peer_at",
        "_places",
        "_requests",
        "_server",
        "_then",
        "_watched",
        "armed",
        "deadline_s",
        "index",
        "phase",
        "transport",
    )

    def __init__(
        self,
        server: "UringServer",
        index: int,
        *,
        buffer: memoryview,
        peer: memoryview,
        places: tuple[int, int],
    ) -> None:
        """Begin empty.

        Args:
            server: whose slot it is.
            index: the slot's number.
            buffer: what is received.
            peer: port and address in the sockaddr that accept fills.
            places: the addresses of the buffer and of that sockaddr.
        """
        self.index = index
        self.phase = _LEAVING
        self.armed = False
        """Whether an accept follows the close that is under way; its listener counts it."""
        self.transport: RingTransport | None = None
        self.deadline_s = _NEVER_S
        self._server = server
        self._buffer = buffer
        self._peer_at = peer
        self._peer = b""
        self._places = places
        self._listener: UringListener = None  # type: ignore[assignment]  # until `arm`
        self._chains: Chains
        self._departure: Departure | None = None
        self._then: Callable[[], None] | None = None
        self._requests = 0
        self._idle_from_ns = 0
        self._watched = False

    def arm(self, listener: "UringListener") -> None:
        """Accept from a listener."""
        if listener is not self._listener:
            buffer, peer = self._places
            self._listener = listener
            self._chains = listener.maker.make(self.index, buffer=buffer, peer=peer)
        self.phase = _AWAITED
        self._server.awaited.add(self)
        self._peer_at[:_PORT_BYTES] = _NO_PORT
        self._server.push(self._chains.arm)

    # what the ring tells

    def refused(self, _result: int) -> None:
        """Hear of an accept's failure: minus the errno."""
        self.phase = _LEAVING
        self._server.awaited.discard(self)
        self._listener.armed -= 1
        self._server.refused(self, self._listener)

    def look(self) -> bool:
        """Return whether what is awaited has come and sent nothing yet; begin with it if so."""
        if self._peer_at[:_PORT_BYTES] == _NO_PORT:
            return False
        self._begin()
        return True

    def _begin(self) -> None:
        """Book a new connection: a successful accept is silent."""
        listener = self._listener
        self._server.awaited.discard(self)
        listener.consumed()
        self.phase = _OPEN
        self._requests = 0
        self._departure = None
        self._peer = peer = self._peer_at.tobytes()
        self.deadline_s = self._server.now_ns() / _NS_PER_S + listener.behaviour.request_timeout_s
        listener.live.add(self)
        listener.ledger.accepted(peer, listener.left_ns)

    def received(self, result: int) -> None:
        """Hear of the end of a receive: a request, a FIN, or an error."""
        if self.phase is _AWAITED:
            self._begin()
        if self.transport is not None:
            self.transport.received(result)
        elif result <= 0:
            self._ended(result)
        elif self.phase is _OPEN:
            self._asked(self._buffer[:result].tobytes())
        else:
            # what follows the last request is ignored
            self._server.push(self._chains.recv)

    def _asked(self, data: bytes) -> None:
        listener = self._listener
        ends = listener.recognise(data)
        if ends is None:
            self._hand_over(data)
            return
        requests = self._requests + 1
        if not ends and requests < listener.keepalive_requests:
            self._requests = requests
            listener.ledger.report.requests += 1
            self._idle_from_ns = self._server.now_ns()
            self.deadline_s = _NEVER_S
            self._server.push(self._chains.keep)
            if not self._watched:
                self._watch(listener.keepalive_timeout_ns)
            return
        phase = listener.after_last
        if phase is None:
            self._hand_over(data)
            return
        self._requests = requests
        listener.ledger.report.requests += 1
        if phase is _LEAVING:
            self._departure = Departure.ACTIVE_CLOSE
            self._close(answering=True)
            return
        self.phase = phase
        self.deadline_s = self._server.now_ns() / _NS_PER_S + listener.behaviour.hold_s
        chains = self._chains
        self._server.push(chains.recv if phase is Phase.ASKED else chains.hold)

    def _ended(self, result: int) -> None:
        if result == 0:
            self._departure = Departure.PASSIVE_CLOSE
        else:
            self._fail(-result)
        self._close(answering=self.phase is Phase.ASKED and result == 0)

    def _fail(self, number: int) -> None:
        if self._departure is None or number in RESETS:
            self._departure = Departure.RESET_BY_PEER

    def unanswered(self, result: int) -> None:
        """Hear of the failure of a chained send: minus the errno, or how little left."""
        number = -result if result < 0 else errno.ECONNRESET
        if self.transport is not None:
            self.transport.unanswered(number)
            return
        if self.phase is _LEAVING and self.armed:
            self._listener.armed -= 1
        self._fail(number)
        self._close(answering=False)

    def written(self, result: int) -> None:
        """Hear of the end of a send of the transport's."""
        if self.transport is not None:
            self.transport.sent(result)

    def closed(self, _result: int) -> None:
        """Book the end of the connection; the slot is free, or accepts already."""
        listener = self._listener
        self.transport = None
        if self._then is not None:
            then, self._then = self._then, None
            then()
        else:
            listener.live.discard(self)
            how = self._departure or Departure.ACTIVE_CLOSE
            listener.ledger.departed(how, self._peer, listener.left_ns, listener.now_ns())
        if self.armed:
            self.phase = _AWAITED
            self._server.awaited.add(self)
        else:
            self._server.free(self)

    def _close(self, *, answering: bool) -> None:
        self.phase = _LEAVING
        self.deadline_s = _NEVER_S
        self.armed = armed = self._server.rearms(self._listener)
        chains = self._chains
        if armed:
            self._peer_at[:_PORT_BYTES] = _NO_PORT
        if answering:
            self._server.push(chains.end_arm if armed else chains.end)
        else:
            self._server.push(chains.close_arm if armed else chains.close)

    # time

    def _watch(self, after_ns: int) -> None:
        self._watched = True
        self._server.at(self._server.now_ns() + after_ns, self._look_idle)

    def _look_idle(self) -> None:
        """Close if idle for long enough; else look again when it could be."""
        self._watched = False
        if self.transport is None and self.phase is _OPEN and self._requests:
            idle_ns = self._server.now_ns() - self._idle_from_ns
            left_ns = self._listener.keepalive_timeout_ns - idle_ns
            if left_ns > 0:
                self._watch(left_ns)
            else:
                self.leave()

    def expire(self) -> None:
        """Wait no longer."""
        if self.phase is not _LEAVING:
            self._promote(reading=True)[0].expire()

    def leave(self) -> None:
        """Close an idle connection, or one that held back for too long."""
        if self.phase is not _LEAVING:
            self._promote(reading=True)[0].leave()

    # what is out of the ordinary

    def _hand_over(self, data: bytes) -> None:
        _, transport = self._promote(reading=False)
        transport.hand_over(data)

    def _promote(self, *, reading: bool) -> tuple[HttpConnection, RingTransport]:
        """Let the slow way go on; `reading` says whether a receive is under way."""
        listener = self._listener
        connection = HttpConnection(listener)
        unsent_bytes = self._unsent_bytes() if reading else 0
        self.transport = transport = RingTransport(
            self, connection, reading=reading, unsent_bytes=unsent_bytes
        )
        due = None
        if self.phase is Phase.ASKED:
            due = Due(listener.answers[True], listener.behaviour.ending, last=True, delay_s=0)
        past = Past(
            peer=self._peer,
            requests=self._requests,
            idle_from_s=self._idle_from_ns / _NS_PER_S,
            last=self.phase is not _OPEN,
            due=due,
        )
        connection.take_over(transport, past)
        listener.live.discard(self)
        self.deadline_s = _NEVER_S
        return connection, transport

    def _unsent_bytes(self) -> int:
        """Return the length of the answer whose send still keeps the receive from beginning.

        A chained send is silent, so the receive is asked: it can only be cancelled if it began.
        """
        last = self.phase is Phase.HOLDING
        if not (last or (self.phase is _OPEN and self._requests)):
            return 0
        asked = cancel(self.index, Step.RECV, Step.ASK)
        missed = self._server.ask(asked, token(self.index, Step.ASK)) == -errno.ENOENT
        over = self._server.came_across(token(self.index, Step.RECV))
        return len(self._listener.answers[last]) if missed and not over else 0

    def push(self, chain: bytes) -> None:
        """Put operations onto the ring."""
        self._server.push(chain)
        self._server.wake()

    def read(self) -> None:
        """Receive once."""
        self.push(self._chains.recv)

    def take(self, length: int) -> bytes:
        """Return what was received."""
        return self._buffer[:length].tobytes()

    def descriptor(self) -> int:
        """Return an ordinary descriptor of the socket."""
        return self._server.install(self.index)

    def has_sent(self, length: int) -> bool:
        """Return, once, whether it was heard on the way that so many bytes were sent."""
        return self._server.heard((token(self.index, Step.WRITE), length, 0))

    def later(self, call: Callable[[], None]) -> None:
        """Call after a pause."""
        self._server.at(self._server.now_ns() + _AGAIN_NS, call)
        self._server.wake()

    def shut(self, then: Callable[[], None]) -> None:
        """Close the socket of a promoted connection, and call."""
        self._then = then
        self._close(answering=False)
        self._server.wake()

    def release(self) -> None:
        """Forget everything: the ring is gone."""
        if self.transport is not None:
            self.transport.drop()
        self._buffer.release()
        self._peer_at.release()


def _cancelled(slot: SlotConnection, result: int) -> None:
    if slot.transport is not None:
        slot.transport.cancelled(result)


_STEPS: dict[Step, Callable[[SlotConnection, int], None]] = {
    Step.RECV: SlotConnection.received,
    Step.ANSWER: SlotConnection.unanswered,
    Step.CLOSE: SlotConnection.closed,
    Step.ACCEPT: SlotConnection.refused,
    Step.CANCEL: _cancelled,
    Step.WRITE: SlotConnection.written,
}
HEAR = tuple(_STEPS[step] for step in sorted(_STEPS))
"""Who hears of a step's completion, by its number."""
