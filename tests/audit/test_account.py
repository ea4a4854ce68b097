"""What an account reads out of the books and the counters, figure by figure."""

from collections import Counter

import pytest

from twbench.audit import Account, StackAccount
from twbench.model.endings import ENDINGS, Departure
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.states import Side

History = tuple[tuple[float, int], ...]


def stack(
    counters: dict[str, int] | None = None,
    *,
    fleet: FleetReport | None = None,
    server: ServerReport | None = None,
    history: History = (),
) -> StackAccount:
    return StackAccount(
        name="stack",
        sides=frozenset(Side),
        counters=counters or {},
        history=history,
        time_wait_end=0,
        accept_queue_end=0,
        fleet=fleet or FleetReport(),
        server=server or ServerReport(),
    )


def test_counter_that_never_rose_is_zero() -> None:
    assert stack({"TcpOutRsts": 3}).count("TcpOutRsts") == 3
    assert stack().count("TcpOutRsts") == 0


def test_entries_are_long_and_short_time_waits_together() -> None:
    assert stack({"TcpExtTW": 5, "TcpExtTWKilled": 2, "TcpExtTWRecycled": 9}).entries == 7


def test_departures_of_both_sides_of_a_stack_add_up() -> None:
    both = stack(
        fleet=FleetReport(departures=Counter(active_close=2, passive_close=7)),
        server=ServerReport(departures=Counter(active_close=3)),
    )
    assert both.departed(Departure.ACTIVE_CLOSE) == 5
    assert both.departed(Departure.RESET_BY_PEER) == 0


# aborts by unread data, aborts by late data or linger 0, resets booked: closes that became resets
@pytest.mark.parametrize(
    ("on_close", "on_data", "booked", "unforeseen"),
    [(0, 0, 0, 0), (3, 0, 0, 3), (0, 4, 0, 4), (3, 4, 7, 0), (3, 4, 5, 2), (1, 0, 3, 0)],
)
def test_aborts_beyond_the_booked_resets_are_closes_that_became_resets(
    on_close: int, on_data: int, booked: int, unforeseen: int
) -> None:
    counters = {"TcpExtTCPAbortOnClose": on_close, "TcpExtTCPAbortOnData": on_data}
    book = FleetReport(departures=Counter(active_reset=booked))
    assert stack(counters, fleet=book).unforeseen_resets == unforeseen


# A TIME_WAIT lasts for 60 s and up to 5.2 s more. At 100 s, what had come in by 34.8 s is gone for
# sure, and what came in after 40 s is there for sure.
@pytest.mark.parametrize(
    ("history", "removed", "interval"),
    [
        ((), 0, (0, 0)),
        (((0.0, 0), (10.0, 5), (50.0, 9)), 0, (0, 0)),
        (((0.0, 5), (60.0, 9)), 0, (0, 9)),
        (((0.0, 5), (1.0, 7), (61.0, 9)), 0, (0, 9)),
        (((0.0, 5), (1.0, 7), (65.5, 9)), 0, (5, 9)),
        (((0.0, 0), (34.0, 10), (35.0, 20), (39.0, 30), (41.0, 40), (100.0, 90)), 0, (10, 40)),
        (((0.0, 0), (34.0, 10), (100.0, 90)), 4, (6, 90)),
        (((0.0, 0), (34.0, 10), (100.0, 90)), 50, (0, 90)),
        (((0.0, 0), (10.0, 30), (200.0, 30)), 0, (30, 30)),
    ],
    ids=[
        "no tick",
        "shorter than a TIME_WAIT",
        "the first second may be over",
        "not yet for sure",
        "now for sure",
        "the ticks around both limits",
        "less what was removed before",
        "more removed than had come in",
        "all of it",
    ],
)
def test_expired_time_waits_are_known_as_an_interval(
    history: History, removed: int, interval: tuple[int, int]
) -> None:
    assert stack(history=history).expired(removed) == interval


def test_books_of_all_stacks_add_up_and_stay_as_they_were() -> None:
    one = stack(fleet=FleetReport(attempted=2, errors=Counter(a=1)))
    two = stack(fleet=FleetReport(attempted=3, errors=Counter(a=1, b=1)))
    three = stack(server=ServerReport(accepted=4))
    account = Account(ending=ENDINGS["client-fin"], stacks=(one, two, three))
    assert account.fleet == FleetReport(attempted=5, errors=Counter(a=2, b=1))
    assert account.server == ServerReport(accepted=4)
    assert one.fleet == FleetReport(attempted=2, errors=Counter(a=1))


def test_races_and_refusals_are_counted_by_kind_whatever_their_errno() -> None:
    errors = Counter(
        {
            "read:EOF:keepalive_race": 1,
            "write:EPIPE:keepalive_race": 2,
            "read:ECONNRESET:reset_by_peer": 4,
            "connect:ECONNREFUSED:refused": 8,
            "connect:ETIMEDOUT:syn_unanswered": 16,
        }
    )
    book = FleetReport(errors=errors)
    account = Account(ending=ENDINGS["client-fin"], stacks=(stack(fleet=book),))
    assert (account.races, account.refused) == (3, 8)
