"""The paths through the states: judged on findings as a kernel might give them."""

import pytest

from twbench.claims.claim import Expected, Findings, Verdict
from twbench.claims.closing_states import ACTIVE, CLAIM, PASSIVE

RIGHT = {
    "client-closes-first": {"client": ACTIVE, "server": PASSIVE},
    "server-closes-first": {"client": PASSIVE, "server": ACTIVE},
    "reset": {"client": ["ESTABLISHED", "CLOSED"], "server": ["ESTABLISHED", "CLOSED"]},
}
NO_TIME_WAIT = [state for state in ACTIVE if state != "TIME_WAIT"]
MERGED = [state for state in PASSIVE if state != "CLOSE_WAIT"]


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        (RIGHT, Verdict.CONFIRMED),
        (
            RIGHT | {"client-closes-first": {"client": NO_TIME_WAIT, "server": PASSIVE}},
            Verdict.REFUTED,
        ),
        (RIGHT | {"client-closes-first": {"client": ACTIVE, "server": MERGED}}, Verdict.NUANCED),
        (
            RIGHT | {"server-closes-first": {"client": ACTIVE, "server": PASSIVE}},
            Verdict.NUANCED,
        ),
        (RIGHT | {"reset": {"client": ACTIVE, "server": PASSIVE}}, Verdict.INCONCLUSIVE),
        (RIGHT | {"reset": {"client": [], "server": []}}, Verdict.INCONCLUSIVE),
    ],
    ids=[
        "as-taught",
        "no-time-wait",
        "a-state-is-missing",
        "no-mirror",
        "the-control-fails",
        "the-control-is-empty",
    ],
)
def test_paths_are_judged(findings: Findings, verdict: Verdict) -> None:
    assert CLAIM.judge(findings, CLAIM.expected).verdict is verdict


@pytest.mark.parametrize(
    ("broken", "verdict"),
    [
        ({"states_of_the_active": 4}, Verdict.REFUTED),
        ({"states_of_the_passive": 1}, Verdict.NUANCED),
        ({"states_after_a_reset": 1}, Verdict.INCONCLUSIVE),
    ],
)
def test_another_expectation_changes_the_verdict(broken: Expected, verdict: Verdict) -> None:
    assert CLAIM.judge(RIGHT, {**CLAIM.expected, **broken}).verdict is verdict


def test_finding_tells_the_paths_that_were_taken() -> None:
    unlike = RIGHT | {"server-closes-first": {"client": MERGED, "server": NO_TIME_WAIT}}
    told = CLAIM.judge(unlike, CLAIM.expected).finding
    assert f"closing first, the server went {' → '.join(NO_TIME_WAIT)}," in told
    assert f"closing first, the client went {' → '.join(ACTIVE)}," in told
