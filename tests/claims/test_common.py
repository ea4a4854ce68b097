"""What claims share: times read from a film, and the signs that a set-up did not take."""

import pytest

from twbench.claims.claim import SetUpError
from twbench.claims.common import (
    close_each,
    come_to,
    copies,
    destroy_time_wait,
    into_last_ack,
    listed,
    play_until_gone,
    require_hits,
    rises,
    timetable,
    unacknowledged_bytes,
    wait_to,
)
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import exchange
from twbench.wire.film import Film
from twbench.wire.packet import Flag, Packet, tcp_packet
from twbench.wire.rules import Kind
from twbench.wire.stage import Stage

BEGAN_NS = 1_700_000_000 * 10**9


class Filmed(Stage):
    """A stage of which there is only the film."""

    def __init__(self, *shots: tuple[float, Side, Packet]) -> None:
        self.film = Film()
        for at_s, origin, packet in shots:
            self.film.expose(BEGAN_NS + round(at_s * 1e9), packet, origin)


def segment(flags: Flag, seq: int, payload: bytes = b"") -> Packet:
    return tcp_packet(
        source="198.18.0.1",
        destination="198.18.0.2",
        source_port=40000,
        destination_port=80,
        seq=seq,
        ack=7,
        flags=flags,
        payload=payload,
    )


FIN = segment(Flag.FIN | Flag.ACK, 500)
FILM = (
    (0.0, Side.CLIENT, segment(Flag.FIN | Flag.ACK, 100)),
    (1.0, Side.CLIENT, segment(Flag.RST, 101)),
    (2.0, Side.CLIENT, FIN),
    (2.1, Side.SERVER, segment(Flag.FIN | Flag.ACK, 900)),
    (2.25, Side.CLIENT, FIN),
    (2.75, Side.CLIENT, FIN),
)


def test_newest_segment_of_a_kind_and_its_repetitions_are_found() -> None:
    assert copies(Filmed(*FILM), Side.CLIENT, Kind.FIN) == [3, 5, 6]


def test_segment_that_never_came_is_a_set_up_that_did_not_take() -> None:
    with pytest.raises(SetUpError, match="no DATA came from the client"):
        copies(Filmed(*FILM), Side.CLIENT, Kind.DATA)


def test_timetable_is_read_from_the_capture_and_numbers_it() -> None:
    stage = Filmed(*FILM)
    assert timetable(stage, Side.CLIENT, Kind.FIN) == {
        "sent_s": [0.0, 0.25, 0.75],
        "waits_s": [0.25, 0.5],
        "resets": 1,
    }
    capture = stage.film.capture()
    assert b"retransmission 1 of the FIN, 0.25 s after the first" in capture
    assert b"retransmission 2 of the FIN, 0.75 s after the first" in capture
    assert b"retransmission 3" not in capture


def test_rises_leave_out_what_the_kernel_does_not_count() -> None:
    before = {"TcpOutRsts": 3, "TcpRetransSegs": 5, "TcpInSegs": 1}
    assert rises(before, {"TcpOutRsts": 4, "TcpRetransSegs": 5, "TcpInSegs": 9}) == {
        "TcpOutRsts": 1,
        "TcpRetransSegs": 0,
    }


def test_times_are_listed_as_people_write_them() -> None:
    assert listed([0.207, 0.416, 1.666, 26.62]) == "0.21, 0.42, 1.7, 26.6"


@pytest.mark.namespaces
def test_closing_brings_the_server_into_last_ack_only_where_the_ack_is_lost() -> None:
    plan = LabPlan(link=Link.WIRE)
    rules = ("drop client→server ACK after server FIN",)
    with Lab(plan) as lab, Stage(lab, plan.wire_ports, rules=rules) as stage:
        into_last_ack(stage)
        require_hits(stage)
        assert stage.state(Side.SERVER) is TcpState.LAST_ACK
        with pytest.raises(SetUpError, match="the server is still in LAST_ACK"):
            play_until_gone(stage, Side.SERVER, since=1, within_s=0)
        destroy_time_wait(stage)
        with pytest.raises(SetUpError, match="no TIME_WAIT"):
            destroy_time_wait(stage)
        stage.rules("drop server→client DATA")
        with pytest.raises(SetUpError, match="no packet came for: drop server→client DATA"):
            require_hits(stage)
        assert play_until_gone(stage, Side.SERVER, since=1, within_s=60) > 0


@pytest.mark.namespaces
def test_what_does_not_come_is_a_set_up_that_did_not_take() -> None:
    plan = LabPlan(link=Link.WIRE)
    with Lab(plan) as lab, Stage(lab, plan.wire_ports) as stage:
        client, server = exchange(stage)
        with pytest.raises(SetUpError, match="waited 0 s for a miracle"):
            wait_to(stage, lambda: False, "a miracle", 0)
        client.send(b"four")
        assert unacknowledged_bytes(client) == len(b"four")
        wait_to(stage, lambda: not unacknowledged_bytes(client), "the ACK")
        server.receive()
        close_each(stage, server, client)
        come_to(stage, Side.SERVER, TcpState.FIN_WAIT2, TcpState.TIME_WAIT)
        assert stage.state(Side.CLIENT) is TcpState.CLOSE
