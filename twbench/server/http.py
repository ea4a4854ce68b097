"""HTTP/1.1 with a chosen ending, as an asyncio Protocol over httptools.

After the last exchange of a connection (a side announced `Connection: close`, or
`keepalive_requests` is reached) the ending's first closer closes, and the other side holds back
until it has seen that.
"""

import array
import asyncio
import errno
import fcntl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol, cast

import httptools

from twbench.model.endings import Departure
from twbench.process.sockets import Fin, half_close, reset_on_close, send_fin
from twbench.server.behaviour import Behaviour, answer_head, chosen_by_url, without_body
from twbench.server.ledger import Ledger, Peer

_SIOCOUTQNSD = 0x894B  # linux/sockios.h: bytes in the send queue that have never been sent
_UNSENT_POLL_S = 0.001
RESETS = frozenset({errno.ECONNRESET, errno.EPIPE})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NO_ENDING = ""


class Due(NamedTuple):
    """An answer that is still to be given."""

    answer: bytes
    ending: str
    last: bool
    delay_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """What has been with a connection that another engine accepted and booked."""

    peer: Peer | None
    requests: int
    idle_from_s: float
    """When the last answer was given; the loop's time."""
    last: bool
    """Whether the last request has come."""
    due: Due | None
    """The answer to it, if that is still to be given."""


_BAD_REQUEST = Due(answer_head(0, True, status="400 Bad Request"), _NO_ENDING, True, 0.0)  # noqa: FBT003 - a row


class Live(Protocol):
    """A connection that is not over."""

    deadline_s: float
    """When to wait no longer; the loop's time."""

    def expire(self) -> None:
        """Wait no longer."""

    def leave(self) -> None:
        """Close an idle connection, or one that held back for too long."""


class Listener:
    """What the connections of one listening address share."""

    def __init__(self, behaviour: Behaviour, ledger: Ledger) -> None:
        """Begin with no connection; ValueError if the ending is none that this server can show."""
        if behaviour.ending not in MOVES:
            raise ValueError(f"the server has no way to show the ending {behaviour.ending!r}")
        self.behaviour = behaviour
        self.ledger = ledger
        self.live: set[Live] = set()
        self.left_ns: dict[Peer, int] = {}
        self.now_ns: Callable[[], int] = time.monotonic_ns
        self.loop = asyncio.get_running_loop()

    def __call__(self) -> "HttpConnection":
        """Return the protocol of a new connection."""
        return HttpConnection(self)

    def reap(self) -> None:
        """End the wait of what has held back, or kept its request to itself, for too long."""
        now_s = self.loop.time()
        for connection in [c for c in self.live if c.deadline_s <= now_s]:
            connection.expire()
        self.ledger.forget(self.left_ns)

    def close(self) -> None:
        """Have the last look; the connections that are left end with the process."""
        self.reap()


class HttpConnection(asyncio.Protocol):
    """One connection of the bundled server; answers leave in the order of their requests."""

    __slots__ = (
        "_behaviour",
        "_departure",
        "_due",
        "_eof",
        "_expects",
        "_idle_from_s",
        "_idle_timer",
        "_last",
        "_listener",
        "_parser",
        "_peer",
        "_requests",
        "_thinking",
        "_transport",
        "_url",
        "deadline_s",
    )

    def __init__(self, listener: Listener) -> None:
        """Know the listener; the rest comes with the connection."""
        self._listener = listener
        self._behaviour = listener.behaviour
        self._parser = httptools.HttpRequestParser(self)
        self._peer: Peer | None = None
        self._departure: Departure | None = None
        self._eof = self._last = self._expects = False
        self._url = b""
        self._requests = 0
        self._due: deque[Due] = deque()
        self._thinking: asyncio.TimerHandle | None = None
        self._idle_from_s = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self.deadline_s = listener.loop.time() + listener.behaviour.request_timeout_s

    def take_over(self, transport: asyncio.Transport, past: Past) -> None:
        """Go on with a connection that had begun elsewhere; it does not count again."""
        self._transport = transport
        self._peer = past.peer
        self._requests = past.requests
        self._last = past.last
        if past.due:
            self._due.append(past.due)
        if past.requests and not past.last:
            self._idle_from_s = past.idle_from_s
            self.deadline_s = float("inf")
            self._watch_idle(max(self._idle_left_s(), 0))
        self._listener.live.add(self)

    # what the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = (peer[0], peer[1]) if peer else None
        self._listener.live.add(self)
        self._listener.ledger.accepted(self._peer, self._listener.left_ns)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what is no HTTP gets a 400, what follows the last request nothing."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # RFC 9110 section 7.8: a server may ignore Upgrade and go on in HTTP/1.1
            if rest := data[upgrade.args[0] :]:
                self.data_received(rest)
        except httptools.HttpParserError:
            if not self._last:
                self._last = True
                self._promise(_BAD_REQUEST)

    def eof_received(self) -> bool:
        """Hear the client's FIN; True keeps this half open while an answer is still due."""
        self._eof = True
        if self._departure is None:
            self._departure = Departure.PASSIVE_CLOSE
        self._go_on()
        return bool(self._due)

    def pause_writing(self) -> None:
        """Take no further requests from a client that does not read its answers."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Take requests again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Book how the connection ended."""
        if exc is not None and (self._departure is None or getattr(exc, "errno", None) in RESETS):
            self._departure = Departure.RESET_BY_PEER
        for timer in (self._idle_timer, self._thinking):
            if timer is not None:
                timer.cancel()
        listener = self._listener
        listener.live.discard(self)
        how = self._departure or Departure.ACTIVE_CLOSE
        listener.ledger.departed(how, self._peer, listener.left_ns, listener.now_ns())

    # what the parser tells

    def on_url(self, url: bytes) -> None:
        """Keep a piece of the URL: it comes in as many as the segments it was spread over."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note whether the client waits for a 100 before it sends the body."""
        if value.lower() == b"100-continue" and name.lower() == b"expect":
            self._expects = True

    def on_headers_complete(self) -> None:
        """Ask for the body of a client that waits for that (RFC 9110 section 10.1.1)."""
        if self._expects:
            self._expects = False
            if self._parser.get_http_version() == "1.1" and not (self._due or self._last):
                self._transport.write(_CONTINUE)

    def on_message_complete(self) -> None:
        """Answer a request as soon as the ones before it are answered."""
        url, self._url = self._url, b""
        if self._last:
            return
        behaviour = self._listener.behaviour
        if behaviour.by_url:
            behaviour = self.chosen(behaviour, url)
        self._behaviour = behaviour
        self._requests += 1
        self._listener.ledger.report.requests += 1
        self._last = (
            not self._parser.should_keep_alive() or self._requests >= behaviour.keepalive_requests
        )
        answer = behaviour.answer(self._last)
        if self._parser.get_method() == b"HEAD":
            answer = without_body(answer)
        self._promise(Due(answer, behaviour.ending, self._last, behaviour.delay_s))

    # answers

    def chosen(self, usual: Behaviour, url: bytes) -> Behaviour:
        """Return what the request that has just come asks for."""
        return usual if url == b"/" else chosen_by_url(usual, url)

    def _promise(self, due: Due) -> None:
        self.deadline_s = float("inf")
        self._due.append(due)
        self._go_on()

    def _go_on(self) -> None:
        """Give the answers that are due, up to one that takes time or waits for the client."""
        while self._due and self._thinking is None:
            due = self._due[0]
            if due.last and due.ending == "client-half-close" and not self._eof:
                self.deadline_s = self._listener.loop.time() + self._behaviour.hold_s
                return
            if due.delay_s:
                self._thinking = self._listener.loop.call_later(due.delay_s, self._thought)
            else:
                self._answer()

    def _thought(self) -> None:
        self._thinking = None
        self._answer()
        self._go_on()

    def _answer(self) -> None:
        due = self._due.popleft()
        if self._transport.is_closing():
            return
        self._transport.write(due.answer)
        if due.last or (self._eof and not self._due):
            self._end(due.ending)
        else:
            self._idle_from_s = self._listener.loop.time()
            if self._idle_timer is None:
                self._watch_idle(self._behaviour.keepalive_timeout_s)

    # endings

    def _end(self, ending: str) -> None:
        """Let the ending's first closer close: this side now, or the client as this one waits."""
        self.deadline_s = self._listener.loop.time() + self._behaviour.hold_s
        if self._eof:
            self.close()
        else:
            MOVES[ending](self)

    def hold(self) -> None:
        """Leave the first move to the client."""

    def expire(self) -> None:
        """Wait no longer: answer a client that was to close its half first, or close."""
        if self._due:
            self._answer()
        else:
            in_vain = self._last and self._departure is None
            self._listener.ledger.report.held_in_vain += in_vain
            self.leave()

    def close(self) -> None:
        """Close with FIN, after what is still to be sent."""
        if self._departure is None:
            self._departure = Departure.ACTIVE_CLOSE
        self._transport.close()

    def leave(self) -> None:
        """Close an idle connection, or one that held back for too long."""
        if self._departure is None:
            # the client's FIN may have come without having been read yet
            unsent = self._transport.get_write_buffer_size()
            fin = Fin.FIRST if unsent else send_fin(self._transport)
            second = fin is Fin.SECOND
            self._departure = Departure.PASSIVE_CLOSE if second else Departure.ACTIVE_CLOSE
            report = self._listener.ledger.report
            report.crossed += fin is Fin.CROSSED
            if self._behaviour.ending != "server-idle":
                report.closed_early += not second
        self.close()

    def half_close(self) -> None:
        """Send FIN after the answer, and wait for the client's."""
        self._departure = Departure.ACTIVE_CLOSE
        half_close(self._transport)

    def reset(self) -> None:
        """Close with RST once the whole answer has left: linger 0 throws away what has not."""
        if self._transport.is_closing():
            return
        if self._has_unsent():
            self._listener.loop.call_later(_UNSENT_POLL_S, self.reset)
            return
        if self._departure is None:
            self._departure = Departure.ACTIVE_RESET
        reset_on_close(self._transport)
        self._transport.abort()

    def close_apart(self) -> None:
        """Close with a FIN of its own: the last piece of an answer would be held along with it."""
        if self._transport.is_closing():
            return
        if self._has_unsent():
            self._listener.loop.call_later(_UNSENT_POLL_S, self.close_apart)
            return
        self.close()

    def _has_unsent(self) -> bool:
        """Return whether a part of an answer has never left."""
        sock = self._transport.get_extra_info("socket")
        unsent = array.array("i", [0])
        fcntl.ioctl(sock.fileno(), _SIOCOUTQNSD, unsent)
        return bool(unsent[0] or self._transport.get_write_buffer_size())

    def _idle_left_s(self) -> float:
        until_s = self._idle_from_s + self._behaviour.keepalive_timeout_s
        return until_s - self._listener.loop.time()

    def _watch_idle(self, after_s: float) -> None:
        self._idle_timer = self._listener.loop.call_later(after_s, self._on_idle)

    def _on_idle(self) -> None:
        """Close if idle for long enough; else look again when it could be."""
        left_s = self._idle_left_s()
        if self._last or self._due:
            self._idle_timer = None  # the next answer sets it again
        elif left_s > 0:
            self._watch_idle(max(left_s, _UNSENT_POLL_S))
        else:
            self.leave()


MOVES: Mapping[str, Callable[[HttpConnection], None]] = MappingProxyType(
    {
        _NO_ENDING: HttpConnection.leave,
        "client-fin": HttpConnection.hold,
        "client-rst": HttpConnection.hold,
        "client-half-close": HttpConnection.hold,
        "server-fin": HttpConnection.close,
        "server-idle": HttpConnection.close,
        "server-rst": HttpConnection.reset,
        "server-half-close": HttpConnection.half_close,
        "simultaneous": HttpConnection.close_apart,
    }
)
"""What the server does after a connection's last answer, by ending; a 400 has none."""
