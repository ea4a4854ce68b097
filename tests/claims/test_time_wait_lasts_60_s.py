"""How long TIME_WAIT lasts: judged on findings as a kernel might give them."""

from typing import Any

import pytest

from twbench.claims.claim import Expected, Findings, Verdict
from twbench.claims.time_wait_lasts_60_s import CLAIM, PLAIN, SETTINGS


def finding(low_s: float, high_s: float | None, timer_s: float = 60.0) -> dict[str, Any]:
    return {"timer_s": [timer_s - 0.01, timer_s + 0.01], "lasted_s": [low_s, high_s]}


RIGHT = {
    **{name: finding(60.9, 61.2) for name in (*PLAIN, *SETTINGS)},
    "fin-wait-2": finding(5.1, 5.4, timer_s=5.0),
    "fin-wait-2-by-default": finding(60.2, 60.5),
    "none-allowed": {"seen": False},
}


def every(changed: dict[str, Any]) -> dict[str, Any]:
    return RIGHT | dict.fromkeys((*PLAIN, *SETTINGS), changed)


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        (RIGHT, Verdict.CONFIRMED),
        (every(finding(59.9, 60.1)), Verdict.CONFIRMED),
        (every(finding(67.3, 67.6)), Verdict.CONFIRMED),
        (every(finding(30.0, 30.3, timer_s=30.0)), Verdict.REFUTED),
        (every(finding(59.6, 59.8)), Verdict.REFUTED),
        (every(finding(67.6, 67.9)), Verdict.REFUTED),
        (every(finding(100.2, None, timer_s=240.0)), Verdict.REFUTED),
        (RIGHT | {"server-holds": finding(120.1, 120.4)}, Verdict.REFUTED),
        (RIGHT | {"ipv6": finding(60.9, 61.2, timer_s=61.0)}, Verdict.NUANCED),
        (RIGHT | {"fin-timeout": finding(5.1, 5.4)}, Verdict.NUANCED),
        (RIGHT | {"settings-before": finding(1.0, 1.3)}, Verdict.NUANCED),
        (RIGHT | {"settings-meanwhile": finding(0.0, 0.3)}, Verdict.NUANCED),
        (RIGHT | {"fin-wait-2": finding(60.2, 60.5)}, Verdict.INCONCLUSIVE),
        (RIGHT | {"fin-wait-2-by-default": finding(5.1, 5.4)}, Verdict.INCONCLUSIVE),
        (RIGHT | {"none-allowed": {"seen": True}}, Verdict.INCONCLUSIVE),
    ],
)
def test_lifetimes_are_judged(findings: Findings, verdict: Verdict) -> None:
    assert CLAIM.judge(findings, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("broken", "verdict"),
    [
        ({"lifetime_s": 30}, Verdict.REFUTED),
        ({"lifetime_s": 240}, Verdict.REFUTED),
        ({"at_least_s": 90}, Verdict.NUANCED),
        ({"at_most_s": 45}, Verdict.NUANCED),
        ({"late_share": 0}, Verdict.INCONCLUSIVE),
        ({"fin_timeout_s": 60}, Verdict.INCONCLUSIVE),
        ({"default_fin_timeout_s": 5}, Verdict.INCONCLUSIVE),
    ],
)
def test_another_expectation_changes_the_verdict(broken: Expected, verdict: Verdict) -> None:
    assert CLAIM.judge(RIGHT, {**CLAIM.expected, **broken}).verdict is verdict


def test_finding_names_the_setting_that_changed_something() -> None:
    shortened = RIGHT | {"fin-timeout": finding(5.1, 5.4)}
    assert "tcp_fin_timeout = 5, and" in CLAIM.judge(shortened, CLAIM.expected).finding
    assert "no sysctl changed that" in CLAIM.judge(RIGHT, CLAIM.expected).finding


def test_finding_asserts_nothing_that_was_not_found() -> None:
    told = CLAIM.judge(RIGHT, CLAIM.expected).finding
    assert "lasted 5.2 s with tcp_fin_timeout = 5, 60.4 s with its default" in told
    assert "with tcp_max_tw_buckets = 0 no TIME_WAIT was seen" in told
    other = {"fin-wait-2": finding(60.2, 60.5), "none-allowed": {"seen": True}}
    told = CLAIM.judge(RIGHT | other, CLAIM.expected).finding
    assert "lasted 60.4 s with tcp_fin_timeout = 5" in told
    assert "with tcp_max_tw_buckets = 0 a TIME_WAIT was seen" in told
