"""The server's books, and its memory of the TIME_WAIT that a SYN may end early."""

import pytest

from twbench.model.endings import Departure
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S
from twbench.server.ledger import Ledger, Peer

PEER = ("198.18.1.1", 40_000)
OTHER = ("198.18.1.1", 40_001)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the ledger's clock, as a list of one number of seconds."""
    now_s = [1000.0]
    monkeypatch.setattr("time.monotonic_ns", lambda: round(now_s[0] * 1e9))
    return now_s


@pytest.mark.parametrize(
    ("age_s", "reopened", "perhaps"),
    [
        (0.1, 1, 0),
        (TIME_WAIT_S - 0.1, 1, 0),
        (TIME_WAIT_S + 0.1, 0, 1),
        (TIME_WAIT_S + TIME_WAIT_SLACK_S - 0.1, 0, 1),
        (TIME_WAIT_S + TIME_WAIT_SLACK_S + 0.1, 0, 0),
    ],
)
def test_peer_that_returns_has_ended_the_time_wait_unless_it_was_over(
    age_s: float, reopened: int, perhaps: int, clock: list[float]
) -> None:
    ledger = Ledger()
    left_ns: dict[Peer, int] = {}
    ledger.accepted(PEER, left_ns)
    ledger.departed(Departure.ACTIVE_CLOSE, PEER, left_ns)
    clock[0] += age_s
    ledger.accepted(PEER, left_ns)
    report = ledger.take(1)
    assert (report.accepted, report.reopened, report.reopened_perhaps) == (2, reopened, perhaps)


@pytest.mark.parametrize("how", [d for d in Departure if d is not Departure.ACTIVE_CLOSE])
def test_only_an_active_close_is_remembered(how: Departure) -> None:
    ledger = Ledger()
    left_ns: dict[Peer, int] = {}
    ledger.departed(how, PEER, left_ns)
    ledger.accepted(PEER, left_ns)
    assert ledger.take(1).reopened == 0


def test_time_wait_is_ended_once_and_by_its_own_peer() -> None:
    ledger = Ledger()
    left_ns: dict[Peer, int] = {}
    ledger.departed(Departure.ACTIVE_CLOSE, PEER, left_ns)
    for peer in (OTHER, PEER, PEER):
        ledger.accepted(peer, left_ns)
    assert ledger.take(1).reopened == 1


def test_listeners_remember_apart() -> None:
    ledger = Ledger()
    ledger.departed(Departure.ACTIVE_CLOSE, PEER, {})
    ledger.accepted(PEER, {})
    assert ledger.take(1).reopened == 0


def test_what_no_longer_waits_is_forgotten_and_what_does_is_not(clock: list[float]) -> None:
    ledger = Ledger()
    left_ns: dict[Peer, int] = {}
    for peer in (PEER, OTHER):
        ledger.departed(Departure.ACTIVE_CLOSE, peer, left_ns)
        clock[0] += 10
    clock[0] += TIME_WAIT_S + TIME_WAIT_SLACK_S - 15
    ledger.forget(left_ns)
    assert list(left_ns) == [OTHER]
    # back and gone again: the youngest now
    ledger.accepted(OTHER, left_ns)
    ledger.departed(Departure.ACTIVE_CLOSE, OTHER, left_ns)
    clock[0] += TIME_WAIT_S
    ledger.forget(left_ns)
    assert list(left_ns) == [OTHER]


def test_take_hands_the_tick_over_and_begins_anew() -> None:
    ledger = Ledger()
    ledger.accepted(None, {})
    ledger.departed(Departure.PASSIVE_CLOSE, None, {})
    assert ledger.take(5).as_json() == {
        "t_ns": 5,
        "accepted": 1,
        "departures": {"passive_close": 1},
    }
    assert ledger.take(6).as_json() == {"t_ns": 6}
