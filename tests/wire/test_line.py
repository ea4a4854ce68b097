"""One direction of the wire: what is lost, what waits, and when it arrives."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from twbench.model.scenario import WireSpec
from twbench.model.states import Side
from twbench.wire.line import Line

MS = 1_000_000


def line(origin: Side = Side.CLIENT, **fields: float) -> Line:
    return Line(WireSpec.model_validate(fields), origin)


def arrivals(of: Line, packets: Iterable[tuple[int, int]]) -> list[int | None]:
    """Return when each packet arrives, which enters at a time and has a length."""
    return [of.enter(now_ns, length) for now_ns, length in packets]


def test_line_that_does_nothing_delivers_at_once() -> None:
    plain = line()
    assert arrivals(plain, [(5, 1500), (7, 40)]) == [5, 7]
    assert not any(plain.loses() or plain.doubles() for _ in range(1000))


def test_every_packet_is_delayed_alike() -> None:
    assert arrivals(line(delay_ms=20), [(0, 1500), (3, 40)]) == [20 * MS, 20 * MS + 3]


def test_packets_leave_one_after_another_at_the_rate() -> None:
    # a byte takes 8,000 ns at 1 Mbit/s
    slow = line(rate_mbit_per_s=1)
    assert arrivals(slow, [(0, 1000), (0, 500)]) == [8 * MS, 12 * MS]
    assert slow.enter(20 * MS, 1000) == 28 * MS


def test_delay_begins_when_a_packet_has_left() -> None:
    assert line(rate_mbit_per_s=1, delay_ms=3).enter(0, 1000) == 11 * MS


def test_queue_drops_what_finds_it_full_and_takes_again_when_one_has_left() -> None:
    short = line(rate_mbit_per_s=1, queue_packets=2)
    assert arrivals(short, [(0, 1000)] * 3) == [8 * MS, 16 * MS, None]
    assert short.enter(8 * MS, 1000) == 24 * MS
    assert short.enter(8 * MS, 1000) is None


def losses(origin: Side = Side.CLIENT, **fields: float) -> list[bool]:
    lossy = line(origin, loss=0.1, **fields)
    return [lossy.loses() for _ in range(5000)]


def test_losses_are_the_seeds_and_different_for_each_direction() -> None:
    assert losses(seed=1) == losses(seed=1)
    assert losses(seed=1) != losses(seed=2)
    assert losses(Side.SERVER) != losses(Side.CLIENT)
    assert 0.08 < sum(losses()) / 5000 < 0.12


def test_certain_loss_and_certain_duplication_meet_every_packet() -> None:
    assert all(line(loss=1).loses() for _ in range(100))
    assert all(line(duplication=1).doubles() for _ in range(100))


@given(
    gaps=st.lists(st.tuples(st.integers(-MS, 20 * MS), st.integers(20, 1500)), max_size=50),
    rate=st.none() | st.floats(0.1, 1000),
    delay_ms=st.floats(0, 100),
)
def test_packets_arrive_in_the_order_in_which_they_entered_and_never_early(
    gaps: list[tuple[int, int]], rate: float | None, delay_ms: float
) -> None:
    tested = Line(WireSpec(delay_ms=delay_ms, rate_mbit_per_s=rate), Side.CLIENT)
    now_ns, last_ns = 10**12, 0
    for gap_ns, length in gaps:
        now_ns += gap_ns
        due_ns = tested.enter(now_ns, length)
        assert due_ns is not None
        assert due_ns >= max(last_ns, now_ns + round(delay_ms * MS))
        last_ns = due_ns
