"""What a load came to, whoever its client was: requests, connections, CPU, silent retries. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from twbench.audit import StackAccount
from twbench.model.outcomes import Phase
from twbench.model.reports import FleetReport
from twbench.model.states import Side
from twbench.run.books import Books

_BEFORE_SENDING = frozenset({Phase.RESOLVE, Phase.BIND, Phase.CONNECT})
_CANCELLED = "CANCELLED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pages:
    """Requests and connections of a run, from the books of whichever side knows them."""

    foreign: bool
    load_s: float
    requests: int
    """Answered: as the client knows, or as the server does where a program is the client."""
    connections: int
    """As the client established them; a foreign client's, as the server accepted them."""
    cpu_s: float | None
    """Processor time of all clients, user and system; None: nobody told."""
    silent_retries: int | None
    """Requests that came to the server's host beyond those that the client knows of, at the least.

    A request comes to the server's application, or it meets a connection that has been closed,
    and the server's kernel resets that. Of a client that closes as it likes, both are held against
    what the client knows of. What may have left counts as known, though it may have been lost on
    the way, and a kernel shared by both sides does not tell whose reset it was: so this is a lower
    bound. None of a program, which tells nobody what it knows.
    """

    @classmethod
    def of(
        cls,
        books: Books,
        *,
        load_s: float,
        foreign: bool,
        program: Mapping[str, Any] | None,
        stacks: Iterable[StackAccount] = (),
    ) -> Self:
        """Read the books of a run.

        Args:
            books: all that was told.
            load_s: for how long load was offered.
            foreign: whether the client closes as it likes.
            program: what became of the one that was the client, if any.
            stacks: what each kernel counted.
        """
        fleet, server = books.fleet, books.server
        told = not foreign or bool(books.established)
        seen = server.requests - server.redirected
        arrived = seen + (_met_a_close(stacks) if foreign else 0)
        cpu_s = fleet.cpu_ns / 1e9 if program is None else program.get("cpu_s")
        return cls(
            foreign=foreign,
            load_s=load_s,
            requests=fleet.ok if told else seen,
            connections=server.accepted if foreign else fleet.established,
            cpu_s=cpu_s or None,
            silent_retries=max(0, arrived - _sent(fleet)) if told else None,
        )

    @property
    def connections_per_s(self) -> float:
        """Return new connections a second, over the whole load."""
        return self.connections / self.load_s if self.load_s else 0.0

    def rates(self) -> dict[str, float | None]:
        """Return what summary.json has as `rates`."""
        requests = self.requests
        cpu_us = None if self.cpu_s is None else self.cpu_s * 1e6
        return {
            "connections_per_s": round(self.connections_per_s, 2),
            "requests_per_s": round(requests / self.load_s, 2) if self.load_s else 0.0,
            "connections_per_request": round(self.connections / requests, 4) if requests else None,
            "client_cpu_us_per_request": (
                round(cpu_us / requests, 2) if requests and cpu_us is not None else None
            ),
        }


def _met_a_close(stacks: Iterable[StackAccount]) -> int:
    """Return how many requests met a connection that the server had closed, as its kernel knows.

    None of them came to the application: either unread data lay in the socket as it was closed
    (TCPAbortOnClose), or it came afterwards (TCPAbortOnData), once for each connection.
    """
    return sum(stack.unforeseen_resets for stack in stacks if stack.sides == {Side.SERVER})


def _sent(fleet: FleetReport) -> int:
    """Return how many requests a fleet may have sent: all but those that failed before."""
    perhaps = (n for key, n in fleet.errors.items() if _may_have_left(key))
    return fleet.ok + sum(perhaps)


def _may_have_left(key: str) -> bool:
    phase, error, _ = key.split(":")
    return error == _CANCELLED or phase not in _BEFORE_SENDING
