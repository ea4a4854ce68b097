"""From hand-made books to a summary: held, steady, measured, thresholds."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from twbench.model.endings import Departure
from twbench.model.parse import build_scenario
from twbench.model.reports import FleetReport, ServerReport
from twbench.run.books import Books
from twbench.run.planning import lab_plan
from twbench.run.summarise import Notes, check_threshold, summarise_run
from twbench.sampler.samples import LookSample, TickSample

SECOND_NS = 1_000_000_000
START_NS = 500 * SECOND_NS
EXHAUSTED = "connect:EADDRNOTAVAIL:ports_exhausted"
REFUSED = "connect:ECONNREFUSED:refused"


def tick(stack: str, t_s: float, waiting: int) -> TickSample:
    return TickSample(
        stack=stack,
        t_ns=START_NS + round(t_s * SECOND_NS),
        lateness_ns=0,
        cost_ns=0,
        source="proc",
        missed=0,
        sockstat={"tw": waiting},
        counters={"TcpExtTW": waiting},
    )


def look(stack: str, t_s: float, states: dict[str, dict[str, int]]) -> LookSample:
    return LookSample(
        stack=stack,
        label="scheduled",
        t_ns=START_NS + round(t_s * SECOND_NS),
        lateness_ns=0,
        cost_ns=0,
        source="sock_diag",
        missed=0,
        interrupted=False,
        sockets=0,
        states_by_side=states,
        listening=1,
        ports_in_use={"198.19.0.1:8080": 12},
        accept_queue={},
        time_wait_left_s={},
    )


def summarise(
    *samples: TickSample | LookSample,
    fleet: FleetReport | None = None,
    server: ServerReport | None = None,
    load_s: float = 10,
    foreign: bool = False,
    program: dict[str, Any] | None = None,
    **tables: object,
) -> dict[str, Any]:
    """Return the summary of a run in which these were read and reported."""
    load = {"mode": "open", "rate_per_s": 50, "duration_s": 10}
    scenario = build_scenario({"name": "made", "load": load, **tables}, source="test")
    plan = lab_plan(scenario)
    books = Books(plan.stacks, tuple(host.name for host in plan.clients))
    for sample in samples:
        books.stacks[sample.stack].hear(sample)
    books.hear_fleet(plan.clients[0].name, fleet or FleetReport())
    books.server.add(server or ServerReport())
    return summarise_run(
        scenario=scenario,
        plan=plan,
        books=books,
        start_ns=START_NS,
        load_s=load_s,
        sysctls={},
        notes=Notes(
            warnings=("beware",),
            events=[{"t_s": 1.5, "event": "something happened", "detail": ""}],
            program=program,
        ),
        foreign=foreign,
    )


def test_time_wait_has_a_peak_an_end_and_a_time_near_its_peak() -> None:
    curve = [(0, 0), (1, 95), (2, 100), (3, 90), (5, 89), (6, 10)]
    found = summarise(*(tick("client", t_s, count) for t_s, count in curve))
    # from 1 s, when 90 % of the peak were there, to 5 s, when they no longer were
    none = {"peak": 0, "steady": None, "end": 0, "held_s": 0.0}
    assert found["hosts"]["client"]["time_wait"] == none | {
        "peak": 100,
        "end": 10,
        "held_s": 4.0,
    }
    assert found["hosts"]["server"]["time_wait"] == none


def test_stack_that_was_never_at_time_wait_held_nothing() -> None:
    found = summarise(*(tick("client", t_s, 0) for t_s in (0, 1, 2)))
    assert found["hosts"]["client"]["time_wait"]["held_s"] == 0


def test_shared_stack_has_its_time_wait_from_looks_which_tell_the_sides_apart() -> None:
    found = summarise(
        tick("lab", 0, 50),
        look("lab", 1, {"client": {"TIME_WAIT": 30}, "server": {"TIME_WAIT": 20}}),
        look("lab", 2, {"client": {"TIME_WAIT": 31}}),
        lab={"link": "loopback"},
    )
    hosts = found["hosts"]
    assert hosts["client"]["time_wait"] == {
        "peak": 31,
        "steady": None,
        "end": 31,
        "held_s": 1.0,
    }
    assert hosts["server"]["time_wait"]["peak"] == 20
    assert hosts["client"]["states_peak"] == {"TIME_WAIT": 31}


def test_only_clients_have_ephemeral_ports() -> None:
    asked = {"sysctl": {"net.ipv4.ip_local_port_range": "40000 40009"}, "addresses": 3}
    found = summarise(look("client", 1, {}), lab={"client": asked})
    ports = {"range": [40000, 40009], "capacity": 30, "in_use_peak": 12}
    assert found["hosts"]["client"]["ports"] == ports
    assert "ports" not in found["hosts"]["server"]


def test_steady_time_wait_is_the_mean_from_a_minute_on_to_the_end_of_the_load() -> None:
    curve = [(10, 100), (62, 3000), (70, 3010), (80, 3020), (81, 9999)]
    load = {"mode": "open", "rate_per_s": 50, "duration_s": 80}
    found = summarise(*(tick("client", t_s, n) for t_s, n in curve), load=load, load_s=80)
    assert found["forecast"]["measured"]["time_wait_steady"] == 3010
    assert found["forecast"]["predicted"]["time_wait_steady"] == 3000


def test_steady_time_wait_of_a_host_is_the_median_from_a_minute_on_to_the_end_of_the_load() -> None:
    curve = [(10, 100), (59, 2950), (60, 3000), (70, 3010), (80, 3900), (81, 9999)]
    load = {"mode": "open", "rate_per_s": 50, "duration_s": 80}
    ticks = [tick("client", t_s, count) for t_s, count in curve]
    found = summarise(*ticks, load=load, load_s=80)["hosts"]
    assert found["client"]["time_wait"]["steady"] == 3010
    assert found["server"]["time_wait"]["steady"] is None


@pytest.mark.parametrize(("load_s", "steady"), [(62, None), (62.5, 3050)])
def test_host_has_a_steady_time_wait_only_of_a_load_that_outlasts_the_first(
    load_s: float, steady: float | None
) -> None:
    ticks = [tick("client", 60, 3000), tick("client", 61.9, 3100)]
    found = summarise(*ticks, load_s=load_s)
    assert found["hosts"]["client"]["time_wait"]["steady"] == steady


@pytest.mark.parametrize(
    ("link", "foreign", "silent"),
    [
        # 111 met a close; the client told of 1, and the server reset 10 as it had meant to
        ("veth", True, 100),
        # our own fleet repeats nothing
        ("veth", False, 0),
        # nobody knows whose resets they were
        ("loopback", True, 0),
    ],
)
def test_requests_that_the_servers_kernel_reset_are_silent_retries(
    link: str, silent: int, *, foreign: bool
) -> None:
    resets = {"TcpExtTCPAbortOnClose": 36, "TcpExtTCPAbortOnData": 75}
    stacks = ("lab",) if link == "loopback" else ("client", "server")
    found = summarise(
        *(replace(tick(stack, 1, 0), counters=resets) for stack in stacks),
        fleet=FleetReport(ok=2793, errors=Counter({"read:EOF:keepalive_race": 1})),
        server=ServerReport(requests=2793, departures=Counter({Departure.ACTIVE_RESET: 10})),
        foreign=foreign,
        lab={"link": link},
    )
    assert found["outcomes"]["silent_retries"] == silent


def test_load_shorter_than_time_wait_has_no_steady_state() -> None:
    found = summarise(tick("client", 9, 450))
    assert found["forecast"]["measured"]["time_wait_steady"] is None
    assert found["forecast"]["measured"]["time_wait_peak"] == 450


def test_ending_by_reset_has_a_steady_state_of_nothing() -> None:
    found = summarise(tick("client", 9, 0), ending={"kind": "client-rst"})
    assert found["forecast"]["measured"]["time_wait_steady"] == 0


def test_ports_are_exhausted_when_the_first_connect_says_so() -> None:
    fleet = FleetReport(
        attempted=9,
        errors=Counter({EXHAUSTED: 5, REFUSED: 4}),
        first_error_ns={
            EXHAUSTED: START_NS + round(7.5 * SECOND_NS),
            REFUSED: START_NS + SECOND_NS,
        },
    )
    found = summarise(fleet=fleet)
    assert found["forecast"]["measured"]["exhausted_after_s"] == 7.5
    assert found["outcomes"]["first_error_s"] == {EXHAUSTED: 7.5, REFUSED: 1.0}
    assert list(found["outcomes"]["errors"]) == [EXHAUSTED, REFUSED]


def test_rates_are_of_the_time_for_which_load_was_offered() -> None:
    found = summarise(fleet=FleetReport(attempted=40, ok=40, established=10), load_s=4)
    assert found["rates"] == {
        "connections_per_s": 2.5,
        "requests_per_s": 10.0,
        "connections_per_request": 0.25,
        "client_cpu_us_per_request": None,
    }


def test_run_that_was_cut_off_before_its_load_has_rates_of_nothing() -> None:
    found = summarise(load_s=0)
    assert found["rates"] == {
        "connections_per_s": 0.0,
        "requests_per_s": 0.0,
        "connections_per_request": None,
        "client_cpu_us_per_request": None,
    }
    assert found["latency_ms"] == dict.fromkeys(("connect", "request", "request_from_intended"))


def test_closed_load_is_forecast_from_the_rate_it_turned_out_to_have() -> None:
    fleet = FleetReport(attempted=200, ok=200, established=200)
    closed = {"concurrency": 4, "duration_s": 10}
    found = summarise(fleet=fleet, load=closed)["forecast"]
    assert found["from_measured_rate"]
    assert found["predicted"]["time_wait_steady"] == pytest.approx(20 * 60)
    assert not summarise(fleet=fleet)["forecast"]["from_measured_rate"]


CRAWL: dict[str, Any] = {
    "load": {"concurrency": 4, "duration_s": 10},
    "client": {"engine": "aiohttp"},
}


def test_foreign_client_has_the_servers_connections_and_no_forecast() -> None:
    fleet = FleetReport(attempted=10, ok=10, cpu_ns=2_000_000)
    found = summarise(
        tick("client", 9, 3),
        tick("server", 9, 4),
        fleet=fleet,
        server=ServerReport(accepted=5, requests=12, redirected=1),
        foreign=True,
        **CRAWL,
    )
    assert found["foreign"]
    assert found["rates"] == {
        "connections_per_s": 0.5,
        "requests_per_s": 1.0,
        "connections_per_request": 0.5,
        "client_cpu_us_per_request": 200.0,
    }
    assert found["outcomes"]["silent_retries"] == 1
    forecast = found["forecast"]
    assert not forecast["from_measured_rate"]
    assert {name for name, value in forecast["predicted"].items() if value is not None} == {
        "capacity",
        "capacity_per_destination",
    }
    assert forecast["measured"]["time_wait_peak"] == 7
    names = [identity["name"] for identity in found["audit"]["identities"]]
    assert "server: accepted = departed" in names
    assert not any(name.startswith("fleet: established") for name in names)


def test_program_is_in_the_summary_where_there_was_one() -> None:
    program = {"argv": ["true"], "exit_status": 0, "cpu_s": 0.5, "elapsed_s": 1.0}
    assert summarise(foreign=True, program=program, **CRAWL)["program"] == program
    assert "program" not in summarise()


def test_warnings_are_kept() -> None:
    assert summarise()["warnings"] == ["beware"]


SUMMARY = {
    "outcomes": {"ok": 7, "errors": {EXHAUSTED: 3}, "connection_errors": {}},
    "hosts": {"client": {"counters": {"TcpExtTW": 4}, "time_wait": {"held_s": 57.5}}},
    "audit": {"balanced": True},
    "forecast": {"measured": {"exhausted_after_s": None}},
}


@pytest.mark.parametrize(
    ("key", "comparison", "value", "ok"),
    [
        ("outcomes.ok", "== 7", 7, True),
        ("outcomes.ok", " != 7 ", 7, False),
        ("outcomes.ok", ">=7.5", 7, False),
        ("outcomes.ok", "> 6", 7, True),
        ("outcomes.ok", "< 7", 7, False),
        ("outcomes.ok", ">= -1", 7, True),
        ("hosts.client.time_wait.held_s", "<= 57.5", 57.5, True),
        (f"outcomes.errors.{EXHAUSTED}", "== 3", 3, True),
        (f"outcomes.errors.{REFUSED}", "== 0", 0, True),
        (f"outcomes.connection_errors.{REFUSED}", "> 0", 0, False),
        ("hosts.client.counters.TcpExtTW", "== 4", 4, True),
        ("hosts.client.counters.TcpExtTCPTimeWaitOverflow", "== 0", 0, True),
        ("audit.balanced", "== 1", True, True),
    ],
)
def test_threshold_compares_a_figure_of_the_summary(
    key: str, comparison: str, value: float, *, ok: bool
) -> None:
    found = check_threshold(SUMMARY, key, comparison)
    assert found == {"expression": f"{key} {comparison.strip()}", "value": value, "ok": ok}


@pytest.mark.parametrize(
    "key",
    [
        "forecast.measured.exhausted_after_s",
        "hosts.client-2.time_wait.held_s",
        "hosts.client-2.counters.TcpExtTW.more",
        "outcomes",
        "outcomes.ok.more",
        "nothing",
    ],
)
@pytest.mark.parametrize("comparison", ["<= 1", "!= 1", "== 0"])
def test_threshold_on_what_is_no_figure_is_missed(key: str, comparison: str) -> None:
    found = check_threshold(SUMMARY, key, comparison)
    assert (found["value"], found["ok"]) == (None, False)


def test_sustained_rate_is_that_of_the_time_from_a_minute_after_exhaustion() -> None:
    scenario = build_scenario(
        {"name": "long", "load": {"mode": "open", "rate_per_s": 100, "duration_s": 200}},
        source="here",
    )
    plan = lab_plan(scenario)
    books = Books(tuple(plan.stacks), ("client",))
    for tenth in range(2000):
        t_ns = START_NS + tenth * 100_000_000
        first = {"connect:EADDRNOTAVAIL:ports_exhausted": START_NS + 20_000_000_000}
        # 100/s until the ports run out at 20 s, then nothing, then 7/s from 80 s on
        established = 10 if tenth < 200 else 7 if tenth >= 800 and tenth % 10 == 0 else 0
        report = FleetReport(t_ns=t_ns, established=established, first_error_ns=first)
        books.hear_fleet("client", report)
    summary = summarise_run(
        scenario=scenario,
        plan=plan,
        books=books,
        start_ns=START_NS,
        load_s=200,
        sysctls={},
        notes=Notes(),
    )
    measured = summary["forecast"]["measured"]
    assert measured["exhausted_after_s"] == 20
    assert measured["sustainable_rate_per_s"] == pytest.approx(7, rel=0.02)


def test_link_that_is_no_wire_has_no_wire_in_its_summary() -> None:
    assert "wire" not in summarise()
    assert summarise(lab={"link": "wire"})["wire"]["client"]["seen"] == 0
