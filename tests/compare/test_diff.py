"""What differs between two subjects, by how much, and whether it is shown to."""

import math
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.compare.diff import Change, Figure, Kind, Subject, diff

NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9, allow_nan=False), st.booleans()
)


def change(a: float | None, b: float | None) -> Change:
    return Change(key="rates.requests_per_s", a=Figure(value=a), b=Figure(value=b))


def between(low: float, high: float) -> Figure:
    return Figure(value=(low + high) / 2, low=low, high=high)


def run(
    figures: Mapping[str, float | None], context: Mapping[str, object] | None = None
) -> Subject:
    return Subject(
        kind=Kind.RUN,
        name="run",
        figures={key: Figure(value=value) for key, value in figures.items()},
        context=context or {},
    )


@pytest.mark.parametrize(
    ("a", "b", "absolute", "relative"),
    [
        (200, 220, 20, Fraction(1, 10)),
        (200, 190, -10, Fraction(-1, 20)),
        (-4, -2, 2, Fraction(1, 2)),
        # in binary fractions this is more than a tenth
        (0.7, 0.77, Fraction(7, 100), Fraction(1, 10)),
        (0, 0, 0, 0),
        (0, 3, 3, math.inf),
        (0.0, -3, -3, -math.inf),
        (5, 0, -5, -1),
        (True, False, -1, -1),
        (None, 5, None, None),
        (5, None, None, None),
        (None, None, None, None),
    ],
)
def test_change_is_exact_and_of_nothing_infinite(
    a: float | None, b: float | None, absolute: object, relative: object
) -> None:
    assert change(a, b).absolute == absolute
    assert change(a, b).relative == relative


@given(a=NUMBERS, b=NUMBERS)
def test_change_back_is_the_same_with_the_other_sign(a: float, b: float) -> None:
    there, back = change(a, b).absolute, change(b, a).absolute
    assert there is not None
    assert back == -there
    assert change(a, b).shown == (there != 0)


def test_difference_is_shown_where_intervals_do_not_overlap_and_not_where_they_touch() -> None:
    for other, shown in (
        (between(9, 11), False),
        (between(11, 13), False),
        (between(12.5, 13), True),
        (between(1, 2), True),
        (Figure(value=10), False),
        (Figure(value=10.1), True),
    ):
        assert Change(key="rates.x", a=between(8, 12), b=other).shown is shown
        assert Change(key="rates.x", a=other, b=between(8, 12)).shown is shown


def test_by_default_the_figures_that_people_ask_for_are_told() -> None:
    a = run(
        {
            "outcomes.ok": 10,
            "outcomes.received_bytes": 10,
            "latency_ms.request.p99": 1.5,
            "hosts.client.time_wait.peak": 7,
            "hosts.client.counters.TcpExtTW": 7,
            "hosts.client-2.ports.in_use_peak": 9,
            "audit.balanced": True,
            "rates.requests_per_s": 100,
        }
    )
    b = run(dict.fromkeys(a.figures, 0) | {"rates.requests_per_s": 100})
    asked = [each.key for each in diff(a, b).changes]
    assert asked == [
        "outcomes.ok",
        "latency_ms.request.p99",
        "hosts.client.time_wait.peak",
        "hosts.client-2.ports.in_use_peak",
        "audit.balanced",
    ]
    told = {each.key for each in diff(a, b, every=True).changes}
    assert told - {*asked} == {"outcomes.received_bytes", "hosts.client.counters.TcpExtTW"}


def test_error_that_came_up_on_one_side_alone_is_counted_from_nothing() -> None:
    key = "outcomes.errors.read:EOF:keepalive_race"
    for a, b, absolute in ((run({}), run({key: 4}), 4), (run({key: 4}), run({}), -4)):
        (only,) = diff(a, b).changes
        assert only.key == key
        assert only.absolute == absolute


def test_figure_that_one_side_alone_has_is_told_without_a_number_for_the_other() -> None:
    (only,) = diff(run({}), run({"rates.client_cpu_us_per_request": 40})).changes
    assert (only.a.value, only.b.value) == (None, 40)
    # a latency that nobody took has no table, and no difference from one that is null
    assert not diff(run({"latency_ms.connect": None}), run({})).changes


def test_context_tells_what_is_unlike_and_what_one_side_alone_has_a_table_together() -> None:
    a = run({}, {"scenario.load.mode": "open", "scenario.load.seed": 1, "kernel": "6.18"})
    b = run({}, {"scenario.load.mode": "closed", "scenario.load.concurrency": 4, "kernel": "6.18"})
    assert diff(a, b).context == (
        ("scenario.load.mode", "open", "closed"),
        ("scenario.load.seed", 1, None),
        ("scenario.load.concurrency", None, 4),
    )
    assert not diff(a, a).context


def test_what_differs_alike_for_all_contestants_is_told_once() -> None:
    def context(duration_s: float, sizes: dict[str, int]) -> dict[str, float]:
        load = {f"contestants.{name}.load.duration_s": duration_s for name in sizes}
        return load | {f"contestants.{name}.client.pool.size": sizes[name] for name in sizes}

    a = run({}, context(8, {"one": 5, "other": 5}))
    b = run({}, context(3, {"one": 5, "other": 6}))
    assert diff(a, b).context == (
        ("contestants.*.load.duration_s", 8, 3),
        ("contestants.other.client.pool.size", 5, 6),
    )
    alone = run({}, context(3, {"one": 5}))
    assert ("contestants.one.load.duration_s", 8, 3) in diff(a, alone).context
