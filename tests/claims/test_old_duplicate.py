"""The stray SEQ=300: judged on findings as a kernel might give them, and played for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Verdict
from twbench.claims.old_duplicate import CLAIM
from twbench.claims.runner import run
from twbench.claims.stray import SIZES, runs, side_by_side, wrong_bytes

SENT = "".join(letter * size for letter, size in SIZES.items())
WRONG = SENT.replace("d", "D")


def stream(read: str = SENT, *, refused: str = "", **counted: int) -> dict[str, Any]:
    return {
        "refused": refused,
        "sent": SENT,
        "read": read,
        "answer": "RST" if refused else "ACK",
        "counted": counted,
        "failed_calls": [],
        "time_waits": {"client": 1 if refused else 0, "server": 0},
        "isn_tick_ns": 64.0,
    }


MEASURED = {
    "unguarded": stream(WRONG, TcpExtTCPChallengeACK=1),
    "time-wait-destroyed": stream(WRONG),
    "time-wait-kept": stream(refused="EADDRNOTAVAIL"),
    "time-wait-at-the-server": stream(WRONG),
    "timestamps": stream(TcpExtPAWSEstab=1),
    "isn-clock": stream(),
    "not-the-next": stream(TcpExtTCPChallengeACK=1),
    "defaults": stream(),
}
UNGUARDED_BY_DEFAULT = {
    "timestamps": stream(WRONG, TcpExtPAWSEstab=1),
    "isn-clock": stream(WRONG),
    "not-the-next": stream(WRONG, TcpExtTCPChallengeACK=1),
    "defaults": stream(WRONG),
    "time-wait-at-the-server": stream(),
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.NUANCED),
        (UNGUARDED_BY_DEFAULT, Verdict.CONFIRMED),
        ({"unguarded": stream()}, Verdict.REFUTED),
        ({"unguarded": stream(SENT[:299])}, Verdict.REFUTED),
        ({"time-wait-kept": stream(WRONG, refused="EADDRNOTAVAIL")}, Verdict.INCONCLUSIVE),
        ({"time-wait-kept": stream()}, Verdict.INCONCLUSIVE),
        ({"timestamps": stream()}, Verdict.INCONCLUSIVE),
        ({"not-the-next": stream()}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "only-time-wait-guards",
        "stays-clean",
        "loses-bytes-but-takes-none",
        "wrong-in-spite-of-time-wait",
        "time-wait-was-not-in-the-way",
        "it-was-not-paws",
        "it-was-not-the-acknowledgement",
    ],
)
def test_streams_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("wrong_bytes", 99, Verdict.REFUTED),
        ("wrong_from_byte", 300, Verdict.REFUTED),
        ("paws_drops", 2, Verdict.INCONCLUSIVE),
        ("challenge_acks", 0, Verdict.INCONCLUSIVE),
        ("isn_tick_ns", 4000, Verdict.INCONCLUSIVE),
        ("isn_tick_slack_ns", -1, Verdict.INCONCLUSIVE),
    ],
)
def test_wrong_expectation_changes_the_verdict(name: str, value: float, verdict: Verdict) -> None:
    assert name in CLAIM.expected
    assert CLAIM.judge(MEASURED, {**CLAIM.expected, name: value}).verdict is verdict


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"unguarded": stream()}, ": 0 bytes are wrong"),
        ({"unguarded": stream(WRONG) | {"failed_calls": ["recv()"]}}, "and 1 calls failed"),
        ({"timestamps": stream(WRONG)}, "what did not: a TIME_WAIT at the server, timestamps"),
        ({"time-wait-at-the-server": stream()}, "what did not: nothing"),
        ({"defaults": stream(WRONG)}, "server, the kernel's defaults"),
    ],
)
def test_sentence_tells_what_was_found(differs: dict[str, Any], said: str) -> None:
    assert said not in CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert said in CLAIM.judge(MEASURED | differs, CLAIM.expected).finding


def test_call_that_failed_makes_it_half_the_truth() -> None:
    told = {**UNGUARDED_BY_DEFAULT, "unguarded": stream(WRONG) | {"failed_calls": ["recv()"]}}
    assert CLAIM.judge(MEASURED | told, CLAIM.expected).verdict is Verdict.NUANCED


def test_wrong_bytes_are_those_that_differ_and_those_beyond_either_end() -> None:
    assert wrong_bytes({"sent": "abc", "read": "aXc"}) == [1]
    assert wrong_bytes({"sent": "abc", "read": "ab"}) == [2]
    assert wrong_bytes({"sent": "ab", "read": "abc"}) == [2]
    assert wrong_bytes({"sent": "abc", "read": "abc"}) == []


def test_runs_are_counted() -> None:
    assert runs("aab") == "2a 1b"
    assert runs("") == ""


def test_rows_that_differ_are_marked_side_by_side() -> None:
    head, *rows = side_by_side(SENT, WRONG).splitlines()
    assert head.split() == ["byte", "sent", "read"]
    assert [int(row.split()[0]) for row in rows] == list(range(0, 499, 25))
    assert [int(row.split()[0]) for row in rows if row.endswith("≠")] == [275, 300, 325, 350, 375]


@pytest.mark.namespaces
def test_stray_is_taken_here_unless_something_guards(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    assert result.judgement.verdict in {Verdict.NUANCED, Verdict.CONFIRMED}, result
    scenes = {scene.name: tmp_path / CLAIM.id / scene.name for scene in CLAIM.scenes}
    for folder in scenes.values():
        assert "SEQ=300 of the earlier connection turns up" in (folder / "ladder.txt").read_text()
        assert (folder / "bytes.txt").is_file()
    capture = (scenes["unguarded"] / "capture.pcapng").read_bytes()
    assert b"taken as data" in capture
    assert b"not taken" in (scenes["timestamps"] / "capture.pcapng").read_bytes()
