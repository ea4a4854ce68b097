"""The codec against scapy in both directions, against garbage, and against the running kernel."""

import dataclasses
import errno
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Packet as Layers
from scapy.packet import Raw

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.wire.packet import (
    Flag,
    Icmp,
    MalformedPacketError,
    Packet,
    Tcp,
    checksums_hold,
    echo_reply_of,
    echo_request,
    parse,
    reset_for,
    tcp_packet,
    unreachable_for,
)

ENDS = {4: ("198.18.0.1", "198.19.0.1"), 6: ("2001:2::1", "2001:2:0:1::1")}
FAMILIES = pytest.mark.parametrize("family", [4, 6])
NEXT = {4: IP, 6: IPv6}

# 198.18.0.1:40001 → 198.19.0.1:80, PSH+ACK with timestamps and "hello".
HELLO = bytes.fromhex(
    "45 00 0039 0000 4000 40 06 ae97 c6120001 c6130001"
    "9c41 0050 01020304 a1a2a3a4 80 18 0200 bec7 0000"
    "0101 080a 00000007 00000009"
    "68656c6c6f"
)


def segment(family: int = 4, **fields: object) -> Packet:
    """Return a segment from client to server; `fields` are those of `tcp_packet`."""
    source, destination = ENDS[family]
    return tcp_packet(
        **{  # type: ignore[arg-type]
            "source": source,
            "destination": destination,
            "source_port": 40001,
            "destination_port": 80,
            "seq": 1000,
            "flags": Flag.ACK,
            **fields,
        }
    )


def scapy_of(raw: bytes) -> Layers:
    return NEXT[raw[0] >> 4](raw)


def rebuilt(raw: bytes) -> bytes:
    """Return what scapy makes of the packet when it has to find lengths and checksums itself."""
    packet = scapy_of(raw)
    for layer in (packet, packet.payload):
        for name in ("len", "plen", "ihl", "chksum", "cksum", "dataofs"):
            if name in layer.fields:
                delattr(layer, name)
    return bytes(packet)


def same_addresses(texts: tuple[str, str], others: tuple[str, str]) -> bool:
    """Return whether the pairs are equal, though an IPv6 address can be written in many ways."""
    return [*map(ip_address, texts)] == [*map(ip_address, others)]


words = st.integers(0, 2**32 - 1)
halves = st.integers(0, 2**16 - 1)
payloads = st.binary(max_size=100)
flag_sets = st.integers(0, 255).map(Flag)
ipv4, ipv6 = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)
ends = st.tuples(ipv4, ipv4) | st.tuples(ipv6, ipv6)
option_lists = st.lists(
    st.one_of(
        st.just(("NOP", None)),
        st.tuples(st.just("MSS"), halves),
        st.tuples(st.just("WScale"), st.integers(0, 14)),
        st.just(("SAckOK", b"")),
        st.tuples(st.just("Timestamp"), st.tuples(words, words)),
    ),
    max_size=4,
)


@given(ends, st.tuples(halves, halves), words, words, flag_sets, halves, payloads)
def test_scapy_reads_what_is_built_and_finds_the_same_checksums(
    addresses: tuple[str, str],
    ports: tuple[int, int],
    seq: int,
    ack: int,
    flags: Flag,
    window: int,
    payload: bytes,
) -> None:
    packet = tcp_packet(
        source=addresses[0],
        destination=addresses[1],
        source_port=ports[0],
        destination_port=ports[1],
        seq=seq,
        ack=ack,
        flags=flags,
        window=window,
        options=b"\x02\x04\x05\xb4\x01\x03\x03\x07",
        payload=payload,
    )
    read = scapy_of(packet.raw)
    assert same_addresses((read.src, read.dst), addresses)
    tcp = read[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.window) == (*ports, seq, ack, window)
    assert (int(tcp.flags), tcp.options) == (flags, [("MSS", 1460), ("NOP", None), ("WScale", 7)])
    assert bytes(tcp.payload) == payload
    assert rebuilt(packet.raw) == packet.raw
    assert checksums_hold(packet)


@given(ends, st.tuples(halves, halves), words, words, flag_sets, option_lists, payloads)
def test_what_scapy_builds_is_read(
    addresses: tuple[str, str],
    ports: tuple[int, int],
    seq: int,
    ack: int,
    flags: Flag,
    options: list[tuple[str, object]],
    payload: bytes,
) -> None:
    below = IPv6 if ":" in addresses[0] else IP
    tcp = TCP(sport=ports[0], dport=ports[1], seq=seq, ack=ack, flags=int(flags), options=options)
    raw = bytes(below(src=addresses[0], dst=addresses[1]) / tcp / Raw(payload))
    packet = parse(raw)
    assert (packet.raw, packet.family) == (raw, raw[0] >> 4)
    assert same_addresses((packet.source, packet.destination), addresses)
    assert packet.tcp
    assert (packet.tcp.source_port, packet.tcp.destination_port) == ports
    assert (packet.tcp.seq, packet.tcp.ack, packet.tcp.window) == (seq, ack, 8192)
    assert (packet.tcp.flags, packet.tcp.payload) == (flags, payload)
    stamps = [value for name, value in options if name == "Timestamp"]
    assert packet.tcp.timestamps == (stamps[0] if stamps else None)
    assert checksums_hold(packet)


def test_bytes_are_read_field_by_field() -> None:
    packet = parse(HELLO)
    assert packet == Packet(
        raw=HELLO,
        family=4,
        tcp=Tcp(
            source_port=40001,
            destination_port=80,
            seq=0x01020304,
            ack=0xA1A2A3A4,
            flags=Flag.PSH | Flag.ACK,
            window=0x200,
            options=bytes.fromhex("0101080a0000000700000009"),
            payload=b"hello",
        ),
        icmp=None,
    )
    assert (packet.source, packet.destination) == ENDS[4]
    assert packet.addresses == bytes.fromhex("c6120001c6130001")
    assert packet.tcp
    assert packet.tcp.timestamps == (7, 9)
    assert checksums_hold(packet)


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x45", b"\x46", b"\x60"]))
def test_garbage_is_read_or_malformed_and_nothing_else(rest: bytes, start: bytes) -> None:
    raw = start + rest
    try:
        packet = parse(raw)
    except MalformedPacketError:
        return
    assert raw.startswith(packet.raw)
    checksums_hold(packet)
    if packet.tcp:
        assert packet.tcp.timestamps is None or packet.tcp.options


@FAMILIES
@given(st.data())
def test_every_flipped_bit_breaks_a_checksum(family: int, data: st.DataObject) -> None:
    raw = bytearray(segment(family, payload=b"odd").raw)
    header = {4: 20, 6: 40}[family]
    bit = data.draw(st.integers(8 * header, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        packet = parse(bytes(raw))
    except MalformedPacketError:
        assert bit // 8 == header + 12, "only the data offset can make it malformed"
        return
    assert not checksums_hold(packet)


def test_flipped_bit_in_the_ipv4_header_breaks_its_checksum() -> None:
    raw = bytearray(segment().raw)
    raw[8] ^= 1  # the TTL, which TCP's checksum does not cover
    assert not checksums_hold(parse(bytes(raw)))


def test_icmp_that_is_all_zeros_has_no_right_checksum_of_zero() -> None:
    ip = bytearray(
        echo_request(source=ENDS[4][0], destination=ENDS[4][1], identifier=0, sequence=0).raw
    )
    ip[20:28] = bytes(8)
    assert not checksums_hold(parse(bytes(ip)))
    ip[22:24] = b"\xff\xff"
    assert checksums_hold(parse(bytes(ip)))


@FAMILIES
@pytest.mark.parametrize("padding", [0, 1, 6, 46])
def test_ethernets_padding_is_cut_off(family: int, padding: int) -> None:
    packet = segment(family, payload=b"x")
    assert parse(packet.raw + bytes(padding)) == packet


@FAMILIES
def test_packet_cut_anywhere_is_malformed(family: int) -> None:
    raw = segment(family, options=b"\x01\x01\x01\x01", payload=b"data").raw
    for length in range(len(raw)):
        with pytest.raises(MalformedPacketError):
            parse(raw[:length])


@pytest.mark.parametrize("protocol", [6, 17], ids=["TCP", "UDP"])
@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(0, 0x44, id="header of 16 bytes"),
        pytest.param(0, 0x4F, id="header beyond the packet"),
        pytest.param(0, 0x55, id="version 5"),
        pytest.param(3, 19, id="total length within the header"),
        pytest.param(3, 41, id="total length beyond the bytes"),
    ],
)
def test_ip_length_that_cannot_be_is_malformed(protocol: int, at: int, value: int) -> None:
    raw = bytearray(segment().raw)
    raw[9] = protocol
    raw[at] = value
    with pytest.raises(MalformedPacketError):
        parse(bytes(raw))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(3, 39, id="packet ends within the header"),
        pytest.param(32, 0x40, id="header of 16 bytes"),
        pytest.param(32, 0x60, id="header beyond the packet"),
    ],
)
def test_tcp_length_that_cannot_be_is_malformed(at: int, value: int) -> None:
    raw = bytearray(segment().raw)
    raw[at] = value
    with pytest.raises(MalformedPacketError):
        parse(bytes(raw))


def test_malformed_packet_says_what_came() -> None:
    with pytest.raises(MalformedPacketError, match="3 bytes that begin with 550001"):
        parse(b"\x55\x00\x01")
    with pytest.raises(MalformedPacketError, match="0 bytes that begin with nothing"):
        parse(b"")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(IP() / UDP() / b"data", id="UDP"),
        pytest.param(IP(flags="MF") / TCP(), id="first fragment"),
        pytest.param(IP(frag=100) / TCP(), id="last fragment"),
        pytest.param(IP(proto=58) / bytes(8), id="ICMPv6 over IPv4"),
        pytest.param(IPv6() / UDP() / b"data", id="UDP over IPv6"),
        pytest.param(IPv6() / IPv6ExtHdrFragment(m=1) / TCP(), id="IPv6 fragment"),
        pytest.param(IPv6() / IPv6ExtHdrHopByHop() / TCP(), id="hop-by-hop options"),
        pytest.param(IPv6(nh=1) / bytes(8), id="ICMP over IPv6"),
        pytest.param(IPv6(nh=59), id="nothing after the header"),
    ],
)
def test_other_packets_are_carried_as_bytes(other: Layers) -> None:
    raw = bytes(other)
    packet = parse(raw)
    assert (packet.raw, packet.tcp, packet.icmp) == (raw, None, None)
    assert checksums_hold(packet)


def test_options_of_the_ip_header_move_the_segment() -> None:
    raw = bytes(IP(options=b"\x01" * 8) / TCP(sport=7, flags="S"))
    packet = parse(raw)
    assert packet.tcp
    assert (packet.tcp.source_port, packet.tcp.flags) == (7, Flag.SYN)
    assert checksums_hold(packet)


@pytest.mark.parametrize(
    ("flags", "payload", "span", "label"),
    [
        (Flag(0), b"", 0, "none"),
        (Flag.ACK, b"", 0, "ACK"),
        (Flag.SYN, b"", 1, "SYN"),
        (Flag.SYN | Flag.ACK, b"", 1, "SYN+ACK"),
        (Flag.SYN | Flag.FIN, b"", 2, "FIN+SYN"),
        (Flag.PSH | Flag.ACK, b"data", 4, "PSH+ACK"),
        (Flag.FIN | Flag.ACK, b"", 1, "FIN+ACK"),
        (Flag.FIN | Flag.PSH | Flag.ACK, b"data", 5, "FIN+PSH+ACK"),
        (Flag.RST, b"", 0, "RST"),
        (Flag.RST | Flag.ACK, b"why", 3, "RST+ACK"),
        (Flag.SYN | Flag.ECE | Flag.CWR, b"", 1, "SYN+ECE+CWR"),
    ],
)
def test_segment_has_a_span_and_a_label(flags: Flag, payload: bytes, span: int, label: str) -> None:
    tcp = segment(flags=flags, payload=payload).tcp
    assert tcp
    assert (tcp.span, tcp.label) == (span, label)


@pytest.mark.parametrize(
    ("options", "timestamps"),
    [
        ("", None),
        ("0101080a 00000001 ffffffff", (1, 0xFFFFFFFF)),
        ("020405b4 0402 080a 0000000a 00000000 01030307", (10, 0)),
        ("080a 00000001 00000002 0000", (1, 2)),
        ("0002 080a 00000001 00000002", None),  # after the end of the options
        ("0500 080a 00000001 00000002", None),  # an option of no length
        ("05ff 080a 00000001 00000002", None),  # an option beyond the header
        ("0806 00000001 0000", None),  # timestamps of another length
        ("01010108", None),  # a kind without its length
    ],
)
def test_timestamps_are_found_among_the_options(
    options: str, timestamps: tuple[int, int] | None
) -> None:
    tcp = segment(options=bytes.fromhex(options)).tcp
    assert tcp
    assert tcp.timestamps == timestamps


def test_built_packet_wraps_its_numbers_and_pads_its_options() -> None:
    tcp = segment(seq=2**32 + 5, ack=-1, options=b"\x01").tcp
    assert tcp
    assert (tcp.seq, tcp.ack, tcp.options) == (5, 2**32 - 1, b"\x01\x00\x00\x00")


def test_built_ipv4_packet_is_not_to_be_fragmented() -> None:
    read = scapy_of(segment().raw)
    assert (str(read.flags), read.ttl, read.id) == ("DF", 64, 0)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"source": "here"}, ValueError),
        ({"source": "2001:2::1"}, ValueError),
        ({"source_port": 65536}, struct.error),
        ({"window": -1}, struct.error),
        ({"options": bytes(41)}, struct.error),
        ({"payload": bytes(65536)}, struct.error),
    ],
)
def test_packet_that_cannot_be_is_not_built(
    fields: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        segment(4, **fields)


@FAMILIES
def test_segment_with_ack_gets_a_reset_of_that_number(family: int) -> None:
    answer = reset_for(segment(family, ack=5000, flags=Flag.FIN | Flag.ACK, payload=b"data"))
    assert (answer.source, answer.destination) == ENDS[family][::-1]
    tcp = answer.tcp
    assert tcp
    assert (tcp.source_port, tcp.destination_port) == (80, 40001)
    assert (tcp.label, tcp.seq, tcp.ack, tcp.span) == ("RST", 5000, 0, 0)


@FAMILIES
@pytest.mark.parametrize(
    ("fields", "acknowledged"),
    [
        ({"flags": Flag.SYN}, 1001),
        ({"flags": Flag.FIN, "payload": b"data"}, 1005),
        ({"flags": Flag.SYN, "seq": 2**32 - 1}, 0),
    ],
)
def test_segment_without_ack_gets_a_reset_that_acknowledges_it(
    family: int, fields: dict[str, object], acknowledged: int
) -> None:
    tcp = reset_for(segment(family, **fields)).tcp
    assert tcp
    assert (tcp.label, tcp.seq, tcp.ack) == ("RST+ACK", 0, acknowledged)


def test_reset_answers_neither_a_reset_nor_what_is_not_tcp() -> None:
    with pytest.raises(ValueError, match="no RST answers a RST"):
        reset_for(segment(flags=Flag.RST | Flag.ACK))
    with pytest.raises(ValueError, match="no RST answers what is not TCP"):
        reset_for(parse(bytes(IP() / UDP())))


@pytest.mark.parametrize(
    ("family", "kind", "longest"), [(4, 3, 576), (6, 1, 1280)], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("payload_bytes", [0, 5, 1400])
def test_icmp_error_quotes_as_much_as_it_may(
    family: int, kind: int, longest: int, payload_bytes: int
) -> None:
    packet = segment(family, payload=bytes(payload_bytes))
    answer = unreachable_for(packet, kind=kind, code=4, rest=b"\x00\x00\x05\x14")
    assert (answer.source, answer.destination) == ENDS[family][::-1]
    assert answer.icmp
    assert (answer.icmp.kind, answer.icmp.code, answer.icmp.rest) == (kind, 4, b"\x00\x00\x05\x14")
    assert packet.raw.startswith(answer.icmp.body)
    assert len(answer.raw) == min(
        longest, len(packet.raw) + len(answer.raw) - len(answer.icmp.body)
    )
    assert checksums_hold(answer)
    assert rebuilt(answer.raw) == answer.raw


@FAMILIES
def test_icmp_error_may_come_from_a_router(family: int) -> None:
    router = {4: "198.18.255.254", 6: "2001:2::ff"}[family]
    answer = unreachable_for(segment(family), kind={4: 11, 6: 3}[family], code=0, source=router)
    assert (answer.source, answer.destination) == (router, ENDS[family][0])


@FAMILIES
def test_no_icmp_error_answers_another_but_one_answers_an_echo(family: int) -> None:
    kind = {4: 3, 6: 1}[family]
    error = unreachable_for(segment(family), kind=kind, code=1)
    with pytest.raises(ValueError, match="no ICMP error answers"):
        unreachable_for(error, kind=kind, code=1)
    source, destination = ENDS[family]
    echo = echo_request(source=source, destination=destination, identifier=1, sequence=2)
    assert unreachable_for(echo, kind=kind, code=1).icmp


@pytest.mark.parametrize(("family", "kind"), [(4, 8), (4, 0), (6, 128), (6, 135)])
def test_icmp_type_that_is_no_error_is_refused(family: int, kind: int) -> None:
    with pytest.raises(ValueError, match=f"type {kind} is no ICMP error of IPv{family}"):
        unreachable_for(segment(family), kind=kind, code=0)


@FAMILIES
@given(halves, halves)
def test_scapy_reads_an_echo_request(family: int, identifier: int, sequence: int) -> None:
    source, destination = ENDS[family]
    packet = echo_request(
        source=source, destination=destination, identifier=identifier, sequence=sequence
    )
    read = scapy_of(packet.raw).payload
    assert (read.type, read.id, read.seq) == ({4: 8, 6: 128}[family], identifier, sequence)
    assert rebuilt(packet.raw) == packet.raw
    assert checksums_hold(packet)
    assert echo_reply_of(packet) is None


@FAMILIES
@given(halves, halves, payloads)
def test_echo_reply_gives_identifier_and_sequence(
    family: int, identifier: int, sequence: int, payload: bytes
) -> None:
    reply: Layers = {4: ICMP(type=0), 6: ICMPv6EchoReply()}[family]
    reply.id, reply.seq = identifier, sequence
    packet = parse(bytes(NEXT[family](src=ENDS[family][0], dst=ENDS[family][1]) / reply / payload))
    assert packet.icmp == Icmp(
        kind={4: 0, 6: 129}[family],
        code=0,
        rest=struct.pack(">HH", identifier, sequence),
        body=packet.raw[{4: 28, 6: 48}[family] :],
    )
    assert echo_reply_of(packet) == (identifier, sequence)
    assert checksums_hold(packet)


def test_packet_without_icmp_is_no_echo_reply() -> None:
    assert echo_reply_of(segment()) is None


WITHIN_S = 30
PACKET_OUTGOING = 4
ETH_P_ALL = 3
ADDRESS_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def ready(waiting: socket.socket, event: int) -> None:
    """Wait until the kernel tells an event of a socket."""
    poll = select.poll()
    poll.register(waiting, event)
    assert poll.poll(WITHIN_S * 1000)


class Loopback:
    """A kernel of one's own, whose packets are read and to which packets are given."""

    def __init__(self, lab: Lab, family: int) -> None:
        self.lab = lab
        self.family = ADDRESS_FAMILIES[family]
        self.client = lab.hosts["client"].addresses[0]
        self.server = lab.hosts["server"].addresses[0]
        self.tap = lab.socket("lab", socket.AF_PACKET, socket.SOCK_DGRAM)
        self.tap.bind(("lo", ETH_P_ALL))
        self.injector = lab.socket("lab", self.family, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def close(self) -> None:
        self.tap.close()
        self.injector.close()

    def inject(self, packet: Packet | bytes, destination: str) -> None:
        raw = packet if isinstance(packet, bytes) else packet.raw
        self.injector.sendto(raw, (destination, 0))

    def wait_for(self, wanted: Callable[[Packet], bool]) -> Packet:
        """Return the next packet on the loopback that is wanted."""
        deadline = time.monotonic() + WITHIN_S
        while (left := deadline - time.monotonic()) > 0:
            self.tap.settimeout(left)
            raw, address = self.tap.recvfrom(65535)
            if address[2] == PACKET_OUTGOING:
                continue
            packet = parse(raw)
            if wanted(packet):
                return packet
        raise TimeoutError

    def wait_for_label(self, label: str) -> Packet:
        return self.wait_for(lambda packet: packet.tcp is not None and packet.tcp.label == label)

    def listen(self, backlog: int) -> socket.socket:
        listener = self.lab.socket("lab", self.family, socket.SOCK_STREAM)
        listener.bind((self.server, 0))
        listener.listen(backlog)
        return listener

    def begin_connect(self, port: int) -> socket.socket:
        made = self.lab.socket("lab", self.family, socket.SOCK_STREAM)
        made.settimeout(0)
        made.connect_ex((self.server, port))
        return made


@contextmanager
def loopback(family: int) -> Iterator[Loopback]:
    with Lab(LabPlan(link=Link.LOOPBACK, family=family)) as lab:
        made = Loopback(lab, family)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.namespaces
@FAMILIES
def test_reset_is_the_one_the_kernel_sends(family: int) -> None:
    with loopback(family) as kernel:
        with kernel.begin_connect(9):
            syn = kernel.wait_for_label("SYN")
            own = kernel.wait_for_label("RST+ACK")
        assert own.tcp
        assert syn.tcp
        assert reset_for(syn).tcp == own.tcp
        assert (own.source, own.destination) == (syn.destination, syn.source)
        stray = tcp_packet(
            source=kernel.client,
            destination=kernel.server,
            source_port=5000,
            destination_port=9,
            seq=77,
            ack=88,
            flags=Flag.FIN | Flag.PSH | Flag.ACK,
            payload=b"stray",
        )
        kernel.inject(stray, kernel.server)
        assert reset_for(stray).tcp == kernel.wait_for_label("RST").tcp


@pytest.mark.namespaces
@FAMILIES
def test_kernel_takes_a_right_checksum_and_no_wrong_one(family: int) -> None:
    with loopback(family) as kernel, kernel.listen(8) as listener:
        right = tcp_packet(
            source=kernel.client,
            destination=kernel.server,
            source_port=5000,
            destination_port=listener.getsockname()[1],
            seq=2**32 - 1,
            flags=Flag.SYN,
        )
        wrong = bytearray(right.raw)
        wrong[-20:-18] = (5001).to_bytes(2)  # another source port, the checksum of the first
        kernel.inject(bytes(wrong), kernel.server)
        kernel.inject(right, kernel.server)
        answer = kernel.wait_for_label("SYN+ACK").tcp
        assert answer
        assert (answer.destination_port, answer.ack) == (5000, 0)


@pytest.mark.namespaces
@FAMILIES
def test_kernel_answers_an_echo_request(family: int) -> None:
    with loopback(family) as kernel:
        request = echo_request(
            source=kernel.client, destination=kernel.server, identifier=0xABCD, sequence=513
        )
        kernel.inject(request, kernel.server)
        reply = kernel.wait_for(lambda packet: echo_reply_of(packet) is not None)
    assert echo_reply_of(reply) == (0xABCD, 513)
    assert (reply.source, reply.destination) == (request.destination, request.source)
    assert checksums_hold(reply)


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("family", "kind", "code", "expected"),
    [
        (4, 3, 3, errno.ECONNREFUSED),
        (4, 3, 13, errno.EHOSTUNREACH),
        (6, 1, 4, errno.ECONNREFUSED),
        (6, 1, 3, errno.EHOSTUNREACH),
    ],
)
def test_kernel_believes_an_icmp_error(family: int, kind: int, code: int, expected: int) -> None:
    with loopback(family) as kernel, kernel.listen(0) as listener:
        port = listener.getsockname()[1]
        # The first fills the accept queue, so the second one's SYN is dropped.
        with kernel.begin_connect(port):
            ready(listener, select.POLLIN)
            kernel.wait_for_label("ACK")
            with kernel.begin_connect(port) as second:
                unreachable = unreachable_for(kernel.wait_for_label("SYN"), kind=kind, code=code)
                kernel.inject(unreachable, kernel.client)
                ready(second, select.POLLOUT)
                assert second.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == expected


@FAMILIES
@given(flag_sets)
def test_packets_of_equal_bytes_are_equal(family: int, flags: Flag) -> None:
    packet = segment(family, flags=flags)
    assert parse(packet.raw) == packet
    assert parse(packet.raw) != dataclasses.replace(packet, raw=packet.raw + b"x")
