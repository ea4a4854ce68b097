"""Intervals and differences: right where all is known, and seldom wrong where all is noise."""

import builtins
import math
import random
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.compare.statistics import (
    LEVEL,
    Difference,
    Values,
    best,
    coverage,
    differences,
    estimate,
    require_scipy,
)
from twbench.model.errors import UsageError

ROUNDS = 5
FIGURES = 4
NEAR = st.floats(min_value=0.9, max_value=1.1)


def rounds(chance: random.Random, names: str, *, noise: float, effect: float = 0) -> Any:  # noqa: ANN401
    """Return made-up pages/s: rounds that are fast or slow as a whole, and runs that vary."""
    drift = [chance.gauss(0, 0.05) for _ in range(ROUNDS)]
    return {
        name: [1000 * math.exp(d + chance.gauss(0, noise) + effect * n) for d in drift]
        for n, name in enumerate(names)
    }


def pairs_of(values: Mapping[str, Values], *, step: float = 0.0) -> tuple[Difference, ...]:
    """Return what a comparison by a single figure finds."""
    return differences({"only": values}, steps={"only": step})["only"]


def shown(
    chance: random.Random, names: str, *, noise: float, effect: float = 0, figures: int = FIGURES
) -> int:
    """Return how many differences a made-up comparison shows, by independent figures."""
    tables = {
        f"figure-{n}": rounds(chance, names, noise=noise, effect=effect) for n in range(figures)
    }
    return sum(pair.shown for pairs in differences(tables).values() for pair in pairs)


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
    trials = 400
    false = sum(shown(chance, "ab", noise=noise) > 0 for _ in range(trials))
    # one percent is promised for all four figures together
    assert false <= 0.025 * trials


def test_among_eight_alike_hardly_ever_any_is_told_apart() -> None:
    chance = random.Random(8)
    trials = 60
    wrong = sum(shown(chance, "abcdefgh", noise=0.05) > 0 for _ in range(trials))
    assert wrong <= 0.05 * trials


def test_twenty_comparisons_with_itself_have_one_false_difference_at_most() -> None:
    chance = random.Random(20)
    batches = [sum(shown(chance, "ab", noise=0.05) > 0 for _ in range(20)) for _ in range(20)]
    # one batch of sixty has two
    assert sum(false > 1 for false in batches) <= 2


def test_each_further_figure_makes_the_test_stricter_for_all() -> None:
    values = {"a": [1.0, 1.1, 1.05, 0.98, 1.02], "b": [1.3, 1.32, 1.36, 1.28, 1.24]}
    noise = {"a": [1.0, 2.0, 1.0, 2.0, 1.0], "b": [2.0, 1.0, 2.0, 1.0, 2.0]}
    [alone] = pairs_of(values)
    assert alone.confidence == pytest.approx(1 - LEVEL)
    among = differences({"it": values} | {f"other-{n}": noise for n in range(3)})
    [pair] = among["it"]
    assert pair.p == alone.p
    assert pair.confidence == pytest.approx(1 - LEVEL / 4)
    assert not any(each.shown for n in range(3) for each in among[f"other-{n}"])
    assert list(among) == ["it", "other-0", "other-1", "other-2"]


def test_difference_of_a_fifth_is_found_in_five_rounds() -> None:
    chance = random.Random(5)
    found = [shown(chance, "ab", noise=0.03, effect=0.2) for _ in range(100)]
    assert sum(found) >= 0.9 * FIGURES * 100


def test_many_contestants_tell_each_other_how_noisy_the_figure_is() -> None:
    chance = random.Random("many")
    found = 0
    for _ in range(20):
        values = rounds(chance, "abcdefghijkl", noise=0.04)
        values["a"] = [1.2 * value for value in values["a"]]
        pairs = pairs_of(values)
        found += sum(pair.shown for pair in pairs if pair.name == "a")
    assert found >= 0.8 * 20 * 11


def test_among_many_of_unlike_noise_a_false_difference_is_seldom() -> None:
    chance = random.Random("unlike")
    noises = [0.01 + 0.012 * n for n in range(12)]
    false = 0
    for _ in range(40):
        drift = [chance.gauss(0, 0.05) for _ in range(ROUNDS)]
        values = {
            f"c{n}": [1000 * math.exp(d + chance.gauss(0, noise)) for d in drift]
            for n, noise in enumerate(noises)
        }
        false += any(pair.shown for pair in pairs_of(values))
    assert false <= 2


def test_noisier_contestant_is_held_to_its_own_noise() -> None:
    chance = random.Random("noisy")
    values = rounds(chance, "abcdefgh", noise=0.01)
    values["a"] = [500.0, 2000.0, 700.0, 1900.0, 1000.0]
    pairs = {(pair.name, pair.other): pair for pair in pairs_of(values)}
    low, high = pairs["a", "b"].low, pairs["a", "b"].high
    assert low is not None
    assert high is not None
    assert low < -0.5
    assert high > 1
    assert not any(pair.shown for pair in pairs.values() if pair.name == "a")


def test_what_slows_a_whole_round_does_not_hide_a_difference() -> None:
    a = [100.0, 50.0, 200.0, 80.0, 10.0]
    [pair] = pairs_of({"a": a, "b": [x * f for x, f in zip(a, (1.1, 1.11, 1.09, 1.1, 1.1))]})  # noqa: B905
    assert pair.shown
    assert pair.change == pytest.approx(-0.0909, abs=0.001)


def test_difference_below_two_percent_is_none_however_sure() -> None:
    a = [100.0, 101.0, 99.0, 100.0, 102.0]
    for factor, told in ((1.015, False), (1.03, True)):
        [pair] = pairs_of({"a": [x * factor for x in a], "b": a})
        assert pair.p == pytest.approx(0, abs=1e-4)
        assert pair.low is not None
        assert pair.low > 0
        assert pair.shown is told


def test_interval_holds_no_difference_exactly_where_none_is_found() -> None:
    chance = random.Random(6)
    for effect in (0.0, 0.05, 0.1, 0.3):
        for pair in pairs_of(rounds(chance, "abcd", noise=0.04, effect=effect)):
            assert pair.low is not None
            assert pair.high is not None
            found = pair.low > 0 or pair.high < 0
            assert pair.shown == (found and abs(pair.change or 0) >= 0.02)
            assert (pair.confidence or 0) >= 1 - LEVEL


def test_rounds_that_one_could_not_measure_are_left_out() -> None:
    [pair] = pairs_of({"a": [1.0, None, 3.0, 4.0, 0.0], "b": [1.0, 2.0, 3.0, None, 5.0]})
    assert (pair.rounds, pair.p, pair.low, pair.shown) == (2, None, None, False)


def test_figures_without_noise_differ_by_what_they_say() -> None:
    same, more = [1.0] * 5, [1.5] * 5
    alike, apart, _ = pairs_of({"a": same, "b": same, "c": more})
    assert (alike.p, alike.shown) == (1, False)
    assert apart.shown
    assert apart.p == pytest.approx(0, abs=1e-8)
    assert (apart.low, apart.high) == pytest.approx((-1 / 3, -1 / 3), abs=0.01)


def test_rounds_that_agree_know_no_more_than_their_digits() -> None:
    # 80 and 82 µs, read in whole ones, may be 80.5 and 81.5
    a, b = [0.080] * 5, [0.082] * 5
    [by_microseconds] = pairs_of({"a": b, "b": a}, step=0.001)
    assert by_microseconds.low is not None
    assert by_microseconds.high is not None
    assert by_microseconds.low < 0 < by_microseconds.change < by_microseconds.high  # type: ignore[operator]
    assert not by_microseconds.shown
    [by_ratio] = pairs_of({"a": b, "b": a})
    assert by_ratio.shown
    assert by_ratio.low is not None
    assert by_ratio.high is not None
    assert by_ratio.high - by_ratio.low > 0.001
    # far above the step, three digits are what is left
    [slow] = pairs_of({"a": [82.0] * 5, "b": [80.0] * 5}, step=0.001)
    assert (slow.low, slow.high) == pytest.approx((by_ratio.low, by_ratio.high))


@given(st.lists(st.tuples(NEAR, NEAR), min_size=3, max_size=8))
def test_seen_from_the_other_side_it_is_the_same_difference(
    pairs: list[tuple[float, float]],
) -> None:
    a, b = ([pair[n] for pair in pairs] for n in (0, 1))
    [one] = pairs_of({"a": a, "b": b})
    [other] = pairs_of({"b": b, "a": a})
    assert one.shown == other.shown
    turned = one.reversed()
    assert (turned.name, turned.other) == ("b", "a")
    assert turned.change == pytest.approx(other.change, rel=1e-6, abs=1e-9)
    assert turned.low == pytest.approx(other.low, rel=1e-6, abs=1e-9)


def test_difference_without_end_can_be_turned_around_too() -> None:
    [one] = pairs_of({"a": [1.0, 1.0, 1.0], "b": [1.0, 1.0, 30_000.0]})
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
    assert best(pairs_of(values), "high") == "a"


def test_those_that_are_left_out_are_not_best_and_keep_nobody_from_it() -> None:
    values = {"quick": [5.0] * 5, "a": [10.0] * 5, "b": [20.0] * 5}
    pairs = pairs_of(values)
    assert best(pairs, "low") == "quick"
    assert best(pairs, "low", without=["quick"]) == "a"
    assert best(pairs, "low", without=["quick", "a"]) is None


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
