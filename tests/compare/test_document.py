"""compare.json: what is in it, and which runs are."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from twbench.compare.document import Played, build_document
from twbench.model.contest import Contest

Make = Callable[..., Any]
TWO = {"a": "", "b": "client.pool.size = 8"}


@pytest.fixture
def two(contest: Make) -> Contest:
    made: Contest = contest(TWO)
    return made


def row(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in document["contestants"] if each["name"] == name)


def test_figures_are_medians_with_intervals_and_every_round(
    two: Contest, summary: Make, played: Make
) -> None:
    rates = [900.0, 1100.0, 1000.0, 950.0, 1050.0]
    runs = played(
        two,
        {
            "a": [summary(pages_per_s=rate) for rate in rates],
            "b": [summary(pages_per_s=2 * rate, time_wait=(3, 40)) for rate in rates],
        },
    )
    document = build_document(two, runs)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert row(document, "a")["figures"]["pages_per_s"] == {
        "median": 1000.0,
        "low": 900.0,
        "high": 1100.0,
        "values": rates,
    }
    assert row(document, "b")["figures"]["time_wait_peak.server"]["median"] == 40
    assert row(document, "b")["figures"]["time_wait_steady.client"]["median"] == 1.5
    assert row(document, "b")["differs"] == {"client.pool.size": 8}
    assert row(document, "b")["runs"] == [f"b-{n}" for n in range(1, 6)]
    assert row(document, "a")["totals"]["attempted"] == 5000
    assert document["ranking"] == ["b", "a"]
    assert document["reference"] == "b"
    assert document["best"]["pages_per_s"] == "b"
    assert document["best"]["client_cpu_us_per_page"] is None
    against = row(document, "a")["against_reference"]["pages_per_s"]
    assert (against["name"], against["other"], against["change"]) == ("a", "b", -0.5)
    assert against["shown"]
    assert document["gate"]["clean"]
    assert document["environment"] == {"kernel": "6.18", "cpus": 2}
    assert (document["rounds"], document["left_out"], document["ended_early"]) == (5, [], "")


def test_all_are_held_against_the_baseline_where_there_is_one(
    contest: Make, summary: Make, played: Make
) -> None:
    made = contest(TWO, more='baseline = "a"')
    runs = played(made, {"a": [summary()] * 5, "b": [summary(pages_per_s=3000)] * 5})
    document = build_document(made, runs)
    assert document["reference"] == "a"
    assert row(document, "b")["against_reference"]["pages_per_s"]["change"] == 2.0
    assert row(document, "a")["against_reference"] == {}


def test_round_that_was_not_finished_is_left_out_and_named(
    two: Contest, summary: Make, played: Make
) -> None:
    runs = played(two, {"a": [summary()] * 4, "b": [summary()] * 3})
    document = build_document(two, runs, ended_early="interrupted after 7 of 10 runs")
    assert (document["rounds"], document["repeats"]) == (3, 5)
    assert document["left_out"] == ["a-4"]
    assert row(document, "a")["runs"] == ["a-1", "a-2", "a-3"]
    assert "a-4" in document["gate"]["time_wait_first"]


def test_comparison_that_was_ended_in_its_first_round_compares_nothing(
    two: Contest, summary: Make, played: Make
) -> None:
    begun: list[Played] = played(two, {"a": [summary()]})
    for runs in (begun[:0], begun):
        document = build_document(two, runs, ended_early="interrupted")
        assert (document["rounds"], document["ranking"], document["advice"]) == (0, [], [])
        assert document["differences"] == {}
        assert row(document, "a")["figures"] == {}
        json.dumps(document, allow_nan=False)


def test_what_a_run_that_broke_off_measured_is_no_figure(
    two: Contest, summary: Make, played: Make
) -> None:
    broken = summary(pages_per_s=1, ended_early="fleet worker 1 ended")
    runs = played(two, {"a": [summary(), broken, *[summary()] * 3], "b": [summary()] * 5})
    figures = row(build_document(two, runs), "a")
    assert figures["figures"]["pages_per_s"]["values"][1] is None
    assert figures["figures"]["pages_per_s"]["median"] == 1000
    assert figures["sound"] == 4


def test_audit_that_does_not_balance_and_a_missed_threshold_are_counted(
    two: Contest, summary: Make, played: Make
) -> None:
    missed = summary() | {"thresholds": [{"ok": True}, {"ok": False}]}
    runs = played(two, {"a": [summary(balanced=False), *[missed] * 4], "b": [summary()] * 5})
    document = build_document(two, runs)
    assert (row(document, "a")["sound"], row(document, "a")["thresholds_missed"]) == (4, 4)
    assert (row(document, "b")["sound"], row(document, "b")["thresholds_missed"]) == (5, 0)


@pytest.mark.parametrize("first", [{"client": 3, "server": 0}, {}])
def test_gate_tells_of_time_wait_at_the_start_and_of_hosts_that_nobody_saw(
    two: Contest, summary: Make, played: Make, first: dict[str, int]
) -> None:
    runs: list[Played] = played(two, {"a": [summary()] * 5, "b": [summary()] * 5})
    runs[3] = replace(runs[3], time_wait_first=first)
    document = build_document(two, runs)
    assert not document["gate"]["clean"]
    assert document["gate"]["time_wait_first"][runs[3].run_id] == first
    assert not runs[3].sound


@pytest.mark.parametrize("first", [{"client": 3, "server": 0}, {}])
def test_round_in_which_one_began_on_unclean_hosts_is_left_out_for_all(
    two: Contest, summary: Make, played: Make, first: dict[str, int]
) -> None:
    rates = [1000.0, 5.0, 1020.0, 980.0, 1010.0]
    runs: list[Played] = played(
        two, {name: [summary(pages_per_s=rate) for rate in rates] for name in "ab"}
    )
    runs[3] = replace(runs[3], time_wait_first=first)
    document = build_document(two, runs)
    assert (document["rounds"], document["left_out"]) == (4, ["a-2", "b-2"])
    assert document["gate"]["rounds_left_out"] == [2]
    for name in "ab":
        assert row(document, name)["figures"]["pages_per_s"]["values"] == [
            *(1000.0, 1020.0, 980.0, 1010.0)
        ]
        assert row(document, name)["sound"] == 4


def test_who_fails_more_often_than_others_is_best_in_pages_alone(
    two: Contest, summary: Make, played: Make
) -> None:
    def document_of(failed: int, failed_too: int = 0) -> dict[str, Any]:
        lost, lost_too = ({"read:ECONNRESET:reset": n} for n in (failed, failed_too))
        quick = summary(pages_per_s=2000, p50_ms=0.1, p99_ms=0.2, cpu_us=10, errors=lost)
        runs = played(two, {"a": [quick] * 5, "b": [summary(errors=lost_too)] * 5})
        return build_document(two, runs)

    seldom = document_of(1)
    assert seldom["failing"] == []
    assert set(seldom["best"].values()) == {"a"}
    often = document_of(2)
    assert often["failing"] == ["a"]
    assert often["best"].pop("pages_per_s") == "a"
    assert set(often["best"].values()) == {None}
    assert document_of(2, 2)["failing"] == []
    assert row(often, "a")["totals"]["failed"] == 10


def test_attempts_that_the_end_cut_off_are_no_failures(
    two: Contest, summary: Make, played: Make
) -> None:
    cut = summary(errors={"read:CANCELLED:run_ended": 50, "read:EOF:keepalive_race": 1})
    document = build_document(two, played(two, {"a": [cut] * 5, "b": [summary()] * 5}))
    assert row(document, "a")["totals"]["failed"] == 5
    assert document["failing"] == []


def test_error_chance_is_that_of_all_judged_figures_together(
    two: Contest, summary: Make, played: Make
) -> None:
    runs = played(two, {"a": [summary()] * 5, "b": [summary(pages_per_s=2000)] * 5})
    document = build_document(two, runs)
    level = document["method"]["level"]
    [pair] = document["differences"]["pages_per_s"]
    assert pair["confidence"] == pytest.approx(1 - level / len(document["differences"]))
    assert len(document["differences"]) == 4


def test_sysctls_are_those_that_each_contestant_s_hosts_had(
    two: Contest, summary: Make, played: Make
) -> None:
    def found(reuse: str) -> dict[str, Any]:
        made: dict[str, Any] = summary()
        before = {"net.ipv4.tcp_tw_reuse": reuse}
        made["environment"]["sysctls"] = {"client": {"before": before, "after": {}}}
        return made

    runs = played(two, {"a": [found("2")] * 5, "b": [found("1")] * 5})
    document = build_document(two, runs)
    assert row(document, "a")["sysctls"] == {"client": {"net.ipv4.tcp_tw_reuse": "2"}}
    assert row(document, "b")["sysctls"] == {"client": {"net.ipv4.tcp_tw_reuse": "1"}}


def test_contestant_that_fetched_no_page_is_last_and_compared_with_nobody(
    two: Contest, summary: Make, played: Make
) -> None:
    nothing = summary(pages_per_s=0.0, per_page=None) | {
        "latency_ms": {"request_from_intended": None}
    }
    document = build_document(two, played(two, {"a": [nothing] * 5, "b": [summary()] * 5}))
    assert document["ranking"] == ["b", "a"]
    assert document["best"]["pages_per_s"] is None
    assert not row(document, "a")["against_reference"]["pages_per_s"]["shown"]
    assert row(document, "a")["figures"]["latency_p50_ms"]["median"] is None
