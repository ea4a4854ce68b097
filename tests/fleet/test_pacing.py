"""When load is due: profiles and their inverse, constant and Poisson arrivals, ramps."""

import heapq
import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.fleet.pacing import Profile, arrivals
from twbench.model.scenario import LoadSpec

durations_s = st.floats(0.01, 1000)
levels = st.floats(0, 10_000)
profiles = st.lists(st.tuples(durations_s, levels, levels), min_size=1, max_size=5).map(
    lambda legs: Profile(*legs)
)


def open_load(**fields: object) -> LoadSpec:
    return LoadSpec.model_validate({"mode": "open", **fields})


def area_until(profile: Profile, t_s: float) -> float:
    """Return the area up to a time, by the trapezoids of the legs."""
    area = 0.0
    for leg in profile.legs:
        within_s = min(max(t_s - leg.start_s, 0.0), leg.duration_s)
        slope = (leg.high - leg.low) / leg.duration_s
        area += within_s * (leg.low + slope * within_s / 2)
    return area


@given(profiles, st.floats(0, 1))
def test_time_of_is_the_inverse_of_the_area(profile: Profile, part: float) -> None:
    area = part * profile.area
    at_s = profile.time_of(area)
    if at_s is None:
        assert area == pytest.approx(profile.area)
    else:
        assert 0 <= at_s <= profile.duration_s * (1 + 1e-9)
        assert math.isclose(
            area_until(profile, at_s), area, rel_tol=1e-6, abs_tol=1e-6 * (1 + profile.area)
        )


@given(profiles, st.lists(st.floats(0, 1), min_size=2))
def test_time_of_never_goes_back(profile: Profile, parts: list[float]) -> None:
    times = [profile.time_of(part * profile.area) for part in sorted(parts)]
    reached = [at_s for at_s in times if at_s is not None]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(reached))


@given(profiles)
def test_area_beyond_the_whole_is_never_reached(profile: Profile) -> None:
    assert profile.time_of(profile.area * 1.001 + 1) is None


@given(profiles)
def test_level_starts_each_leg_low_and_is_zero_outside(profile: Profile) -> None:
    for leg in profile.legs:
        assert profile.level(leg.start_s) == leg.low
    assert profile.level(-0.001) == 0
    assert profile.level(profile.duration_s + 0.001) == 0
    assert profile.highest == max(max(leg.low, leg.high) for leg in profile.legs)


def test_stages_lead_from_the_first_level_to_each_target() -> None:
    stages = [{"duration_s": 2, "rate_per_s": 10}, {"duration_s": 3, "rate_per_s": 0}]
    profile = Profile.of(open_load(rate_per_s=4, stages=stages))
    assert [(leg.start_s, leg.duration_s, leg.low, leg.high) for leg in profile.legs] == [
        (0, 2, 4, 10),
        (2, 3, 10, 0),
    ]
    assert profile.area == 2 * 7 + 3 * 5
    assert profile.level(1) == 7
    assert profile.varies


def test_stages_of_a_closed_load_are_users() -> None:
    load = LoadSpec.model_validate({"stages": [{"duration_s": 4, "concurrency": 8}]})
    assert [Profile.of(load).level(t_s) for t_s in (0, 1, 2, 3)] == [0, 2, 4, 6]


def test_constant_load_does_not_vary() -> None:
    assert not Profile.of(open_load(rate_per_s=4, duration_s=5)).varies


def test_constant_arrivals_are_evenly_spaced_from_the_start() -> None:
    due_s = list(arrivals(open_load(rate_per_s=10, duration_s=1)))
    assert due_s == pytest.approx([k / 10 for k in range(10)])


@given(st.floats(0.5, 500), st.floats(0.1, 10), st.integers(1, 7))
def test_workers_of_a_constant_load_deal_out_the_whole(
    rate_per_s: float, duration_s: float, workers: int
) -> None:
    load = open_load(rate_per_s=rate_per_s, duration_s=duration_s)
    parts = [list(arrivals(load, worker=w, workers=workers)) for w in range(workers)]
    assert list(heapq.merge(*parts)) == list(arrivals(load))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.floats(0.1, 1000), st.floats(0.01, 5))
def test_constant_load_has_as_many_arrivals_as_its_area(
    rate_per_s: float, duration_s: float
) -> None:
    number = len(list(arrivals(open_load(rate_per_s=rate_per_s, duration_s=duration_s))))
    assert abs(number - math.ceil(rate_per_s * duration_s)) <= 1


def test_ramp_from_zero_arrives_by_the_square_root_of_time() -> None:
    load = open_load(stages=[{"duration_s": 10, "rate_per_s": 20}])
    due_s = list(arrivals(load))
    assert due_s == pytest.approx([math.sqrt(k) for k in range(100)])


def test_stage_without_load_has_no_arrivals() -> None:
    stages = [
        {"duration_s": 1, "rate_per_s": 0},
        {"duration_s": 5, "rate_per_s": 0},
        {"duration_s": 1, "rate_per_s": 100},
    ]
    due_s = list(arrivals(open_load(stages=stages)))
    assert len(due_s) == 50
    assert min(due_s) >= 6


def test_poisson_arrivals_have_the_mean_and_the_spread_of_their_rate() -> None:
    due_s = list(arrivals(open_load(rate_per_s=1000, duration_s=20, arrivals="poisson")))
    # five standard deviations of a Poisson count; gaps are exponential, so mean = deviation
    assert abs(len(due_s) - 20_000) < 5 * math.sqrt(20_000)
    gaps_s = [later - earlier for earlier, later in pairwise(due_s)]
    assert statistics.fmean(gaps_s) == pytest.approx(1e-3, rel=5 / math.sqrt(20_000))
    assert statistics.stdev(gaps_s) == pytest.approx(1e-3, rel=0.05)
    assert due_s == sorted(due_s)
    assert due_s[-1] < 20


def test_poisson_workers_are_independent_and_add_up() -> None:
    load = open_load(rate_per_s=1000, duration_s=10, arrivals="poisson")
    parts = [list(arrivals(load, worker=w, workers=4)) for w in range(4)]
    for part in parts:
        assert abs(len(part) - 2500) < 5 * math.sqrt(2500)
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_seed_decides_poisson_arrivals() -> None:
    def times(seed: int) -> list[float]:
        load = open_load(rate_per_s=50, duration_s=2, arrivals="poisson", seed=seed)
        return list(arrivals(load))

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_poisson_follows_a_ramp() -> None:
    stages = [{"duration_s": 10, "rate_per_s": 2000}]
    due_s = list(arrivals(open_load(stages=stages, arrivals="poisson")))
    early = sum(at_s < 5 for at_s in due_s)
    # a quarter of the triangle's area lies in its first half
    assert early / len(due_s) == pytest.approx(0.25, abs=0.03)
