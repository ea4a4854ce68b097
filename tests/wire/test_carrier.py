"""The carrier on a real wire between real kernels: what crosses, when, and how it is told."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.plans import CarrierPlan, CarrierStart
from twbench.model.reports import PacketFate, WireReport
from twbench.model.scenario import WireSpec

pytestmark = pytest.mark.namespaces

ROOT = Path(__file__).resolve().parents[2]
PORT = 4000
WITHIN_S = 20.0
QUIET_S = 1.0
ENHANCED_PACKET = 6


class Wire:
    """A lab and the carrier between its hosts; `report` is there when it has been left."""

    def __init__(self, lab: Lab, process: subprocess.Popen[bytes]) -> None:
        self.lab = lab
        self.process = process
        self.report = WireReport()

    @property
    def server(self) -> tuple[str, int]:
        return self.lab.hosts["server"].addresses[0], PORT

    def opened(self, host: str, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.server[0] else socket.AF_INET
        made = self.lab.socket(host, family, kind)
        made.settimeout(WITHIN_S)
        return made

    def datagrams(self, host: str = "client") -> tuple[socket.socket, socket.socket]:
        """Return a host's socket, connected to the server's, and that."""
        receiver = self.opened("server", socket.SOCK_DGRAM)
        receiver.bind(self.server)
        sender = self.opened(host, socket.SOCK_DGRAM)
        sender.connect(self.server)
        return sender, receiver

    def connected(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection, the client's first."""
        with self.opened("server", socket.SOCK_STREAM) as listener, ExitStack() as failed:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self.server)
            listener.listen()
            client = failed.enter_context(self.opened("client", socket.SOCK_STREAM))
            client.connect(self.server)
            accepted, _ = listener.accept()
            failed.pop_all()
        accepted.settimeout(None)
        return client, accepted


@contextmanager
def wire(
    capture: Path | None = None, *, hosts: int = 1, family: int = 4, **fields: Any  # noqa: ANN401 - of [lab.wire]
) -> Iterator[Wire]:  # fmt: skip
    plan = LabPlan(link=Link.WIRE, client_hosts=hosts, family=family, server_ports=(PORT,))
    with ExitStack() as owned:
        lab = owned.enter_context(Lab(plan))
        sockets = [
            owned.enter_context(lab.socket("wire", socket.AF_PACKET, socket.SOCK_RAW))
            for _ in plan.wire_ports
        ]
        numbers = tuple(each.fileno() for each in sockets)
        file = owned.enter_context(capture.open("wb")).fileno() if capture else None
        process = owned.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "twbench.wire.carrier"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                pass_fds=numbers if file is None else (*numbers, file),
            )
        )
        owned.callback(process.kill)
        told = CarrierPlan(wire=WireSpec.model_validate(fields), ports=plan.wire_ports, hold_s=10)
        start = CarrierStart(plan=told, sockets=numbers, capture=file)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(start.as_line())
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"ready": {"engine": "carrier"}}
        made = Wire(lab, process)
        yield made
        if not process.stdin.closed:
            process.stdin.write(b"stop\n")
            process.stdin.close()
        lines = [json.loads(line) for line in process.stdout]
        assert lines.pop() == {"done": True}
        assert process.wait(WITHIN_S) == 0
        for line in lines:
            made.report.add(WireReport.from_json(line))


def received(sock: socket.socket) -> list[bytes]:
    """Return what comes until nothing has come for a while."""
    sock.settimeout(WITHIN_S)
    found = [sock.recv(2000)]
    sock.settimeout(QUIET_S)
    try:
        while True:
            found.append(sock.recv(2000))
    except TimeoutError:
        return found


def numbered(sock: socket.socket, count: int) -> None:
    for number in range(count):
        sock.send(b"%d" % number)


def lost_of(count: int, **fields: Any) -> list[int]:  # noqa: ANN401 - of [lab.wire]
    """Return which of so many datagrams a wire has lost."""
    with wire(**fields) as made:
        sender, receiver = made.datagrams()
        with sender, receiver:
            numbered(sender, count)
            came = {int(data) for data in received(receiver)}
    lost = [number for number in range(count) if number not in came]
    assert made.report.of(PacketFate.LOST) == len(lost)
    return lost


def test_same_seed_loses_the_same_packets() -> None:
    first = lost_of(100, loss=0.1, seed=7)
    assert first == lost_of(100, loss=0.1, seed=7) != lost_of(100, loss=0.1, seed=8)
    assert 1 <= len(first) <= 30


@pytest.mark.parametrize("family", [4, 6])
def test_connection_takes_twice_the_delay_and_data_comes_whole(family: int) -> None:
    data = os.urandom(200_000)
    with wire(family=family, delay_ms=30) as made:
        began_s = time.monotonic()
        client, accepted = made.connected()
        assert time.monotonic() - began_s >= 0.06
        with client, accepted, accepted.makefile("rb") as file:
            client.sendall(data[:100_000])
            client.sendall(data[100_000:])
            client.shutdown(socket.SHUT_WR)
            assert file.read() == data
    report = made.report
    assert report.client[PacketFate.SEEN] == report.client[PacketFate.DELIVERED] > 200_000 / 1500
    assert (
        report.of(
            PacketFate.LOST,
            PacketFate.DUPLICATED,
            PacketFate.OVERRUN,
            PacketFate.STRAY,
            PacketFate.REFUSED,
        )
        == 0
    )
    assert report.cpu_ns > 0


def test_transfer_takes_at_least_its_bytes_at_the_rate() -> None:
    with wire(rate_mbit_per_s=2) as made:
        client, accepted = made.connected()
        with client, accepted, accepted.makefile("rb") as file:
            began_s = time.monotonic()
            client.sendall(bytes(100_000))
            client.shutdown(socket.SHUT_WR)
            assert len(file.read()) == 100_000
            assert time.monotonic() - began_s >= 100_000 * 8 / 2e6


def test_full_queue_drops_the_tail() -> None:
    with wire(rate_mbit_per_s=0.1, queue_packets=3) as made:
        sender, receiver = made.datagrams()
        with sender, receiver:
            numbered(sender, 10)
            came = [int(data) for data in received(receiver)]
    assert came[:3] == [0, 1, 2]
    assert came == sorted(came)
    assert made.report.client[PacketFate.DROPPED_BY_QUEUE] == 10 - len(came) > 0


def test_every_packet_can_arrive_twice() -> None:
    with wire(duplication=1) as made:
        sender, receiver = made.datagrams()
        with sender, receiver:
            numbered(sender, 3)
            assert received(receiver) == [b"0", b"0", b"1", b"1", b"2", b"2"]
    assert made.report.client[PacketFate.DUPLICATED] == 3
    assert made.report.client[PacketFate.DELIVERED] == 6


def test_packets_find_their_way_between_several_hosts() -> None:
    with wire(hosts=3) as made, ExitStack() as owned:
        receiver = owned.enter_context(made.opened("server", socket.SOCK_DGRAM))
        receiver.bind(made.server)
        for number in (3, 1, 2):
            sender = owned.enter_context(made.opened(f"client-{number}", socket.SOCK_DGRAM))
            sender.sendto(b"%d" % number, made.server)
            data, origin = receiver.recvfrom(100)
            assert data == b"%d" % number
            receiver.sendto(b"back", origin)
            assert sender.recv(100) == b"back"
    assert (made.report.client[PacketFate.SEEN], made.report.server[PacketFate.SEEN]) == (3, 3)


def test_packet_to_nobody_is_counted_and_stays_away() -> None:
    with wire() as made, made.opened("client", socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("198.51.100.1", 9))
        sender.sendto(b"x", ("198.51.100.1", 9))
        time.sleep(QUIET_S)
    assert made.report.client == {PacketFate.STRAY: 2}


def test_rule_acts_on_real_packets_and_is_told_by_its_line() -> None:
    rule = "reset client→server SYN, once in all"
    with wire(rules=[rule]) as made:
        with pytest.raises(ConnectionRefusedError):
            made.connected()
        client, accepted = made.connected()
        client.close()
        accepted.close()
    assert made.report.rules == {rule: 1}
    assert made.report.client[PacketFate.ANSWERED] == 1


def packets_in(capture: bytes) -> list[bytes]:
    """Return the Enhanced Packet Blocks of a capture."""
    found = []
    while capture:
        kind, length = struct.unpack_from("<II", capture)
        if kind == ENHANCED_PACKET:
            found.append(capture[:length])
        capture = capture[length:]
    return found


def test_first_packets_are_captured_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    with wire(path, capture_packets=4, rules=["drop client→server any, twice in all"]) as made:
        sender, receiver = made.datagrams()
        with sender, receiver:
            numbered(sender, 9)
            assert len(received(receiver)) == 7
    blocks = packets_in(path.read_bytes())
    assert made.report.captured == len(blocks) == 4
    assert [b"rule: drop" in block for block in blocks] == [True, True, False, False]


def test_carrier_ends_with_its_input() -> None:
    with wire() as made:
        assert made.process.stdin is not None
        made.process.stdin.close()
        assert made.process.wait(WITHIN_S) == 0


def test_carrier_says_when_it_was_too_slow() -> None:
    with wire() as made:
        sender, receiver = made.datagrams()
        with sender, receiver:
            os.kill(made.process.pid, signal.SIGSTOP)
            # more than a socket's buffer takes, which net.core.rmem_max bounds
            for _ in range(40_000):
                sender.send(bytes(1400))
            os.kill(made.process.pid, signal.SIGCONT)
            received(receiver)
    assert made.report.client[PacketFate.OVERRUN] > 0
    assert made.report.client[PacketFate.OVERRUN] + made.report.client[PacketFate.SEEN] == 40_000
