"""Ladders as data."""

from twbench.model.states import Side, TcpState
from twbench.wire.ladder import Call, Crossing, EndState, Fate, Ladder, Pause, Segment

OPEN = EndState(state=TcpState.ESTABLISHED)
GONE = EndState()
WAITS = EndState(state=TcpState.TIME_WAIT, timer=3, expires_s=59.9996)
LADDER = Ladder(
    title="abrupt",
    sentence="the client goes without a word",
    steps=(
        Call(
            t_s=0.1234567,
            states={Side.CLIENT: OPEN, Side.SERVER: OPEN},
            side=Side.CLIENT,
            text="close()",
        ),
        Crossing(
            t_s=0.2,
            states={Side.CLIENT: WAITS, Side.SERVER: OPEN},
            origin=Side.CLIENT,
            segment=Segment(label="FIN+ACK", seq=33, ack=44),
            fate=Fate.DROPPED,
            frame=7,
            note="drop FIN",
        ),
        Pause(t_s=1.2, states={Side.CLIENT: GONE, Side.SERVER: OPEN}, text="a second later"),
        Pause(t_s=2.2, states={Side.CLIENT: OPEN, Side.SERVER: OPEN}, text="again"),
    ),
)


def test_states_are_told_by_the_names_of_the_standard() -> None:
    names = {state: EndState(state=state).name for state in TcpState}
    assert names[TcpState.FIN_WAIT1] == "FIN_WAIT_1"
    assert names[TcpState.FIN_WAIT2] == "FIN_WAIT_2"
    assert names[TcpState.CLOSE] == "CLOSED"
    assert names[TcpState.SYN_RECV] == names[TcpState.NEW_SYN_RECV] == "SYN_RECEIVED"
    assert names[TcpState.TIME_WAIT] == "TIME_WAIT"


def test_state_that_stays_is_told_once_and_one_that_comes_again_twice() -> None:
    assert LADDER.states(Side.CLIENT) == ("ESTABLISHED", "TIME_WAIT", "CLOSED", "ESTABLISHED")
    assert LADDER.states(Side.SERVER) == ("ESTABLISHED",)
    assert Ladder(title="", sentence="").states(Side.CLIENT) == ()


def test_calls_and_packets_are_found_among_the_steps() -> None:
    assert LADDER.calls == (LADDER.steps[0],)
    assert LADDER.crossings == (LADDER.steps[1],)


def test_segment_is_written_with_the_numbers_that_it_has() -> None:
    assert (
        str(Segment(label="PSH+ACK", seq=1, ack=-2, length=100)) == "PSH+ACK seq=1 ack=-2 len=100"
    )
    assert str(Segment(label="SYN", seq=0)) == "SYN seq=0"
    assert str(Segment(label="ICMP 3/13")) == "ICMP 3/13"


def test_end_tells_its_timer_only_while_one_runs() -> None:
    assert GONE.as_json() == {"state": "CLOSED"}
    assert WAITS.as_json() == {"state": "TIME_WAIT", "timer": 3, "expires_s": 60.0}
    lost = EndState(state=TcpState.LAST_ACK, timer=1, expires_s=0.4, retransmits=2)
    assert lost.as_json() == {
        "state": "LAST_ACK",
        "timer": 1,
        "expires_s": 0.4,
        "retransmits": 2,
    }


def test_json_has_both_sides_in_short_and_every_step_in_full() -> None:
    told = LADDER.as_json()
    assert told["states"] == {
        "client": ["ESTABLISHED", "TIME_WAIT", "CLOSED", "ESTABLISHED"],
        "server": ["ESTABLISHED"],
    }
    assert told["steps"][:3] == [
        {
            "step": "call",
            "side": "client",
            "call": "close()",
            "result": "",
            "t_s": 0.123457,
            "states": {"client": {"state": "ESTABLISHED"}, "server": {"state": "ESTABLISHED"}},
        },
        {
            "step": "packet",
            "from": "client",
            "segment": "FIN+ACK",
            "seq": 33,
            "ack": 44,
            "length": 0,
            "fate": "dropped",
            "frame": 7,
            "note": "drop FIN",
            "t_s": 0.2,
            "states": {"client": WAITS.as_json(), "server": {"state": "ESTABLISHED"}},
        },
        {
            "step": "pause",
            "text": "a second later",
            "t_s": 1.2,
            "states": {"client": {"state": "CLOSED"}, "server": {"state": "ESTABLISHED"}},
        },
    ]
