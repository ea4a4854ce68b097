"""Contestants take turns, and a goal says met, missed, void, or why there is none."""

import pytest

from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.figures import MET, MISSED, VOID
from bench.parts.loads import Carried
from bench.parts.turns import Tally, Versus, in_turn, judged


def carried(rate_per_s: float, busy_percent: float = 100, failed: int = 0) -> Carried:
    return Carried(
        exchanges=round(rate_per_s),
        failed=failed,
        elapsed_s=1,
        client_cpu_s=busy_percent / 100,
        server_cpu_s=0.5,
        server_first=0,
        p99_ms=None,
        history=(),
        errors=(),
    )


def rate(each: Carried) -> float:
    return each.rate_per_s


def busy(each: Carried) -> float:
    return each.client_busy_percent


def test_every_round_has_all_contestants_in_an_order_that_every_run_repeats() -> None:
    order = list[str]()

    def carry(name: str) -> Carried:
        order.append(name)
        return carried(1)

    in_turn("test", "abc", 9, carry)
    rounds = ["".join(order[at : at + 3]) for at in range(0, 27, 3)]
    assert {"".join(sorted(each)) for each in rounds} == {"abc"}
    assert len({*rounds}) > 1
    in_turn("test", "abc", 9, carry)
    assert order[27:] == order[:27]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnavailableError("not installed"), "not installed"),
        (BrokenError("it fell\nover here"), "broken: it fell"),
    ],
)
def test_contestant_that_cannot_run_is_left_out_with_its_reason(
    error: Exception, reason: str
) -> None:
    rounds = iter([None, error])

    def carry(name: str) -> Carried:
        if name == "b" and (failure := next(rounds)):
            raise failure
        return carried(10)

    tally = in_turn("test", "ab", 3, carry)
    assert {name: len(each) for name, each in tally.carried.items()} == {"a": 3}
    assert tally.absent == {"b": reason}
    row = judged(tally, Versus(ours="a", theirs="b", least=1), rate, "{}")
    assert (row.values, row.goal, row.verdict) == ((), reason, "")


def test_ratio_is_taken_within_each_round() -> None:
    tally = Tally(carried={"a": [carried(30), carried(100)], "b": [carried(10), carried(50)]})
    row = judged(tally, Versus(ours="a", theirs="b", least=2.5), rate, "rate, {}")
    assert (row.name, row.values) == ("rate, a / b", (3.0, 2.0))


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (carried(2000), carried(1000), MET),
        (carried(1200), carried(1000), MISSED),
        (carried(2000, 80), carried(1000), MET),  # ours could do still more
        (carried(1200, 80), carried(1000), VOID),
        (carried(2000), carried(1000, 80), VOID),
        (carried(2000), carried(1000, failed=1), MET),
        (carried(2000), carried(1000, failed=2), VOID),
    ],
)
def test_goal_is_void_where_an_idle_core_or_failures_could_have_decided_it(
    ours: Carried, theirs: Carried, verdict: str
) -> None:
    tally = Tally(carried={"a": [ours] * 3, "b": [theirs] * 3})
    row = judged(tally, Versus(ours="a", theirs="b", least=1.5), rate, "{}", busy=busy)
    assert row.verdict == verdict


def test_cost_is_to_be_at_most_so_much() -> None:
    tally = Tally(carried={"a": [carried(90)] * 3, "b": [carried(100)] * 3})
    for most, verdict in ((0.95, MET), (0.85, MISSED)):
        assert judged(tally, Versus(ours="a", theirs="b", most=most), rate, "{}").verdict == verdict


def test_failures_are_a_row_of_their_own() -> None:
    tally = Tally(carried={"a": [carried(90)], "b": [carried(100, failed=7)]})
    assert [(row.name, row.values) for row in tally.troubles()] == [("failed, b", (7,))]
