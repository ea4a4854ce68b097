"""The half-closed connection: judged on findings as a kernel might give them, and for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Verdict
from twbench.claims.half_close import ANSWER_BYTES, CLAIM
from twbench.claims.runner import run

FIN = "FIN+ACK seq=33 ack=1"
HALF = {
    "fin": FIN,
    "read_after_fin_bytes": [32, 0],
    "sent_bytes": ANSWER_BYTES,
    "received_bytes": ANSWER_BYTES,
    "same_bytes": True,
    "states": {"client": "FIN_WAIT_2", "server": "CLOSE_WAIT"},
    "client_send": "EPIPE",
    "client_end_of_file": True,
    "resets": 0,
}
CLOSED = {
    "fin": FIN,
    "answered_in": "FIN_WAIT_2",
    "read_after_fin_bytes": [32, 0],
    "sent_bytes": 43,
    "server_send_again": "EPIPE",
    "resets": 1,
    "TcpOutRsts": 1,
    "TcpExtTCPAbortOnData": 0,
}
SWALLOWED = CLOSED | {"resets": 0, "TcpOutRsts": 0, "server_send_again": ""}


def findings(
    half: dict[str, Any] | None = None, closed: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what this kernel gives, but for these differences."""
    return {
        "half-close": HALF | (half or {}),
        "closed-in-fin-wait-1": CLOSED | {"answered_in": "FIN_WAIT_1", "TcpExtTCPAbortOnData": 1},
        "closed-in-fin-wait-2": CLOSED | (closed or {}),
    }


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (findings(), Verdict.NUANCED),
        (findings({"received_bytes": 0, "same_bytes": False}), Verdict.REFUTED),
        (findings({"same_bytes": False}), Verdict.REFUTED),
        (findings({"resets": 1}), Verdict.REFUTED),
        (findings(closed={"fin": "FIN+PSH+ACK seq=33 ack=1"}), Verdict.CONFIRMED),
        (findings(closed=SWALLOWED), Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "nothing-arrives",
        "other-bytes-arrive",
        "half-close-is-reset",
        "close-has-another-fin",
        "closed-end-takes-data-too",
    ],
)
def test_half_closes_are_judged(found: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(found, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    "half",
    [
        {"client_send": ""},
        {"read_after_fin_bytes": [0, 0]},
        {"states": {"client": "FIN_WAIT_2", "server": "ESTABLISHED"}},
    ],
    ids=["client-can-send", "request-is-lost", "server-is-not-told"],
)
def test_what_else_a_half_close_means_is_checked(half: dict[str, Any]) -> None:
    judgement = CLAIM.judge(findings(half), CLAIM.expected)
    assert [check.holds for check in judgement.claimed].count(False) == 1
    assert judgement.claimed[0].holds


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("answer_bytes", ANSWER_BYTES + 1, Verdict.REFUTED),
        ("least_resets_after_close", 2, Verdict.INCONCLUSIVE),
    ],
)
def test_broken_expectation_changes_the_verdict(name: str, value: float, verdict: Verdict) -> None:
    assert CLAIM.judge(findings(), {**CLAIM.expected, name: value}).verdict is verdict


def test_finding_tells_what_met_the_answer_after_close() -> None:
    told = CLAIM.judge(findings(), CLAIM.expected).finding
    assert "in FIN_WAIT_2 an answer was met by 1 RST" in told
    assert "The FIN of close() is the same" in told
    told = CLAIM.judge(findings(closed=SWALLOWED | {"fin": "FIN"}), CLAIM.expected).finding
    assert "in FIN_WAIT_2 an answer was met by no RST" in told
    assert "next send() gave no error" in told
    assert "The FIN of close() is another" in told


@pytest.mark.namespaces
def test_answer_arrives_after_shutdown_and_is_reset_after_close(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    assert result.judgement.verdict is Verdict.NUANCED, result.judgement
    captures = {
        scene.name: (tmp_path / CLAIM.id / scene.name / "capture.pcapng").read_bytes()
        for scene in CLAIM.scenes
    }
    assert all(b"the client's FIN" in capture for capture in captures.values())
    assert [name for name, capture in captures.items() if b"nobody is left to read" in capture] == [
        "closed-in-fin-wait-1",
        "closed-in-fin-wait-2",
    ]
    ladder = tmp_path / CLAIM.id / "half-close" / "ladder.txt"
    assert f"recv() = {ANSWER_BYTES} bytes" in ladder.read_text(encoding="utf-8")
