"""What falls to one worker of the fleet: its routes, its requests, its share of every bound."""

import itertools
from collections.abc import Iterator

from twbench.model.plans import Endpoint, FleetPlan, share

Route = tuple[str, Endpoint]
"""A source address and a destination."""

SPENT = object()
"""What next() is given to return for a `quota` that is used up."""


def own_share(plan: FleetPlan, total: int) -> int:
    """Return the part of a bound of the whole fleet that falls to this worker."""
    return share(total, plan.worker, plan.workers)


def routes(plan: FleetPlan) -> list[Route]:
    """Return each pair of source and destination, to be taken in turn; workers start apart."""
    pairs = [(source, to) for to in plan.destinations for source in plan.sources]
    first = plan.worker % len(pairs)
    return pairs[first:] + pairs[:first]


def requests(destination: Endpoint, *, announce: bool) -> tuple[bytes, bytes]:
    """Return a connection's requests: any but the last, and the last, which announces the end."""
    address, port = destination
    host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    head = f"GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: twbench\r\n"
    last = head + "Connection: close\r\n\r\n" if announce else head + "\r\n"
    return f"{head}\r\n".encode(), last.encode()


def announces(plan: FleetPlan) -> bool:
    """Return whether the last request of a connection tells the server so."""
    return plan.scenario.ending.kind != "server-idle"


def quota(plan: FleetPlan) -> Iterator[None]:
    """Yield once for each request that this worker may make."""
    total = plan.scenario.load.requests
    if total is None:
        return itertools.repeat(None)
    return itertools.repeat(None, own_share(plan, total))
