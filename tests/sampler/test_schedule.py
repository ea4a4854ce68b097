"""When readings are due, and what becomes of those that cannot be kept."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.sampler.schedule import Schedule, Slot

MS = 1_000_000
TEN_A_SECOND = Schedule(start_ns=1_000 * MS, rate_per_s=10)


@pytest.mark.parametrize(
    ("index", "now_ms", "expected", "missed"),
    [
        (-1, 0, 0, 0),  # before the start
        (-1, 1_000, 0, 0),
        (0, 1_001, 1, 0),  # the usual case: done long before the next
        (0, 1_100, 1, 0),
        (0, 1_149, 1, 0),  # late by less than half a period: taken
        (0, 1_150, 2, 1),  # late by half a period: given up
        (0, 1_449, 4, 3),
        (0, 1_450, 5, 4),
        (5, 1_100, 6, 0),  # never backwards, even when the clock says so
    ],
)
def test_late_reading_is_taken_or_given_up(
    index: int, now_ms: int, expected: int, missed: int
) -> None:
    due_ns = (1_000 + 100 * expected) * MS
    slot = Slot(index=expected, due_ns=due_ns, missed=missed)
    assert TEN_A_SECOND.after(index, now_ms * MS) == slot


def test_due_times_do_not_drift() -> None:
    schedule = Schedule(start_ns=5, rate_per_s=3)
    assert [schedule.due_ns(index) for index in (0, 3, 3_000_000)] == [
        5,
        1_000_000_005,
        1_000_000_000_000_005,
    ]


@pytest.mark.parametrize("rate_per_s", [0, -1, float("nan")])
def test_rate_that_is_none_is_refused(rate_per_s: float) -> None:
    with pytest.raises(ValueError, match="rate above 0"):
        Schedule(start_ns=0, rate_per_s=rate_per_s)


@given(
    st.floats(0.1, 1000),
    st.lists(st.integers(0, 5_000 * MS), min_size=1, max_size=50),
)
def test_readings_never_bunch_and_every_slot_is_taken_or_counted(
    rate_per_s: float, costs_ns: list[int]
) -> None:
    schedule = Schedule(start_ns=0, rate_per_s=rate_per_s)
    half_ns = 0.5e9 / rate_per_s
    now_ns, index, missed, began_ns = 0, -1, 0, []
    for cost_ns in costs_ns:
        slot = schedule.after(index, now_ns)
        index, missed = slot.index, missed + slot.missed
        now_ns = max(now_ns, slot.due_ns)
        began_ns.append(now_ns)
        assert now_ns - slot.due_ns <= half_ns + 1
        now_ns += cost_ns
    assert index + 1 == len(costs_ns) + missed
    assert all(b - a >= half_ns - 2 for a, b in pairwise(began_ns))
