"""What the books make of reports, ticks and looks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.fleet.ledger import encode
from twbench.model.reports import FleetReport
from twbench.run.books import Books, StackBooks, histogram, percentiles_ms
from twbench.sampler.samples import LookSample, TickSample

SECOND_NS = 1_000_000_000


def tick(t_s: float, *, waiting: int, **counters: int) -> TickSample:
    return TickSample(
        stack="client",
        t_ns=round(t_s * SECOND_NS),
        lateness_ns=0,
        cost_ns=0,
        source="proc",
        missed=0,
        sockstat={"tw": waiting},
        counters=counters,
    )


def look(
    states: dict[str, dict[str, int]],
    *,
    ports: dict[str, int] | None = None,
    queue: dict[str, int] | None = None,
) -> LookSample:
    return LookSample(
        stack="client",
        label="scheduled",
        t_ns=0,
        lateness_ns=0,
        cost_ns=0,
        source="sock_diag",
        missed=0,
        interrupted=False,
        sockets=0,
        states_by_side=states,
        listening=1,
        ports_in_use=ports or {},
        accept_queue=queue or {},
        time_wait_left_s={},
    )


def test_tick_brings_time_wait_and_all_entries_into_it() -> None:
    books = StackBooks()
    books.hear(tick(1, waiting=7, TcpExtTW=8, TcpExtTWKilled=2, TcpActiveOpens=99))
    assert books.time_wait == [(SECOND_NS, 7, 10)]
    assert books.last is not None
    assert books.last.counters["TcpActiveOpens"] == 99


def test_connects_of_the_last_second_are_counted_whatever_the_pace_of_the_ticks() -> None:
    books = StackBooks()
    assert books.opened_per_s == 0
    for t_s, opened in ((0, 0), (1, 10), (1.5, 60), (2, 61)):
        books.hear(tick(t_s, waiting=0, TcpActiveOpens=opened))
    assert books.opened_per_s == 61 - 10


def test_looks_leave_the_most_sockets_of_each_state_and_the_most_ports() -> None:
    books = StackBooks()
    books.hear(look({"client": {"ESTABLISHED": 5, "TIME_WAIT": 1}}, ports={"a": 6, "b": 2}))
    books.hear(look({"client": {"ESTABLISHED": 2, "TIME_WAIT": 4}, "server": {"LAST_ACK": 1}}))
    assert books.states_peak["client"] == {"ESTABLISHED": 5, "TIME_WAIT": 4}
    assert books.states_peak["server"] == {"LAST_ACK": 1}
    assert books.ports_peak == 6
    assert [waiting for _, waiting in books.looks] == [{"client": 1}, {"client": 4, "server": 0}]


@pytest.mark.parametrize(
    ("seen", "quiet"),
    [
        (look({}), True),
        (look({"client": {"TIME_WAIT": 9}}), True),
        (look({"client": {"TIME_WAIT": 9, "ESTABLISHED": 0}}), True),
        (look({"client": {"TIME_WAIT": 9, "FIN_WAIT_2": 1}}), False),
        (look({}, queue={"198.19.0.1:8080": 1}), False),
        (look({}, queue={"198.19.0.1:8080": 0}), True),
    ],
)
def test_stack_is_quiet_when_only_time_wait_is_left(seen: LookSample, *, quiet: bool) -> None:
    books = StackBooks()
    assert not books.quiet
    books.hear(seen)
    assert books.quiet is quiet


def test_reports_of_all_client_hosts_add_up() -> None:
    books = Books(("client-1", "client-2", "server"), ("client-1", "client-2"))
    books.hear_fleet("client-1", FleetReport(attempted=3, ok=2))
    books.hear_fleet("client-2", FleetReport(attempted=4, ok=4))
    books.hear_fleet("client-1", FleetReport(attempted=1, ok=1))
    assert (books.fleet.attempted, books.fleet.ok) == (8, 7)
    assert books.fleets["client-1"].attempted == 4


def test_recent_is_the_last_second_and_its_latencies() -> None:
    books = Books(("client",), ("client",))
    for second, latency_ms in ((1, 100), (2, 20), (3, 30)):
        report = FleetReport(t_ns=second * SECOND_NS, ok=1)
        report.histograms["request"] = encode([latency_ms * 1_000_000])
        books.hear_fleet("client", report)
    recent, latency = books.recent(3 * SECOND_NS)
    assert (recent.ok, latency.get_total_count()) == (2, 2)
    assert latency.get_max_value() == pytest.approx(30_000, rel=0.001)
    assert books.latencies["request"].get_total_count() == 3


def test_histogram_without_values_has_no_percentiles() -> None:
    assert percentiles_ms(histogram()) is None


@given(st.lists(st.integers(1_000, 60_000_000_000), min_size=1, max_size=200))
def test_percentiles_are_in_milliseconds_and_rise_up_to_the_maximum(values_ns: list[int]) -> None:
    recorded = histogram()
    recorded.decode_and_add(encode(list(values_ns)))
    found = percentiles_ms(recorded)
    assert found is not None
    assert list(found) == ["p50", "p90", "p99", "p99_9", "max"]
    assert sorted(found.values()) == list(found.values())
    assert found["max"] == pytest.approx(max(values_ns) / 1e6, rel=0.002, abs=0.002)
