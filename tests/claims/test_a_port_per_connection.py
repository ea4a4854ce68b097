"""Ports: judged on findings as a kernel might give them, and played for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.a_port_per_connection import CLAIM
from twbench.claims.claim import Verdict
from twbench.claims.runner import run


def small(connections: int, error: str, time_waits: int = 0) -> dict[str, Any]:
    return {
        "ports": 256,
        "connections": connections,
        "error": error,
        "second_destination": connections,
        "same_ports": bool(error),
        "server_time_waits": time_waits,
        "server_ports": [80, 81] if time_waits else [],
    }


DEFAULT = {
    "low": 32768,
    "high": 60999,
    "window": True,
    "connections": 28_232,
    "error": "EADDRNOTAVAIL",
    "lowest_port": 32768,
    "highest_port": 60999,
    "second_destination": 300,
    "early_us": 18.3,
    "past_half_us": 18.6,
}
MEASURED: dict[str, dict[str, Any]] = {
    "default-range": DEFAULT,
    "first-half": {
        "half": 14_116,
        "of_one_parity": 14_116,
        "early_us": 15.7,
        "past_half_us": 2312.9,
    },
    "small-range": small(256, "EADDRNOTAVAIL"),
    "wide-range": small(768, "") | {"ports": 1024},
    "reset": small(768, ""),
    "server-closes-first": small(768, "", 254),
    "bind-zero": {"ports": 4, "bound": 4, "error": "EADDRINUSE"},
    "on-the-wire": {
        "ports": 4,
        "connections": 4,
        "error": "EADDRNOTAVAIL",
        "packets_of_the_refused": 0,
        "second_destination_has_one_of_them": True,
    },
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.NUANCED),
        (
            {"default-range": {"low": 32768, "high": 60999, "window": False}},
            Verdict.NUANCED,
        ),
        ({"small-range": small(257, "EADDRNOTAVAIL")}, Verdict.REFUTED),
        ({"small-range": small(256, "EADDRINUSE")}, Verdict.REFUTED),
        ({"default-range": DEFAULT | {"connections": 28_231}}, Verdict.REFUTED),
        ({"wide-range": small(256, "EADDRNOTAVAIL")}, Verdict.INCONCLUSIVE),
        ({"wide-range": small(256, "")}, Verdict.INCONCLUSIVE),
        ({"reset": small(256, "EADDRNOTAVAIL")}, Verdict.INCONCLUSIVE),
        ({"server-closes-first": small(256, "EADDRNOTAVAIL")}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "before-6.3",
        "one-more",
        "another-error",
        "one-less",
        "more-ports-are-used-up-as-soon",
        "too-few-connections-to-use-ports-up",
        "reset-uses-ports-up",
        "server-close-uses-ports-up",
    ],
)
def test_ports_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


def test_two_connections_expected_of_each_port_refute_it() -> None:
    expected = {**CLAIM.expected, "connections_per_port": 2}
    assert CLAIM.judge(MEASURED, expected).verdict is Verdict.REFUTED


@pytest.mark.parametrize(
    ("expected", "part"),
    [({"dearer_times": 1000.0}, "all even or all odd"), ({"cheap_times": 0.5}, "no such step")],
)
def test_caveat_about_the_cost_does_not_hold_against_another_figure(
    expected: dict[str, float], part: str
) -> None:
    judgement = CLAIM.judge(MEASURED, {**CLAIM.expected, **expected})
    assert [check.holds for check in judgement.caveats if part in check.text] == [False]


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"small-range": small(257, "EADDRINUSE")}, "257 connections on 256 ports"),
        ({"small-range": small(256, "EADDRINUSE")}, "then EADDRINUSE or EADDRNOTAVAIL"),
        ({"small-range": small(256, "")}, "then no refusal or EADDRNOTAVAIL"),
        ({"small-range": small(256, "")}, "the same ports not all"),
        ({"default-range": DEFAULT | {"high": 61_000}}, "32768-61000, 28,233 ports"),
    ],
)
def test_sentence_tells_what_was_found(differs: dict[str, Any], said: str) -> None:
    assert said not in CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert said in CLAIM.judge(MEASURED | differs, CLAIM.expected).finding


def test_bind_that_did_not_take_every_port_is_no_caveat() -> None:
    findings = MEASURED | {"bind-zero": {"ports": 4, "bound": 3, "error": "EADDRINUSE"}}
    caveats = CLAIM.judge(findings, CLAIM.expected).caveats
    assert [each.holds for each in caveats if "bind(0) took 3 of 4" in each.text] == [False]


def test_last_port_of_the_article_is_one_too_many() -> None:
    checks = CLAIM.judge(MEASURED, CLAIM.expected).claimed
    assert [check.holds for check in checks] == [True, False]
    checks = CLAIM.judge(MEASURED, {**CLAIM.expected, "high_port": 60999}).claimed
    assert [check.holds for check in checks] == [True, True]


@pytest.mark.namespaces
@pytest.mark.slow
def test_port_serves_one_connection_towards_each_destination(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    assert result.judgement.verdict is Verdict.NUANCED, result.judgement
    assert result.judgement.claimed[0].holds
    evidence = tmp_path / CLAIM.id / "on-the-wire"
    assert "EADDRNOTAVAIL" in (evidence / "ladder.txt").read_text(encoding="utf-8")
    assert b"serves another destination" in (evidence / "capture.pcapng").read_bytes()
