"""One client connection as an asyncio Protocol."""

import asyncio
from typing import Protocol

from twbench.fleet.exchanges import ACTIVE_CLOSE, Exchanges, Owner
from twbench.process.sockets import half_close, reset_on_close, send_fin


class StreamsOwner(Owner, Protocol):
    """What such a connection needs besides."""

    loop: asyncio.AbstractEventLoop
    half_closes: bool

    def ended(self, connection: "Connection") -> None:
        """Hear that the connection is over."""


class Connection(Exchanges, asyncio.Protocol):
    """Carries its exchanges over an asyncio transport.

    Each exchange is answered through `outcome`, a future of whether it went well. For the last
    exchange of a connection it is resolved only when the connection is over: the chosen first
    closer has closed, and the other side has seen it.
    """

    __slots__ = ("_request", "outcome", "transport")

    _owner: StreamsOwner

    def __init__(
        self, owner: StreamsOwner, request: bytes, *, intended_ns: int, last: bool
    ) -> None:
        """Begin with the first request, which goes out as soon as the connection is made."""
        self._owner = owner
        self._request = request
        self.transport: asyncio.Transport
        self.outcome: asyncio.Future[bool] = owner.loop.create_future()
        self._open(intended_ns, last=last)

    def exchange(self, request: bytes, *, intended_ns: int, last: bool) -> None:
        """Send a further request on an idle connection; `outcome` is that of this one then."""
        self._request = request
        self.outcome = self._owner.loop.create_future()
        self._begin(intended_ns, last=last)
        self._send()

    def _send(self) -> None:
        self.transport.write(self._request)
        # a write that failed has closed the transport already
        if self._last and self._owner.half_closes and not self.transport.is_closing():
            self._departure = ACTIVE_CLOSE
            half_close(self.transport)

    @property
    def usable(self) -> bool:
        """Return whether a further request may go over it."""
        return not (self.over or self._last or self.transport.is_closing())

    # TCP transports are whole ones; a cast would cost every connection a call
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection and send the first request."""
        self.transport = transport
        self._established()
        self._send()

    def _resolve(self) -> None:
        if self.over:
            self._owner.ended(self)
        if not self.outcome.done():
            self.outcome.set_result(self._ok)

    def _has_unsent(self) -> bool:
        return bool(self.transport.get_write_buffer_size())

    def leave(self) -> None:
        """Close outside of the ending."""
        if self._departure is None:
            # the peer's FIN may have come without having been read yet
            self._left(send_fin(self.transport))
        # not close(): that would wait for what a deaf peer never takes
        self.transport.abort()

    def _close(self) -> None:
        self.transport.close()

    def _reset(self) -> None:
        reset_on_close(self.transport)
        self.transport.abort()
