"""How checks make a verdict."""

import pytest

from twbench.claims.claim import Check, Verdict, weigh

YES, NO = Check(text="yes", holds=True), Check(text="no", holds=False)


@pytest.mark.parametrize(
    ("claimed", "caveats", "controls", "verdict"),
    [
        ([YES, YES], [], [YES], Verdict.CONFIRMED),
        ([YES, YES], [NO], [YES], Verdict.CONFIRMED),
        ([YES, NO], [], [YES], Verdict.NUANCED),
        ([YES], [YES], [YES], Verdict.NUANCED),
        ([NO, YES], [], [YES], Verdict.REFUTED),
        ([NO, YES], [YES], [], Verdict.REFUTED),
        ([YES], [], [YES, NO], Verdict.INCONCLUSIVE),
        ([NO], [YES], [NO], Verdict.INCONCLUSIVE),
    ],
)
def test_verdict_follows_from_the_checks(
    claimed: list[Check], caveats: list[Check], controls: list[Check], verdict: Verdict
) -> None:
    judged = weigh("so it is", claimed=claimed, caveats=caveats, controls=controls)
    assert judged.verdict is verdict
    assert judged.finding == "so it is"
    assert judged.as_json()["controls"] == [check.as_json() for check in controls]


def test_claim_without_a_claimed_check_is_a_bug_and_says_so() -> None:
    with pytest.raises(IndexError):
        weigh("nothing", claimed=[], controls=[YES])
