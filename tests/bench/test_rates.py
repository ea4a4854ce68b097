"""Memory is told by a fixed bound, and by nothing when the noise is larger."""

import json

import pytest

from bench.parts.figures import MET, MISSED, VOID
from bench.parts.loads import Carried
from bench.rates import growth_of, readings


def watched(kib_per_s: float, per_s: int) -> Carried:
    lines = [
        json.dumps({"t_ns": s * 10**9, "rss_kib": 50_000 + kib_per_s * s, "descriptors": 9})
        for s in range(31)
    ]
    return Carried(
        exchanges=30 * per_s,
        failed=0,
        elapsed_s=30,
        client_cpu_s=30,
        server_cpu_s=10,
        server_first=0,
        p99_ms=None,
        history=[(s * 10**9, s * per_s) for s in range(31)],
        errors=lines,
    )


@pytest.mark.parametrize(
    ("kib_per_s", "per_s", "verdict"),
    [(5, 10_000, MET), (20, 10_000, MISSED), (5, 1_000, VOID)],
)
def test_growth_is_judged_unless_the_noise_is_larger_than_the_bound(
    kib_per_s: float, per_s: int, verdict: str
) -> None:
    (row,) = (row for row in growth_of("a", watched(kib_per_s, per_s)) if row.verdict)
    assert row.verdict == verdict
    assert row.median == pytest.approx(1000 * kib_per_s / per_s)


def test_warning_among_the_readings_is_left_out() -> None:
    assert readings(["x.py:1: DeprecationWarning: old\n", '{"t_ns": 1}\n']) == [{"t_ns": 1}]
