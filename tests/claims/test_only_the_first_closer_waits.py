"""Who holds TIME_WAIT: judged on findings as a kernel might give them, and played for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Expected, Findings, Verdict
from twbench.claims.only_the_first_closer_waits import CLAIM, CROSSING, IN_TURN, RESETS
from twbench.claims.runner import run
from twbench.model.endings import ENDINGS
from twbench.model.states import Side


def finding(first: Side, client: int, server: int) -> dict[str, Any]:
    waits = {"client": client, "server": server}
    return {"first": str(first), "time_waits": waits, "TcpExtTW": waits}


def as_the_table_of_endings_has_it(name: str) -> dict[str, Any]:
    ending = ENDINGS[name]
    waits = [int(side in ending.time_wait) for side in Side]
    return finding(min(ending.first), *waits)


RIGHT = {name: as_the_table_of_endings_has_it(name) for name in (*IN_TURN, CROSSING, *RESETS)}


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        (RIGHT, Verdict.NUANCED),
        (RIGHT | {CROSSING: finding(Side.CLIENT, 1, 0)}, Verdict.CONFIRMED),
        (RIGHT | {"server-fin": finding(Side.SERVER, 1, 0)}, Verdict.REFUTED),
        (RIGHT | {"client-fin": finding(Side.CLIENT, 1, 1)}, Verdict.REFUTED),
        (RIGHT | {"client-fin": finding(Side.CLIENT, 0, 0)}, Verdict.REFUTED),
        (RIGHT | {"client-rst": finding(Side.CLIENT, 1, 0)}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "both-when-crossing",
        "one-when-crossing",
        "the-second-waits",
        "both-wait",
        "nobody-waits",
        "the-control-fails",
    ],
)
def test_who_waits_is_judged(findings: Findings, verdict: Verdict) -> None:
    assert CLAIM.judge(findings, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("broken", "verdict"),
    [
        ({"time_waits_of_first": 0}, Verdict.REFUTED),
        ({"time_waits_of_second": 1}, Verdict.REFUTED),
        ({"time_waits_of_each_when_crossing": 0}, Verdict.CONFIRMED),
        ({"time_waits_after_reset": 1}, Verdict.INCONCLUSIVE),
    ],
)
def test_another_expectation_changes_the_verdict(broken: Expected, verdict: Verdict) -> None:
    assert CLAIM.judge(RIGHT, {**CLAIM.expected, **broken}).verdict is verdict


def test_kernels_counter_must_agree_with_what_was_seen() -> None:
    disagreeing = RIGHT["client-fin"] | {"TcpExtTW": {"client": 0, "server": 0}}
    judged = CLAIM.judge(RIGHT | {"client-fin": disagreeing}, CLAIM.expected)
    assert judged.verdict is Verdict.REFUTED


def test_finding_says_who_waited_after_crossing_fins_and_resets() -> None:
    told = CLAIM.judge(RIGHT, CLAIM.expected).finding
    assert "crossed, both sides held it; after a RST nobody did" in told
    other = {CROSSING: finding(Side.CLIENT, 1, 0), "client-rst": finding(Side.CLIENT, 0, 1)}
    told = CLAIM.judge(RIGHT | other, CLAIM.expected).finding
    assert "crossed, the client held it; after a RST the server did" in told


@pytest.mark.namespaces
def test_this_kernel_lets_the_first_closer_wait_and_both_when_fins_cross(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    assert result.judgement.verdict is Verdict.NUANCED, result.judgement
    for played in result.played:
        left = {path.name for path in played.take.folder(tmp_path).iterdir()}
        assert left >= {"finding.json", "ladder.txt", "ladder.svg", "capture.pcapng"}
