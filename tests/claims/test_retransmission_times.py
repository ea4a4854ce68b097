"""Retransmission times: judged on findings as a kernel might give them."""

from typing import Any

import pytest

from twbench.claims.claim import Expected, Verdict
from twbench.claims.retransmission_times import CLAIM

LINUX = [0.207, 0.212, 0.424, 0.832, 1.664, 3.392, 6.656, 13.312, 26.624]
ARTICLE = [0.5, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
SYN = [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 4.1, 8.2, 16.1, 32.5]


def lost(waits_s: list[float], *, heard: str = "ETIMEDOUT") -> dict[str, Any]:
    return {"waits_s": waits_s, "gone_s": 106.8, "resets": 0, "heard": heard}


def late(
    answer: str = "RST", *, on_the_wire_s: float = 8.0, in_time: str = "ACK"
) -> dict[str, Any]:
    return {
        "fin_sent_s": 53.0,
        "on_the_wire_s": on_the_wire_s,
        "answer": answer,
        "answer_in_time": in_time,
        "kept_back": 8,
    }


MEASURED = {
    "fin": lost(LINUX, heard=""),
    "data": lost(LINUX),
    "syn": lost(SYN),
    "syn-ack": lost([1.0, 2.0, 4.1, 8.2, 16.1], heard="ECONNRESET"),
    "late-fin": late(),
    "acknowledged": {"counters": {"TcpRetransSegs": 0}},
}
AS_TAUGHT = {
    **{name: lost(ARTICLE) for name in ("fin", "data", "syn", "syn-ack")},
    "late-fin": late("ACK"),
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.REFUTED),
        (AS_TAUGHT, Verdict.CONFIRMED),
        (AS_TAUGHT | {"late-fin": late()}, Verdict.NUANCED),
        (AS_TAUGHT | {"late-fin": late(on_the_wire_s=31.0)}, Verdict.CONFIRMED),
        (AS_TAUGHT | {"syn": lost(SYN)}, Verdict.NUANCED),
        (AS_TAUGHT | {"fin": lost([0.5, 1.0, 4.0, 16.0])}, Verdict.NUANCED),
        (AS_TAUGHT | {"fin": lost([0.5, 0.5, 1.0, 2.0])}, Verdict.REFUTED),
        (AS_TAUGHT | {"fin": lost([0.5])}, Verdict.REFUTED),
        ({"acknowledged": {"counters": {"TcpRetransSegs": 1}}}, Verdict.INCONCLUSIVE),
        ({"late-fin": late(in_time="RST")}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "as-the-article-says",
        "a-fin-comes-too-late",
        "that-fin-outlived-an-msl",
        "a-syn-waits-otherwise",
        "waits-do-not-double",
        "waits-end-too-soon",
        "only-sent-again-once",
        "sent-again-for-nothing",
        "no-ack-from-time-wait",
    ],
)
def test_times_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("findings", "differs", "verdict"),
    [
        (MEASURED, {"first_s": 0.2, "longest_s": 27}, Verdict.NUANCED),
        (AS_TAUGHT, {"first_s": 0.2}, Verdict.REFUTED),
        (AS_TAUGHT, {"longest_s": 27}, Verdict.REFUTED),
        (AS_TAUGHT, {"factor": 3}, Verdict.NUANCED),
        (AS_TAUGHT | {"late-fin": late()}, {"msl_s": 5}, Verdict.CONFIRMED),
        (MEASURED, {"first_s": 0.2, "longest_s": 27, "slack_part": 0.001}, Verdict.REFUTED),
    ],
)
def test_another_expectation_gives_another_verdict(
    findings: dict[str, Any], differs: Expected, verdict: Verdict
) -> None:
    judged = CLAIM.judge(MEASURED | findings, {**CLAIM.expected, **differs})
    assert judged.verdict is verdict


def test_finding_tells_every_wait_and_how_it_ended() -> None:
    told = CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert "FIN 0.21, 0.21, 0.42, 0.83, 1.7, 3.4, 6.7, 13.3, 26.6, over at 107 s" in told
    assert "no RST, nobody to tell" in told
    assert "ECONNRESET" in told


def test_finding_tells_what_met_the_late_fin_and_that_others_were_held() -> None:
    told = CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert "was answered RST; but 8 FINs before it had to be held" in told
    told = CLAIM.judge(MEASURED | {"late-fin": late("ACK")}, CLAIM.expected).finding
    assert "was answered ACK" in told
