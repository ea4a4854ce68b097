"""How a connection ends, as one table that server, fleet, forecast, audit and reports all read.

An ending says who moves first and how. From the way each side *departs* everything else follows:
an active close leaves TIME_WAIT on that side's host (RFC 9293 section 3.6), an active reset sends
one RST and leaves nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from twbench.model.states import Side


class Departure(StrEnum):
    """How one side left a connection."""

    ACTIVE_CLOSE = "active_close"
    """Its FIN went out before it had seen the peer's: this host gets TIME_WAIT."""
    PASSIVE_CLOSE = "passive_close"
    """It closed after the peer's FIN: LAST_ACK, then nothing remains."""
    ACTIVE_RESET = "active_reset"
    """Its kernel sent a RST: linger 0, unread data, or a killed process."""
    RESET_BY_PEER = "reset_by_peer"
    """A RST came in and ended the connection."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """One way for a connection to end, and what it must leave behind on both hosts."""

    name: str
    sentence: str
    client: Departure
    server: Departure
    answered: bool = True
    """Whether the server answers the request before the end."""
    needs_wire: bool = False
    """Whether it takes a link that can hold packets back."""
    may_see: frozenset[str] = frozenset()
    """Error keys (`phase:errno:kind`) that the client application may see."""

    def departure(self, side: Side) -> Departure:
        """Return how `side` leaves the connection."""
        return self.client if side is Side.CLIENT else self.server

    @property
    def time_wait(self) -> frozenset[Side]:
        """Return the sides whose hosts hold TIME_WAIT afterwards."""
        return frozenset(s for s in Side if self.departure(s) is Departure.ACTIVE_CLOSE)

    @property
    def resets(self) -> frozenset[Side]:
        """Return the sides that send one RST for each connection."""
        return frozenset(s for s in Side if self.departure(s) is Departure.ACTIVE_RESET)

    @property
    def first(self) -> frozenset[Side]:
        """Return the side that moves first; both, where the closes cross."""
        return self.time_wait | self.resets


_RESET_AFTER_ANSWER = frozenset({"close:ECONNRESET:reset_at_close"})
_RESET_FOR_ANSWER = frozenset({"read:ECONNRESET:reset_by_peer", "write:EPIPE:broken_pipe"})

_TABLE = (
    Ending(
        name="client-fin",
        sentence="the client closes when the answer is complete; the server waits for its FIN",
        client=Departure.ACTIVE_CLOSE,
        server=Departure.PASSIVE_CLOSE,
    ),
    Ending(
        name="server-fin",
        sentence="the server closes after its answer; the client waits for its FIN",
        client=Departure.PASSIVE_CLOSE,
        server=Departure.ACTIVE_CLOSE,
    ),
    Ending(
        name="client-rst",
        sentence="the client resets (SO_LINGER 0) when the answer is complete",
        client=Departure.ACTIVE_RESET,
        server=Departure.RESET_BY_PEER,
    ),
    Ending(
        name="server-rst",
        sentence="the server resets (SO_LINGER 0) when its answer has been sent",
        client=Departure.RESET_BY_PEER,
        server=Departure.ACTIVE_RESET,
        may_see=_RESET_AFTER_ANSWER,
    ),
    Ending(
        name="client-half-close",
        sentence="the client shuts its sending half down after the request; the answer follows",
        client=Departure.ACTIVE_CLOSE,
        server=Departure.PASSIVE_CLOSE,
    ),
    Ending(
        name="server-half-close",
        sentence="the server shuts its sending half down after the answer; the client then closes",
        client=Departure.PASSIVE_CLOSE,
        server=Departure.ACTIVE_CLOSE,
    ),
    Ending(
        name="server-unread",
        sentence="the server closes while the request lies unread in its socket: a RST, no answer",
        client=Departure.RESET_BY_PEER,
        server=Departure.ACTIVE_RESET,
        answered=False,
        may_see=_RESET_FOR_ANSWER,
    ),
    Ending(
        name="server-idle",
        sentence="the server's keep-alive time runs out and it closes the idle connection",
        client=Departure.PASSIVE_CLOSE,
        server=Departure.ACTIVE_CLOSE,
        may_see=frozenset(
            {
                "read:EOF:keepalive_race",
                "read:ECONNRESET:keepalive_race",
                "write:EPIPE:keepalive_race",
                "write:ECONNRESET:keepalive_race",
                "idle:ECONNRESET:reset_while_idle",
            }
        ),
    ),
    Ending(
        name="simultaneous",
        sentence="both sides close before either has seen the other's FIN",
        client=Departure.ACTIVE_CLOSE,
        server=Departure.ACTIVE_CLOSE,
        needs_wire=True,
    ),
    Ending(
        name="crash",
        sentence="the server's process is killed (SIGKILL) with the request unread in its socket",
        client=Departure.RESET_BY_PEER,
        server=Departure.ACTIVE_RESET,
        answered=False,
        may_see=_RESET_FOR_ANSWER,
    ),
)

ENDINGS: Mapping[str, Ending] = MappingProxyType({ending.name: ending for ending in _TABLE})
"""Every ending by its name, in the order in which they are taught."""
