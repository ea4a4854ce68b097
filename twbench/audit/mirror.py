"""The books of a client that keeps none: the server's, seen from the other end. Pure."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from twbench.audit.account import Account, StackAccount
from twbench.model.endings import Departure
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.states import Side

MIRROR: Mapping[Departure, Departure] = MappingProxyType(
    {
        Departure.ACTIVE_CLOSE: Departure.PASSIVE_CLOSE,
        Departure.PASSIVE_CLOSE: Departure.ACTIVE_CLOSE,
        Departure.ACTIVE_RESET: Departure.RESET_BY_PEER,
        Departure.RESET_BY_PEER: Departure.ACTIVE_RESET,
    }
)
"""How one side left a connection to how the other must have left it."""


def mirror(server: ServerReport) -> FleetReport:
    """Return a client's book of the connections in a server's: what both must know alike."""
    departures = {MIRROR[Departure(how)].value: n for how, n in server.departures.items()}
    return FleetReport(
        connects=server.accepted, established=server.accepted, departures=Counter(departures)
    )


def mirrored(account: Account) -> Account:
    """Return the account with the mirrored book in the clients' place.

    The server does not tell its clients apart, so the stacks of several client hosts become one.
    """
    alone = [stack for stack in account.stacks if stack.sides == {Side.CLIENT}]
    others = [stack for stack in account.stacks if stack.sides != {Side.CLIENT}]
    book = mirror(account.server)
    if not alone:
        return replace(account, stacks=tuple(replace(stack, fleet=book) for stack in others))
    clients = alone[0] if len(alone) == 1 else together(alone)
    return replace(account, stacks=(replace(clients, fleet=book), *others))


def together(stacks: Sequence[StackAccount]) -> StackAccount:
    """Return several stacks of clients as if they were one; their ticks need not coincide.

    What a wire saw is of all clients together anyway.
    """
    times = sorted({t_s for stack in stacks for t_s, _ in stack.history})
    rises = [[n for _, n in stack.history] for stack in stacks]
    waits = [stack.waiting for stack in stacks]
    counters: Counter[str] = Counter()
    for stack in stacks:
        counters.update(stack.counters)
    ticks = [[t_s for t_s, _ in stack.history] for stack in stacks]
    return replace(
        stacks[0],
        name="clients",
        counters=dict(counters),
        history=tuple((t_s, _at(t_s, ticks, rises)) for t_s in times),
        waiting=tuple(_at(t_s, ticks, waits) for t_s in times),
        time_wait_end=sum(stack.time_wait_end for stack in stacks),
        accept_queue_end=sum(stack.accept_queue_end for stack in stacks),
    )


def _at(t_s: float, ticks: Sequence[Sequence[float]], values: Sequence[Sequence[int]]) -> int:
    """Return the sum of what each stack's last tick up to a moment said."""
    last = ((bisect_right(each, t_s), of) for each, of in zip(ticks, values, strict=True))
    return sum(of[index - 1] for index, of in last if 0 < index <= len(of))
