"""A comparison as a person reads it."""

from typing import Any

import pytest

from twbench.compare.document import Played, build_document
from twbench.model.contest import parse_contest
from twbench.report.comparison import contest_text

DRIFT = (1.0, 1.02, 0.98, 1.01, 0.99)
RACE = "read:EOF:keepalive_race"


def summary(pages_per_s: float, **outcomes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    return {
        "rates": {
            "requests_per_s": pages_per_s,
            "client_cpu_us_per_request": 1e5 / pages_per_s,
            "connections_per_request": 1.0,
        },
        "latency_ms": {"request_from_intended": {"p50": 2.0, "p99": 9.0}},
        "outcomes": {"attempted": 1000, "ok": 1000, "retried": 0, "errors": {}} | outcomes,
        "hosts": {
            "client": {
                "time_wait": {"peak": 950, "steady": 400},
                "ports": {"in_use_peak": 951, "capacity": 28_232},
            },
            "server": {"time_wait": {"peak": 7, "steady": 5}},
        },
        "ended_early": "",
        "audit": {"balanced": True},
        "thresholds": [],
        "environment": {"kernel": "6.18", "engines": {"fleet": {"engine": "streams"}}},
    }


def document_of(
    *, rounds: int = 5, baseline: str = "", time_wait: int = 0, ended_early: str = ""
) -> dict[str, Any]:
    """Return a comparison of 'fast' and its like, and of 'slow', which fails at times."""
    text = 'name = "told"\ndescription = "made up"\n[load]\nconcurrency = 1\nduration_s = 1\n'
    text += f"[compare]\nrepeats = 5\n{baseline}\n"
    text += '[[contestant]]\nname = "slow"\ndescription = "the slow one"\n'
    text += '[[contestant]]\nname = "fast"\npreset = "go-like"\n[[contestant]]\nname = "like"\n'
    slow = {"errors": {RACE: 30}, "silent_retries": 4, "retried": 9}
    played = [
        Played(
            round=number,
            contestant=name,
            run_id=f"{name}-{number}",
            time_wait_first={"client": time_wait},
            summary=summary(rate * drift, **outcomes),
        )
        for number, drift in enumerate(DRIFT[:rounds], start=1)
        for name, rate, outcomes in (
            ("slow", 500.0, slow),
            ("fast", 1010.0, {}),
            ("like", 1000.0, {}),
        )
    ]
    contest = parse_contest(text, source="test")
    return build_document(contest, played, ended_early=ended_early)


def row(text: str, name: str, *, table: int = 0) -> list[str]:
    """Return the cells of a contestant's row in one of the tables."""
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in text.splitlines()
        if line.startswith("│")
    ]
    return [cells for cells in rows if cells[0] == name][table]


def test_contestants_are_ranked_and_held_against_the_first() -> None:
    text = contest_text(document_of())
    assert text.startswith("told   3 contestants, 5 of 5 rounds\nmade up\n")
    order = [text.index(f"│ {name} ") for name in ("fast", "like", "slow")]
    assert order == sorted(order)
    assert row(text, "fast")[:4] == ["fast", "1,010", "990 … 1,030", "first"]
    assert row(text, "like")[3].startswith("less than 2% from fast (-1.")
    assert row(text, "slow")[3].startswith("-50.5% (")


def test_best_is_marked_only_where_it_is_best() -> None:
    text = contest_text(document_of())
    assert "*" not in "".join(row(text, "fast") + row(text, "slow"))
    alone = document_of()
    alone["best"]["pages_per_s"] = "fast"
    text = contest_text(alone)
    assert row(text, "fast")[1] == "1,010*"
    assert row(text, "fast")[3] == "best"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.03, 0.01, "no difference shown (-3.0% … +1.0%)"),
        (-0.019, -0.001, "less than 2% from fast (-1.9% … -0.1%)"),
        (0.001, 0.03, "less than 2% from fast (+0.1% … +3.0%)"),
    ],
)
def test_difference_that_is_known_to_be_small_is_not_called_unknown(
    low: float, high: float, said: str
) -> None:
    made = document_of()
    like = next(each for each in made["contestants"] if each["name"] == "like")
    like["against_reference"]["pages_per_s"] |= {"low": low, "high": high}
    assert row(contest_text(made), "like")[3] == said


def test_contestant_without_a_page_is_told_from_one_of_too_few_rounds() -> None:
    made = document_of()
    slow = next(each for each in made["contestants"] if each["name"] == "slow")
    slow["against_reference"]["pages_per_s"] |= {"low": None, "high": None, "shown": False}
    assert row(contest_text(made), "slow")[3] == "not compared: too few rounds"
    slow["figures"]["pages_per_s"]["values"] = [0.0, None, 0.0, 0.0, 0.0]
    assert row(contest_text(made), "slow")[3] == "not compared: slow answered no page"
    slow["figures"]["pages_per_s"]["values"] = [None] * 5
    assert row(contest_text(made), "slow")[3] == "not compared: too few rounds"


def test_interval_that_says_nothing_is_not_told() -> None:
    made = document_of()
    for each in made["contestants"]:
        if each["name"] == "like":
            each["against_reference"]["pages_per_s"] |= {"low": -1.0, "high": 749_719.0}
    assert row(contest_text(made), "like")[3] == "no difference shown (more rounds tell more)"


def test_others_are_held_against_the_baseline() -> None:
    text = contest_text(document_of(baseline='baseline = "slow"'))
    assert "against slow" in text
    assert row(text, "slow")[3] == "baseline"
    assert row(text, "fast")[3].startswith("x2.02 (")


def test_costs_and_outcomes_have_a_row_each_with_the_errors_by_kind() -> None:
    text = contest_text(document_of())
    assert row(text, "slow", table=1) == ["slow", "1.000", "950 (400)", "7 (5)", "951 of 28,232"]
    assert row(text, "slow", table=2) == [
        *("slow", "5,000", "150", "45", "20", "5 of 5"),
        f"150 {RACE}",
    ]
    assert row(text, "fast", table=2)[-1] == "none"


def test_time_wait_of_loads_too_short_to_be_steady_is_its_peak_alone() -> None:
    made = document_of()
    steady = [f"time_wait_steady.{host}" for host in ("client", "server")]
    for each in made["contestants"]:
        for key in steady:
            each["figures"][key]["median"] = None
    text = contest_text(made)
    assert row(text, "slow", table=1)[2:4] == ["950", "7"]
    assert "steady" not in text
    # of one that is known the others say that theirs is not
    made["contestants"][0]["figures"][steady[0]]["median"] = 400
    text = contest_text(made)
    name = made["contestants"][0]["name"]
    assert row(text, name, table=1)[2:4] == ["950 (400)", "7 (-)"]


def test_what_is_special_about_each_and_the_advice_are_told() -> None:
    text = contest_text(document_of())
    assert "the slow one" in text
    assert "client.pool.idle_per_site = 2" in text.replace("\n", "")
    assert 'client.engine = "streams"' in text
    assert "\n- 'fast' and 'like' differ by less than 2%" in text
    assert "\n- 'slow': 150 of 5,000 attempts failed (3%)" in text


def test_what_a_contestant_leaves_unset_is_said() -> None:
    made = document_of()
    made["contestants"][0]["differs"] = {"client.pool.idle": None}
    assert "client.pool.idle = unset" in contest_text(made)


def test_lines_end_where_their_text_ends_and_fit_a_page() -> None:
    lines = contest_text(document_of()).splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert max(map(len, lines)) <= 120


def test_who_failed_more_often_is_told_beside_what_the_stars_mean() -> None:
    text = " ".join(contest_text(document_of()).split())
    assert "! slow: more than 0.1% of the attempts failed, and more than elsewhere" in text
    made = document_of()
    made["failing"] = []
    assert "of the attempts failed, and" not in contest_text(made)


def test_attempts_that_the_end_cut_off_are_no_failures() -> None:
    made = document_of()
    slow = next(each for each in made["contestants"] if each["name"] == "slow")
    slow["totals"]["errors"]["read:CANCELLED:run_ended"] = 7
    text = contest_text(made)
    assert row(text, "slow", table=2)[2] == "150"
    assert "7 read:CANCELLED:run_ended" in text


def test_runs_that_are_not_in_the_figures_are_counted() -> None:
    made = document_of()
    assert "not in the figures" not in contest_text(made)
    made["left_out"] = ["slow-2", "fast-2", "like-2"]
    assert "! 3 runs are not in the figures: of rounds that were not" in contest_text(made)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({}, "Every run began on hosts without TIME_WAIT"),
        ({"time_wait": 3}, "slow-1 did not begin on clean hosts: 3 in TIME_WAIT on client"),
        ({"rounds": 2}, "fewer than 3 rounds show no intervals and no differences"),
        ({"rounds": 5}, "hold the true one in 94% of cases"),
        ({"ended_early": "interrupted after 9 of 15 runs"}, "ended early: interrupted after 9"),
    ],
)
def test_how_the_figures_came_about_is_told(named: dict[str, Any], said: str) -> None:
    assert said in contest_text(document_of(**named)).replace("\n", " ").replace("  ", " ")


def test_comparison_of_no_round_has_its_reason_and_no_table() -> None:
    text = contest_text(document_of(rounds=0, ended_early="interrupted after 0 of 15 runs"))
    assert "│" not in text
    assert "interrupted after 0 of 15 runs" in text


def test_run_that_does_not_balance_stands_out() -> None:
    made = document_of()
    made["contestants"][0]["sound"] = 4
    assert row(contest_text(made), "slow", table=2)[5] == "4 of 5"
