"""What a stage keeps, from packets made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.states import Side, TcpState
from twbench.wire.film import INTERFACES, Film
from twbench.wire.ladder import EndState, Pause
from twbench.wire.packet import Flag, Packet, echo_request, tcp_packet, unreachable_for
from twbench.wire.pcapng import Record, encode

CLIENT, SERVER = "198.18.1.1", "198.19.0.1"
TOP = 1 << 32


def sent_by(side: Side, flags: Flag, *, seq: int, ack: int = 0, payload: bytes = b"") -> Packet:
    ends = [(CLIENT, 40000), (SERVER, 80)]
    (source, source_port), (destination, port) = ends if side is Side.CLIENT else ends[::-1]
    return tcp_packet(
        source=source,
        destination=destination,
        source_port=source_port,
        destination_port=port,
        seq=seq % TOP,
        ack=ack % TOP,
        flags=flags,
        payload=payload,
    )


SYN = sent_by(Side.CLIENT, Flag.SYN, seq=1000)


@given(st.integers(0, TOP - 1), st.integers(0, TOP - 1), st.integers(-1000, 1 << 20))
def test_numbers_count_from_each_sides_syn_past_the_wrap_too(
    client: int, server: int, further: int
) -> None:
    film = Film()
    film.segment(sent_by(Side.CLIENT, Flag.SYN, seq=client))
    film.segment(sent_by(Side.SERVER, Flag.SYN | Flag.ACK, seq=server, ack=client + 1))
    data = sent_by(
        Side.CLIENT, Flag.PSH | Flag.ACK, seq=client + further, ack=server + 1, payload=b"four"
    )
    segment = film.segment(data)
    assert (segment.seq, segment.ack, segment.length) == (further, 1, 4)
    assert segment.label == "PSH+ACK"


def test_next_connection_on_the_same_ports_counts_anew() -> None:
    film = Film()
    film.segment(SYN)
    assert film.segment(sent_by(Side.CLIENT, Flag.SYN, seq=9000)).seq == 0
    assert film.segment(sent_by(Side.CLIENT, Flag.ACK, seq=9001, ack=1)).seq == 1


def test_acknowledgement_is_told_only_where_the_flag_says_that_there_is_one() -> None:
    assert Film().segment(sent_by(Side.CLIENT, Flag.RST, seq=5, ack=77)).ack is None


def test_icmp_error_is_told_by_type_and_code() -> None:
    assert str(Film().segment(unreachable_for(SYN, kind=3, code=13))) == "ICMP 3/13"
    echo = echo_request(source="2001:2::1", destination="2001:2::2", identifier=1, sequence=1)
    assert str(Film().segment(echo)) == "ICMPv6 128/0"


def test_frames_are_numbered_from_one_and_keep_packet_and_time() -> None:
    film = Film()
    reset = sent_by(Side.SERVER, Flag.RST, seq=0)
    assert [film.expose(100, SYN, Side.CLIENT), film.expose(200, reset, None)] == [1, 2]
    assert (film.packet(1), film.packet(2)) == (SYN, reset)
    assert (film.time_ns(1), film.time_ns(2)) == (100, 200)


def test_segments_are_those_of_one_host_and_not_what_the_wire_made() -> None:
    film = Film()
    film.expose(100, SYN, Side.CLIENT)
    film.expose(200, sent_by(Side.SERVER, Flag.RST, seq=0), None)
    film.expose(300, unreachable_for(SYN, kind=3, code=1), Side.SERVER)
    film.expose(400, sent_by(Side.SERVER, Flag.RST, seq=7), Side.SERVER)
    assert film.segments(Side.CLIENT) == [(1, SYN.tcp)]
    assert [number for number, _ in film.segments(Side.SERVER)] == [4]


def test_capture_has_every_frame_with_its_origin_and_each_remark_once() -> None:
    film = Film()
    answer = sent_by(Side.SERVER, Flag.RST, seq=0)
    film.expose(100, SYN, Side.CLIENT)
    film.expose(200, answer, None)
    for text in ("dropped: drop SYN", "this one decides", "dropped: drop SYN"):
        film.remark(1, text)
    wanted = [
        Record(t_ns=100, interface=0, data=SYN.raw, comment="dropped: drop SYN; this one decides"),
        Record(t_ns=200, interface=INTERFACES.index("wire"), data=answer.raw, comment=""),
    ]
    assert film.capture("about it") == encode(wanted, interfaces=INTERFACES, comment="about it")


def test_ladder_is_of_the_steps_so_far() -> None:
    film = Film()
    pause = Pause(t_s=1, states=dict.fromkeys(Side, EndState(state=TcpState.LISTEN)), text="now")
    film.steps.append(pause)
    ladder = film.ladder("title", "sentence")
    film.steps.append(pause)
    assert (ladder.title, ladder.sentence, ladder.steps) == ("title", "sentence", (pause,))


def test_remark_on_no_frame_is_a_mistake() -> None:
    with pytest.raises(IndexError):
        Film().remark(1, "which?")
