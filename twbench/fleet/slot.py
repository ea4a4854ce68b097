"""One client connection on a ring: a slot of its file table, which lives one life after another."""

import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from twbench.fleet.exchanges import (
    ACTIVE_CLOSE,
    PASSIVE_CLOSE,
    RESET_BY_PEER,
    RESETS,
    Exchanges,
    Owner,
)
from twbench.fleet.lives import ALONE, FURTHER, OPENING, PIECE_BYTES, STEP_BITS, Lives
from twbench.fleet.part import NEVER_NS, SHORTEST_PAUSE_NS
from twbench.model.outcomes import Phase, errno_name
from twbench.model.plans import Endpoint
from twbench.process.sockets import Fin, send_fin_on
from twbench.uring.memory import Memory
from twbench.uring.ring import Ring

_CANCEL_AGAIN_NS = 100_000_000


@dataclass(slots=True, eq=False)
class Attempt:
    """One request that is to be made, and made again if it fails."""

    intended_ns: int = 0
    user: int | None = None
    """Who makes it, in a closed load."""
    tries: int = 0
    pause_ns: int = SHORTEST_PAUSE_NS
    """How long that user waits when there is no connection to be had; it doubles."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Road:
    """A source and a destination, and what that means for the chains `BY_ROAD`."""

    destination: Endpoint
    values: Mapping[str, Mapping[str, int]]
    """What fills the holes, by the chain's name."""
    writes: Mapping[str, tuple[tuple[slice, bytes], ...]]
    """The same for a chain that had another road before."""


class RingOwner(Owner, Protocol):
    """What a slot needs of its engine."""

    ring: Ring
    memory: Memory
    lives: Lives
    half_closes: bool
    connect_timeout_ns: int
    rest_at: int
    """Where bytes go that nobody reads."""
    rest_bytes: int

    def answered(self, slot: "Slot", *, ok: bool | None) -> None:
        """Hear that the slot's exchange is over (None: it got no connection).

        Where `slot.over`, the connection is too. Its socket is closed by the end of the next turn
        of the ring, and then the slot may be used again.
        """


class Slot(Exchanges):
    """Its socket has no descriptor.

    `_due` counts the completions that are still to come, `_armed` those of them that receive. Only
    when nothing is due may the slot be used again, so a life that is cut short is cancelled first.
    """

    __slots__ = (
        "_armed",
        "_chains",
        "_closed",
        "_connected",
        "_doom",
        "_due",
        "_holes",
        "_leaving",
        "_receives",
        "_refusal",
        "_refused",
        "_roads",
        "_unsent",
        "attempt",
        "destination",
        "first",
        "second",
    )

    _owner: RingOwner

    def __init__(self, owner: RingOwner, number: int, buffers: int) -> None:
        """Take a place in the file table, and two buffers of `PIECE_BYTES` at an address."""
        self._owner = owner
        self.first, self.second = buffers, buffers + PIECE_BYTES
        self._holes = {
            "slot": number,
            "token": number << STEP_BITS,
            "first": self.first,
            "second": self.second,
            "rest": owner.rest_at,
            "rest_bytes": owner.rest_bytes,
        }
        self._chains: dict[str, bytearray] = {}
        self._roads: dict[str, Road] = {}
        self.attempt: Attempt | None = None
        self.destination: Endpoint = ("", 0)
        self.over = True
        self._connected = self._leaving = False
        self.deadline_ns = NEVER_NS

    # what the engine asks for

    def begin(self, attempt: Attempt, road: Road, *, last: bool) -> None:
        """Open a connection that sends a first request."""
        owner = self._owner
        self.attempt = attempt
        self.destination = road.destination
        self._connected = self._leaving = self._unsent = self._refused = False
        self._doom = ""
        self._refusal = 0
        self._closed = False
        self._open(attempt.intended_ns, last=last)
        self.deadline_ns = self.began_ns + owner.connect_timeout_ns
        owner.ring.push(self._chain(OPENING[last], road))
        self._armed = self._receives = receives = owner.lives.receives[last]
        self._due = 1 + receives

    def exchange(self, attempt: Attempt, road: Road, *, last: bool) -> None:
        """Send a further request on an idle connection."""
        owner = self._owner
        self.attempt = attempt
        self._begin(attempt.intended_ns, last=last)
        half_closes = last and owner.half_closes
        if half_closes:
            self._departure = ACTIVE_CLOSE
        if self._armed:
            owner.ring.push(self._chain(ALONE[last], road))
            self._due += 1 + half_closes
        else:
            owner.ring.push(self._chain(FURTHER[last], road))
            self._armed = self._receives = owner.lives.receives[last]
            self._due += self._armed

    @property
    def usable(self) -> bool:
        """Return whether a further request may go over it."""
        return not (self.over or self._last or self._leaving)

    def expire(self) -> None:
        """Give up what has passed its deadline."""
        if self._connected and not self._leaving:
            super().expire()
        else:
            self._give_up("TIMEOUT")

    def cut_off(self) -> None:
        """End with the run, whatever is still due."""
        if self._connected and not self._leaving:
            super().cut_off()
        else:
            self._give_up("CANCELLED")

    def _give_up(self, why: str) -> None:
        """Cancel what is under way; again where it stood between two steps of its chain."""
        if not self._connected:
            self._doom = self._doom or why
        self.deadline_ns = time.monotonic_ns() + _CANCEL_AGAIN_NS
        self._push("cancel")

    # chains

    def _chain(self, name: str, road: Road) -> bytearray:
        """Return a chain that depends on the road."""
        chain = self._chains.get(name)
        if chain is None:
            chain = self._fill(name, road.values[name])
            self._roads[name] = road
        elif self._roads[name] is not road:
            for where, raw in road.writes[name]:
                chain[where] = raw
            self._roads[name] = road
        return chain

    def _push(self, name: str) -> None:
        """Start a chain that does not."""
        chain = self._chains.get(name)
        self._owner.ring.push(self._fill(name, {}) if chain is None else chain)

    def _fill(self, name: str, more: Mapping[str, int]) -> bytearray:
        template, holes = self._owner.lives.chains[name], {**self._holes, **more}
        chain = template.fill(**{hole: holes[hole] for hole in template.places})
        self._chains[name] = chain
        return chain

    def _receive(self) -> None:
        """Wait for more: of an answer, for the peer's FIN, or whatever comes to an idle one."""
        self._due += 1
        self._armed = 1
        if not self._body_due:
            self._push("receive")
            return
        owner = self._owner
        chain = self._chains.get("rest") or self._fill("rest", {})
        # one more than is due: it would be one too many
        size = min(self._body_due + 1, owner.rest_bytes)
        owner.lives.chains["rest"].patch(chain, rest_bytes=size)
        owner.ring.push(chain)

    # completions, by their step

    def opened(self, result: int) -> None:
        """Hear that there is no socket, or that an option was refused; the rest is silent."""
        self._refuse(Phase.CONNECT, -result)

    def bound(self, result: int) -> None:
        """Hear that the source was not bound; the rest is silent."""
        self._refuse(Phase.BIND, -result)

    def connected(self, result: int) -> None:
        """Hear whether there is a connection."""
        self._due -= 1
        if result < 0:
            # what hangs on it is cancelled, and says so
            self._refusal = -result
            return
        self._connected = True
        self._established()
        if self._doom:
            # it was given up in the moment in which it came about
            self._fail(Phase.READ, self._doom)
            self.leave()
            return
        if self._last and self._owner.half_closes:
            self._departure = ACTIVE_CLOSE

    def unsent(self, result: int) -> None:
        """Hear that the request did not leave; the receives behind it are silent."""
        if not self._connected:
            return
        self._due -= self._receives
        self._armed = 0
        self._unsent = True
        if self._leaving:
            self._wind_up(result)
        elif result >= 0:
            # a part has left: the next call knows what went wrong
            self._receive()
        else:
            self._part(-result)

    def sent(self, result: int) -> None:
        """Hear whether a request left for which a receive was waiting already."""
        self._due -= 1
        if self._leaving:
            self._wind_up(result)
        elif result < 0:
            self._unsent = True
            self._part(-result)
        elif not self._armed:
            # what waited has received before
            self._receive()

    def shut(self, _result: int) -> None:
        """Hear that the FIN was sent; if not, the receive knows why."""
        self._due -= 1
        if self._leaving:
            self._wind_up(-errno.ECANCELED)

    def received_first(self, result: int) -> None:
        """Hear what came into the first buffer."""
        self._received(result, self.first)

    def received_second(self, result: int) -> None:
        """Hear what came into the second buffer."""
        self._received(result, self.second)

    def received_rest(self, result: int) -> None:
        """Hear how much of a body came."""
        self._received(result, self._owner.rest_at)

    def _received(self, result: int, at: int) -> None:
        self._due -= 1
        self._armed -= 1
        if self._leaving or not self._connected:
            self._wind_up(result)
            return
        if result > 0:
            if self._body_due:
                self._take(result)
            else:
                self.data_received(self._owner.memory.copy(at, result))
        elif result == 0:
            self.eof_received()
            self._finish()
            return
        elif result != -errno.ECANCELED:
            self._part(-result)
        if not (self._armed or self.over or self._leaving):
            self._receive()

    def installed(self, result: int) -> None:
        """Get a descriptor of the socket, to ask which side's FIN was the first."""
        self._due -= 1
        if self._departure is None:
            # without a descriptor nobody can tell
            self._left(Fin.CROSSED if result < 0 else send_fin_on(result))
        elif result >= 0:
            os.close(result)
        self._finish()

    def aside(self, _result: int) -> None:
        """Hear what nobody waits for."""

    def _wind_up(self, result: int) -> None:
        """Take a completion of a life that is being cut short, or never began."""
        if self._leaving and self._departure is None:
            if result == 0:
                self._departure = PASSIVE_CLOSE
            elif -result in RESETS:
                self._departure = RESET_BY_PEER
        if self._due:
            return
        if self._leaving:
            self.connection_lost(None)
        else:
            self._refuse(Phase.CONNECT, self._refusal)

    # ends

    def _refuse(self, phase: Phase, number: int) -> None:
        if self._doom and number == errno.ECANCELED:
            self._owner.ledger.refuse(phase, self._doom)
        else:
            self._owner.ledger.refuse(phase, errno_name(number), dialled=True)
        self.over = self._refused = True
        self._resolve()

    def _part(self, number: int) -> None:
        """End with an errno."""
        self._lost(number)
        self._finish()

    def _finish(self) -> None:
        """End the life, as soon as nothing of it is under way."""
        self._leaving = True
        if self._due:
            self.deadline_ns = time.monotonic_ns() + _CANCEL_AGAIN_NS
            self._push("cancel")
        else:
            self.connection_lost(None)

    def leave(self) -> None:
        """Close outside of the ending."""
        if self._departure is None:
            self._leaving = True
            self.deadline_ns = time.monotonic_ns() + _CANCEL_AGAIN_NS
            self._due += 1
            self._push("install")
        else:
            self._finish()

    def _close(self) -> None:
        self._finish()

    def _reset(self) -> None:
        self._push("reset")
        self._closed = True
        self._finish()

    def _has_unsent(self) -> bool:
        return self._unsent

    def _resolve(self) -> None:
        if not self.over:
            self._owner.answered(self, ok=self._ok)
            return
        self.deadline_ns = NEVER_NS
        if not self._closed:
            self._push("close")
        self._owner.answered(self, ok=None if self._refused else self._ok)


STEPS = (
    Slot.opened,
    Slot.bound,
    Slot.connected,
    Slot.unsent,
    Slot.sent,
    Slot.received_first,
    Slot.received_second,
    Slot.received_rest,
    Slot.shut,
    Slot.installed,
    Slot.aside,
)
"""Who hears of a completion, by its `Step`."""
