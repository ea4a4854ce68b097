"""The ladder as text: one drawn in full, and what holds for every ladder."""

import re
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.states import Side, TcpState
from twbench.wire.drawing import NARROWEST, STROKES, draw_text, rungs
from twbench.wire.ladder import Call, Crossing, EndState, Fate, Ladder, Pause, Segment, Step

CLIENT, SERVER = Side.CLIENT, Side.SERVER
SYN_SENT, SYN_RECV, ESTABLISHED = TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.ESTABLISHED
FIN_WAIT1, FIN_WAIT2, TIME_WAIT = TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.TIME_WAIT
CLOSE_WAIT, LAST_ACK, CLOSE = TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.CLOSE


def states(client: TcpState, server: TcpState, left_s: float = 60.0) -> dict[Side, EndState]:
    return {CLIENT: end(client, left_s), SERVER: end(server, left_s)}


def end(state: TcpState, left_s: float) -> EndState:
    counts = state is TIME_WAIT
    return EndState(state=state, timer=3 * counts, expires_s=left_s * counts)


def call(t_s: float, side: Side, text: str, then: dict[Side, EndState], result: str = "") -> Call:
    return Call(t_s=t_s, side=side, text=text, result=result, states=then)


def packet(
    t_s: float,
    origin: Side,
    segment: Segment,
    then: dict[Side, EndState],
    fate: Fate = Fate.DELIVERED,
    note: str = "",
) -> Crossing:
    return Crossing(
        t_s=t_s, origin=origin, segment=segment, fate=fate, frame=1, note=note, states=then
    )


def one_packet(origin: Side, fate: Fate, note: str = "", label: str = "FIN+ACK") -> Ladder:
    step = packet(0.0, origin, Segment(label=label, seq=1, ack=1), states(CLOSE, CLOSE), fate, note)
    return Ladder(title="one", sentence="packet", steps=(step,))


def syn(seq: int) -> Segment:
    return Segment(label="SYN", seq=seq)


def fin(seq: int, ack: int) -> Segment:
    return Segment(label="FIN+ACK", seq=seq, ack=ack)


def ack(seq: int, ack: int) -> Segment:
    return Segment(label="ACK", seq=seq, ack=ack)


LOST_LAST_ACK = Ladder(
    title="The lost last ACK",
    sentence="The server's FIN is sent again, and TIME_WAIT answers it once more.",
    steps=(
        call(0, CLIENT, "connect()", states(SYN_SENT, CLOSE)),
        packet(0.001, CLIENT, syn(0), states(SYN_SENT, SYN_RECV)),
        packet(
            0.002, SERVER, Segment(label="SYN+ACK", seq=0, ack=1), states(ESTABLISHED, SYN_RECV)
        ),
        packet(0.003, CLIENT, ack(1, 1), states(ESTABLISHED, ESTABLISHED)),
        call(0.008, CLIENT, "close()", states(FIN_WAIT1, ESTABLISHED)),
        packet(0.009, CLIENT, fin(1, 1), states(FIN_WAIT1, CLOSE_WAIT)),
        packet(0.05, SERVER, ack(1, 2), states(FIN_WAIT2, CLOSE_WAIT)),
        call(0.051, SERVER, "recv()", states(FIN_WAIT2, CLOSE_WAIT), "0 bytes: end of file"),
        call(0.052, SERVER, "close()", states(FIN_WAIT2, LAST_ACK)),
        packet(0.053, SERVER, fin(1, 2), states(TIME_WAIT, LAST_ACK, 60.0)),
        packet(
            0.054,
            CLIENT,
            ack(2, 2),
            states(TIME_WAIT, LAST_ACK, 59.99),
            Fate.DROPPED,
            "drop client→server ACK after server FIN, once",
        ),
        packet(0.26, SERVER, fin(1, 2), states(TIME_WAIT, LAST_ACK, 60.0)),
        packet(0.261, CLIENT, ack(2, 2), states(TIME_WAIT, CLOSE, 59.99)),
        Pause(t_s=30.26, text="30 s later", states=states(TIME_WAIT, CLOSE, 29.99)),
        packet(
            30.3,
            SERVER,
            Segment(label="RST", seq=2),
            states(CLOSE, CLOSE),
            Fate.INJECTED,
            "a RST with the exact sequence number",
        ),
    ),
)

DRAWN = """\
The lost last ACK
The server's FIN is sent again, and TIME_WAIT answers it once more.

seconds               client │                                  │ server
                             │                                  │
  0.000  connect()  SYN_SENT │                                  │ CLOSED
  0.001                      │─────────── SYN seq=0 ───────────►│ SYN_RECEIVED
  0.002          ESTABLISHED │◄────── SYN+ACK seq=0 ack=1 ──────│
  0.003                      │──────── ACK seq=1 ack=1 ────────►│ ESTABLISHED
                             │                                  │
  0.008  close()  FIN_WAIT_1 │                                  │
  0.009                      │────── FIN+ACK seq=1 ack=1 ──────►│ CLOSE_WAIT
  0.050           FIN_WAIT_2 │◄──────── ACK seq=1 ack=2 ────────│
                             │                                  │
  0.051                      │                                  │ recv() = 0 bytes: end of
                             │                                  │   file
  0.052                      │                                  │ LAST_ACK         close()
  0.053     TIME_WAIT 60.0 s │◄────── FIN+ACK seq=1 ack=2 ──────│
  0.054                      │─── ACK seq=2 ack=2 ───╳ dropped  │
                             │   drop client→server ACK after   │
                             │         server FIN, once         │
                             │                                  │
  0.260   TIME_WAIT ↻ 60.0 s │◄────── FIN+ACK seq=1 ack=2 ──────│
  0.261                      │──────── ACK seq=2 ack=2 ────────►│ CLOSED
                             │                                  │
 30.260     TIME_WAIT 30.0 s │┄┄┄┄┄┄┄┄┄┄┄ 30 s later ┄┄┄┄┄┄┄┄┄┄┄│
                             │                                  │
 30.300               CLOSED │◄───── RST seq=2 ──────● injected │
                             │  a RST with the exact sequence   │
                             │              number              │
                             │                                  │"""  # noqa: RUF001


def test_whole_ladder_looks_like_the_diagram_of_a_textbook() -> None:
    assert draw_text(LOST_LAST_ACK, width=90) == DRAWN


# fate, as it crosses from the client, as it crosses from the server
ARROWS = """\
delivered  │── FIN+ACK seq=1 ack=1 ───►│             │◄── FIN+ACK seq=1 ack=1 ───│
dropped    │── FIN+ACK seq=1 ack=1 ──╳ dropped  │    │  dropped ╳── FIN+ACK seq=1 ack=1 ──│
held       │── FIN+ACK seq=1 ack=1 ──┤ held     │    │     held ├── FIN+ACK seq=1 ack=1 ──│
released   │ released ├─ FIN+ACK seq=1 ack=1 ──►│    │◄─ FIN+ACK seq=1 ack=1 ──┤ released │
duplicated │── FIN+ACK seq=1 ack=1 ──►►│             │◄◄── FIN+ACK seq=1 ack=1 ──│
answered   │── FIN+ACK seq=1 ack=1 ──╳ answered │    │ answered ╳── FIN+ACK seq=1 ack=1 ──│
injected   │ injected ●─ FIN+ACK seq=1 ack=1 ──►│    │◄─ FIN+ACK seq=1 ack=1 ──● injected │
""".splitlines()  # noqa: RUF001


@pytest.mark.parametrize("row", ARROWS, ids=lambda row: row.split()[0])
def test_fate_of_a_packet_shows_in_its_arrow_on_both_ways(row: str) -> None:
    name, from_client, from_server = re.match(r"(\w+) +(│.+│) +(│.+│)", row).groups()  # type: ignore[union-attr]
    for origin, expected in ((CLIENT, from_client), (SERVER, from_server)):
        assert expected in draw_text(one_packet(origin, Fate(name)), width=NARROWEST, times=False)


def test_table_of_strokes_knows_every_fate() -> None:
    assert set(STROKES) == set(Fate)


def test_segment_too_long_for_its_arrow_stands_above() -> None:
    drawn = draw_text(one_packet(CLIENT, Fate.DROPPED, label="PSH+ACK+ECE"), width=NARROWEST)
    rows = drawn.splitlines()
    arrow = next(number for number, row in enumerate(rows) if "╳" in row)  # noqa: RUF001
    assert "PSH+ACK+ECE seq=1 ack=1" in rows[arrow - 1]
    assert "seq" not in rows[arrow]


def test_long_note_is_told_to_its_end_within_the_lane() -> None:
    note = "drop any packet that comes after the first FIN of either side, " * 3
    rows = draw_text(one_packet(CLIENT, Fate.DROPPED, note)).splitlines()
    lane = [row.split("│")[1].strip() for row in rows if row.count("│") == 2]
    assert note.strip() in " ".join(lane)


def test_duplicated_packet_is_called_so_in_its_note() -> None:
    drawn = draw_text(one_packet(CLIENT, Fate.DUPLICATED, "once"))
    assert "duplicated: once" in drawn


def news(*seen: Step, times: bool = True) -> list[dict[Side, str]]:
    ladder = Ladder(title="", sentence="", steps=seen)
    return [dict(shown) for _, shown in rungs(ladder, times=times)]


def test_states_are_shown_when_they_change() -> None:
    assert news(
        call(0, CLIENT, "close()", states(FIN_WAIT1, ESTABLISHED)),
        packet(1, CLIENT, fin(1, 1), states(FIN_WAIT1, CLOSE_WAIT)),
        packet(2, SERVER, ack(1, 2), states(FIN_WAIT1, CLOSE_WAIT)),
    ) == [{CLIENT: "FIN_WAIT_1", SERVER: "ESTABLISHED"}, {SERVER: "CLOSE_WAIT"}, {}]


def test_time_wait_is_told_again_at_a_pause_and_when_its_timer_starts_anew() -> None:
    seen = (
        packet(0, SERVER, fin(1, 2), states(TIME_WAIT, CLOSE, 60.0)),
        packet(1, CLIENT, ack(2, 2), states(TIME_WAIT, CLOSE, 59.0)),
        Pause(t_s=20, text="", states=states(TIME_WAIT, CLOSE, 40.0)),
        packet(20, SERVER, fin(1, 2), states(TIME_WAIT, CLOSE, 60.0)),
    )
    assert [shown.get(CLIENT) for shown in news(*seen)] == [
        *("TIME_WAIT 60.0 s", None, "TIME_WAIT 40.0 s", "TIME_WAIT ↻ 60.0 s")
    ]
    assert [shown.get(CLIENT) for shown in news(*seen, times=False)] == [
        *("TIME_WAIT", None, "TIME_WAIT", None)
    ]


def test_too_narrow_a_drawing_is_refused() -> None:
    with pytest.raises(ValueError, match="72 columns at least, not 71"):
        draw_text(LOST_LAST_ACK, width=71)


def test_ladder_without_steps_is_drawn() -> None:
    assert draw_text(Ladder(title="nothing", sentence="")).startswith("nothing\n\nseconds")


texts = st.text(string.ascii_letters + string.digits + "    -=→:()\n\t", max_size=120)
ends = st.builds(
    EndState,
    state=st.sampled_from(TcpState),
    timer=st.integers(0, 4),
    expires_s=st.floats(0, 120),
)
moments = {
    "t_s": st.floats(0, 99_999),
    "states": st.fixed_dictionaries({CLIENT: ends, SERVER: ends}),
}
segments = st.builds(
    Segment,
    label=st.sampled_from(["SYN", "PSH+ACK", "ICMP 3/13", "FIN+PSH+ACK+ECE+CWR"]),
    seq=st.integers(0, 2**32 - 1),
    ack=st.none() | st.integers(0, 2**32 - 1),
    length=st.integers(0, 65535),
)
sides = st.sampled_from(Side)
steps = st.one_of(
    st.builds(Call, side=sides, text=texts, result=texts, **moments),
    st.builds(Pause, text=texts, **moments),
    st.builds(
        Crossing,
        origin=sides,
        segment=segments,
        fate=st.sampled_from(Fate),
        frame=st.integers(1),
        note=texts,
        **moments,
    ),
)
ladders = st.builds(
    Ladder, title=texts, sentence=texts, steps=st.lists(steps, max_size=12).map(tuple)
)


@given(ladders, st.integers(NARROWEST, 160), st.booleans())
def test_lines_keep_to_the_width_and_both_ends_to_their_columns(
    ladder: Ladder, width: int, times: bool
) -> None:
    rows = draw_text(ladder, width=width, times=times).splitlines()
    assert max(map(len, rows)) <= width
    drawn = rows[next(number for number, row in enumerate(rows) if "│ server" in row) :]
    client, server = (place for place, sign in enumerate(drawn[0]) if sign == "│")
    assert all(row[client] == row[server] == "│" for row in drawn)
    assert all(row == row.rstrip() for row in drawn)


@given(ladders, st.floats(0, 99_999), st.floats(0, 120))
def test_drawing_without_times_is_the_same_at_any_time(
    ladder: Ladder, t_s: float, expires_s: float
) -> None:
    later = replace(
        ladder,
        steps=tuple(
            replace(
                step,
                t_s=t_s,
                states={
                    side: replace(state, expires_s=expires_s) for side, state in step.states.items()
                },
            )
            for step in ladder.steps
        ),
    )
    assert draw_text(later, times=False) == draw_text(ladder, times=False)
