"""Whole runs over a wire: they balance as over a veth, and a bad network shows in the figures."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from twbench.model.endings import ENDINGS
from twbench.model.errors import ScenarioError
from twbench.model.parse import build_scenario
from twbench.model.scenario import Scenario
from twbench.record.reader import read_run
from twbench.run.carrying import CAPTURE
from twbench.run.course import Result, run_scenario

pytestmark = pytest.mark.namespaces

OPEN = {"mode": "open", "rate_per_s": 100, "duration_s": 1}
"""A hundred connections."""


def scenario(wire: dict[str, Any] | None = None, **tables: Any) -> Scenario:  # noqa: ANN401 - of a scenario
    lab = {"link": "wire", **tables.pop("lab", {})} | ({"wire": wire} if wire else {})
    return build_scenario({"name": "wire", "load": OPEN, "lab": lab, **tables}, source="test")


def ending(kind: str) -> dict[str, object]:
    """Return the tables of an ending; idle connections of the server wait for 0.2 s."""
    return {"ending": {"kind": kind}, "server": {"keepalive_timeout_s": 0.2}}


LARGE = {"server": {"response_bytes": 60_000}, "load": {**OPEN, "rate_per_s": 20}}
MANY = {
    **{kind: scenario({"delay_ms": 10}, **ending(kind)) for kind in ENDINGS},
    "no delay": scenario(),
    "ipv6": scenario(lab={"family": "ipv6"}),
    "two hosts": scenario(lab={"client": {"hosts": 2}}),
    "simultaneous, large": scenario({"delay_ms": 5}, ending={"kind": "simultaneous"}, **LARGE),
    "simultaneous, kept": scenario(
        ending={"kind": "simultaneous"},
        # one user, so that each connection carries its full number of requests
        load={"concurrency": 1, "duration_s": 20, "requests": 40},
        client={"pool": {"size": 1, "requests_per_connection": 5}},
    ),
    "rate": scenario({"rate_mbit_per_s": 20}, **LARGE),
    "loss": scenario({"loss": 0.05, "delay_ms": 5}),
    "duplication": scenario({"duplication": 0.3, "delay_ms": 5}),
    "rules": scenario({"rules": ["drop client→server SYN, twice in all"], "capture_packets": 50}),
}
MEDDLING = {"loss", "duplication", "rules"}
AT_ONCE = 4


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Result]]:
    """Return what waits for one of MANY."""
    folder = tmp_path_factory.mktemp("many")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begin = partial(run_scenario, results_dir=folder)
        runs: dict[str, Future[Result]] = {
            name: pool.submit(begin, asked) for name, asked in MANY.items()
        }
        yield lambda name: runs[name].result()


@pytest.mark.parametrize("name", [name for name in MANY if name not in MEDDLING])
def test_audit_balances_over_a_wire_that_only_carries(
    many: Callable[[str], Result], name: str
) -> None:
    summary = many(name).summary
    residuals = [each for each in summary["audit"]["identities"] if each["residual"]]
    assert residuals == []
    assert summary["audit"]["promised"]
    assert summary["ended_early"] == ""
    for side in ("client", "server"):
        assert summary["wire"][side]["seen"] == summary["wire"][side]["delivered"] > 0


@pytest.mark.parametrize("name", MEDDLING)
def test_audit_of_a_wire_that_meddles_is_shown_and_not_promised(
    many: Callable[[str], Result], name: str
) -> None:
    summary = many(name).summary
    assert (summary["audit"]["promised"], summary["audit"]["balanced"]) == (False, True)
    assert len(summary["audit"]["identities"]) > 10
    assert any(warning.startswith("the wire meddled") for warning in summary["warnings"])


@pytest.mark.parametrize("kind", ENDINGS)
def test_each_ending_leaves_time_wait_on_the_sides_it_says(
    many: Callable[[str], Result], kind: str
) -> None:
    summary = many(kind).summary
    attempted = summary["outcomes"]["attempted"]
    for side in ("client", "server"):
        entries = summary["hosts"][side]["counters"].get("TcpExtTW", 0)
        begun = summary["hosts"]["client"]["counters"]["TcpActiveOpens"]
        assert entries == (begun if side in ENDINGS[kind].time_wait else 0)
    assert attempted == 100


@pytest.mark.parametrize(
    "name", ["simultaneous", "simultaneous, large", "simultaneous, kept"]
)  # fmt: skip
def test_crossing_closes_leave_time_wait_on_both_sides(
    many: Callable[[str], Result], name: str
) -> None:
    summary = many(name).summary
    opened = summary["hosts"]["client"]["counters"]["TcpActiveOpens"]
    departures = summary["outcomes"]["departures"]
    assert departures["client"] == departures["server"] == {"active_close": opened}
    assert {host["counters"]["TcpExtTW"] for host in summary["hosts"].values()} == {opened}
    assert summary["wire"]["client"]["held"] + summary["wire"]["server"]["held"] >= opened
    assert summary["outcomes"]["errors"] == summary["outcomes"]["connection_errors"] == {}


def test_delay_shows_in_the_latencies(many: Callable[[str], Result]) -> None:
    latency = many("client-fin").summary["latency_ms"]
    assert latency["connect"]["p50"] >= 20
    assert latency["request"]["p50"] >= 40


def test_rate_bounds_what_arrives(many: Callable[[str], Result]) -> None:
    summary = many("rate").summary
    assert summary["outcomes"]["ok"] == 20
    # one answer alone takes 24 ms at 20 Mbit/s
    assert summary["latency_ms"]["request"]["p50"] >= 24


def test_lost_packets_are_sent_again_and_told(many: Callable[[str], Result]) -> None:
    summary = many("loss").summary
    lost = sum(summary["wire"][side]["lost"] for side in ("client", "server"))
    assert lost > 0
    assert any(f"lost: {lost}" in warning for warning in summary["warnings"])
    assert sum(host["counters"].get("TcpRetransSegs", 0) for host in summary["hosts"].values()) > 0
    assert summary["outcomes"]["ok"] > 90


def test_packets_that_come_twice_are_explained_to_the_last_reset(
    many: Callable[[str], Result],
) -> None:
    summary = many("duplication").summary
    assert summary["hosts"]["server"]["counters"]["TcpOutRsts"] > 0
    [resets] = [
        each
        for each in summary["audit"]["identities"]
        if each["name"] == "server: TcpOutRsts = active resets"
    ]
    assert resets["residual"] == 0
    assert "packets that met no socket" in resets["explained"]


def test_dropped_syns_cost_a_second_and_are_marked_in_the_capture(
    many: Callable[[str], Result],
) -> None:
    result = many("rules")
    assert result.summary["wire"]["rules"] == {"drop client→server SYN, twice in all": 2}
    assert result.summary["latency_ms"]["connect"]["max"] >= 900
    assert result.summary["wire"]["captured"] == 50
    assert (result.path / CAPTURE).read_bytes().count(b"rule: drop client") == 2


def test_carriers_reports_are_among_the_outcomes(many: Callable[[str], Result]) -> None:
    result = many("no delay")
    lines = [line for line in read_run(result.path).outcomes if line["host"] == "wire"]
    seen = sum(line["client"]["seen"] for line in lines if "client" in line)
    assert seen == result.summary["wire"]["client"]["seen"]
    assert result.summary["environment"]["engines"]["wire"] == {"engine": "carrier"}


def test_no_capture_is_kept_where_none_is_asked_for(tmp_path: Path) -> None:
    asked = scenario({"capture_packets": 0}, load={**OPEN, "duration_s": 0.2})
    result = run_scenario(asked, results_dir=tmp_path)
    assert not (result.path / CAPTURE).exists()
    assert result.summary["wire"]["captured"] == 0


def test_wrong_rule_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ScenarioError, match=r"lab\.wire\.rules\.0: found 'nothing' in 'drop nothing'"
    ):
        run_scenario(scenario({"rules": ["drop nothing"]}), results_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
