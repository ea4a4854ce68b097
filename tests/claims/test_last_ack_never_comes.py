"""LAST_ACK without end: judged on findings as a kernel might give them."""

from typing import Any

import pytest

from twbench.claims.claim import Expected, Verdict
from twbench.claims.last_ack_never_comes import CLAIM

PASSIVE = ["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"]


def gave_up(
    after_s: float, *, resets: int = 0, timed_out: int = 1, heard: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "sent_s": [0.0, 0.21, 0.42],
        "gone_s": after_s,
        "resets": resets,
        "states": PASSIVE,
        "application": list(heard),
        "server_counters": {"TcpExtTCPAbortOnTimeout": timed_out},
    }


HEARD = ("0 bytes: end of file", "ETIMEDOUT")
MEASURED = {
    "default": gave_up(106.8),
    "three-retries": gave_up(6.9),
    "held-open": gave_up(6.9, heard=HEARD),
    "keep-alive": {"gone_s": 2.3, "resets": 1, "application": ["ETIMEDOUT"]},
    "ack-comes": gave_up(0.0, timed_out=0),
}
RESETS = {
    "default": gave_up(106.8, resets=1),
    "three-retries": gave_up(6.9, resets=1),
    "held-open": gave_up(6.9, resets=1, heard=HEARD),
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.REFUTED),
        (RESETS, Verdict.CONFIRMED),
        (RESETS | {"default": gave_up(106.8)}, Verdict.REFUTED),
        (RESETS | {"default": gave_up(60.0, resets=1)}, Verdict.CONFIRMED),
        (RESETS | {"default": gave_up(60.0, resets=1) | {"sent_s": [0.0]}}, Verdict.NUANCED),
        (RESETS | {"default": gave_up(106.8, resets=1) | {"states": []}}, Verdict.NUANCED),
        ({"three-retries": gave_up(106.8)}, Verdict.INCONCLUSIVE),
        ({"ack-comes": gave_up(106.8)}, Verdict.INCONCLUSIVE),
        ({"keep-alive": {"resets": 0}}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "as-the-article-says",
        "only-some-reset",
        "at-another-time",
        "never-sent-again",
        "not-in-last-ack",
        "the-limit-changes-nothing",
        "an-ack-changes-nothing",
        "no-reset-is-ever-seen",
    ],
)
def test_endings_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({"resets": 0}, Verdict.CONFIRMED),
        ({"resets": 0, "fins_again": 3}, Verdict.NUANCED),
        ({"sooner_share": 0.01}, Verdict.INCONCLUSIVE),
    ],
)
def test_another_expectation_gives_another_verdict(differs: Expected, verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED, {**CLAIM.expected, **differs}).verdict is verdict


def test_finding_tells_how_often_how_long_and_in_what_way() -> None:
    told = CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert "3 FINs, given up after 106.8 s in silence" in told
    assert "ETIMEDOUT" in told


def test_finding_tells_of_a_reset_where_one_was_sent() -> None:
    told = CLAIM.judge(MEASURED | RESETS, CLAIM.expected).finding
    assert "with a RST" in told
    assert "in silence" not in told
