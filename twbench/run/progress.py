"""What a run tells whoever watches it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from twbench.lab.plan import HostPlan, LabPlan
from twbench.model.scenario import Scenario
from twbench.model.states import Side
from twbench.run.books import Books, StackBooks, percentiles_ms
from twbench.run.planning import port_capacity


@dataclass(frozen=True, kw_only=True, slots=True)
class HostView:
    """One host at this moment."""

    name: str
    time_wait: int
    established: int
    ports_in_use: int | None = None
    """Towards the destination with the most in use; None for the server."""
    ports_capacity: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A run at this moment. Rates and latencies are of the last second."""

    scenario: str
    stage: str
    """What the run is doing: `starting`, `load`, `settling`, `sampling on`."""
    t_s: float
    total_s: float
    attempted: int
    ok: int
    connections_per_s: float
    requests_per_s: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    errors: Mapping[str, int]
    hosts: tuple[HostView, ...]
    event: str = ""
    """Something that has just happened and is worth a line."""


Observer = Callable[[Progress], None]


def progress_of(
    books: Books,
    scenario: Scenario,
    plan: LabPlan,
    *,
    port_range: tuple[int, int],
    stage: str,
    t_s: float,
    event: str = "",
) -> Progress:
    """Return the run as its books have it now."""
    fleet = books.fleet
    recent, latency = books.recent(time.monotonic_ns())
    figures = percentiles_ms(latency) or {}
    total_s = scenario.load.total_s + scenario.sampling.after_s
    return Progress(
        scenario=scenario.name,
        stage=stage,
        t_s=max(0.0, t_s),
        total_s=total_s,
        attempted=fleet.attempted,
        ok=fleet.ok,
        connections_per_s=recent.established or _opened_per_s(books, plan),
        requests_per_s=recent.ok,
        latency_p50_ms=figures.get("p50"),
        latency_p99_ms=figures.get("p99"),
        errors=fleet.errors + fleet.connection_errors,
        hosts=tuple(_views(books, plan, port_range)),
        event=event,
    )


def _opened_per_s(books: Books, plan: LabPlan) -> float:
    """Return the kernel's figure: a client that is not ours keeps no books of its connections."""
    return sum(books.stacks[name].opened_per_s for name in {host.stack for host in plan.clients})


def _views(books: Books, plan: LabPlan, port_range: tuple[int, int]) -> list[HostView]:
    return [
        _client_view(host, books.stacks[host.stack], plan, port_range)
        if host.side is Side.CLIENT
        else _view(host, books.stacks[host.stack], plan)
        for host in plan.hosts
    ]


def _view(host: HostPlan, stack: StackBooks, plan: LabPlan) -> HostView:
    states = stack.look.states_by_side.get(host.side, {}) if stack.look else {}
    # a shared stack's ticks do not tell the sides apart, its looks do
    told_by_ticks = len(plan.stacks) > 1 and stack.time_wait
    return HostView(
        name=host.name,
        time_wait=stack.time_wait[-1][1] if told_by_ticks else states.get("TIME_WAIT", 0),
        established=states.get("ESTABLISHED", 0),
    )


def _client_view(
    host: HostPlan, stack: StackBooks, plan: LabPlan, port_range: tuple[int, int]
) -> HostView:
    in_use = max(stack.look.ports_in_use.values(), default=0) if stack.look else None
    return replace(
        _view(host, stack, plan),
        ports_in_use=in_use,
        ports_capacity=port_capacity(plan, host.stack, port_range),
    )
