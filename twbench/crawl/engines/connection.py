"""A crawler's connection of our own: an asyncio Protocol that carries one exchange at a time."""

import asyncio
from typing import Protocol

import httptools

from twbench.crawl.outcomes import PageError
from twbench.model.outcomes import Phase, errno_name


class Owner(Protocol):
    """What a connection needs from its pool."""

    loop: asyncio.AbstractEventLoop
    request_timeout_s: float

    def leave(self, connection: "Connection") -> None:
        """Close a connection, unless that has been done."""


class ExchangeError(PageError):
    """An exchange that failed on a connection."""

    def __init__(self, phase: Phase, error: str, *, reused: bool) -> None:
        """Say whether the connection had served before, and no part of this answer came."""
        super().__init__(phase, error)
        self.reused = reused


class Answer:
    """What is known of an answer, and when it is done, all of it."""

    __slots__ = ("begun", "body_bytes", "done", "lasts", "location", "status")

    def __init__(self, done: asyncio.Future[None]) -> None:
        """Begin with nothing."""
        self.done = done
        self.begun = self.lasts = False
        self.status = self.body_bytes = 0
        self.location = b""


class Connection(asyncio.Protocol):
    """Sends a request and reads its answer, again and again; its pool opens and closes it.

    The methods `on_…` are called by the parser (httptools).
    """

    __slots__ = (
        *("_due", "_end", "_parser", "_pool"),
        *("exchanges", "idle_ns", "left", "site", "transport"),
    )

    def __init__(self, pool: Owner, site: str) -> None:
        """Be made for a site, `name:port`."""
        self._pool = pool
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._due: Answer | None = None
        self._end: tuple[Phase, str] | None = None
        self.transport: asyncio.Transport
        self.site = site
        self.exchanges = self.idle_ns = 0
        self.left = False

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and return its whole answer.

        Raises:
            ExchangeError: it did not come.
        """
        loop = self._pool.loop
        self.exchanges += 1
        answer = self._due = Answer(loop.create_future())
        timer = loop.call_later(self._pool.request_timeout_s, self._expire)
        try:
            if self._end is None:
                self.transport.write(request)
            else:
                self._fail(*self._end)
            await answer.done
        except BaseException:
            # not close(): that would wait for what a deaf peer never takes
            self.transport.abort()
            raise
        finally:
            timer.cancel()
            self._due = None
        return answer

    def _fail(self, phase: Phase, error: str) -> None:
        """Let what is due fail; where nothing is, remember how the connection ended."""
        answer, self._due = self._due, None
        if answer is None:
            self._end = self._end or (phase, error)
        elif not answer.done.done():
            reused = self.exchanges > 1 and not answer.begun
            answer.done.set_exception(ExchangeError(phase, error, reused=reused))

    def _expire(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._fail(Phase.WRITE if unsent else Phase.READ, "TIMEOUT")

    # TCP transports are whole ones
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer; where none is due, they are nobody's."""
        if self._due is not None:
            self._due.begun = True
        try:
            if self._parser is not None:
                self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Phase.READ, "PROTOCOL")
            self._pool.leave(self)

    def eof_received(self) -> None:
        """Hear the peer's FIN, and close as well."""
        self._fail(Phase.READ, "SHORT" if self._due and self._due.begun else "EOF")
        self._pool.leave(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear of a RST, or of the end."""
        # it refers to this object
        self._parser = None
        name = errno_name(exc.errno) if isinstance(exc, OSError) else "EOF"
        unsent = name == "EPIPE" or self.transport.get_write_buffer_size()
        self._fail(Phase.WRITE if unsent else Phase.READ, name)
        self._pool.leave(self)

    def on_message_begin(self) -> None:
        """Hear that an answer begins."""
        if self._due is None:
            self._fail(Phase.READ, "PROTOCOL")
            self._pool.leave(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep where a redirect leads to."""
        if self._due and name.lower() == b"location":
            self._due.location = value

    def on_headers_complete(self) -> None:
        """Read the head as a whole."""
        if self._due and self._parser:
            self._due.status = self._parser.get_status_code()
            # after an empty body the parser has forgotten it
            self._due.lasts = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Count the body."""
        if self._due:
            self._due.body_bytes += len(body)

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        answer, self._due = self._due, None
        if answer and not answer.done.done():
            answer.done.set_result(None)
