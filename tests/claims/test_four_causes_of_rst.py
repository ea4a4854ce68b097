"""The causes of RST: judged on findings as a kernel might give them, and played for real."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims.claim import Verdict
from twbench.claims.four_causes_of_rst import CLAIM, GIVEN_UP, SILENT
from twbench.claims.resets import STRANGER_ACK, STRANGERS
from twbench.claims.runner import run

END, RESET = "0 bytes: end of file", "ECONNRESET"


def told(*heard: str, by_server: int = 0, by_client: int = 0, **more: object) -> dict[str, Any]:
    return {
        "heard": list(heard),
        "resets": {"client": by_client, "server": by_server},
        "fins": {"client": 0, "server": 0},
        **more,
    }


def given_up(*heard: str, at_once: int = 0, by_client: int = 1) -> dict[str, Any]:
    return told(*heard, by_client=by_client, gave_up_s=3.3, sent_again=4, resets_at_once=at_once)


def strangers(*, but: str = "RST") -> dict[str, Any]:
    answer = [{"flags": "RST", "seq": STRANGER_ACK}]
    answers = {kind: [] if kind == but else answer for kind in STRANGERS}
    return told(by_server=len(STRANGERS) - 1, answers=answers)


CABLE = told("EAGAIN", sent_into_it=4, arrives_at_last=True)
FIN = {"client": 0, "server": 1}
MEASURED = {
    "closed-port": told("ECONNREFUSED", by_server=1),
    "open-port": told("EAGAIN"),
    "killed-with-unread-data": told(RESET, by_server=1, resets_at_once=1),
    "killed-with-nothing-unread": told(END, by_server=1, resets_at_once=0) | {"fins": FIN},
    "host-reboots": told(RESET, by_server=1, resets_at_once=0),
    "cable-pulled": CABLE,
    "unknown-connection": strangers(),
    "data-unacknowledged": given_up("ETIMEDOUT"),
    "user-timeout": given_up("ETIMEDOUT"),
    "last-ack-lost": given_up(by_client=0),
    "third-ack-lost": given_up(RESET),
    "data-acknowledged-late": told("EAGAIN", gave_up_s=None, sent_again=2, resets_at_once=0),
    "keep-alive-unanswered": told(RESET, "ETIMEDOUT", by_server=1, probes=3),
    "keep-alive-answered": told("EAGAIN", "EAGAIN", probes=2),
}
AS_THE_ARTICLE_SAYS = {
    **{name: given_up("ETIMEDOUT", at_once=1) for name in GIVEN_UP},
    "killed-with-nothing-unread": told(RESET, by_server=1, resets_at_once=1),
    "host-reboots": told(RESET, by_server=1, resets_at_once=1),
    "cable-pulled": told(RESET, by_server=1, sent_into_it=4, arrives_at_last=False),
    "keep-alive-unanswered": told("EAGAIN", "ETIMEDOUT", probes=3),
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.NUANCED),
        (AS_THE_ARTICLE_SAYS, Verdict.CONFIRMED),
        (
            {**AS_THE_ARTICLE_SAYS, "killed-with-unread-data": told(END, resets_at_once=0)},
            Verdict.NUANCED,
        ),
        (
            {**AS_THE_ARTICLE_SAYS, "unknown-connection": strangers() | told(answers={"RST": []})},
            Verdict.NUANCED,
        ),
        ({"closed-port": told("ETIMEDOUT")}, Verdict.REFUTED),
        ({"open-port": told(RESET, by_server=1)}, Verdict.INCONCLUSIVE),
        ({"unknown-connection": strangers(but="data")}, Verdict.INCONCLUSIVE),
        ({"data-acknowledged-late": given_up("ETIMEDOUT")}, Verdict.INCONCLUSIVE),
        ({"keep-alive-answered": told(RESET, by_server=1, probes=2)}, Verdict.INCONCLUSIVE),
        ({"keep-alive-answered": told("EAGAIN", "EAGAIN", probes=0)}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "as-the-article-says",
        "killed-process-is-not-reset",
        "strangers-are-not-answered",
        "closed-port-is-silent",
        "open-port-resets",
        "reset-is-answered",
        "late-acknowledgement-is-no-use",
        "keep-alive-resets-all-the-same",
        "nothing-was-probed",
    ],
)
def test_causes_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize("scene", [*SILENT, "keep-alive-unanswered"])
def test_each_crash_alone_is_half_the_truth(scene: str) -> None:
    findings = MEASURED | AS_THE_ARTICLE_SAYS | {scene: MEASURED[scene]}
    assert CLAIM.judge(findings, CLAIM.expected).verdict is Verdict.NUANCED


@pytest.mark.parametrize("scene", GIVEN_UP)
def test_each_limit_that_ends_in_silence_contradicts_the_article(scene: str) -> None:
    findings = MEASURED | AS_THE_ARTICLE_SAYS | {scene: MEASURED[scene]}
    assert CLAIM.judge(findings, CLAIM.expected).verdict is Verdict.NUANCED


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [("resets", 2, Verdict.REFUTED), ("sent_again", 9, Verdict.INCONCLUSIVE)],
)
def test_wrong_expectation_changes_the_verdict(name: str, value: float, verdict: Verdict) -> None:
    assert name in CLAIM.expected
    assert CLAIM.judge(MEASURED, {**CLAIM.expected, name: value}).verdict is verdict


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"closed-port": told("ETIMEDOUT")}, "0 from a closed port"),
        ({"unknown-connection": strangers(but="ACK")}, "nobody has: data, FIN,"),
        ({"killed-with-unread-data": told(END, resets_at_once=0)}, "0 when its process was killed"),
        ({"host-reboots": told(END, resets_at_once=0)}, "0 once that was back"),
        ({"last-ack-lost": given_up(RESET, at_once=1)}, "FIN after 3.3 s with 1 RST"),
        ({"user-timeout": given_up("") | {"gave_up_s": None}}, "with TCP_USER_TIMEOUT never"),
        ({"keep-alive-unanswered": told("EAGAIN", probes=3)}, "0 after 3 keep-alive probes"),
    ],
)
def test_sentence_tells_what_was_found(differs: dict[str, Any], said: str) -> None:
    assert said not in CLAIM.judge(MEASURED, CLAIM.expected).finding
    assert said in CLAIM.judge(MEASURED | differs, CLAIM.expected).finding


@pytest.mark.namespaces
@pytest.mark.slow
def test_causes_are_played_here_and_each_reset_is_marked(tmp_path: Path) -> None:
    (result,) = run([CLAIM], results=tmp_path, stop=threading.Event())
    assert result.judgement.verdict is Verdict.NUANCED, result
    for each in result.played:
        folder = tmp_path / CLAIM.id / each.take.scene.name
        assert (folder / "ladder.txt").is_file()
        assert each.finding is not None
        capture = (folder / "capture.pcapng").read_bytes()
        if any(each.finding["resets"].values()):
            assert b"RST: " in capture
        if each.take.scene.name in {"open-port", "keep-alive-answered"}:
            assert b"somebody listens" in capture or b"answers a keep-alive probe" in capture
