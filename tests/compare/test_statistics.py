"""Intervals and differences: right where all is known, and seldom wrong where all is noise."""

import builtins
import math
import random
from collections.abc import Sequence
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.compare.statistics import (
    LEVEL,
    Difference,
    best,
    coverage,
    differences,
    estimate,
    require_scipy,
)
from twbench.model.errors import UsageError

ROUNDS = 5
NEAR = st.floats(min_value=0.9, max_value=1.1)


def rounds(chance: random.Random, names: str, *, noise: float, effect: float = 0) -> Any:  # noqa: ANN401
    """Return made-up pages/s: rounds that are fast or slow as a whole, and runs that vary."""
    drift = [chance.gauss(0, 0.05) for _ in range(ROUNDS)]
    return {
        name: [1000 * math.exp(d + chance.gauss(0, noise) + effect * n) for d in drift]
        for n, name in enumerate(names)
    }


def shown(values: dict[str, list[float]]) -> int:
    return sum(pair.shown for pair in differences(values))


# intervals


@given(st.lists(st.integers(1, 1000), min_size=3, max_size=9))
def test_interval_holds_the_median_and_lies_within_the_values(values: list[int]) -> None:
    found = estimate(values, seed=1)
    assert found.median == median(values)
    assert found.low is not None
    assert found.high is not None
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


def test_interval_of_five_is_from_the_least_to_the_greatest() -> None:
    found = estimate([3, 1, 5, 2, 4], seed=1)
    assert (found.low, found.median, found.high) == (1, 3, 5)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_intervals_hold_the_true_median_as_often_as_is_said(size: int) -> None:
    chance = random.Random(11)
    trials = 400
    held = 0
    for _ in range(trials):
        # skewed, as latencies are; its median is 1
        found = estimate([chance.lognormvariate(0, 0.5) for _ in range(size)], seed=1)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1 <= found.high
    expected = coverage(size)
    assert expected is not None
    assert held / trials == pytest.approx(expected, abs=4 * math.sqrt(0.25 / trials))


def test_intervals_of_more_than_five_hold_it_in_most_cases() -> None:
    chance = random.Random(12)
    found = [estimate([chance.gauss(9, 1) for _ in range(8)], seed=1) for _ in range(300)]
    held = sum((each.low or 0) <= 9 <= (each.high or 0) for each in found)
    assert held / 300 > 0.86
    assert coverage(8) is None


def test_few_values_have_a_median_alone_and_none_has_nothing() -> None:
    assert estimate([2.0, None, 4.0], seed=1).as_json() == {
        "median": 3.0,
        "low": None,
        "high": None,
    }
    assert estimate([None, None], seed=1).median is None
    assert estimate([], seed=1).median is None


def test_intervals_are_the_same_each_time() -> None:
    values = [5.0, 7.0, 1.0, 8.0, 2.0, 9.0, 4.0]
    assert estimate(values, seed=3) == estimate(values, seed=3)


# differences


@pytest.mark.parametrize("noise", [0.03, 0.06, 0.1])
def test_contestant_is_seldom_told_apart_from_itself(noise: float) -> None:
    chance = random.Random(f"aa {noise}")
    trials = 300
    false = sum(shown(rounds(chance, "ab", noise=noise)) for _ in range(trials))
    # one percent is expected, and twenty comparisons may have one false difference at the most
    assert false <= 0.03 * trials


def test_among_eight_alike_hardly_ever_any_is_told_apart() -> None:
    chance = random.Random(8)
    trials = 60
    wrong = sum(shown(rounds(chance, "abcdefgh", noise=0.05)) > 0 for _ in range(trials))
    assert wrong <= 0.05 * trials


def test_twenty_comparisons_with_itself_have_one_false_difference_at_most() -> None:
    chance = random.Random(20)
    batches = [sum(shown(rounds(chance, "ab", noise=0.05)) for _ in range(20)) for _ in range(20)]
    # one batch of sixty has two
    assert sum(false > 1 for false in batches) <= 2


def test_difference_of_a_fifth_is_found_in_five_rounds() -> None:
    chance = random.Random(5)
    found = [shown(rounds(chance, "ab", noise=0.03, effect=0.2)) for _ in range(100)]
    assert sum(found) >= 95


def test_what_slows_a_whole_round_does_not_hide_a_difference() -> None:
    a = [100.0, 50.0, 200.0, 80.0, 10.0]
    [pair] = differences({"a": a, "b": [x * f for x, f in zip(a, (1.1, 1.11, 1.09, 1.1, 1.1))]})  # noqa: B905
    assert pair.shown
    assert pair.change == pytest.approx(-0.0909, abs=0.001)


def test_difference_below_two_percent_is_none_however_sure() -> None:
    a = [100.0, 101.0, 99.0, 100.0, 102.0]
    for factor, told in ((1.015, False), (1.03, True)):
        [pair] = differences({"a": [x * factor for x in a], "b": a})
        assert pair.p == 0
        assert pair.shown is told


def test_interval_holds_no_difference_exactly_where_none_is_found() -> None:
    chance = random.Random(6)
    for effect in (0.0, 0.05, 0.1, 0.3):
        for pair in differences(rounds(chance, "abcd", noise=0.04, effect=effect)):
            assert pair.low is not None
            assert pair.high is not None
            found = pair.low > 0 or pair.high < 0
            assert pair.shown == (found and abs(pair.change or 0) >= 0.02)
            assert (pair.confidence or 0) >= 1 - LEVEL


def test_rounds_that_one_could_not_measure_are_left_out() -> None:
    [pair] = differences({"a": [1.0, None, 3.0, 4.0, 0.0], "b": [1.0, 2.0, 3.0, None, 5.0]})
    assert (pair.rounds, pair.p, pair.low, pair.shown) == (2, None, None, False)


def test_figures_without_noise_differ_by_what_they_say() -> None:
    same, more = [1.0] * 5, [1.5] * 5
    alike, apart, _ = differences({"a": same, "b": same, "c": more})
    assert (alike.p, alike.shown) == (1, False)
    assert (apart.p, apart.shown) == (0, True)
    assert (apart.low, apart.high) == pytest.approx((-1 / 3, -1 / 3))


@given(st.lists(st.tuples(NEAR, NEAR), min_size=3, max_size=8))
def test_seen_from_the_other_side_it_is_the_same_difference(
    pairs: list[tuple[float, float]],
) -> None:
    a, b = ([pair[n] for pair in pairs] for n in (0, 1))
    [one] = differences({"a": a, "b": b})
    [other] = differences({"b": b, "a": a})
    assert one.shown == other.shown
    turned = one.reversed()
    assert (turned.name, turned.other) == ("b", "a")
    assert turned.change == pytest.approx(other.change, rel=1e-6, abs=1e-9)
    assert turned.low == pytest.approx(other.low, rel=1e-6, abs=1e-9)


def test_difference_without_end_can_be_turned_around_too() -> None:
    [one] = differences({"a": [1.0, 1.0, 1.0], "b": [1.0, 1.0, 30_000.0]})
    assert one.low == -1
    turned = one.reversed()
    assert turned.high is not None
    assert turned.high > 1e20


# the best


def pair(name: str, other: str, change: float, *, shown: bool = True) -> Difference:
    return Difference(name=name, other=other, rounds=5, change=change, p=0.001, shown=shown)


@pytest.mark.parametrize(
    ("pairs", "high", "low"),
    [
        ([pair("a", "b", 0.5), pair("a", "c", 0.2), pair("b", "c", -0.2)], "a", "b"),
        ([pair("a", "b", 0.5), pair("a", "c", 0.2, shown=False), pair("b", "c", -0.2)], None, "b"),
        ([pair("a", "b", 0.0, shown=False)], None, None),
        ([pair("a", "b", -0.3)], "b", "a"),
        ([], None, None),
    ],
)
def test_best_is_who_is_shown_to_be_better_than_each_other(
    pairs: Sequence[Difference], high: str | None, low: str | None
) -> None:
    assert best(pairs, "high") == high
    assert best(pairs, "low") == low


def test_contestant_that_was_never_measured_keeps_nobody_from_being_best() -> None:
    values = {"a": [10.0] * 5, "b": [5.0] * 5, "broken": [0.0] * 5}
    assert best(differences(values), "high") == "a"


# the extra


def test_missing_scipy_is_told_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **named: Any) -> Any:  # noqa: ANN401
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match=r"pip install 'twbench\[compare\]'"):
        require_scipy()
