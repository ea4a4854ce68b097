"""Three segments or four: judged on findings as a kernel might give them, and played for real."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Verdict
from twbench.claims.runner import run
from twbench.claims.three_or_four_segments import CLAIM, DELAYS_MS

DELAYED_ACK_MS = 42
MERGED = ["client FIN+ACK", "server FIN+ACK", "client ACK"]
APART = ["client FIN+ACK", "server ACK", "server FIN+ACK", "client ACK"]


def close(
    after_ms: float, *, ack: str = "", waited_ms: float = DELAYED_ACK_MS, resent: bool = False
) -> dict[str, Any]:
    """Return the finding of a close after so long; by default the delayed ACK decides."""
    crossed = ack or ("alone" if after_ms > waited_ms else "on the FIN")
    finding: dict[str, Any] = {
        "segments": MERGED if crossed == "on the FIN" else APART,
        "ack_crossed": crossed,
        "least_s": after_ms / 1000,
        "most_s": (after_ms + 1) / 1000,
        "resent": resent,
    }
    waited = {"ack_least_s": waited_ms / 1000, "ack_most_s": (waited_ms + 1) / 1000}
    return finding | (waited if crossed == "alone" else {})


def sweep(make: Callable[[float], dict[str, Any]] = close) -> dict[str, Any]:
    return {f"server-closes-after-{ms}-ms": make(ms) for ms in DELAYS_MS}


MEASURED = sweep() | {
    "answer-left": close(1, ack="on the answer"),
    "never-used": close(21, waited_ms=3),
    "quick-ack": close(1, ack="alone", waited_ms=1),
}
MERGES_WHENEVER_NOTHING_IS_LEFT = {
    **sweep(partial(close, ack="on the FIN")),
    "answer-left": close(1, ack="alone"),
    "never-used": close(21),
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.NUANCED),
        (MERGES_WHENEVER_NOTHING_IS_LEFT, Verdict.INCONCLUSIVE),
        (sweep(partial(close, ack="alone")), Verdict.REFUTED),
        (sweep(partial(close, waited_ms=70)), Verdict.INCONCLUSIVE),
        ({"server-closes-after-60-ms": close(60, ack="on the FIN")}, Verdict.NUANCED),
        ({"server-closes-after-200-ms": close(200, ack="on the FIN")}, Verdict.REFUTED),
        ({"quick-ack": close(1, ack="on the FIN")}, Verdict.INCONCLUSIVE),
        (sweep(lambda after_ms: close(after_ms + 40)), Verdict.INCONCLUSIVE),
        (sweep(partial(close, resent=True)), Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "no-ack-ever-left-alone",
        "never-three",
        "another-delayed-ack",
        "in-the-grey-time",
        "late-and-merged",
        "quick-ack-merges-too",
        "too-slow-a-machine",
        "all-were-sent-again",
    ],
)
def test_closes_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("late_segments", 5, Verdict.REFUTED),
        ("early_segments", 2, Verdict.REFUTED),
        ("delayed_ack_s", 0.02, Verdict.INCONCLUSIVE),
        ("delayed_ack_s", 0.2, Verdict.INCONCLUSIVE),
    ],
)
def test_broken_expectation_changes_the_verdict(name: str, value: float, verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED, {**CLAIM.expected, name: value}).verdict is verdict


def test_finding_names_the_delayed_ack_only_where_it_decided() -> None:
    told = CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert "3 segments crossed when the server's FIN came 1, 11, 26 ms after" in told
    assert "What decides is the delayed ACK" in told
    told = CLAIM.judge(MEASURED | MERGES_WHENEVER_NOTHING_IS_LEFT, CLAIM.expected).finding
    assert "4 segments crossed" not in told
    assert "decides" not in told


@pytest.mark.namespaces
def test_delayed_ack_decides_between_three_and_four(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    assert result.judgement.verdict is Verdict.NUANCED, result.judgement
    for scene in CLAIM.scenes:
        evidence = tmp_path / CLAIM.id / scene.name
        assert "FIN+ACK" in (evidence / "ladder.txt").read_text(encoding="utf-8")
        assert b"the ACK of the client's FIN crosses" in (evidence / "capture.pcapng").read_bytes()
