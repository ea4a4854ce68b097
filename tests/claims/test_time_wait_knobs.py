"""Knobs: judged on findings as a kernel might give them, and played for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Verdict
from twbench.claims.runner import run
from twbench.claims.time_wait_knobs import CLAIM

FULL = "EADDRNOTAVAIL"


def churn(time_waits: int, again: int, **differs: int | str) -> dict[str, Any]:
    return {
        "connections": 64,
        "time_waits": time_waits,
        "again": again,
        "error": "" if again else FULL,
        "time_waits_again": time_waits,
        "TWRecycled": 0,
        "TCPTimeWaitOverflow": 0,
        "OutRsts": 0,
    } | differs


def reused(again: int = 64) -> dict[str, Any]:
    return churn(64, again, too_early=FULL, TWRecycled=again)


MEASURED: dict[str, dict[str, Any]] = {
    "defaults": churn(64, 0),
    "tw-reuse-0": churn(64, 0),
    "tw-reuse-1": reused(),
    "tw-reuse-1-no-timestamps": churn(64, 0),
    "tw-reuse-2": churn(64, 0),
    "tw-reuse-2-loopback": reused(),
    "few-buckets": churn(16, 64, TCPTimeWaitOverflow=48),
    "linger-0": churn(0, 64, OutRsts=64),
    "reuse-in-last-ack": {"same_port": True, "syns": 2, "resets": 1},
    "reuse-after-last-ack": {"same_port": True, "syns": 1, "resets": 0},
    "no-bucket": {"answer": "RST", "server_error": "ECONNRESET"},
    "a-bucket": {"answer": "ACK", "server_error": ""},
    "linger-0-unsent": {"sent_bytes": 46336, "read_bytes": 14480, "end": "ECONNRESET"},
    "close-unsent": {"sent_bytes": 46336, "read_bytes": 46336, "end": "0 bytes: end of file"},
    "server-restart": {"without": "EADDRINUSE", "with": "", "time_waits": 1},
    "server-restart-after-reset": {"without": "", "time_waits": 0},
    "same-four-tuple": {"time_waits": 1, "connect": "EINPROGRESS", "time_waits_again": 0},
    "same-four-tuple-no-timestamps": {"time_waits": 1, "connect": FULL, "time_waits_again": 1},
}
HARMLESS: dict[str, dict[str, Any]] = {
    "tw-reuse-1": reused() | {"time_waits_again": 0},
    "tw-reuse-1-no-timestamps": reused(),
    "tw-reuse-2": reused(),
    "reuse-in-last-ack": {"same_port": True, "syns": 1, "resets": 0},
    "no-bucket": {"answer": "ACK", "server_error": ""},
    "linger-0-unsent": {"sent_bytes": 46336, "read_bytes": 46336, "end": "0 bytes: end of file"},
    "server-restart": {"without": "EADDRINUSE", "with": "", "time_waits": 0},
    "same-four-tuple": {"time_waits": 1, "connect": FULL, "time_waits_again": 1},
}
"""A kernel on which the knobs cost nothing and leave nothing."""


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.NUANCED),
        (HARMLESS, Verdict.CONFIRMED),
        ({"few-buckets": churn(64, 0)}, Verdict.REFUTED),
        ({"linger-0": churn(64, 0)}, Verdict.REFUTED),
        (HARMLESS | {"tw-reuse-1": churn(0, 0, too_early=FULL)}, Verdict.NUANCED),
        ({"defaults": churn(0, 64)}, Verdict.INCONCLUSIVE),
        ({"tw-reuse-0": reused()}, Verdict.INCONCLUSIVE),
        ({"a-bucket": {"answer": "RST", "server_error": "ECONNRESET"}}, Verdict.INCONCLUSIVE),
        ({"close-unsent": {"sent_bytes": 46336, "read_bytes": 0}}, Verdict.INCONCLUSIVE),
        (
            {"server-restart-after-reset": {"without": "EADDRINUSE", "time_waits": 0}},
            Verdict.INCONCLUSIVE,
        ),
    ],
    ids=[
        "as-on-linux",
        "no-price",
        "buckets-do-nothing",
        "linger-does-nothing",
        "reuse-does-nothing",
        "defaults-leave-none",
        "reuse-without-the-knob",
        "reset-with-a-bucket",
        "loss-without-the-knob",
        "no-bind-even-without-time-wait",
    ],
)
def test_knobs_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("expected", "verdict"),
    [({"buckets": 64.0}, Verdict.REFUTED), ({"ports": 65.0}, Verdict.INCONCLUSIVE)],
)
def test_other_expectation_gives_another_verdict(
    expected: dict[str, float], verdict: Verdict
) -> None:
    assert CLAIM.judge(MEASURED, {**CLAIM.expected, **expected}).verdict is verdict


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"few-buckets": churn(64, 0)}, "tcp_max_tw_buckets = 16 left 64"),
        ({"linger-0": churn(5, 0)}, "SO_LINGER 0 left 5"),
        ({"tw-reuse-1": reused(0)}, "gave 0 ports"),
        (HARMLESS, "tcp_tw_reuse = 1 left 0 of 64"),
        (HARMLESS, "SO_LINGER 0 threw 0 bytes away"),
        (HARMLESS, "a peer's FIN got ACK"),
    ],
)
def test_sentence_tells_what_was_found(differs: dict[str, Any], said: str) -> None:
    assert said not in CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert said in CLAIM.judge(MEASURED | differs, CLAIM.expected).finding


def test_what_refutes_it_is_what_its_core_looks_at() -> None:
    core = CLAIM.judge(MEASURED, CLAIM.expected).claimed[0].text
    for knob in ("tcp_max_tw_buckets", "SO_LINGER 0"):
        assert knob in CLAIM.refuted_by
        assert knob in core


@pytest.mark.namespaces
@pytest.mark.slow
def test_each_knob_gives_something_and_costs_something(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    assert result.judgement.verdict is Verdict.NUANCED, result.judgement
    assert [check.text for check in result.judgement.caveats if not check.holds] == []
    capture = (tmp_path / CLAIM.id / "reuse-in-last-ack" / "capture.pcapng").read_bytes()
    assert b"still in LAST_ACK" in capture
