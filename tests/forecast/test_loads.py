import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.forecast import ClosedLoad, OpenLoad, Stage
from twbench.forecast.loads import Arrivals

rates = st.floats(0, 1_000, allow_subnormal=False)
loads = st.lists(
    st.builds(Stage, duration_s=st.floats(0.5, 100), rate_start_per_s=rates, rate_end_per_s=rates),
    min_size=1,
    max_size=4,
).map(lambda stages: OpenLoad(stages=tuple(stages)))
windows = st.floats(0, 100, allow_subnormal=False)


def grid(arrivals: Arrivals, points: int = 400) -> list[float]:
    return [arrivals.duration_s * i / points for i in range(points + 1)]


def stage(duration_s: float, start: float, end: float) -> Stage:
    return Stage(duration_s=duration_s, rate_start_per_s=start, rate_end_per_s=end)


def test_ramp_counts_the_area_under_its_rate() -> None:
    arrivals = Arrivals(OpenLoad(stages=(stage(10, 0, 100), stage(5, 100, 100))))
    assert arrivals.by(-1) == 0
    assert arrivals.by(10) == 500
    assert arrivals.by(12) == 700
    assert arrivals.by(99) == arrivals.total == 1_000


def test_peak_of_a_hump_lies_astride_its_top() -> None:
    arrivals = Arrivals(OpenLoad(stages=(stage(10, 0, 100), stage(10, 100, 0))))
    # The best 10 s are from 5 to 15: two trapezes of 5 s between 50/s and 100/s.
    assert arrivals.peak(10) == pytest.approx(750)


def test_crossing_is_where_the_window_holds_the_limit() -> None:
    arrivals = Arrivals(OpenLoad.constant(rate_per_s=100, duration_s=30))
    assert arrivals.exceeds_at(500, window_s=10) == pytest.approx(5)
    assert arrivals.exceeds_at(1_000, window_s=10) is None
    assert arrivals.exceeds_at(999, window_s=10) == pytest.approx(9.99)


def test_crossing_on_a_ramp_is_the_root_of_its_parabola() -> None:
    arrivals = Arrivals(OpenLoad(stages=(stage(10, 0, 100),)))
    assert arrivals.exceeds_at(125, window_s=60) == pytest.approx(5)


@given(load=loads, share=st.floats(0, 2))
def test_load_of_at_most_so_many_is_the_same_until_then(load: OpenLoad, share: float) -> None:
    whole = Arrivals(load)
    limit = whole.total * share
    cut = Arrivals(load.at_most(limit))
    assert cut.total == pytest.approx(min(limit, whole.total), rel=1e-6, abs=1e-4)
    for t_s in grid(cut):
        assert cut.by(t_s) == pytest.approx(whole.by(t_s), rel=1e-6, abs=1e-4)


@given(loads, windows)
def test_peak_is_the_supremum_of_the_window(load: OpenLoad, window_s: float) -> None:
    arrivals = Arrivals(load)
    seen = max(arrivals.within(window_s, t) for t in grid(arrivals))
    peak = arrivals.peak(window_s)
    step_s = arrivals.duration_s / 400
    assert seen <= peak + 1e-6
    assert peak <= seen + 1_000 * step_s + 1e-6


@given(loads, windows, st.floats(0, 10_000))
def test_crossing_is_the_first(load: OpenLoad, window_s: float, limit: float) -> None:
    arrivals = Arrivals(load)
    at_s = arrivals.exceeds_at(limit, window_s)
    slack = 1e-6 * max(limit, 1)
    if at_s is None:
        assert arrivals.peak(window_s) <= limit + slack
        return
    assert arrivals.within(window_s, at_s) == pytest.approx(limit, rel=1e-6, abs=1e-4)
    assert all(arrivals.within(window_s, t) <= limit + slack for t in grid(arrivals) if t < at_s)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, -1, 1), (1, 1, -1)])
def test_stage_that_is_none_is_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="a stage lasts"):
        stage(*numbers)


def test_load_without_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        OpenLoad(stages=())


@pytest.mark.parametrize(("concurrency", "duration_s", "rate"), [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_closed_load_that_is_none_is_refused(
    concurrency: int, duration_s: float, rate: float
) -> None:
    with pytest.raises(ValueError, match="a closed load"):
        ClosedLoad(concurrency=concurrency, duration_s=duration_s, rate_per_s=rate)
