"""What stands in a wire lab on the real kernel: hosts that a program in the middle connects."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import pytest

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.lab.sysctls import RECORDED_SYSCTLS

pytestmark = pytest.mark.namespaces

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
IP_HEADER_BYTES = {4: 20, 6: 40}
TARGET = {4: slice(16, 20), 6: slice(24, 40)}
SOURCE_AND_TARGET = {4: slice(12, 20), 6: slice(8, 40)}
ETHERNET_BYTES = 14
ETH_P_ALL = 3
MTU = 1500
PORT = 8000
DEADLINE_S = 20.0
FIN_TIMEOUT = "net.ipv4.tcp_fin_timeout"


def wire_plan(family: int = 4, **changes: int) -> LabPlan:
    return LabPlan(link=Link.WIRE, family=family, **changes)  # type: ignore[arg-type]


@contextmanager
def middle_of(lab: Lab, timeout_s: float = 0.05) -> Iterator[socket.socket]:
    """Open a socket that sees every packet of every host."""
    with lab.socket("wire", socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as middle:
        middle.settimeout(timeout_s)
        yield middle


@contextmanager
def forwarding(lab: Lab) -> Iterator[list[bytes]]:
    """Carry each packet to the host that has its destination; yield the list of all of them."""
    seen: list[bytes] = []
    stop = threading.Event()
    family = lab.plan.family
    owners = {
        socket.inet_pton(FAMILIES[family], address): port
        for port in lab.plan.wire_ports
        for address in port.addresses
    }

    def carry(middle: socket.socket) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                frame, (_, kind, direction, *_) = middle.recvfrom(1 << 17)
                if direction != socket.PACKET_OUTGOING:
                    seen.append(frame[ETHERNET_BYTES:])
                    port = owners[seen[-1][TARGET[family]]]
                    # A host that reboots is not there for a moment; TCP sends again.
                    with suppress(OSError):
                        middle.sendto(port.mac + bytes(6) + frame[12:], (port.interface, kind))

    with middle_of(lab) as middle:
        carrier = threading.Thread(target=carry, args=(middle,))
        carrier.start()
        try:
            yield seen
        finally:
            stop.set()
            carrier.join()


def listen(lab: Lab) -> socket.socket:
    listener = lab.socket("server", FAMILIES[lab.plan.family], socket.SOCK_STREAM)
    listener.settimeout(DEADLINE_S)
    listener.bind(("", PORT))
    listener.listen()
    return listener


def caller(lab: Lab, host: str = "client", source: str = "") -> socket.socket:
    """Return a socket of a client host, bound to its address `source` if given."""
    made = lab.socket(host, FAMILIES[lab.plan.family], socket.SOCK_STREAM)
    made.settimeout(DEADLINE_S)
    made.bind((source, 0))
    return made


@contextmanager
def connected(lab: Lab) -> Iterator[dict[str, socket.socket]]:
    """Connect client and server; yield the two ends by their host's name."""
    with listen(lab) as listener, caller(lab) as client:
        client.connect((lab.hosts["server"].addresses[0], PORT))
        server, _ = listener.accept()
        with server:
            server.settimeout(DEADLINE_S)
            yield {"client": client, "server": server}


def segments_in(lab: Lab, stack: str) -> int:
    """Return how many TCP segments came to `stack` so far (InSegs, of both families)."""
    with os.fdopen(lab.open(stack, "/proc/net/snmp")) as file:
        names, values = (line.split()[1:] for line in file if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["InSegs"])


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ones_complement(data: bytes) -> int:
    """Return the sum of RFC 1071: 0xffff over what contains its own right checksum."""
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data) - 1, 2))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksums_hold(packet: bytes, family: int) -> bool:
    header, segment = packet[: IP_HEADER_BYTES[family]], packet[IP_HEADER_BYTES[family] :]
    pseudo = header[SOURCE_AND_TARGET[family]] + len(segment).to_bytes(4) + (6).to_bytes(4)
    of_ip = ones_complement(header) == 0xFFFF if family == 4 else True
    return of_ip and ones_complement(pseudo + segment) == 0xFFFF


@pytest.mark.parametrize("family", [4, 6])
def test_packets_leave_into_the_middle_and_arrive_only_if_carried(family: int) -> None:
    with Lab(wire_plan(family)) as lab, listen(lab) as listener, caller(lab) as client:
        client.settimeout(0)
        with middle_of(lab, DEADLINE_S) as middle:
            client.connect_ex((lab.hosts["server"].addresses[0], PORT))
            heard = [middle.recvfrom(MTU + ETHERNET_BYTES)[1][0] for _ in ("SYN", "its repetition")]
            assert heard == ["client", "client"]
            assert segments_in(lab, "server") == 0
        with forwarding(lab):
            accepted, _ = listener.accept()
            accepted.close()
            assert segments_in(lab, "server") > 0


@pytest.mark.parametrize("family", [4, 6])
def test_every_client_address_reaches_every_server_address_when_carried(family: int) -> None:
    plan = wire_plan(family, client_hosts=3, addresses_per_client=2, server_addresses=2)
    with Lab(plan) as lab, listen(lab) as listener, forwarding(lab):
        for host in plan.clients:
            for source, target in product(host.addresses, plan.server.addresses):
                with caller(lab, host.name, source) as client:
                    client.connect((target, PORT))
                    accepted, peer = listener.accept()
                    accepted.close()
                assert peer[0] == source


@pytest.mark.parametrize("family", [4, 6])
def test_a_large_send_crosses_as_whole_segments_with_right_checksums(family: int) -> None:
    sent = os.urandom(100_000)
    with Lab(wire_plan(family)) as lab, forwarding(lab) as seen:
        with connected(lab) as ends:
            sender = threading.Thread(target=ends["client"].sendall, args=(sent,))
            sender.start()
            received = b""
            while len(received) < len(sent):
                received += ends["server"].recv(1 << 17)
            sender.join()
        packets = list(seen)
    assert received == sent
    assert max(map(len, packets)) == MTU
    assert all(checksums_hold(packet, family) for packet in packets)
    broken = packets[0][:-1] + bytes([packets[0][-1] ^ 1])
    assert not checksums_hold(broken, family)


@pytest.mark.parametrize("family", [4, 6])
def test_hosts_that_are_left_alone_say_nothing(family: int) -> None:
    with Lab(wire_plan(family, client_hosts=2)) as lab, middle_of(lab, 2.0) as middle:
        lab.reboot("server")
        with pytest.raises(TimeoutError):
            middle.recvfrom(MTU)


def test_a_packet_to_anywhere_leaves_by_the_wire() -> None:
    with Lab(wire_plan()) as lab, middle_of(lab, DEADLINE_S) as middle, caller(lab) as client:
        client.settimeout(0)
        client.connect_ex(("192.0.2.1", PORT))
        frame, _ = middle.recvfrom(MTU)
        assert frame[ETHERNET_BYTES:][TARGET[4]] == socket.inet_aton("192.0.2.1")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("rebooted", "other"), [("server", "client"), ("client", "server")])
def test_after_a_reboot_the_next_segment_of_an_old_connection_is_answered_with_rst(
    family: int, rebooted: str, other: str
) -> None:
    with Lab(wire_plan(family)) as lab, forwarding(lab), connected(lab) as ends:
        ends[other].sendall(b"before")
        assert ends[rebooted].recv(100) == b"before"
        lab.reboot(rebooted)
        ends[other].sendall(b"after")
        with pytest.raises(ConnectionResetError):
            ends[other].recv(100)
        ends[rebooted].settimeout(0)
        with pytest.raises(BlockingIOError):
            ends[rebooted].recv(100)


@pytest.mark.parametrize("family", [4, 6])
def test_a_rebooted_host_is_reached_again_and_has_the_plans_sysctls(family: int) -> None:
    plan = LabPlan(
        link=Link.WIRE,
        family=family,
        server_sysctls={"net.ipv4.tcp_retries2": "3"},
        ehash_entries=8192,
    )
    with Lab(plan) as lab, forwarding(lab):
        before = lab.sysctls("server", RECORDED_SYSCTLS)
        assert before["net.ipv4.tcp_retries2"] == "3"
        lab.set_sysctl("server", FIN_TIMEOUT, "7")
        for _ in range(2):
            lab.reboot("server")
            assert lab.sysctls("server", RECORDED_SYSCTLS) == before
            with connected(lab) as ends:
                ends["client"].sendall(b"again")
                assert ends["server"].recv(100) == b"again"


def test_commands_prepared_before_a_reboot_run_on_the_fresh_host() -> None:
    with Lab(wire_plan()) as lab:
        network = lab.network("server")
        assert network is not None
        old = os.fstat(network).st_ino
        argv, descriptors = lab.command("server", ["readlink", "/proc/self/ns/net"])
        lab.reboot("server")
        assert lab.network("server") == network
        fresh = os.fstat(network).st_ino
        done = subprocess.run(argv, pass_fds=descriptors, capture_output=True, check=True)
    assert fresh != old
    assert done.stdout.decode().strip() == f"net:[{fresh}]"


def test_a_process_on_a_host_survives_its_reboot_and_not_the_lab() -> None:
    descriptors_before = sorted(Path("/proc/self/fd").iterdir())
    with Lab(wire_plan()) as lab:
        argv, descriptors = lab.command("server", ["sh", "-c", "echo in; exec sleep 1000"])
        child = subprocess.Popen(argv, pass_fds=descriptors, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"in\n"
        lab.reboot("server")
        lab.reboot("server")
        assert child.poll() is None
    with child:
        try:
            assert child.wait(DEADLINE_S) == -9
        finally:
            child.kill()
    assert sorted(Path("/proc/self/fd").iterdir()) == descriptors_before


def test_a_reboot_that_is_refused_leaves_the_host_as_it_was() -> None:
    limited = (
        "from pathlib import Path\n"
        "from twbench.lab.namespaces import own_user_namespace\n"
        "from twbench.lab.lab import Lab\n"
        "from twbench.lab.plan import LabPlan, Link\n"
        "from twbench.model.errors import LabError\n"
        "own_user_namespace()\n"
        "Path('/proc/sys/user/max_net_namespaces').write_text('5')\n"
        "with Lab(LabPlan(link=Link.WIRE)) as lab:\n"
        "    for _ in range(9):\n"
        "        try:\n"
        "            lab.reboot('server')\n"
        "        except LabError as error:\n"
        "            print(error)\n"
        "            break\n"
        f"    print(lab.sysctls('server', ['{FIN_TIMEOUT}']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", limited],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "a fresh network namespace for server: No space left on device" in done.stdout
    assert done.stdout.endswith(f"{{'{FIN_TIMEOUT}': '60'}}\n")
    assert done.stderr == ""


def test_an_old_connection_has_lost_its_way_out() -> None:
    with Lab(wire_plan()) as lab, forwarding(lab) as seen, connected(lab) as ends:
        lab.reboot("server")
        so_far = len(seen)
        with suppress(OSError):
            ends["server"].send(b"from the old host")
        # The client's own words come last, so whatever the old host said has passed before.
        ends["client"].send(b"from the client")
        assert wait_until(lambda: any(p.endswith(b"from the client") for p in seen))
        assert not any(b"from the old host" in packet for packet in seen[so_far:])
