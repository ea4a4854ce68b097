"""The pictures are well-formed, tell every figure, and let no two names overlap."""

import itertools
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.parts.picture import Panel, Series, bars, lines, spread

SVG = "{http://www.w3.org/2000/svg}"
RATES = {"ours": 20_000.0, "wrk": 15_000.0, "a <b> & c": 5_000.0}


def words(svg: str) -> list[str]:
    return [each.text or "" for each in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - ours


def test_bars_stand_best_first_in_each_panel() -> None:
    panels = [
        Panel(heading="rate", values=RATES, most_first=True),
        Panel(heading="cost", values=RATES, most_first=False),
    ]
    told = words(bars("title", "note", panels, ours=frozenset({"ours"})))
    rate, cost = told.index("rate"), told.index("cost")
    assert told[rate + 1 : cost : 2] == ["ours", "wrk", "a <b> & c"]
    assert told[cost + 1 :: 2] == ["a <b> & c", "wrk", "ours"]
    assert "15,000" in told


def test_longest_bar_is_the_largest_value_and_only_ours_is_marked() -> None:
    panel = Panel(heading="rate", values=RATES, most_first=True)
    root = ET.fromstring(bars("t", "n", [panel], ours=frozenset({"ours"})))  # noqa: S314 - ours
    shown = [each for each in root.iter(f"{SVG}rect") if "bar" in each.get("class", "")]
    widths = [float(each.get("width", 0)) for each in shown]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] == pytest.approx(widths[0] / 4, rel=0.01)
    assert [each.get("class") for each in shown] == ["bar ours", "bar", "bar"]


def test_bar_that_was_held_back_is_lighter_and_says_why() -> None:
    panel = Panel(
        heading="rate", values=RATES, most_first=True, held=frozenset({"wrk"}), why="server-bound"
    )
    svg = bars("t", "n", [panel], ours=frozenset({"ours"}))
    assert "15,000, server-bound" in words(svg)
    assert svg.count("server-bound") == svg.count('class="bar held"') == 1


def test_line_is_straight_where_the_cost_grows_as_the_size() -> None:
    series = Series(name="look", points=((1000, 1.0), (10_000, 10.0), (100_000, 100.0)), ours=True)
    svg = lines("t", "n", [series], across="sockets", up="ms")
    root = ET.fromstring(svg)  # noqa: S314 - ours
    spots = [(float(e.get("cx", 0)), float(e.get("cy", 0))) for e in root.iter(f"{SVG}circle")]
    (x0, y0), (x1, y1), (x2, y2) = spots
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2
    assert {"1,000", "10,000", "100,000", "look"} <= {*words(svg)}


def test_one_size_alone_can_be_drawn() -> None:
    assert lines("t", "n", [Series(name="a", points=((5, 1.0),))], across="n", up="ms")


def test_nothing_is_no_picture() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        lines("t", "n", [], across="n", up="ms")


@given(st.dictionaries(st.text(), st.integers(0, 500).map(float)), st.integers(1, 30))
def test_spread_keeps_order_distance_and_frame(places: dict[str, float], apart: int) -> None:
    moved = spread(places, apart, 450)
    assert moved.keys() == places.keys()
    downwards = sorted(moved, key=moved.__getitem__)
    assert [places[name] for name in downwards] == sorted(places.values())
    for above, below in itertools.pairwise(downwards):
        assert moved[below] - moved[above] >= apart
    assert all(place <= 450 for place in moved.values())
