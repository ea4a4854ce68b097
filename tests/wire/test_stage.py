"""Stop-motion on two real hosts: what the rules do, and that nothing moves unseen."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from scapy.utils import rdpcap

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan
from twbench.model.states import Side, TcpState
from twbench.wire.endpoint import Endpoint
from twbench.wire.errors import StageError, StoppedError
from twbench.wire.ladder import Crossing, Fate
from twbench.wire.packet import Flag, tcp_packet
from twbench.wire.rules import Kind, RuleError, kinds_of
from twbench.wire.stage import Stage

WireLab = tuple[Lab, LabPlan]
OpenStage = Callable[..., AbstractContextManager[Stage]]
Ends = tuple[Endpoint, Endpoint]

pytestmark = pytest.mark.namespaces

CLIENT, SERVER = Side.CLIENT, Side.SERVER
WITHIN_S = 30.0


def fates(stage: Stage, kind: Kind, origin: Side = CLIENT) -> list[Fate]:
    """Return what became of a side's packets of a kind, in order."""
    found = stage.ladder("", "").crossings
    return [
        each.fate
        for each in found
        if each.origin is origin and kind in kinds_of(stage.film.packet(each.frame))
    ]


def play_until(stage: Stage, until: Callable[[], bool]) -> None:
    assert stage.play(for_s=WITHIN_S, until=until)


def states(stage: Stage) -> tuple[TcpState, TcpState]:
    return stage.state(CLIENT), stage.state(SERVER)


def begin_to_connect(stage: Stage) -> Endpoint:
    stage.listener()
    client = stage.endpoint(CLIENT)
    assert client.connect(stage.address(SERVER), 80).error == "EINPROGRESS"
    return client


# What the rules do


def test_dropped_packet_is_seen_by_nobody_and_sent_again(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("drop DATA, once")
    client.send(b"hello")
    stage.play()
    assert server.receive().error == "EAGAIN"
    play_until(stage, lambda: server.is_readable)
    assert server.receive().data == b"hello"
    assert fates(stage, Kind.DATA)[:2] == [Fate.DROPPED, Fate.DELIVERED]
    assert stage.hits() == {"drop DATA, once": 1}
    assert client.info()["total_retrans"] >= 1


def test_held_packet_waits_for_a_hand(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("hold client→server DATA, once")
    client.send(b"hello")
    stage.play()
    assert server.receive().error == "EAGAIN"
    (held,) = stage.held
    stage.release(held)
    assert not server.is_readable
    stage.play()
    assert server.receive().data == b"hello"
    assert stage.held == []
    assert fates(stage, Kind.DATA)[0] is Fate.HELD
    assert Fate.RELEASED in fates(stage, Kind.DATA)


def test_held_packet_goes_by_itself_when_its_event_has_come(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("hold client→server DATA until server DATA, once")
    client.send(b"question")
    stage.play()
    assert not server.is_readable
    server.send(b"answer")
    stage.play()
    assert server.receive().data == b"question"
    assert stage.held == []
    assert stage.hits() == {"hold client→server DATA until server DATA, once": 1}


def test_held_packet_outlives_its_rule_and_then_waits_for_a_hand(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("hold client→server DATA until server DATA, once")
    client.send(b"question")
    stage.play()
    stage.rules()
    assert stage.hits() == {}
    server.send(b"answer")
    stage.play()
    assert len(stage.held) == 1
    stage.release()
    stage.play()
    assert stage.held == []
    assert server.receive().data == b"question"


def test_delayed_packet_crosses_so_much_later_and_is_waited_for(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("delay client→server DATA by 60 ms, once")
    client.send(b"hello")
    stage.play()
    assert server.receive().data == b"hello"
    held, released = stage.ladder("", "").crossings[3:5]
    assert (held.fate, released.fate) == (Fate.HELD, Fate.RELEASED)
    assert (held.frame, held.segment) == (released.frame, released.segment)
    assert released.t_s - held.t_s >= 0.055


def test_duplicated_packet_comes_twice_and_is_read_once(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("duplicate client→server DATA, once")
    client.send(b"hello")
    stage.play()
    assert server.receive().data == b"hello"
    assert server.receive().error == "EAGAIN"
    assert fates(stage, Kind.DATA)[:2] == [Fate.DUPLICATED, Fate.RELEASED]


def test_copy_of_a_packet_can_come_later(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("duplicate client→server DATA by 60 ms, once")
    client.send(b"hello")
    play_until(stage, lambda: server.is_readable)
    assert server.receive().data == b"hello"
    stage.play()
    original, copy = (each for each in stage.ladder("", "").crossings if each.frame == 4)
    assert (original.fate, copy.fate) == (Fate.DUPLICATED, Fate.RELEASED)
    assert copy.t_s - original.t_s >= 0.055
    assert server.receive().error == "EAGAIN"


def test_reordered_packet_crosses_behind_the_next_of_its_direction(stage: Stage) -> None:
    client, server = stage.connection()
    client.set(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stage.rules("reorder client→server DATA, once")
    client.send(b"first ")
    client.send(b"second")
    stage.play()
    assert server.receive().data == b"first second"
    data = [each for each in stage.ladder("", "").crossings if each.segment.length]
    assert [(each.segment.seq, each.fate) for each in data[:3]] == [
        (1, Fate.HELD),
        (7, Fate.DELIVERED),
        (1, Fate.RELEASED),
    ]


def test_packet_that_the_wire_resets_never_reaches_the_server(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("reset client→server DATA")
    client.send(b"hello")
    stage.play()
    assert client.receive().error == "ECONNRESET"
    assert server.receive().error == "EAGAIN"
    assert states(stage) == (TcpState.CLOSE, TcpState.ESTABLISHED)
    answered, injected = stage.ladder("", "").crossings[3:]
    assert (answered.fate, injected.fate) == (Fate.ANSWERED, Fate.INJECTED)
    assert (injected.origin, injected.note) == (SERVER, "reset client→server DATA")


def test_reset_or_what_is_an_icmp_error_is_lost_without_an_answer(stage: Stage) -> None:
    client, _ = stage.connection()
    stage.rules("reset RST")
    client.reset()
    stage.play()
    assert fates(stage, Kind.RST) == [Fate.DROPPED]
    assert states(stage) == (TcpState.CLOSE, TcpState.ESTABLISHED)


@pytest.mark.parametrize(
    ("family", "icmp", "seen"),
    [
        (4, "3/13", "EHOSTUNREACH"),
        (4, "3/3", "ECONNREFUSED"),
        (4, "3/0", "ENETUNREACH"),
        (6, "1/4", "ECONNREFUSED"),
        (6, "1/1", "EACCES"),
    ],
)
def test_refused_connect_fails_with_what_the_icmp_error_stands_for(
    open_stage: OpenStage, family: int, icmp: str, seen: str
) -> None:
    with open_stage(f"refuse SYN with icmp {icmp}", family=family) as stage:
        client = begin_to_connect(stage)
        stage.play()
        assert client.error() == seen
        assert states(stage) == (TcpState.CLOSE, TcpState.LISTEN)
        answered, error = stage.ladder("", "").crossings
        assert (answered.fate, error.fate) == (Fate.ANSWERED, Fate.INJECTED)
        name = "ICMP" if family == 4 else "ICMPv6"
        assert error.segment.label == f"{name} {icmp}"


def test_passed_packet_is_excepted_from_the_rules_below(open_stage: OpenStage) -> None:
    with open_stage("pass client→server any", "drop any") as stage:
        begin_to_connect(stage)
        stage.play()
        assert states(stage) == (TcpState.SYN_SENT, TcpState.SYN_RECV)
        assert stage.hits() == {"pass client→server any": 1, "drop any": 1}
        assert fates(stage, Kind.SYN_ACK, SERVER) == [Fate.DROPPED]


def test_rule_that_is_none_is_refused(stage: Stage) -> None:
    with pytest.raises(RuleError, match="rule 'bend SYN': found 'bend'"):
        stage.rules("bend SYN")


# Stop-motion


def still(stage: Stage) -> tuple[TcpState, TcpState]:
    """Return the states of both ends, which are the same a moment later."""
    seen = states(stage)
    time.sleep(0.05)
    assert states(stage) == seen
    return seen


@pytest.mark.parametrize("family", [4, 6])
def test_nothing_moves_between_two_packets(open_stage: OpenStage, family: int) -> None:
    with open_stage("hold any", family=family) as stage:

        def step() -> tuple[TcpState, TcpState]:
            """Let exactly one packet cross: the one held first."""
            stage.play()
            stage.release(stage.held[0])
            stage.play()
            return still(stage)

        client = begin_to_connect(stage)
        assert still(stage) == (TcpState.SYN_SENT, TcpState.LISTEN)
        assert step() == (TcpState.SYN_SENT, TcpState.SYN_RECV)
        assert step() == (TcpState.ESTABLISHED, TcpState.SYN_RECV)
        assert step() == (TcpState.ESTABLISHED, TcpState.ESTABLISHED)
        client.close()
        assert still(stage) == (TcpState.FIN_WAIT1, TcpState.ESTABLISHED)
        assert step() == (TcpState.FIN_WAIT1, TcpState.CLOSE_WAIT)


def echoes_answered(lab: Lab, stack: str) -> int:
    with os.fdopen(lab.open(stack, "/proc/net/snmp"), encoding="ascii") as file:
        names, values = (line.split() for line in file if line.startswith("Icmp:"))
    return int(values[names.index("InEchos")])


def test_both_kernels_answer_an_echo_before_each_step_is_written_down(wire_lab: WireLab) -> None:
    lab, plan = wire_lab
    with Stage(lab, plan.wire_ports) as stage:
        client, _ = stage.connection()
        client.close()
        stage.play()
        ladder = stage.ladder("", "")
        steps = len(ladder.calls) + len(ladder.crossings)
        assert [echoes_answered(lab, host) for host in ("client", "server")] == [steps, steps]


def test_last_ack_and_both_closing_are_seen(stage: Stage) -> None:
    client, server = stage.connection()
    client.close()
    play_until(stage, lambda: stage.state(CLIENT) is TcpState.FIN_WAIT2)
    server.close()
    assert states(stage) == (TcpState.FIN_WAIT2, TcpState.LAST_ACK)
    stage.play()
    assert states(stage) == (TcpState.TIME_WAIT, TcpState.CLOSE)

    client, server = stage.connection(port=81)
    stage.rules("hold FIN until FIN from the other side", "hold client→server ACK", "hold ACK")
    client.close()
    stage.play()
    server.close()
    stage.play()
    assert states(stage) == (TcpState.CLOSING, TcpState.CLOSING)
    stage.release()
    stage.play()
    assert states(stage) == (TcpState.TIME_WAIT, TcpState.TIME_WAIT)


def test_two_stages_side_by_side_do_not_disturb_each_other(open_stage: OpenStage) -> None:
    both_are_there = threading.Barrier(2)

    def converse(family: int) -> tuple[tuple[str, ...], ...]:
        with open_stage(family=family) as stage:
            both_are_there.wait(WITHIN_S)
            client, server = stage.connection()
            client.send(b"hello")
            stage.play()
            assert server.receive().data == b"hello"
            client.close()
            play_until(stage, lambda: stage.state(CLIENT) is TcpState.FIN_WAIT2)
            server.close()
            stage.play()
            return tuple(stage.ladder("", "").states(side) for side in Side)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(converse, (4, 6))
    assert one == other
    assert one[0][-3:] == ("FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT")


# What befalls hosts and cables


def test_packets_of_a_pulled_cable_are_lost_until_it_is_back(stage: Stage) -> None:
    client, server = stage.connection()
    stage.rules("hold client→server DATA, once")
    client.send(b"hello")
    stage.play()
    stage.unplug(SERVER)
    stage.release()
    server.send(b"nobody hears")
    stage.play()
    assert not client.is_readable
    assert not server.is_readable
    lost = [each for each in stage.ladder("", "").crossings if each.fate is Fate.DROPPED]
    assert {(each.origin, each.note) for each in lost} == {
        (CLIENT, "the cable is pulled"),
        (SERVER, "the cable is pulled"),
    }
    stage.plug_in(SERVER)
    play_until(stage, lambda: client.is_readable and server.is_readable)
    assert server.receive().data == b"hello"


@pytest.mark.parametrize("family", [4, 6])
def test_rebooted_host_answers_the_old_connection_with_reset(
    open_stage: OpenStage, family: int
) -> None:
    with open_stage(family=family) as stage:
        client, _ = stage.connection()
        stage.reboot(SERVER)
        assert states(stage) == (TcpState.ESTABLISHED, TcpState.CLOSE)
        assert stage.counters(SERVER)["TcpPassiveOpens"] == 0
        client.send(b"still there?")
        stage.play()
        assert client.receive().error == "ECONNRESET"
        assert fates(stage, Kind.RST, SERVER) == [Fate.DELIVERED]
        stage.connection()
        assert states(stage) == (TcpState.ESTABLISHED, TcpState.ESTABLISHED)


def reset_to_the_client(stage: Stage, client: Endpoint, *, off: int) -> Crossing:
    """Inject a RST as the server's, its number `off` from the one that the client waits for."""
    _, last = stage.film.segments(CLIENT)[-1]
    packet = tcp_packet(
        source=stage.address(SERVER),
        destination=stage.address(CLIENT),
        source_port=80,
        destination_port=client.port,
        seq=last.ack + off,
        flags=Flag.RST,
    )
    return stage.inject(packet, CLIENT, "a forged reset")


def test_injected_reset_kills_only_with_the_exact_number(stage: Stage) -> None:
    client, _ = stage.connection()
    reset_to_the_client(stage, client, off=1)
    stage.play()
    assert stage.state(CLIENT) is TcpState.ESTABLISHED
    assert stage.counters(CLIENT)["TcpExtTCPChallengeACK"] == 1
    crossing = reset_to_the_client(stage, client, off=0)
    assert (crossing.fate, crossing.origin, crossing.note) == (
        Fate.INJECTED,
        SERVER,
        "a forged reset",
    )
    assert stage.state(CLIENT) is TcpState.CLOSE
    assert client.receive().error == "ECONNRESET"


def test_time_wait_can_be_destroyed_and_counters_tell_of_both(stage: Stage) -> None:
    with pytest.raises(StageError, match="the client has no socket to destroy"):
        stage.destroy(CLIENT)
    client, server = stage.connection()
    client.close()
    play_until(stage, lambda: stage.state(CLIENT) is TcpState.FIN_WAIT2)
    server.close()
    stage.play()
    waits = stage.look()[CLIENT]
    assert waits.state is TcpState.TIME_WAIT
    assert 55 < waits.expires_s < 63
    counters = stage.counters(CLIENT)
    assert (counters["sockstat_tw"], counters["TcpExtTW"]) == (1, 1)
    assert stage.counters(SERVER)["sockstat_tw"] == 0
    stage.destroy(CLIENT)
    assert stage.state(CLIENT) is TcpState.CLOSE
    assert stage.counters(CLIENT)["sockstat_tw"] == 0
    assert len(stage.sockets(CLIENT)) == 0


def test_connection_that_never_comes_about_is_an_error(open_stage: OpenStage) -> None:
    with (
        open_stage("reset SYN") as stage,
        pytest.raises(StageError, match="did not come about"),
    ):
        stage.connection()


def test_lost_syn_is_waited_for(open_stage: OpenStage) -> None:
    with open_stage("drop SYN, once") as stage:
        stage.connection()
        assert fates(stage, Kind.SYN) == [Fate.DROPPED, Fate.DELIVERED]


# The end


def test_hosts_that_never_stop_sending_are_noticed(stage: Stage) -> None:
    client, server = stage.connection()
    client.set(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def chatter() -> bool:
        with suppress(BlockingIOError):
            client.socket.send(b"x")
        if server.is_readable:
            server.socket.recv(1000)
        return False

    with pytest.raises(StageError, match="5000 packets in one go"):
        stage.play(for_s=600, until=chatter)


def test_stop_ends_a_long_play_at_once(open_stage: OpenStage) -> None:
    stop = threading.Event()
    with open_stage(stop=stop) as stage:
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        began_s = time.monotonic()
        with pytest.raises(StoppedError):
            stage.pause("an hour later", for_s=3600)
        assert time.monotonic() - began_s < WITHIN_S


def test_condition_that_never_holds_is_told(stage: Stage) -> None:
    assert stage.play(for_s=0.01, until=lambda: False) is False
    assert stage.play(for_s=0.01) is True
    assert stage.play(for_s=3600, until=lambda: True) is True


def open_networks() -> int:
    """Return how many descriptors of network namespaces this process has open."""
    return sum(each.startswith("net:") for each in map(_target, Path("/proc/self/fd").iterdir()))


def _target(each: Path) -> str:
    with suppress(FileNotFoundError):
        return str(each.readlink())
    return ""


def open_files() -> set[str]:
    """Return what this process has open, but for the folder that is read for it."""
    return {_target(each) for each in Path("/proc/self/fd").iterdir()} - {""}


@pytest.mark.parametrize("rule", ["pass any", "no rule at all"])
def test_nothing_is_left_when_the_stage_is_struck(wire_lab: WireLab, rule: str) -> None:
    lab, plan = wire_lab
    files, networks, processors = open_files(), open_networks(), os.sched_getaffinity(0)
    try:
        with Stage(lab, plan.wire_ports) as stage:
            stage.connection()
            stage.rules(rule)
            stage.reboot(SERVER)
            stage.listener(port=81)
            assert len(os.sched_getaffinity(0)) == 1
    except RuleError:
        assert rule == "no rule at all"
    assert {each for each in open_files() - files if not each.startswith("net:")} == set()
    # another namespace after a reboot, but no more of them
    assert open_networks() == networks
    assert os.sched_getaffinity(0) == processors
    assert stage.ladder("", "").crossings


# The capture


def test_capture_has_the_frames_of_the_ladder_and_says_what_the_rules_did(
    stage: Stage, tmp_path: Path
) -> None:
    client, server = stage.connection()
    stage.rules("reset 2nd client→server DATA", "duplicate DATA, once")
    for payload in (b"first", b"second"):
        client.send(payload)
        stage.play()
    server.receive()
    crossings = stage.ladder("", "").crossings
    stage.mark(crossings[-1], "this one decides")
    path = tmp_path / "stage.pcapng"
    path.write_bytes(stage.film.capture("a test"))

    frames = {each.frame for each in crossings}
    packets = rdpcap(str(path))
    assert frames == set(range(1, len(packets) + 1))
    for each in crossings:
        assert bytes(packets[each.frame - 1]) == stage.film.packet(each.frame).raw
    capture = path.read_bytes()
    for comment in ("duplicated: duplicate DATA, once", "this one decides"):
        assert comment.encode() in capture

    found = shutil.which("tshark")
    if found is None:
        pytest.skip("needs tshark")
    fields = ("frame.number", "frame.comment", "_ws.malformed")
    chosen = [argument for name in fields for argument in ("-e", name)]
    done = subprocess.run(
        [found, "-r", path, "-T", "fields", *chosen], capture_output=True, text=True, check=True
    )
    rows: Sequence[list[str]] = [line.split("\t") for line in done.stdout.splitlines()]
    assert [int(row[0]) for row in rows] == sorted(frames)
    assert {row[2] for row in rows} == {""}
    commented = {int(row[0]) for row in rows if row[1]}
    assert commented == {each.frame for each in crossings if each.note} | {crossings[-1].frame}
