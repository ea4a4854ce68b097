"""The lost last ACK: judged on findings as a kernel might give them, and played for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Verdict
from twbench.claims.lost_last_ack import CLAIM
from twbench.claims.runner import run

END, RESET, PIPE = "0 bytes: end of file", "ECONNRESET", "EPIPE"


def ending(answer: str, *heard: str, fins_again: int = 1, orphan: bool = False) -> dict[str, Any]:
    return {
        "answer": answer,
        "application": list(heard),
        "fins_again": fins_again,
        "orphan": orphan,
    }


MEASURED = {
    "time-wait": ending("ACK", END, PIPE, PIPE),
    "destroyed": ending("RST", END, RESET, PIPE),
    "closed": ending("RST", orphan=True),
    "never-had-one": ending("RST", END, RESET, PIPE, fins_again=0),
    "nothing-lost": ending("ACK", END, PIPE, PIPE, fins_again=0),
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.NUANCED),
        (
            {
                "closed": ending("RST"),
                "destroyed": ending("RST", RESET, RESET, PIPE),
            },
            Verdict.CONFIRMED,
        ),
        ({"destroyed": ending("RST", END, PIPE, PIPE)}, Verdict.NUANCED),
        ({"time-wait": ending("RST", END, RESET, PIPE)}, Verdict.INCONCLUSIVE),
        ({"time-wait": ending("none", END, PIPE, PIPE)}, Verdict.REFUTED),
        ({"time-wait": ending("ACK", END, PIPE, PIPE, fins_again=0)}, Verdict.REFUTED),
        ({"nothing-lost": ending("ACK", END, PIPE, PIPE)}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "everybody-is-told",
        "nobody-is-told",
        "reset-in-spite-of-time-wait",
        "time-wait-is-silent",
        "fin-does-not-come-again",
        "fin-comes-again-for-nothing",
    ],
)
def test_endings_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


def test_more_fins_expected_than_came_refute_it() -> None:
    assert CLAIM.judge(MEASURED, {"fins_again": 2}).verdict is Verdict.REFUTED


def test_finding_tells_what_each_answer_was_and_who_heard_of_it() -> None:
    told = CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert "came again once, and TIME_WAIT answered ACK; without TIME_WAIT" in told
    assert "the answer was RST." in told
    assert "had called close() heard nothing" in told
    other = {"closed": ending("RST"), "never-had-one": ending("none", END, PIPE, PIPE)}
    told = CLAIM.judge(MEASURED | other, CLAIM.expected).finding
    assert "the answer was RST or none." in told
    assert "had called close()" not in told


@pytest.mark.namespaces
@pytest.mark.slow
def test_only_time_wait_acknowledges_the_fin_that_comes_again(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    found = {played.take.scene.name: played.finding or {} for played in result.played}
    assert result.judgement.verdict is Verdict.NUANCED, result.judgement
    assert {name: each["answer"] for name, each in found.items()} == {
        "time-wait": "ACK",
        "destroyed": "RST",
        "closed": "RST",
        "never-had-one": "RST",
        "nothing-lost": "ACK",
    }
    for scene in CLAIM.scenes:
        evidence = tmp_path / CLAIM.id / scene.name
        assert "FIN+ACK" in (evidence / "ladder.txt").read_text(encoding="utf-8")
        assert (evidence / "capture.pcapng").stat().st_size
    destroyed = (tmp_path / CLAIM.id / "destroyed" / "capture.pcapng").read_bytes()
    assert b"this RST answers a FIN" in destroyed
