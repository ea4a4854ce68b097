"""Captures byte by byte, and as scapy and Wireshark's own programs read them."""

import io
import platform
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import rdpcap

from twbench.wire.packet import Flag, reset_for, tcp_packet, unreachable_for
from twbench.wire.pcapng import Record, Writer, encode

SECTION_HEADER = 0x0A0D0D0A
INTERFACE = 1
ENHANCED_PACKET = 6
COMMENT = 1
LINKTYPE_RAW = 101
INTERFACES = ("client", "server")
T_NS = 1_763_733_600_123_456_789

SYN = tcp_packet(
    source="198.18.0.1",
    destination="198.19.0.1",
    source_port=40001,
    destination_port=80,
    seq=1000,
    flags=Flag.SYN,
)
DATA_V6 = tcp_packet(
    source="2001:2::1",
    destination="2001:2:0:1::1",
    source_port=40001,
    destination_port=80,
    seq=1001,
    ack=2002,
    flags=Flag.PSH | Flag.ACK,
    payload=b"odd",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    kind: int
    body: bytes


def blocks(capture: bytes) -> Iterator[Block]:
    """Yield the blocks of a capture; the length has to stand on both sides of each."""
    at = 0
    while at < len(capture):
        kind, length = struct.unpack_from("<II", capture, at)
        assert length % 4 == 0
        assert capture[at + length - 4 : at + length] == struct.pack("<I", length)
        yield Block(kind=kind, body=capture[at + 8 : at + length - 4])
        at += length
    assert at == len(capture)


def options(body: bytes) -> dict[int, bytes]:
    """Return the options at the start of `body`, which they have to fill up to their end."""
    found: dict[int, bytes] = {}
    at = 0
    while True:
        code, length = struct.unpack_from("<HH", body, at)
        at += 4
        if code == 0:
            assert (length, at) == (0, len(body))
            return found
        found[code] = body[at : at + length]
        padding = -length % 4
        assert body[at + length : at + length + padding] == bytes(padding)
        at += length + padding


def record(data: bytes = SYN.raw, **fields: object) -> Record:
    return Record(**{"t_ns": T_NS, "interface": 0, "data": data, **fields})  # type: ignore[arg-type]


def test_capture_begins_with_its_section_and_a_description_of_each_interface() -> None:
    section, *interfaces = blocks(encode([], interfaces=INTERFACES, comment="why"))
    assert section.kind == SECTION_HEADER
    assert section.body[:16] == bytes.fromhex("4d3c2b1a 0100 0000 ffffffffffffffff")
    found = options(section.body[16:])
    assert found[COMMENT] == b"why"
    assert found[3].decode() == f"{platform.system()} {platform.release()}"
    assert found[4] == b"twbench"
    assert [block.kind for block in interfaces] == [INTERFACE, INTERFACE]
    for block, name in zip(interfaces, INTERFACES, strict=True):
        assert block.body[:8] == struct.pack("<HHI", LINKTYPE_RAW, 0, 0)
        assert options(block.body[8:]) == {2: name.encode(), 9: b"\x09"}


def test_packet_block_is_as_the_draft_draws_it() -> None:
    capture = encode(
        [Record(t_ns=0x1_0000_0002, interface=1, data=b"\x45abcd", comment="held")],
        interfaces=INTERFACES,
    )
    assert capture.endswith(
        bytes.fromhex(
            "06000000 34000000"  # Enhanced Packet Block of 52 bytes
            "01000000 01000000 02000000"  # interface, time high and low
            "05000000 05000000"  # captured, sent
            "4561626364 000000"
            "0100 0400 68656c64"  # opt_comment "held"
            "0000 0000"  # opt_endofopt
            "34000000"
        )
    )


@given(
    st.lists(
        st.builds(
            Record,
            t_ns=st.integers(0, 2**64 - 1),
            interface=st.integers(0, 1),
            data=st.binary(max_size=50),
            comment=st.text(max_size=20),
        ),
        max_size=5,
    ),
    st.text(max_size=20),
)
def test_every_record_can_be_read_again(records: list[Record], comment: str) -> None:
    section, _, _, *packets = blocks(encode(records, interfaces=INTERFACES, comment=comment))
    assert options(section.body[16:]).get(COMMENT, b"").decode() == comment
    assert [block.kind for block in packets] == [ENHANCED_PACKET] * len(records)
    for block, kept in zip(packets, records, strict=True):
        interface, high, low, captured, sent = struct.unpack_from("<IIIII", block.body)
        assert (interface, high << 32 | low) == (kept.interface, kept.t_ns)
        assert captured == sent == len(kept.data)
        end = 20 + captured
        assert block.body[20:end] == kept.data
        assert options(block.body[end + -captured % 4 :]).get(COMMENT, b"") == kept.comment.encode()


def test_writer_leaves_a_whole_capture_after_each_record() -> None:
    records = [record(), record(DATA_V6.raw, comment="dropped", interface=1)]
    file = io.BytesIO()
    writer = Writer(file, interfaces=INTERFACES, comment="streamed")
    for count, each in enumerate(records, start=1):
        writer.write(each)
        assert file.getvalue() == encode(records[:count], interfaces=INTERFACES, comment="streamed")


@pytest.mark.parametrize("interface", [-1, 2])
def test_interface_that_was_not_described_is_refused(interface: int) -> None:
    with pytest.raises(ValueError, match=f"interface {interface} of a capture of 2"):
        encode([record(interface=interface)], interfaces=INTERFACES)


def test_comment_that_no_option_can_hold_is_refused() -> None:
    assert encode([record(comment="x" * 65535)], interfaces=INTERFACES)
    with pytest.raises(ValueError, match="65536 bytes do not fit an option"):
        encode([record(comment="é" * 32768)], interfaces=INTERFACES)


def test_scapy_reads_packets_times_and_comments(tmp_path: Path) -> None:
    records = [record(comment="held: é"), record(DATA_V6.raw, t_ns=T_NS + 1, interface=1)]
    path = tmp_path / "both.pcapng"
    path.write_bytes(encode(records, interfaces=INTERFACES))
    found = rdpcap(str(path))
    assert [bytes(packet) for packet in found] == [kept.data for kept in records]
    assert [int(packet.time * 10**9) for packet in found] == [T_NS, T_NS + 1]
    assert [packet.comment for packet in found] == ["held: é".encode(), None]


def program(name: str) -> str:
    """Return where a program is, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def read_by(name: str, *arguments: str | Path) -> str:
    """Return what one of Wireshark's programs says; it must not complain."""
    done = subprocess.run(
        [program(name), *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    complaints = [
        line for line in done.stderr.splitlines() if not line.startswith("Running as user")
    ]
    assert (done.returncode, complaints) == (0, [])
    return done.stdout


def fields_of(capture: Path, *names: str) -> list[list[str]]:
    """Return the fields that tshark finds in each packet."""
    chosen = [argument for name in names for argument in ("-e", name)]
    checks = [a for p in ("tcp", "ip") for a in ("-o", f"{p}.check_checksum:TRUE")]
    said = read_by("tshark", "-r", capture, *checks, "-T", "fields", *chosen)
    return [line.split("\t") for line in said.splitlines()]


# The last of them are malformed as packets, of odd lengths, one without any bytes.
MANY = {
    "SYN": SYN.raw,
    "SYN+ACK with data": DATA_V6.raw,
    "RST": reset_for(SYN).raw,
    "ICMP": unreachable_for(SYN, kind=3, code=13).raw,
    "ICMPv6": unreachable_for(DATA_V6, kind=1, code=4).raw,
    "nothing": b"",
    "one byte": b"\x45",
    "seven": b"\xff" * 7,
    "a cut segment": SYN.raw[:33],
    "the longest": b"\x60" + bytes(65534),
}


@pytest.mark.parametrize("interfaces", [(), ("client",), INTERFACES])
def test_wireshark_reads_an_empty_capture(tmp_path: Path, interfaces: tuple[str, ...]) -> None:
    path = tmp_path / "empty.pcapng"
    path.write_bytes(encode([], interfaces=interfaces))
    said = read_by("capinfos", path)
    assert "Number of packets:   0" in said
    assert read_by("tshark", "-r", path) == ""


def test_wireshark_reads_packets_and_what_is_no_packet(tmp_path: Path) -> None:
    path = tmp_path / "many.pcapng"
    path.write_bytes(
        encode(
            [
                record(data, interface=number % 2, t_ns=T_NS + number, comment=name)
                for number, (name, data) in enumerate(MANY.items())
            ],
            interfaces=INTERFACES,
            comment="Alles, was sich senden läßt",
        )
    )
    said = read_by("capinfos", path)
    assert f"Number of packets:   {len(MANY)}" in said
    assert "Capture comment:     Alles, was sich senden läßt" in said
    assert "Capture application: twbench" in said
    assert "Raw IP" in said
    found = fields_of(
        path, "frame.time_epoch", "frame.interface_name", "frame.len", "frame.comment"
    )
    assert found == [
        [f"1763733600.{123456789 + number}", INTERFACES[number % 2], str(len(data)), name]
        for number, (name, data) in enumerate(MANY.items())
    ]


def test_wireshark_agrees_with_every_field_and_checksum(tmp_path: Path) -> None:
    path = tmp_path / "segments.pcapng"
    answer = reset_for(SYN)
    path.write_bytes(encode([record(p.raw) for p in (SYN, DATA_V6, answer)], interfaces=INTERFACES))
    good = "1"
    assert fields_of(
        path, "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.len", "tcp.checksum.status"
    ) == [
        ["1000", "0", "0x0002", "0", good],
        ["1001", "2002", "0x0018", "3", good],
        ["0", "1001", "0x0014", "0", good],
    ]


@pytest.mark.parametrize(
    "comment", ["plain", "held until the server's FIN", "durchgelassen: é → 日本 🦈", "x" * 999]
)
def test_wireshark_shows_a_comment_as_it_was_written(tmp_path: Path, comment: str) -> None:
    path = tmp_path / "comment.pcapng"
    path.write_bytes(encode([record(comment=comment), record()], interfaces=INTERFACES))
    assert fields_of(path, "frame.comment") == [[comment], [""]]


def test_complaint_about_a_capture_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcapng"
    path.write_bytes(encode([record()], interfaces=INTERFACES)[:-6])
    program("tshark")
    with pytest.raises(AssertionError):
        read_by("tshark", "-r", path)
