"""Contestants take turns, and a goal says met, missed, void, or why there is none."""

import pytest

from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.loads import Carried
from bench.parts.turns import Tally, Versus, in_turn, judged


def carried(rate_per_s: float, busy_percent: float = 100) -> Carried:
    return Carried(
        exchanges=round(rate_per_s),
        failed=0,
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


def test_each_round_begins_with_another_contestant() -> None:
    order: list[str] = []

    def carry(name: str) -> Carried:
        order.append(name)
        return carried(1)

    in_turn("test", "abc", 3, carry)
    assert "".join(order) == "abcbcacab"


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
    assert (row.values, row.goal, row.met) == ((), reason, None)


def test_ratio_is_taken_within_each_round() -> None:
    tally = Tally(carried={"a": [carried(30), carried(100)], "b": [carried(10), carried(50)]})
    row = judged(tally, Versus(ours="a", theirs="b", least=2.5), rate, "rate, {}")
    assert (row.name, row.values, row.met) == ("rate, a / b", (3.0, 2.0), True)


@pytest.mark.parametrize(
    ("ours", "theirs", "met"),
    [
        (carried(20), carried(10), True),
        (carried(12), carried(10), False),
        (carried(20, 80), carried(10), True),  # ours could do still more
        (carried(12, 80), carried(10), None),
        (carried(20), carried(10, 80), None),
    ],
)
def test_goal_is_void_where_an_idle_core_could_have_decided_it(
    ours: Carried, theirs: Carried, met: bool | None
) -> None:
    tally = Tally(carried={"a": [ours], "b": [theirs]})
    row = judged(tally, Versus(ours="a", theirs="b", least=1.5), rate, "{}", busy=busy)
    assert row.met is met
    assert ("void" in row.goal) is (met is None)


def test_cost_is_to_be_at_most_so_much() -> None:
    tally = Tally(carried={"a": [carried(90)], "b": [carried(100)]})
    assert judged(tally, Versus(ours="a", theirs="b", most=0.95), rate, "{}").met
    assert not judged(tally, Versus(ours="a", theirs="b", most=0.85), rate, "{}").met
