"""Rows say their medians, and a row without values says why it has none."""

from collections.abc import Collection

import pytest

from bench.parts.figures import MET, MISSED, UNDECIDED, VOID, Row, at_least, missing, slope, table


def test_row_tells_median_range_and_whether_the_goal_is_met() -> None:
    row = at_least(10, Row(name="rate", unit="/s", values=(12.0, 10.0, 11.0)))
    assert (row.median, row.verdict) == (11.0, MET)
    assert row.as_text().split() == ["rate,", "/s", "11", "10", "to", "12", ">=", "10", "met"]


@pytest.mark.parametrize(
    ("values", "void", "verdict"),
    [
        ((2, 2, 2, 2, 0), (), MET),
        ((2, 2, 2, 0, 0), (), UNDECIDED),
        ((2, 2, 0, 0, 0), (), UNDECIDED),
        ((2, 0, 0, 0, 0), (), MISSED),
        ((2, 2, 2, 0, 0), (3, 4), MET),
        ((2, 2, 2, 2, 2), (0, 1, 2), VOID),
        ((2, 2), (), VOID),
        ((2,) * 8, range(5), VOID),
        ((2,) * 8, range(4), MET),
    ],
)
def test_verdict_takes_four_in_five_of_at_least_three_rounds_that_tell(
    values: tuple[int, ...], void: Collection[int], verdict: str
) -> None:
    assert at_least(1, Row(name="", unit="", values=values), void=void).verdict == verdict


def test_row_without_values_tells_why() -> None:
    row = missing("uring", "no io_uring here")
    assert row.as_json()["median"] is None
    assert row.as_text().split() == ["uring", "-", "no", "io_uring", "here"]


def test_table_has_every_heading_and_row() -> None:
    text = table([("Rates", [Row(name="a", unit="", values=(1.0,))]), ("Empty", [])])
    assert [line.split()[0] for line in text.splitlines() if line][1:] == ["Rates", "a", "Empty"]


def test_slopes_noise_is_its_grain_at_least() -> None:
    steady = slope([0.0, 1.0, 2.0, 4.0], [100.0, 101.0, 102.0, 104.0], grain=10)
    assert (steady.per_x, steady.noise_per_x) == pytest.approx((1.0, 2.5))
    restless = slope([0.0, 1.0, 2.0, 3.0], [0.0, 100.0, 0.0, 100.0], grain=10)
    assert restless.noise_per_x > restless.per_x
