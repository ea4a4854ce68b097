"""The ladder of every ending, against the table of endings."""

import io
from collections.abc import Mapping
from itertools import pairwise

import pytest
from scapy.utils import rdpcap

from twbench.model.endings import ENDINGS, Departure, Ending
from twbench.model.states import Side
from twbench.trace.trace import Trace, trace_ending
from twbench.wire.ladder import Crossing, Fate, Pause

Traces = Mapping[tuple[str, int], Trace]
pytestmark = pytest.mark.namespaces

ENDS_FIRST = {"FIN", "RST"}

OPENING = {
    Side.CLIENT: ("CLOSED", "SYN_SENT", "ESTABLISHED"),
    Side.SERVER: ("CLOSED", "LISTEN", "SYN_RECEIVED", "ESTABLISHED"),
}
LEAVING = {
    Departure.ACTIVE_CLOSE: ("FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT"),
    Departure.PASSIVE_CLOSE: ("CLOSE_WAIT", "LAST_ACK", "CLOSED"),
    Departure.ACTIVE_RESET: ("CLOSED",),
    Departure.RESET_BY_PEER: ("CLOSED",),
}
CROSSING = ("FIN_WAIT_1", "CLOSING", "TIME_WAIT")
"""Instead, where both close actively (RFC 9293, figure 13)."""

every_ladder = pytest.mark.parametrize(
    ("ending", "family"),
    [(ending, family) for ending in ENDINGS.values() for family in (4, 6)],
    ids=lambda each: each.name if isinstance(each, Ending) else f"ipv{each}",
)


@every_ladder
def test_states_are_those_of_the_departure(traces: Traces, ending: Ending, family: int) -> None:
    crosses = ending.client is ending.server is Departure.ACTIVE_CLOSE
    ladder = traces[ending.name, family].ladder
    for side in Side:
        leaving = CROSSING if crosses else LEAVING[ending.departure(side)]
        assert ladder.states(side) == OPENING[side] + leaving


@every_ladder
def test_time_wait_is_seen_on_exactly_the_sides_of_the_table(
    traces: Traces, ending: Ending, family: int
) -> None:
    ladder = traces[ending.name, family].ladder
    assert {side for side in Side if "TIME_WAIT" in ladder.states(side)} == ending.time_wait


@every_ladder
def test_reset_is_sent_by_exactly_the_sides_of_the_table_once(
    traces: Traces, ending: Ending, family: int
) -> None:
    crossings = traces[ending.name, family].ladder.crossings
    resets = [each.origin for each in crossings if "RST" in each.segment.label.split("+")]
    assert sorted(resets) == sorted(ending.resets)


@every_ladder
def test_sides_that_move_first_are_those_of_the_table(
    traces: Traces, ending: Ending, family: int
) -> None:
    """A side moves first when it has left ESTABLISHED before a FIN or RST reached it."""
    steps = traces[ending.name, family].ladder.steps
    ends = [
        (before.states, step)
        for before, step in pairwise(steps)
        if isinstance(step, Crossing) and ENDS_FIRST & set(step.segment.label.split("+"))
    ]
    assert min((step.frame, step.origin) for _, step in ends)[1] in ending.first
    overtaken = {
        step.origin.other
        for states, step in ends
        if step.fate is not Fate.HELD and states[step.origin.other].name == "ESTABLISHED"
    }
    assert set(Side) - overtaken == ending.first


@every_ladder
def test_answer_reaches_the_client_where_the_table_says_so(
    traces: Traces, ending: Ending, family: int
) -> None:
    calls = traces[ending.name, family].ladder.calls
    read = [call.result for call in calls if call.side is Side.CLIENT and call.text == "recv()"]
    assert ("43 bytes" in read) is ending.answered


@every_ladder
def test_trace_is_whole_and_its_capture_has_every_packet(
    traces: Traces, ending: Ending, family: int
) -> None:
    trace = traces[ending.name, family]
    assert trace.broken_off == ""
    assert (trace.ladder.title, trace.ladder.sentence) == (ending.name, ending.sentence)
    frames = {each.frame for each in trace.ladder.crossings}
    assert frames == set(range(1, len(rdpcap(io.BytesIO(trace.capture))) + 1))


def test_time_wait_is_counted_down_for_two_seconds(traces: Traces) -> None:
    ladder = traces["client-fin", 4].ladder
    left_s = [
        step.states[Side.CLIENT].expires_s for step in ladder.steps if isinstance(step, Pause)
    ]
    assert len(left_s) == 2
    assert left_s[0] - left_s[1] == pytest.approx(
        ladder.steps[-1].t_s - ladder.steps[-2].t_s, abs=0.5
    )
    assert not any(isinstance(step, Pause) for step in traces["client-rst", 4].ladder.steps)


def test_rules_that_leave_no_connection_end_the_ladder_with_the_reason() -> None:
    trace = trace_ending(ENDINGS["client-fin"], rules=("reset SYN",), watch_s=0)
    assert trace.broken_off == "the connection did not come about: nothing to accept"
    last = trace.ladder.steps[-1]
    assert isinstance(last, Pause)
    assert last.text == trace.broken_off
    assert [each.fate for each in trace.ladder.crossings] == [Fate.ANSWERED, Fate.INJECTED]
    assert trace.capture


@pytest.mark.parametrize(
    "rule",
    [
        "drop SYN+ACK, once",
        "drop DATA, once",
        "drop server→client DATA, once",
        "drop FIN, once",
        "drop client→server ACK after server FIN, once",
        "delay any by 5 ms",
    ],
)
def test_ending_comes_about_over_a_wire_that_loses_or_delays_packets_too(rule: str) -> None:
    trace = trace_ending(ENDINGS["client-fin"], rules=(rule,), watch_s=0)
    assert trace.broken_off == ""
    assert any(each.note == rule for each in trace.ladder.crossings)
    assert trace.ladder.states(Side.CLIENT)[-1] == "TIME_WAIT"
    assert trace.ladder.states(Side.SERVER)[-1] == "CLOSED"
    read = [call.result for call in trace.ladder.calls if call.text == "recv()"]
    assert read == ["32 bytes", "43 bytes", "0 bytes: end of file"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "rule", "told"),
    [
        ("client-fin", "drop FIN", "not over after 5 s more: client FIN_WAIT_1, server "),
        ("client-fin", "hold FIN", "not over after 5 s more: client FIN_WAIT_1, server "),
        ("client-rst", "drop RST", "not over after 5 s more: client CLOSED, server FIN_WAIT_1"),
        ("client-fin", "drop client→server DATA", "the request did not come to the server in 5 s"),
        ("server-fin", "drop server→client DATA", "the answer did not come to the client in 5 s"),
    ],
)
def test_ending_that_did_not_come_about_is_told_as_broken_off(
    ending: str, rule: str, told: str
) -> None:
    trace = trace_ending(ENDINGS[ending], rules=(rule,))
    assert trace.broken_off.startswith(told)
    last = trace.ladder.steps[-1]
    assert isinstance(last, Pause)
    assert last.text == trace.broken_off


@pytest.mark.slow
def test_time_wait_that_began_anew_is_watched_to_its_end_too() -> None:
    again = "drop client→server ACK after server FIN, 6 times"
    trace = trace_ending(ENDINGS["client-fin"], rules=(again,), to_the_end=True)
    assert trace.broken_off == ""
    ladder = trace.ladder
    assert ladder.states(Side.CLIENT)[-2:] == ("TIME_WAIT", "CLOSED")
    fin_s = max(s.t_s for s in ladder.crossings if s.segment.label.startswith("FIN"))
    last = ladder.steps[-1]
    assert isinstance(last, Pause)
    assert last.text == "until the 2MSL timer has run out"
    assert last.t_s - fin_s >= 59.9


@pytest.mark.slow
def test_end_that_does_not_come_is_told_as_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twbench.trace.trace._TO_THE_END_S", 1)
    trace = trace_ending(ENDINGS["client-fin"], watch_s=0, to_the_end=True)
    assert trace.broken_off == "not over after 1 s more: client TIME_WAIT, server CLOSED"


@pytest.mark.slow
def test_time_wait_is_watched_to_its_end() -> None:
    ladder = trace_ending(ENDINGS["client-fin"], to_the_end=True).ladder
    assert ladder.states(Side.CLIENT)[-2:] == ("TIME_WAIT", "CLOSED")
    entered_s = next(s.t_s for s in ladder.steps if s.states[Side.CLIENT].name == "TIME_WAIT")
    assert ladder.steps[-1].t_s - entered_s >= 59.9
