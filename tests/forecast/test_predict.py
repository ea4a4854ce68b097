import dataclasses
from collections import deque
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.forecast import (
    CLIENT_TIME_WAIT,
    NO_TIME_WAIT,
    REUSED_TIME_WAIT,
    SERVER_TIME_WAIT,
    ClosedLoad,
    Hold,
    OpenLoad,
    PortBudget,
    Scan,
    Stage,
    predict,
    predict_capacity,
)

WHOLE_RANGE = PortBudget()


def constant(rate_per_s: float, duration_s: float = 600) -> OpenLoad:
    return OpenLoad.constant(rate_per_s=rate_per_s, duration_s=duration_s)


def test_client_that_closes_first_sustains_470_connections_a_second() -> None:
    forecast = predict(WHOLE_RANGE, constant(400), CLIENT_TIME_WAIT)
    assert forecast.sustainable_rate_per_s == pytest.approx(28_232 / 60)
    assert forecast.cheap_rate_per_s == pytest.approx(14_116 / 60)
    assert forecast.time_wait_steady == forecast.time_wait_peak == pytest.approx(24_000)
    assert forecast.exhausted_after_s is None


def test_rate_above_it_fails_when_the_last_port_is_taken() -> None:
    forecast = predict(WHOLE_RANGE, constant(1_000), CLIENT_TIME_WAIT)
    assert forecast.exhausted_after_s == pytest.approx(28.232)
    assert forecast.time_wait_steady == forecast.time_wait_peak == 28_232
    assert forecast.ports_in_use_peak == 28_232


def test_connects_grow_dear_at_half_the_range() -> None:
    forecast = predict(WHOLE_RANGE, constant(1_000), CLIENT_TIME_WAIT)
    assert forecast.cliff_after_s == pytest.approx(14.116)
    assert forecast.cliff_after_connections == pytest.approx(14_116)


def test_window_of_ports_has_no_cliff() -> None:
    forecast = predict(PortBudget(scan=Scan.WINDOW), constant(1_000), CLIENT_TIME_WAIT)
    assert forecast.cliff_after_s is None
    assert forecast.cliff_after_connections is None
    assert forecast.exhausted_after_s == pytest.approx(28.232)


def test_four_destinations_last_four_times_as_long() -> None:
    forecast = predict(PortBudget(destinations=4), constant(4_000), CLIENT_TIME_WAIT)
    assert forecast.exhausted_after_s == pytest.approx(28.232)
    assert forecast.capacity == 4 * forecast.capacity_per_destination


def test_server_that_closes_first_leaves_the_ports_free() -> None:
    forecast = predict(WHOLE_RANGE, constant(200), SERVER_TIME_WAIT)
    assert forecast.sustainable_rate_per_s is None
    assert forecast.exhausted_after_s is None
    assert forecast.ports_in_use_peak == 0
    assert forecast.time_wait_steady == pytest.approx(12_000)


def test_server_holds_no_more_time_waits_than_the_client_uses_ports() -> None:
    forecast = predict(WHOLE_RANGE, constant(5_000), SERVER_TIME_WAIT)
    assert forecast.time_wait_steady == 14_116


def test_reuse_after_a_second_multiplies_the_rate_by_sixty() -> None:
    forecast = predict(WHOLE_RANGE, constant(20_000), REUSED_TIME_WAIT)
    assert forecast.sustainable_rate_per_s == pytest.approx(28_232)
    assert forecast.exhausted_after_s is None
    assert forecast.time_wait_steady == 28_232


def test_reuse_stays_in_the_first_half_while_it_can() -> None:
    forecast = predict(WHOLE_RANGE, constant(10_000), REUSED_TIME_WAIT)
    assert forecast.time_wait_steady == 14_116


def test_reset_leaves_nothing() -> None:
    forecast = predict(WHOLE_RANGE, constant(5_000), NO_TIME_WAIT)
    assert forecast.time_wait_steady == forecast.time_wait_peak == 0
    assert forecast.exhausted_after_s is None


def test_short_run_ends_before_the_steady_state() -> None:
    forecast = predict(WHOLE_RANGE, constant(400, duration_s=10), CLIENT_TIME_WAIT)
    assert forecast.time_wait_peak == pytest.approx(4_000)
    assert forecast.time_wait_steady == pytest.approx(24_000)


def test_run_that_ends_in_time_is_not_exhausted() -> None:
    forecast = predict(WHOLE_RANGE, constant(1_000, duration_s=28), CLIENT_TIME_WAIT)
    assert forecast.exhausted_after_s is None


def test_rate_that_needs_exactly_all_ports_is_sustained() -> None:
    budget = PortBudget(range_low=10_000, range_high=15_999)
    forecast = predict(budget, constant(100), CLIENT_TIME_WAIT)
    assert forecast.exhausted_after_s is None
    assert forecast.sustainable_rate_per_s == pytest.approx(100)


def test_open_connections_hold_their_ports_too() -> None:
    hold = Hold(port_hold_s=60, time_wait_s=60, lifetime_s=40)
    forecast = predict(WHOLE_RANGE, constant(100), hold)
    assert forecast.ports_in_use_peak == pytest.approx(10_000)
    assert forecast.time_wait_steady == pytest.approx(6_000)
    assert forecast.sustainable_rate_per_s == pytest.approx(282.32)


def test_ramp_is_exhausted_where_its_area_fills_the_range() -> None:
    ramp = OpenLoad(stages=(Stage(duration_s=60, rate_start_per_s=0, rate_end_per_s=1_200),))
    forecast = predict(WHOLE_RANGE, ramp, CLIENT_TIME_WAIT)
    # 10 t^2 connections by second t.
    assert forecast.exhausted_after_s == pytest.approx(2_823.2**0.5)


def test_closed_load_of_unknown_rate_has_only_its_limits() -> None:
    load = ClosedLoad(concurrency=232, duration_s=60)
    forecast = predict(WHOLE_RANGE, load, CLIENT_TIME_WAIT)
    assert forecast.sustainable_rate_per_s == pytest.approx(28_000 / 60)
    assert forecast.time_wait_steady is None
    assert forecast.time_wait_peak is None
    assert forecast.ports_in_use_peak is None
    assert forecast.exhausted_after_s is None


def test_closed_load_of_a_known_rate_keeps_its_own_ports_besides() -> None:
    load = ClosedLoad(concurrency=232, duration_s=60, rate_per_s=1_000)
    forecast = predict(WHOLE_RANGE, load, CLIENT_TIME_WAIT)
    assert forecast.exhausted_after_s == pytest.approx(28.0)


def test_closed_load_wider_than_the_range_fails_at_once() -> None:
    load = ClosedLoad(concurrency=101, duration_s=60)
    forecast = predict(PortBudget(range_low=100, range_high=199), load, SERVER_TIME_WAIT)
    assert forecast.exhausted_after_s == 0
    assert forecast.cliff_after_s == 0


budgets = st.builds(
    PortBudget,
    range_low=st.just(1_000),
    range_high=st.integers(1_000, 1_400),
    source_addresses=st.integers(1, 3),
    destinations=st.integers(1, 3),
    scan=st.sampled_from(Scan),
)
holds = st.builds(
    Hold,
    port_hold_s=st.floats(0, 60, allow_subnormal=False),
    time_wait_s=st.just(60.0),
    lifetime_s=st.floats(0, 10, allow_subnormal=False),
)
rates = st.floats(0.01, 200)


@given(budgets, holds, rates, rates)
def test_more_load_is_never_easier(budget: PortBudget, hold: Hold, a: float, b: float) -> None:
    low, high = (predict(budget, constant(rate), hold) for rate in sorted((a, b)))
    never = float("inf")
    assert (low.time_wait_peak or 0) <= (high.time_wait_peak or 0) + 1e-6
    assert (low.ports_in_use_peak or 0) <= (high.ports_in_use_peak or 0) + 1e-6
    for name in ("exhausted_after_s", "cliff_after_s"):
        at_low, at_high = getattr(low, name), getattr(high, name)
        at_low, at_high = (never if at is None else at for at in (at_low, at_high))
        assert at_low >= at_high - 1e-6
    assert low.sustainable_rate_per_s == high.sustainable_rate_per_s


@given(budgets, holds, rates)
def test_nothing_exceeds_the_capacity(budget: PortBudget, hold: Hold, rate: float) -> None:
    forecast = predict(budget, constant(rate), hold)
    for count in (forecast.time_wait_peak, forecast.time_wait_steady, forecast.ports_in_use_peak):
        assert count is not None
        assert 0 <= count <= budget.capacity
    assert forecast.capacity == budget.capacity


@dataclass
class Simulated:
    """What came of opening connections one by one."""

    exhausted_after_s: float | None = None
    cliff_after_s: float | None = None
    time_wait_peak: int = 0


def simulate(budget: PortBudget, hold: Hold, rate_per_s: float, duration_s: float) -> Simulated:
    """Open connections one by one, with a port each, until one finds none."""
    result = Simulated()
    held: deque[float] = deque()
    waiting: deque[float] = deque()
    for i in range(int(rate_per_s * duration_s)):
        now_s = i / rate_per_s
        while held and held[0] <= now_s:
            held.popleft()
        while waiting and waiting[0] <= now_s:
            waiting.popleft()
        if len(held) >= budget.cheap_capacity and result.cliff_after_s is None:
            result.cliff_after_s = now_s
        if len(held) >= budget.capacity:
            result.exhausted_after_s = now_s
            return result
        held.append(now_s + hold.lifetime_s + hold.port_hold_s)
        waiting.append(now_s + hold.time_wait_s)
        result.time_wait_peak = max(result.time_wait_peak, len(waiting))
    return result


@given(budgets, st.floats(0.5, 50), st.floats(1, 60), st.floats(0, 5))
def test_closed_form_agrees_with_opening_one_connection_after_another(
    budget: PortBudget, rate: float, hold_s: float, lifetime_s: float
) -> None:
    hold = Hold(port_hold_s=hold_s, time_wait_s=hold_s, lifetime_s=lifetime_s)
    needed = rate * (hold_s + lifetime_s)
    simulated = simulate(budget, hold, rate, 120)
    forecast = predict(budget, constant(rate, 120), hold)
    # One connection more or less decides where the need is within one of what there is.
    step_s = 2 / rate
    if abs(needed - budget.capacity) > 2 and not 0 <= 120 * rate - budget.capacity <= 2:
        assert (simulated.exhausted_after_s is None) == (forecast.exhausted_after_s is None)
    if simulated.exhausted_after_s is not None and forecast.exhausted_after_s is not None:
        assert abs(simulated.exhausted_after_s - forecast.exhausted_after_s) <= step_s
    if simulated.cliff_after_s is not None and forecast.cliff_after_s is not None:
        assert abs(simulated.cliff_after_s - forecast.cliff_after_s) <= step_s
    assert forecast.time_wait_peak is not None
    assert abs(simulated.time_wait_peak - forecast.time_wait_peak) <= 2


def test_where_nobody_knows_who_closes_only_the_ports_are_foretold() -> None:
    known = dataclasses.asdict(predict_capacity(PortBudget(destinations=2)))
    assert known.pop("capacity") == 2 * 28_232
    assert known.pop("capacity_per_destination") == 28_232
    assert set(known.values()) == {None}
