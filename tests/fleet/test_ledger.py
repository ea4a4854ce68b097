"""The fleet's books: histograms folded at once equal those recorded one by one."""

from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from twbench.fleet.ledger import Ledger, encode
from twbench.model.outcomes import Phase
from twbench.model.reports import DIGITS, HIGHEST_US

latencies_ns = st.one_of(
    st.integers(0, 10_000_000),
    st.integers(0, 4 * HIGHEST_US * 1000),
    st.integers(0, 42).map(lambda power: (1 << power) * 1000),
    st.integers(1, 42).map(lambda power: (1 << power) * 1000 - 1),
)


@given(st.lists(latencies_ns, min_size=1, max_size=200))
def test_encoded_latencies_equal_values_recorded_one_by_one(values_ns: list[int]) -> None:
    one_by_one = HdrHistogram(1, HIGHEST_US, DIGITS)
    for value_ns in values_ns:
        assert one_by_one.record_value(min(max(value_ns // 1000, 1), HIGHEST_US))
    folded = HdrHistogram.decode(encode(values_ns))
    assert folded.get_total_count() == len(values_ns)
    assert list(folded.counts) == list(HdrHistogram.decode(one_by_one.encode()).counts)
    for percentile in (0, 50, 99, 100):
        assert folded.get_value_at_percentile(percentile) == (
            HdrHistogram.decode(one_by_one.encode()).get_value_at_percentile(percentile)
        )


def test_take_hands_the_tick_over_and_begins_anew() -> None:
    ledger = Ledger()
    ledger.report.attempted += 2
    ledger.connect_ns += [1_000_000, 2_000_000]
    ledger.error(Phase.READ, "EOF", reused=False, now_ns=7)
    first, second = ledger.take(10), ledger.take(20)
    assert (first.t_ns, first.attempted) == (10, 2)
    assert first.errors == {"read:EOF:closed_unanswered": 1}
    assert HdrHistogram.decode(first.histograms["connect"]).get_total_count() == 2
    assert set(first.histograms) == {"connect"}
    assert second.as_json() == {"t_ns": 20}


def test_only_the_first_of_an_error_has_its_moment_told() -> None:
    ledger = Ledger()
    ledger.error(Phase.READ, "EOF", reused=False, now_ns=7)
    ledger.error(Phase.READ, "EOF", reused=False, now_ns=8)
    ledger.error(Phase.READ, "EOF", reused=True, now_ns=9)
    assert ledger.take(10).first_error_ns == {
        "read:EOF:closed_unanswered": 7,
        "read:EOF:keepalive_race": 9,
    }
    ledger.error(Phase.READ, "EOF", reused=False, now_ns=11)
    assert ledger.take(12).first_error_ns == {}


def test_errors_of_connections_are_no_failed_attempts() -> None:
    ledger = Ledger()
    ledger.connection_error(Phase.IDLE, "EOF")
    report = ledger.take(1)
    assert report.connection_errors == {"idle:EOF:closed_while_idle": 1}
    assert not report.errors


def test_each_tick_has_the_processor_time_since_the_one_before() -> None:
    ledger = Ledger()
    ledger.cpu_ns = 1_000
    ticks = [ledger.take(10, cpu_ns=1_400), ledger.take(20, cpu_ns=1_500), ledger.take(30)]
    assert [tick.cpu_ns for tick in ticks] == [400, 100, 0]
