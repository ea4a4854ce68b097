"""What restarts TIME_WAIT: judged on findings as a kernel might give them, and played for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Findings, Verdict
from twbench.claims.runner import run
from twbench.claims.what_restarts_time_wait import (
    CLAIM,
    CONTROLS,
    ENDS,
    LEAVES,
    PROBES,
    RESTARTS,
    effect_of,
)

BEFORE_S, BETWEEN_S = 57.5, 0.02
AFTER_S = {RESTARTS: 60.0, LEAVES: BEFORE_S - BETWEEN_S, ENDS: 0.0}


def finding(effect: str, *, answered: bool = False) -> dict[str, Any]:
    return {
        "state": "CLOSED" if effect == ENDS else "TIME_WAIT",
        "before_s": BEFORE_S,
        "after_s": AFTER_S[effect],
        "between_s": BETWEEN_S,
        "replies": ["ACK"] * answered,
    }


RIGHT = {
    "retransmitted-fin": finding(RESTARTS, answered=True),
    "no-packet": finding(LEAVES),
    **{
        probe.name: finding(probe.effect, answered=probe.answered) for probe in (*PROBES, *CONTROLS)
    },
}


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        (RIGHT, Verdict.CONFIRMED),
        (RIGHT | {"retransmitted-fin": finding(LEAVES, answered=True)}, Verdict.REFUTED),
        (RIGHT | {"retransmitted-fin": finding(ENDS)}, Verdict.REFUTED),
        (RIGHT | {"old-data": finding(LEAVES, answered=True)}, Verdict.NUANCED),
        (RIGHT | {"old-syn": finding(LEAVES)}, Verdict.NUANCED),
        (RIGHT | {"no-packet": finding(RESTARTS)}, Verdict.INCONCLUSIVE),
        (RIGHT | {"rst-rfc1337": finding(ENDS)}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-taught",
        "the-fin-leaves-it",
        "the-fin-ends-it",
        "old-data-leave-it",
        "an-answer-is-missing",
        "it-restarts-by-itself",
        "a-guard-fails",
    ],
)
def test_restarts_are_judged(findings: Findings, verdict: Verdict) -> None:
    assert CLAIM.judge(findings, CLAIM.expected).verdict is verdict


def test_another_expectation_changes_the_verdict() -> None:
    broken = {**CLAIM.expected, "lifetime_s": 30}
    assert CLAIM.judge(RIGHT, broken).verdict is Verdict.REFUTED


@pytest.mark.parametrize(
    ("after_s", "between_s", "effect"),
    [
        (60.0, 0.0, RESTARTS),
        (58.7, 1.4, RESTARTS),
        (57.5, 0.0, LEAVES),
        (56.1, 1.4, LEAVES),
        (58.5, 0.1, "sets to 58.50 s"),
        (55.0, 0.1, "sets to 55.00 s"),
        (240.0, 0.1, "sets to 240.00 s"),
    ],
)
def test_effect_is_told_however_late_the_second_look_came(
    after_s: float, between_s: float, effect: str
) -> None:
    seen = {"state": "TIME_WAIT", "before_s": 57.5, "after_s": after_s, "between_s": between_s}
    assert effect_of(seen, CLAIM.expected) == effect


def test_finding_follows_what_each_packet_did() -> None:
    told = CLAIM.judge(RIGHT, CLAIM.expected).finding
    assert "these end TIME_WAIT: a RST in place, a RST with ACK in place" in told
    other = {"retransmitted-fin": finding(ENDS), "rst": finding(LEAVES)}
    told = CLAIM.judge(RIGHT | other, CLAIM.expected).finding
    assert "the retransmitted FIN: 57.50 s left, then CLOSED" in told
    assert "these end TIME_WAIT: a RST with ACK in place" in told


@pytest.mark.namespaces
def test_this_kernel_restarts_the_timer_for_a_retransmitted_fin(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    assert result.judgement.verdict is Verdict.CONFIRMED, result.judgement
    for played in result.played:
        left = {path.name for path in played.take.folder(tmp_path).iterdir()}
        assert left >= {"finding.json", "ladder.txt", "ladder.svg", "capture.pcapng"}
