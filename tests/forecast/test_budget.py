import pytest

from twbench.forecast import Hold, PortBudget, Scan


def test_default_range_has_28232_ports_towards_one_destination() -> None:
    budget = PortBudget()
    assert budget.ports == budget.capacity == 28_232
    assert budget.cheap_capacity == 14_116


def test_capacity_is_ports_times_sources_times_destinations() -> None:
    budget = PortBudget(range_low=1024, range_high=2023, source_addresses=3, destinations=7)
    assert budget.capacity_per_destination == 3_000
    assert budget.capacity == 21_000
    assert budget.cheap_capacity == 10_500


def test_first_half_of_an_odd_range_has_the_port_more() -> None:
    assert PortBudget(range_low=40_000, range_high=40_002).cheap_capacity == 2


def test_window_has_no_first_half() -> None:
    budget = PortBudget(scan=Scan.WINDOW)
    assert budget.cheap_capacity == budget.capacity


def test_reserved_ports_are_missing_from_the_range() -> None:
    assert PortBudget(range_low=100, range_high=199, reserved_ports=40).capacity == 60


@pytest.mark.parametrize(
    ("low", "high", "reserved", "sources", "destinations"),
    [
        (0, 10, 0, 1, 1),
        (20, 10, 0, 1, 1),
        (10, 65_536, 0, 1, 1),
        (10, 19, 10, 1, 1),
        (10, 19, -1, 1, 1),
        (10, 19, 0, 0, 1),
        (10, 19, 0, 1, 0),
    ],
)
def test_budget_without_ports_is_refused(
    low: int, high: int, reserved: int, sources: int, destinations: int
) -> None:
    with pytest.raises(ValueError, match=r"port|source"):
        PortBudget(
            range_low=low,
            range_high=high,
            reserved_ports=reserved,
            source_addresses=sources,
            destinations=destinations,
        )


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_hold_that_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a hold is finite"):
        Hold(port_hold_s=seconds, time_wait_s=60.0)
