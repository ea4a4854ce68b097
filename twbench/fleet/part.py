"""What a plan means for one worker, whichever engine carries it out: its share, and its times."""

import itertools
from collections.abc import Iterator
from typing import Any

from twbench.model.plans import Endpoint, FleetPlan, share

Route = tuple[str, Endpoint]
"""A source address and a destination."""

SECOND_NS = 1_000_000_000
NEVER_NS = 1 << 62
RAMP_NS = 50_000_000
"""A user whom a ramp has no room for looks again after this."""
SHORTEST_PAUSE_NS, LONGEST_PAUSE_NS = 10_000_000, SECOND_NS
"""A user who gets no connection waits, longer and longer."""
GRACE_NS = 5 * SECOND_NS
"""What is under way at the load's end has so long to finish, if its time-out is not shorter."""
LATE_NS = 10_000_000
"""An arrival that is begun so long after the load's end is none."""
DRAIN_NS = 2 * SECOND_NS
"""Beyond `ending.hold_s`, the connections that are left at the end have so long."""
_SWEEP_NS = 100_000_000

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


def idle_expiry_ns(plan: FleetPlan) -> int:
    """Return how long a connection may lie idle before the client closes it."""
    pool = plan.scenario.client.pool
    expiry_s = pool.idle_expiry_s if pool else None
    return round(expiry_s * SECOND_NS) if expiry_s else NEVER_NS


def sweep_every_ns(idle_ns: int) -> int:
    """Return how often deadlines are looked at: an idle expiry is kept to a tenth of itself."""
    return min(_SWEEP_NS, max(idle_ns // 10, _SWEEP_NS // 10))


def socket_options(plan: FleetPlan) -> dict[str, Any]:
    """Return the options of every socket, by kernel name."""
    options = plan.scenario.client.socket.given()
    if len(plan.sources) > 1:
        # so that a source's ports are not used up by one destination
        options.setdefault("IP_BIND_ADDRESS_NO_PORT", True)
    return options


def binds_first(plan: FleetPlan) -> bool:
    """Return whether the source address is bound before connect(2)."""
    return len(plan.sources) > 1 or plan.scenario.client.bind_before_connect
