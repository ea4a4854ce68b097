"""The paths through the states: judged on findings as a kernel might give them."""

import pytest

from twbench.claims.claim import Findings, Verdict
from twbench.claims.closing_states import ACTIVE, CLAIM, PASSIVE

RIGHT = {
    "client-closes-first": {"client": ACTIVE, "server": PASSIVE},
    "server-closes-first": {"client": PASSIVE, "server": ACTIVE},
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
            Verdict.INCONCLUSIVE,
        ),
    ],
    ids=["as-taught", "no-time-wait", "a-state-is-missing", "the-control-fails"],
)
def test_paths_are_judged(findings: Findings, verdict: Verdict) -> None:
    assert CLAIM.judge(findings, CLAIM.expected).verdict is verdict
