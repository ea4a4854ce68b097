"""What a reset looks like: judged on findings as a kernel might give them, and for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Verdict
from twbench.claims.runner import run
from twbench.claims.two_faces_of_a_reset import CLAIM, SITUATIONS

END, RESET, PIPE, REFUSED = "0 bytes: end of file", "ECONNRESET", "EPIPE", "ECONNREFUSED"
KILLED = "killed by SIGPIPE"
MEASURED: dict[str, tuple[str, tuple[str, ...]]] = {
    "reset-then-recv": ("RST", (RESET, PIPE, END, PIPE)),
    "reset-then-send": ("RST", (RESET, PIPE, END)),
    "reset-after-fin": ("FIN RST", (PIPE, PIPE, END)),
    "reset-before-fin": ("RST", (RESET, PIPE, END)),
    "reset-with-data-unread": ("RST", ("32 bytes", RESET, PIPE)),
    "reset-after-own-fin": ("RST", (RESET, PIPE)),
    "own-shutdown": ("", (PIPE, "EAGAIN")),
    "reset-of-the-syn": ("RST", (REFUSED, PIPE)),
    "sigpipe": ("FIN RST", (KILLED,)),
    "reset-lost": ("", ("EAGAIN", "1")),
}


def findings(**differs: tuple[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return what this kernel gives, but for these situations, named with underscores."""
    table = MEASURED | {name.replace("_", "-"): found for name, found in differs.items()}
    calls = {situation.name: list(situation.calls) for situation in SITUATIONS}
    return {
        name: {"came": came.split(), "calls": calls[name], "outcomes": list(outcomes)}
        for name, (came, outcomes) in table.items()
    }


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (findings(), Verdict.NUANCED),
        (
            findings(
                own_shutdown=("", ("1", "EAGAIN")),
                reset_of_the_syn=("RST", (RESET, PIPE)),
                sigpipe=("FIN RST", ("exit status 1",)),
            ),
            Verdict.CONFIRMED,
        ),
        (findings(reset_then_recv=("RST", (END, PIPE, END, PIPE))), Verdict.REFUTED),
        (findings(reset_then_recv=("RST", (RESET, PIPE, RESET, PIPE))), Verdict.NUANCED),
        (findings(reset_then_recv=("", (RESET, PIPE, END, PIPE))), Verdict.REFUTED),
        (findings(reset_after_fin=("FIN RST", (RESET, PIPE, END))), Verdict.NUANCED),
        (findings(reset_lost=("", (RESET, PIPE))), Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "only-resets-break-pipes",
        "reset-reads-as-the-end",
        "later-calls-differ",
        "error-without-a-reset",
        "order-of-fin-and-reset-tells-nothing",
        "lost-reset-shows-too",
    ],
)
def test_resets_are_judged(found: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(found, CLAIM.expected).verdict is verdict


def test_each_situation_is_checked_once() -> None:
    judgement = CLAIM.judge(findings(), CLAIM.expected)
    core, *claimed = judgement.claimed
    assert core.text.startswith("a RST in ESTABLISHED")
    checks = (*claimed, *judgement.caveats, *judgement.controls)
    assert sorted(check.text.partition(" ")[0] for check in checks) == sorted(MEASURED)


@pytest.mark.parametrize("name", ["reset_errno", "pipe_errno"])
def test_broken_expectation_changes_the_verdict(name: str) -> None:
    assert CLAIM.judge(findings(), {**CLAIM.expected, name: 110}).verdict is Verdict.REFUTED


def test_other_answer_to_a_refused_syn_breaks_its_check_alone() -> None:
    judgement = CLAIM.judge(findings(), {**CLAIM.expected, "refused_errno": 110})
    assert [check.holds for check in judgement.caveats] == [True, False, True]


def test_finding_tells_the_errors_that_came() -> None:
    told = CLAIM.judge(findings(), CLAIM.expected).finding
    assert "without a RST, send() gave EPIPE, and a RST that answers the SYN gave ECONN" in told
    other = findings(own_shutdown=("", ("1", "EAGAIN")), reset_of_the_syn=("RST", (RESET, PIPE)))
    told = CLAIM.judge(other, CLAIM.expected).finding
    assert "without a RST, send() gave 1, and a RST that answers the SYN gave ECONNRESET" in told


@pytest.mark.namespaces
def test_reset_shows_as_its_state_has_it(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    found = {played.take.scene.name: played.finding or {} for played in result.played}
    assert result.judgement.verdict is Verdict.NUANCED, result.judgement
    assert {
        name: (" ".join(each["came"]), tuple(each["outcomes"])) for name, each in found.items()
    } == (MEASURED)
    for scene in CLAIM.scenes:
        evidence = tmp_path / CLAIM.id / scene.name
        assert (evidence / "ladder.txt").stat().st_size
        marked = b"after it, on the" in (evidence / "capture.pcapng").read_bytes()
        assert marked is ("RST" in MEASURED[scene.name][0])
