"""Memory of TIME_WAITs: the slope, the judge on findings as a kernel might give them, and live."""

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.claims.claim import Verdict
from twbench.claims.runner import run
from twbench.claims.time_wait_costs_memory import CLAIM, Point, is_steady, slope


def closes(time_wait_bytes: float, after_reset_bytes: float = 2.0) -> dict[str, Any]:
    return {
        "time_waits": 40_000,
        "time_wait_bytes": time_wait_bytes,
        "after_reset_bytes": after_reset_bytes,
    }


MEASURED = {
    "client-closes-first": closes(528.4),
    "server-closes-first": closes(262.0),
    "open-connections": {"connections": 400, "end_bytes": 4022.3},
    "one-fin": {"client_time_waits": 1, "server_time_waits": 0},
    "one-rst": {"client_time_waits": 0, "server_time_waits": 0},
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.NUANCED),
        ({"open-connections": {"end_bytes": 1000.0}}, Verdict.CONFIRMED),
        ({"client-closes-first": closes(3.0)}, Verdict.REFUTED),
        ({"server-closes-first": closes(-4.0)}, Verdict.REFUTED),
        ({"client-closes-first": closes(528.4, 300.0)}, Verdict.INCONCLUSIVE),
        ({"one-rst": {"client_time_waits": 1}}, Verdict.INCONCLUSIVE),
    ],
    ids=["as-on-linux", "heavy", "none-on-client", "none-on-server", "noise", "reset-leaves-one"],
)
def test_weights_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("expected", "verdict"),
    [
        ({"nothing_bytes": 600}, Verdict.REFUTED),
        ({"little_share": 0.1}, Verdict.CONFIRMED),
        ({"little_share": 0.1, "client_bytes": 256}, Verdict.NUANCED),
    ],
)
def test_other_expectation_gives_another_verdict(
    expected: dict[str, float], verdict: Verdict
) -> None:
    assert CLAIM.judge(MEASURED, {**CLAIM.expected, **expected}).verdict is verdict


@given(
    st.integers(-1000, 1000),
    st.integers(0, 10**9),
    st.lists(st.integers(-(10**9), 10**9), max_size=3),
)
def test_slope_is_that_of_the_line_whatever_a_few_points_do(
    per_connection: int, start: int, jumps: list[int]
) -> None:
    points: list[Point] = [(n, start + per_connection * n) for n in range(1, 41)]
    for place, jump in enumerate(jumps):
        count, value = points[place * 13]
        points[place * 13] = (count, value + jump)
    assert slope(points) == per_connection


def test_points_that_bend_are_not_steady() -> None:
    straight = [(n, 500 * n) for n in range(20)]
    bent = [(n, 500 * n + (0 if n < 10 else 200 * (n - 10))) for n in range(20)]
    assert is_steady(straight, 60)
    assert not is_steady(bent, 60)


@pytest.mark.namespaces
@pytest.mark.slow
def test_time_waits_weigh_a_few_hundred_bytes_on_this_kernel(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    verdict = result.judgement.verdict
    restless = verdict is Verdict.INCONCLUSIVE and "memory too much" in result.judgement.finding
    assert verdict is Verdict.NUANCED or restless, result.judgement
    for name in ("one-fin", "one-rst"):
        assert (tmp_path / CLAIM.id / name / "capture.pcapng").stat().st_size
