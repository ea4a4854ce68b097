"""The wire's ends, on the interfaces of real hosts."""

import errno
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan
from twbench.model.states import Side
from twbench.wire.packet import Flag, echo_reply_of, echo_request, parse
from twbench.wire.port import Arrival, Port, pin_to_one_processor, read_all, wait_for

WireLab = tuple[Lab, LabPlan]
WITHIN_S = 30
ETH_P_ALL = 0x0003
SIOCGIFINDEX = 0x8933
NET_DOWN = {errno.ENETDOWN, errno.ENXIO, errno.ENODEV}


@contextmanager
def opened(wire_lab: WireLab) -> Iterator[dict[Side, Port]]:
    lab, plan = wire_lab
    with ExitStack() as owned:
        ports = {}
        for each in plan.wire_ports:
            ports[each.side] = port = Port(each, lambda *kind: lab.socket("wire", *kind))
            owned.callback(port.close)
        yield ports


def arrive(*ports: Port, count: int = 1) -> list[Arrival]:
    """Return the first packets that come, and those with them."""
    found: list[Arrival] = []
    end_s = time.monotonic() + WITHIN_S
    while len(found) < count and time.monotonic() < end_s:
        wait_for(ports, 0.1)
        found += read_all(ports)
    return found


def begin_to_connect(lab: Lab, host: str, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = lab.socket(host, family, socket.SOCK_STREAM)
    made.settimeout(0)
    assert made.connect_ex((address, port)) == errno.EINPROGRESS
    return made


@pytest.mark.namespaces
@pytest.mark.parametrize("fixture", ["wire_lab", "wire_lab6"])
def test_packet_of_a_host_comes_to_its_own_port_with_the_time(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    wire_lab: WireLab = request.getfixturevalue(fixture)
    lab, plan = wire_lab
    address = plan.server.addresses[0]
    with opened(wire_lab) as ports:
        before_ns = time.time_ns()
        with begin_to_connect(lab, "client", address, 80):
            arrival = arrive(*ports.values())[0]
        assert before_ns <= arrival.t_ns <= time.time_ns()
        assert arrival.port is ports[Side.CLIENT]
        packet = parse(arrival.raw)
        assert (packet.source, packet.destination) == (plan.clients[0].addresses[0], address)
        assert packet.tcp
        assert packet.tcp.flags == Flag.SYN
        assert ports[Side.SERVER].read() == []


@pytest.mark.namespaces
@pytest.mark.parametrize("fixture", ["wire_lab", "wire_lab6"])
def test_host_answers_what_is_sent_to_it_and_the_wire_does_not_hear_itself(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    wire_lab: WireLab = request.getfixturevalue(fixture)
    client, server = (host.addresses[0] for host in wire_lab[1].hosts)
    echo = echo_request(source=server, destination=client, identifier=7, sequence=9)
    with opened(wire_lab) as ports:
        ports[Side.CLIENT].send(echo.raw)
        (arrival,) = arrive(*ports.values())
        assert echo_reply_of(parse(arrival.raw)) == (7, 9)
        assert ports[Side.CLIENT].read() == []


@pytest.mark.namespaces
def test_packets_of_both_hosts_are_read_in_the_order_in_which_they_came(wire_lab: WireLab) -> None:
    lab, plan = wire_lab
    addresses = [host.addresses[0] for host in plan.hosts]
    senders = ("server", "client", "client", "server")
    with opened(wire_lab) as ports, ExitStack() as sockets:
        for number, sender in enumerate(senders, start=1):
            address = addresses[sender == "client"]
            sockets.enter_context(begin_to_connect(lab, sender, address, number))
        found = arrive(*ports.values(), count=len(senders))
    assert [arrival.port.host for arrival in found[: len(senders)]] == list(senders)


@pytest.mark.namespaces
def test_multicast_of_ipv6_is_left_out(wire_lab6: WireLab) -> None:
    lab, plan = wire_lab6
    with (
        opened(wire_lab6) as ports,
        lab.socket("wire", socket.AF_PACKET, socket.SOCK_RAW) as witness,
        lab.socket("client", socket.AF_INET6, socket.SOCK_DGRAM) as sender,
    ):
        witness.bind((plan.wire_ports[0].interface, ETH_P_ALL))
        witness.settimeout(WITHIN_S)
        answer = fcntl.ioctl(sender, SIOCGIFINDEX, struct.pack("=16si12x", b"eth0", 0))
        (index,) = struct.unpack_from("=i", answer, 16)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.sendto(b"to all of you", ("ff05::77", 9))
        while not witness.recv(65536).endswith(b"to all of you"):
            pass
        assert ports[Side.CLIENT].read() == []


@pytest.mark.namespaces
def test_port_of_a_host_that_rebooted_takes_nothing(wire_lab: WireLab) -> None:
    lab, plan = wire_lab
    client, server = (host.addresses[0] for host in plan.hosts)
    echo = echo_request(source=server, destination=client, identifier=7, sequence=9)
    with opened(wire_lab) as ports:
        lab.reboot("client")
        with pytest.raises(OSError, match="Errno") as raised:
            ports[Side.CLIENT].send(echo.raw)
        assert raised.value.errno in NET_DOWN


@pytest.mark.namespaces
def test_port_that_cannot_be_bound_leaves_no_socket(wire_lab: WireLab) -> None:
    lab, plan = wire_lab
    made = []

    def open_socket(*kind: int) -> socket.socket:
        made.append(lab.socket("wire", *kind))
        return made[0]

    with pytest.raises(OSError, match="Errno") as raised:
        Port(replace(plan.wire_ports[0], interface="nowhere"), open_socket)
    assert raised.value.errno in NET_DOWN
    assert made[0].fileno() == -1


@pytest.mark.namespaces
def test_receive_buffer_is_as_large_as_this_user_may_have(wire_lab: WireLab) -> None:
    """The kernel doubles what it is asked for (sk_setsockopt)."""
    lab, plan = wire_lab
    with lab.socket("wire", socket.AF_PACKET, socket.SOCK_RAW) as made:
        port = Port(plan.wire_ports[0], lambda *_: made)
        allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
        wanted = 8 * 1024 * 1024
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 2 * min(allowed, wanted)
        port.close()


@pytest.mark.namespaces
def test_closed_port_can_be_closed_again(wire_lab: WireLab) -> None:
    with opened(wire_lab) as ports:
        ports[Side.CLIENT].close()
        ports[Side.CLIENT].close()
        assert ports[Side.CLIENT].fileno() == -1


def test_waiting_without_ports_ends_with_the_time_out() -> None:
    wait_for([], -1)
    began_s = time.monotonic()
    wait_for([], 0.05)
    assert time.monotonic() - began_s >= 0.05


def test_pinning_keeps_this_thread_alone_on_one_of_its_processors() -> None:
    seen = {}

    def pinned() -> None:
        seen["before"] = pin_to_one_processor()
        seen["pinned"] = os.sched_getaffinity(0)
        os.sched_setaffinity(0, seen["before"])
        seen["after"] = os.sched_getaffinity(0)

    allowed = os.sched_getaffinity(0)
    thread = threading.Thread(target=pinned)
    thread.start()
    thread.join()
    assert seen["before"] == seen["after"] == allowed == os.sched_getaffinity(0)
    assert len(seen["pinned"]) == 1
    assert seen["pinned"] <= allowed
