"""Requests, connections and CPU of a run, from whichever side knows them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.outcomes import KINDS, UNKNOWN
from twbench.model.parse import build_scenario
from twbench.model.reports import FleetReport, ServerReport
from twbench.run.books import Books
from twbench.run.course import run_scenario
from twbench.run.pages import Pages


def pages(
    server: ServerReport,
    fleet: FleetReport | None = None,
    *,
    foreign: bool = True,
    **rest: Any,  # noqa: ANN401
) -> Pages:
    """Return the pages of ten seconds; without a `fleet` nothing came from the client."""
    books = Books(("client", "server"), ("client",))
    if fleet:
        books.hear_fleet("client", fleet)
    books.server.add(server)
    return Pages.of(books, load_s=10, foreign=foreign, **{"program": None, **rest})


def test_own_fleet_counts_its_connections_itself() -> None:
    fleet = FleetReport(ok=20, established=10, cpu_ns=10_000_000)
    found = pages(ServerReport(accepted=11, requests=20), fleet, foreign=False)
    assert found.rates() == {
        "connections_per_s": 1.0,
        "requests_per_s": 2.0,
        "connections_per_request": 0.5,
        "client_cpu_us_per_request": 500.0,
    }
    assert found.silent_retries == 0


def test_program_is_counted_by_the_server_and_its_processor_time_by_whoever_waited_for_it() -> None:
    found = pages(ServerReport(accepted=5, requests=21, redirected=1), program={"cpu_s": 0.002})
    assert found.rates() == {
        "connections_per_s": 0.5,
        "requests_per_s": 2.0,
        "connections_per_request": 0.25,
        "client_cpu_us_per_request": 100.0,
    }
    assert found.silent_retries is None


def test_client_that_got_nothing_has_no_figures_of_a_page() -> None:
    rates = pages(ServerReport(), FleetReport(cpu_ns=5)).rates()
    assert rates["connections_per_request"] is rates["client_cpu_us_per_request"] is None


def test_load_that_never_began_has_rates_of_nothing() -> None:
    books = Books(("client",), ("client",))
    found = Pages.of(books, load_s=0, foreign=True, program=None).rates()
    assert (found["connections_per_s"], found["requests_per_s"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("key", "silent"),
    [
        ("connect:ECONNREFUSED:refused", 3),
        ("resolve:EAI_NONAME:name_not_found", 3),
        ("bind:EADDRINUSE:ports_exhausted", 3),
        ("connect:CANCELLED:run_ended", 1),
        ("write:EPIPE:keepalive_race", 1),
        ("read:EOF:keepalive_race", 1),
        ("read:STATUS:http_error", 1),
    ],
)
def test_request_that_may_have_left_is_no_silent_retry(key: str, silent: int) -> None:
    fleet = FleetReport(ok=10, errors=Counter({key: 2}))
    assert pages(ServerReport(requests=13), fleet).silent_retries == silent


KEYS = sorted({f"{phase}:{error}:{kind.name}" for (phase, error, _), kind in KINDS.items()})
EVERY_KEY = [*KEYS, f"read:ENOTCONN:{UNKNOWN.name}"]


@given(
    errors=st.dictionaries(st.sampled_from(EVERY_KEY), st.integers(1, 9)),
    ok=st.integers(0, 50),
    silent=st.integers(0, 20),
    lost=st.integers(0, 5),
)
def test_silent_retries_are_a_lower_bound(
    errors: dict[str, int], ok: int, silent: int, lost: int
) -> None:
    sent = ok + sum(n for key, n in errors.items() if key.split(":")[0] in ("write", "read"))
    server = ServerReport(requests=max(0, sent + silent - lost))
    found = pages(server, FleetReport(ok=ok, errors=Counter(errors))).silent_retries
    assert found is not None
    assert 0 <= found <= silent


KEPT = {"client": {"pool": {"size": 5}}, "server": {"keepalive_timeout_s": 0.02}}
OWN: dict[str, dict[str, Any]] = {
    "client-fin": {},
    "server-fin": KEPT | {"client": {"pool": {"size": 5, "requests_per_connection": 3}}},
    "server-unread": {},
    # pauses as long as the server's patience: requests meet closed connections
    "server-idle": KEPT | {"client": {"pool": {"size": 5, "idle_gap_ms": 20}, "retries": 1}},
}


@pytest.mark.namespaces
@pytest.mark.parametrize("engine", ["auto", "streams"])
@pytest.mark.parametrize("kind", OWN)
def test_our_own_engines_retry_nothing_in_silence(kind: str, engine: str, tmp_path: Path) -> None:
    tables = OWN[kind]
    asked = build_scenario(
        {
            "name": "own",
            "load": {"concurrency": 5, "duration_s": 0.5},
            "ending": {"kind": kind},
            **tables,
            "client": {"engine": engine, **tables.get("client", {})},
        },
        source="test",
    )
    summary = run_scenario(asked, results_dir=tmp_path).summary
    assert summary["outcomes"]["attempted"] > 0
    assert summary["outcomes"]["silent_retries"] == 0
    assert not summary["foreign"]
    if summary["outcomes"]["ok"]:
        assert summary["rates"]["client_cpu_us_per_request"] > 0


def race(engine: str, results_dir: Path) -> dict[str, Any]:
    """Crawl with pauses as long as the sites' patience; return the summary."""
    pool = {"pool": {"size": 100}} if engine == "streams" else {}
    asked = {
        "name": "race",
        "web": {"sites": 3},
        "load": {"concurrency": 32, "duration_s": 2},
        "server": {"keepalive_timeout_s": 0.02},
        "client": {"engine": engine, "crawl": {"think_ms": 20}, **pool},
    }
    return run_scenario(build_scenario(asked, source="test"), results_dir=results_dir).summary


def resets(summary: dict[str, Any]) -> int:
    """Return how many requests met a closed connection, as the server's kernel counted them."""
    counters = summary["hosts"]["server"]["counters"]
    return sum(counters.get(f"TcpExtTCPAbortOn{what}", 0) for what in ("Close", "Data"))


@pytest.mark.namespaces
def test_library_that_repeats_what_met_a_closed_connection_is_found_out(tmp_path: Path) -> None:
    # a race is chance: there are dozens, and of few of them aiohttp tells
    for attempt in range(2):
        summary = race("aiohttp", tmp_path / f"{attempt}")
        silent, errors = (summary["outcomes"][key] for key in ("silent_retries", "errors"))
        assert silent + sum(errors.values()) >= resets(summary)
        if silent:
            return
    pytest.fail(f"no silent retry, and {resets(summary)} requests met a closed connection")


@pytest.mark.namespaces
@pytest.mark.parametrize("engine", ["httpx", "streams"])
def test_library_that_tells_of_each_closed_connection_repeats_nothing_in_silence(
    engine: str, tmp_path: Path
) -> None:
    assert race(engine, tmp_path)["outcomes"]["silent_retries"] == 0
