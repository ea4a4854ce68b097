"""What whoever watches a run is told."""

import time

import pytest

from twbench.fleet.ledger import encode
from twbench.lab.plan import LabPlan
from twbench.model.parse import build_scenario
from twbench.model.reports import FleetReport
from twbench.run.books import Books
from twbench.run.planning import lab_plan
from twbench.run.progress import Progress, progress_of
from twbench.sampler.samples import LookSample, TickSample

PORTS = (40000, 40099)
LOAD = {"mode": "open", "rate_per_s": 10, "duration_s": 4}


def tick(stack: str, waiting: int, *, t_s: float = 0, **counters: int) -> TickSample:
    return TickSample(
        stack=stack,
        t_ns=round(t_s * 1e9),
        lateness_ns=0,
        cost_ns=0,
        source="proc",
        missed=0,
        sockstat={"tw": waiting},
        counters=counters,
    )


def look(stack: str, states: dict[str, dict[str, int]], ports: dict[str, int]) -> LookSample:
    return LookSample(
        stack=stack,
        label="scheduled",
        t_ns=0,
        lateness_ns=0,
        cost_ns=0,
        source="sock_diag",
        missed=0,
        interrupted=False,
        sockets=0,
        states_by_side=states,
        listening=1,
        ports_in_use=ports,
        accept_queue={},
        time_wait_left_s={},
    )


def progress(
    *samples: TickSample | LookSample,
    report: FleetReport | None = None,
    t_s: float = 1,
    event: str = "",
    **lab: object,
) -> Progress:
    tables = {"name": "seen", "load": LOAD, "lab": lab, "sampling": {"after_s": 3}}
    scenario = build_scenario(tables, source="test")
    plan: LabPlan = lab_plan(scenario)
    books = Books(plan.stacks, tuple(host.name for host in plan.clients))
    for sample in samples:
        books.stacks[sample.stack].hear(sample)
    if report:
        books.hear_fleet(plan.clients[0].name, report)
    return progress_of(books, scenario, plan, port_range=PORTS, stage="load", t_s=t_s, event=event)


def test_before_the_first_sample_everything_is_zero_or_unknown() -> None:
    found = progress(t_s=-0.2)
    assert (found.t_s, found.total_s) == (0, 4 + 3)
    assert (found.attempted, found.connections_per_s, found.latency_p50_ms) == (0, 0, None)
    client, server = found.hosts
    assert (client.time_wait, client.ports_in_use, client.ports_capacity) == (0, None, 100)
    assert (server.name, server.ports_in_use, server.ports_capacity) == ("server", None, None)


def test_time_wait_is_the_latest_ticks_and_states_are_the_latest_looks() -> None:
    states = {"client": {"ESTABLISHED": 5, "TIME_WAIT": 20}}
    ports = {"198.19.0.1:8080": 20, "198.19.0.1:8081": 25}
    found = progress(look("client", states, ports), tick("client", 30))
    client, _ = found.hosts
    assert (client.time_wait, client.established) == (30, 5)
    assert client.ports_in_use == 25


def test_capacity_counts_every_address_of_the_host() -> None:
    found = progress(client={"hosts": 2, "addresses": 3})
    assert [(h.name, h.ports_capacity) for h in found.hosts] == [
        ("client-1", 300),
        ("client-2", 300),
        ("server", None),
    ]


def test_shared_stack_tells_the_sides_apart_by_looks() -> None:
    states = {"client": {"TIME_WAIT": 8}, "server": {"TIME_WAIT": 2}}
    found = progress(tick("lab", 10), look("lab", states, {}), link="loopback")
    assert [(host.name, host.time_wait) for host in found.hosts] == [("client", 8), ("server", 2)]


def test_rates_and_latencies_are_of_the_last_second() -> None:
    now_ns = time.monotonic_ns()
    report = FleetReport(t_ns=now_ns, attempted=6, ok=5, established=3)
    report.errors["connect:ECONNREFUSED:refused"] = 1
    report.connection_errors["idle:EOF:closed_while_idle"] = 2
    report.histograms["request"] = encode([2_000_000] * 5)
    found = progress(report=report, event="something")
    assert (found.attempted, found.ok) == (6, 5)
    assert (found.connections_per_s, found.requests_per_s) == (3, 5)
    assert found.latency_p50_ms == pytest.approx(2, rel=0.001)
    assert found.errors == {"connect:ECONNREFUSED:refused": 1, "idle:EOF:closed_while_idle": 2}
    assert found.event == "something"


def test_client_without_books_has_the_connections_that_its_kernel_began() -> None:
    ticks = [tick("client", 0, t_s=t_s, TcpActiveOpens=round(40 * t_s)) for t_s in (0, 0.5, 1, 1.5)]
    assert progress(*ticks).connections_per_s == 40
    own = FleetReport(t_ns=time.monotonic_ns(), established=3)
    assert progress(*ticks, report=own).connections_per_s == 3
