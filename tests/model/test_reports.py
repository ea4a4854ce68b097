"""Reports are increments that add up, in any order and any grouping, also across a JSON line."""

import copy
import json
from collections import Counter
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.endings import Departure
from twbench.model.reports import FleetReport, PacketFate, ServerReport, WireReport

Report = TypeVar("Report", FleetReport, ServerReport, WireReport)

counts = st.integers(min_value=0, max_value=1 << 40)
keys = st.sampled_from(
    ["read:ECONNRESET:reset_by_peer", "connect:ETIMEDOUT:syn_unanswered", "read:EFAULT:unknown"]
)
departures = st.dictionaries(
    st.sampled_from([how.value for how in Departure]), st.integers(1, 1 << 30)
).map(Counter)
errors = st.dictionaries(keys, st.integers(1, 1 << 30)).map(Counter)

fleet_reports = st.builds(
    FleetReport,
    t_ns=counts,
    attempted=counts,
    ok=counts,
    retried=counts,
    connects=counts,
    not_sent=counts,
    established=counts,
    closed_early=counts,
    received_bytes=counts,
    errors=errors,
    connection_errors=errors,
    departures=departures,
    first_error_ns=st.dictionaries(keys, counts),
)
server_reports = st.builds(
    ServerReport,
    t_ns=counts,
    accepted=counts,
    requests=counts,
    reopened=counts,
    reopened_perhaps=counts,
    closed_early=counts,
    not_accepted=counts,
    departures=departures,
)
fates = st.dictionaries(st.sampled_from(PacketFate), st.integers(1, 1 << 30)).map(Counter[str])
wire_reports = st.builds(
    WireReport,
    t_ns=counts,
    client=fates,
    server=fates,
    rules=st.dictionaries(st.sampled_from(["drop FIN", "reset SYN"]), counts).map(Counter),
    captured=counts,
    cpu_ns=counts,
)
reports = st.one_of(
    st.tuples(wire_reports, wire_reports, wire_reports),
    st.tuples(fleet_reports, fleet_reports, fleet_reports),
    st.tuples(server_reports, server_reports, server_reports),
)


def plus(one: Report, other: Report) -> Report:
    total = copy.deepcopy(one)
    total.add(other)
    return total


@given(reports)
def test_order_of_adding_makes_no_difference(three: tuple[Report, Report, Report]) -> None:
    a, b, _ = three
    assert plus(a, b) == plus(b, a)


@given(reports)
def test_grouping_makes_no_difference(three: tuple[Report, Report, Report]) -> None:
    a, b, c = three
    assert plus(plus(a, b), c) == plus(a, plus(b, c))


@given(reports)
def test_empty_report_adds_nothing_and_what_is_added_stays_as_it_was(
    three: tuple[Report, Report, Report],
) -> None:
    a, b, _ = three
    before = copy.deepcopy(b)
    assert plus(a, type(a)()) == a
    plus(a, b).add(b)
    assert b == before


@given(reports)
def test_report_survives_a_json_line(three: tuple[Report, Report, Report]) -> None:
    report = three[0]
    line = json.dumps(report.as_json())
    assert type(report).from_json(json.loads(line)) == report


@given(reports)
def test_reports_from_json_add_up_like_the_originals(three: tuple[Report, Report, Report]) -> None:
    a, b, _ = three
    data = a.as_json()
    before = copy.deepcopy(data)
    total = type(a).from_json(data)
    total.add(type(b).from_json(b.as_json()))
    assert total == plus(a, b)
    assert data == before


def test_json_holds_only_what_is_not_zero() -> None:
    assert FleetReport().as_json() == {}
    report = FleetReport(attempted=3, errors=Counter({"read:EOF:closed_unanswered": 2}))
    assert report.as_json() == {"attempted": 3, "errors": {"read:EOF:closed_unanswered": 2}}


def test_sum_keeps_the_last_time_and_the_first_of_each_error() -> None:
    total = FleetReport(t_ns=5, first_error_ns={"a": 3, "b": 9})
    total.add(FleetReport(t_ns=4, first_error_ns={"a": 7, "b": 2, "c": 4}))
    assert total.t_ns == 5
    assert total.first_error_ns == {"a": 3, "b": 2, "c": 4}


def test_histograms_stay_those_of_their_own_report() -> None:
    total = FleetReport(histograms={"connect": "mine"})
    total.add(FleetReport(histograms={"connect": "theirs", "request": "theirs"}))
    assert total.histograms == {"connect": "mine"}


@pytest.mark.parametrize("kind", [FleetReport, ServerReport])
def test_two_reports_share_no_counter(kind: type[FleetReport] | type[ServerReport]) -> None:
    one, other = kind(), kind()
    one.departures["active_close"] += 1
    assert not other.departures


def test_packets_of_both_sides_are_counted_together_by_fate() -> None:
    report = WireReport(
        client=Counter({PacketFate.LOST: 2, PacketFate.SEEN: 9}), server=Counter({"lost": 3})
    )
    assert report.of(PacketFate.LOST) == 5
    assert report.of(PacketFate.LOST, PacketFate.SEEN, PacketFate.HELD) == 14
