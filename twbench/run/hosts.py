"""What a summary says of each host: its TIME_WAIT, ports, counters and states. Pure."""

from itertools import pairwise
from statistics import median
from typing import Any

from twbench.lab.plan import HostPlan, LabPlan
from twbench.model.states import TIME_WAIT_S, Side
from twbench.run.books import Books
from twbench.run.planning import port_capacity

_SECOND_NS = 1_000_000_000
_HELD_SHARE = 0.9
STEADY_FROM_S = TIME_WAIT_S + 2
"""Into a load: its first TIME_WAITs have expired by then, where the kernel has HZ=250."""


def steady_time(start_ns: int, load_s: float) -> tuple[int, int] | None:
    """Return from when to when TIME_WAIT of a load is steady, CLOCK_MONOTONIC ns.

    From then on as many expire as come in, until the load ends. None: it ends before that shows.
    """
    if load_s <= STEADY_FROM_S:
        return None
    return start_ns + round(TIME_WAIT_S * _SECOND_NS), start_ns + round(load_s * _SECOND_NS)


def host_view(
    host: HostPlan,
    plan: LabPlan,
    books: Books,
    ports: tuple[int, int],
    steady: tuple[int, int] | None,
) -> dict[str, Any]:
    """Return what summary.json says of a host.

    Args:
        host: which one.
        plan: its lab.
        books: all that was told.
        ports: the ephemeral ports of the clients, inclusive.
        steady: from when to when TIME_WAIT is steady, CLOCK_MONOTONIC ns; None: never.
    """
    stack = books.stacks[host.stack]
    shared = len(plan.stacks) == 1
    if shared:
        waiting = [(t_ns, by_side.get(host.side, 0)) for t_ns, by_side in stack.looks]
    else:
        waiting = [(t_ns, count) for t_ns, count, _ in stack.time_wait]
    peak = max((count for _, count in waiting), default=0)
    late = [count for t_ns, count in waiting if steady and steady[0] <= t_ns <= steady[1]]
    view: dict[str, Any] = {
        "stack": host.stack,
        "addresses": list(host.addresses),
        "time_wait": {
            "peak": peak,
            "steady": median(late) if late else None,
            "end": waiting[-1][1] if waiting else 0,
            "held_s": round(_held_s(waiting, _HELD_SHARE * peak), 2),
        },
        "counters": dict(stack.last.counters) if stack.last else {},
        "states_peak": dict(stack.states_peak.get(host.side, {})),
    }
    if host.side is Side.CLIENT:
        view["ports"] = {
            "range": list(ports),
            "capacity": port_capacity(plan, host.stack, ports),
            "in_use_peak": stack.ports_peak,
        }
    return view


def _held_s(waiting: list[tuple[int, int]], level: float) -> float:
    """Return for how long a count was at or above a level, in seconds; 0 for a level of 0."""
    if level <= 0:
        return 0.0
    held_ns = sum(
        later_ns - t_ns for (t_ns, count), (later_ns, _) in pairwise(waiting) if count >= level
    )
    return held_ns / _SECOND_NS
