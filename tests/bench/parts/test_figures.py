"""Rows say their medians, and a row without values says why it has none."""

from bench.parts.figures import Row, at_least, missing, slope, table


def test_row_tells_median_range_and_whether_the_goal_is_met() -> None:
    row = at_least(10, Row(name="rate", unit="/s", values=(12.0, 9.0, 11.0)))
    assert (row.median, row.met) == (11.0, True)
    assert row.as_text().split() == ["rate,", "/s", "11", "9", "to", "12", ">=", "10", "met"]


def test_row_without_values_tells_why() -> None:
    row = missing("uring", "no io_uring here")
    assert row.as_json()["median"] is None
    assert row.as_text().split() == ["uring", "-", "no", "io_uring", "here"]


def test_table_has_every_heading_and_row() -> None:
    text = table([("Rates", [Row(name="a", unit="", values=(1.0,))]), ("Empty", [])])
    assert [line.split()[0] for line in text.splitlines() if line][1:] == ["Rates", "a", "Empty"]


def test_growth_counts_only_beyond_its_grain() -> None:
    steady = slope([0.0, 1.0, 2.0, 3.0], [100.0, 101.0, 102.0, 103.0], grain=10)
    leaking = slope([0.0, 1.0, 2.0, 3.0], [100.0, 200.0, 300.0, 400.0], grain=10)
    assert (steady.per_x, steady.beyond_noise) == (1.0, False)
    assert (leaking.per_x, leaking.beyond_noise) == (100.0, True)
