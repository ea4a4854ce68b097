"""Who piles TIME_WAIT up: judged on findings as fleets might bring them; played with all claims."""

import threading
from pathlib import Path
from typing import Any

import pytest

from twbench.claims import who_piles_up
from twbench.claims.claim import SetUpError, Verdict
from twbench.claims.scenery import Scenery
from twbench.claims.who_piles_up import CLAIM, LOAD_S, RATE_PER_S


def pile(least: int, most: int) -> dict[str, Any]:
    return {
        "half_way": most // 2,
        "half_way_s": 29.8,
        "steady_least": least,
        "steady_most": most,
    }


def fleet(client: dict[str, Any], server: dict[str, Any]) -> dict[str, Any]:
    return {"requests": 7500, "connections_per_s": 100.0, "client": client, "server": server}


NONE = pile(0, 0)
HELD = pile(5992, 6203)
MEASURED = {
    "crawler": fleet(HELD, NONE),
    "web-server": fleet(NONE, HELD),
    "kept-connections": fleet(pile(3, 4), NONE),
    "one-page-client-first": {"client": "TIME_WAIT", "server": "CLOSE"},
    "one-page-server-first": {"client": "CLOSE", "server": "TIME_WAIT"},
}


@pytest.mark.parametrize(
    ("differs", "verdict"),
    [
        ({}, Verdict.CONFIRMED),
        ({"crawler": fleet(NONE, HELD)}, Verdict.REFUTED),
        ({"crawler": fleet(HELD, pile(0, 5))}, Verdict.CONFIRMED),
        ({"crawler": fleet(HELD, pile(0, 50))}, Verdict.REFUTED),
        ({"crawler": fleet(pile(5992, 7500), NONE)}, Verdict.REFUTED),
        ({"web-server": fleet(NONE, pile(5077, 5227))}, Verdict.NUANCED),
        ({"one-page-client-first": {"client": "CLOSE"}}, Verdict.NUANCED),
        ({"kept-connections": fleet(HELD, NONE)}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-on-linux",
        "on-the-other-host",
        "a-few-on-the-other-host",
        "many-on-the-other-host",
        "goes-on-growing",
        "fewer-on-the-server",
        "no-time-wait-on-the-wire",
        "keep-alive-piles-up-too",
    ],
)
def test_piles_are_judged(differs: dict[str, Any], verdict: Verdict) -> None:
    assert CLAIM.judge(MEASURED | differs, CLAIM.expected).verdict is verdict


def test_sentence_tells_on_which_host_they_were() -> None:
    finding = CLAIM.judge(MEASURED | {"crawler": fleet(NONE, HELD)}, CLAIM.expected).finding
    assert "crawlers that close first left 0 TIME_WAITs on the client and 5,992" in finding


class FakeRun:
    """What is read of a run, with an audit that does not balance."""

    def __init__(self) -> None:
        wanted = RATE_PER_S * LOAD_S
        self.summary = {"outcomes": {"ok": wanted}, "audit": {"balanced": False}}


def test_run_whose_audit_does_not_balance_is_no_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(who_piles_up, "run_scenario", lambda *_, **__: FakeRun())
    at = Scenery(folder=tmp_path, stop=threading.Event(), own_lab=None, own_stage=None)
    with pytest.raises(SetUpError, match="audit"):
        CLAIM.scenes[0].play(at)


@pytest.mark.parametrize(
    "differs",
    [{"lifetime_s": 30}, {"lifetime_s": 120}, {"rate_per_s": 200}, {"other_most": -1}],
)
def test_other_expectation_refutes_it(differs: dict[str, float]) -> None:
    assert CLAIM.judge(MEASURED, {**CLAIM.expected, **differs}).verdict is Verdict.REFUTED
