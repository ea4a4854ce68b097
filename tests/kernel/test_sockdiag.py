"""Bytes as the kernel sends them beside the rows they mean, and garbage beside the one error."""

import socket
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twbench.kernel import sockdiag
from twbench.kernel.errors import CodecError
from twbench.kernel.sockdiag import decode, encode_destroy, encode_dump, join
from twbench.model.states import TcpState

# A TIME_WAIT of 198.18.0.1:40001 towards 198.19.0.1:80 with 59,123 ms left, as little endian sends
# it, with one attribute (INET_DIAG_MARK) after it.
TIME_WAIT = bytes.fromhex(
    "60000000 1400 0200 01000000 00000000"  # length 96, SOCK_DIAG_BY_FAMILY, MULTI, seq 1, port 0
    "02 06 03 04"  # AF_INET, TIME_WAIT, timer 3, 4 retransmissions
    "9c41 0050"  # ports 40001 and 80
    "c6120001 00000000 00000000 00000000"  # 198.18.0.1
    "c6130001 00000000 00000000 00000000"  # 198.19.0.1
    "02000000 0102030405060708"  # interface, cookie
    "f3e60000 0b000000 0c000000"  # expires 59123, rqueue 11, wqueue 12
    "e8030000 0d000000"  # uid 1000, inode 13
    "0800 0f00 00000000"
)
# An IPv6 listener on [2001:db8::1]:8080 with 3 of 128 waiting, without attributes.
LISTEN = bytes.fromhex(
    "58000000 1200 0200 01000000 00000000"  # length 88, TCPDIAG_GETSOCK
    "0a 0a 00 00"
    "1f90 0000"
    "20010db8 00000000 00000000 00000001"
    "00000000 00000000 00000000 00000000"
    "00000000 1112131415161718"
    "00000000 03000000 80000000"
    "00000000 39300000"
)
DONE = bytes.fromhex("14000000 0300 0200 01000000 00000000 00000000")
NOOP = bytes.fromhex("10000000 0100 0000 01000000 00000000")
OVERRUN = bytes.fromhex("10000000 0400 0000 01000000 00000000")

pytestmark = pytest.mark.skipif(
    struct.pack("=H", 1) != struct.pack("<H", 1), reason="the bytes above are little endian"
)


def error(errno: int) -> bytes:
    return struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -errno) + bytes(16)


def fields(row: np.void) -> dict[str, object]:
    return {
        name: value.tobytes() if isinstance(value := row[name], np.void) else int(value)
        for name in row.dtype.names or ()
    }


TIME_WAIT_ROW = {
    "family": socket.AF_INET,
    "state": TcpState.TIME_WAIT,
    "timer": 3,
    "retransmits": 4,
    "sport": 40001,
    "dport": 80,
    "src": socket.inet_aton("198.18.0.1") + bytes(12),
    "dst": socket.inet_aton("198.19.0.1") + bytes(12),
    "interface": 2,
    "cookie": bytes(range(1, 9)),
    "expires_ms": 59123,
    "rqueue": 11,
    "wqueue": 12,
    "uid": 1000,
    "inode": 13,
}
LISTEN_ROW = {
    "family": socket.AF_INET6,
    "state": TcpState.LISTEN,
    "timer": 0,
    "retransmits": 0,
    "sport": 8080,
    "dport": 0,
    "src": socket.inet_pton(socket.AF_INET6, "2001:db8::1"),
    "dst": bytes(16),
    "interface": 0,
    "cookie": bytes.fromhex("1112131415161718"),
    "expires_ms": 0,
    "rqueue": 3,
    "wqueue": 128,
    "uid": 0,
    "inode": 12345,
}


@pytest.mark.parametrize(
    ("chunk", "rows", "end"),
    [
        (TIME_WAIT, [TIME_WAIT_ROW], False),
        (TIME_WAIT * 3, [TIME_WAIT_ROW] * 3, False),
        (LISTEN, [LISTEN_ROW], False),
        (LISTEN + TIME_WAIT, [LISTEN_ROW, TIME_WAIT_ROW], False),
        # Lengths 88 and 96 eleven and twelve times: as long as a uniform chunk would be.
        (TIME_WAIT * 11 + LISTEN * 12, [TIME_WAIT_ROW] * 11 + [LISTEN_ROW] * 12, False),
        (TIME_WAIT + DONE, [TIME_WAIT_ROW], True),
        (NOOP + TIME_WAIT + NOOP + LISTEN, [TIME_WAIT_ROW, LISTEN_ROW], False),
        (DONE, [], True),
        (NOOP, [], False),
    ],
)
def test_chunk_of_messages_becomes_rows_in_their_order(
    chunk: bytes, rows: list[dict[str, object]], end: bool
) -> None:
    got = decode(chunk)
    assert [fields(row) for row in got.sockets] == rows
    assert (got.end, got.errno, got.interrupted) == (end, 0, False)


def test_long_run_of_one_length_is_a_view_of_the_buffer() -> None:
    buffer = bytearray(TIME_WAIT * 1000 + LISTEN + DONE)
    got = decode(buffer)
    assert [len(part) for part in got.parts] == [1000, 1]
    assert np.shares_memory(got.parts[0], np.frombuffer(buffer, np.uint8))


@given(st.lists(st.tuples(st.sampled_from([TIME_WAIT, LISTEN]), st.integers(1, 300)), max_size=9))
def test_runs_of_any_length_become_all_their_rows_in_order(runs: list[tuple[bytes, int]]) -> None:
    messages: list[bytes] = []
    for message, count in runs:
        for _ in range(count):
            numbered = bytearray(message)
            numbered[20:22] = len(messages).to_bytes(2, "big")  # the local port
            messages.append(bytes(numbered))
    got = decode(b"".join([*messages, DONE]))
    assert got.end
    assert got.sockets["sport"].tolist() == list(range(len(messages)))
    assert [row.tobytes() for row in got.sockets] == [each[16:88] for each in messages]


@pytest.mark.parametrize("errno", [1, 2, 22])
def test_refusal_carries_the_kernels_errno(errno: int) -> None:
    got = decode(error(errno))
    assert (got.errno, got.end, len(got.sockets)) == (errno, True, 0)


def test_dump_that_ends_badly_carries_the_errno_of_its_done_message() -> None:
    assert decode(DONE[:16] + struct.pack("=i", -12)).errno == 12


@pytest.mark.parametrize("position", [0, 1, 2])
def test_interrupted_flag_is_noticed_on_any_message(position: int) -> None:
    messages = [bytearray(TIME_WAIT) for _ in range(3)]
    messages[position][6] |= sockdiag.NLM_F_DUMP_INTR
    got = decode(b"".join(messages))
    assert got.interrupted
    assert len(got.sockets) == 3


def test_overrun_means_that_rows_are_missing() -> None:
    assert decode(TIME_WAIT + OVERRUN).interrupted


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        TIME_WAIT[:15],
        TIME_WAIT[:95],
        TIME_WAIT + TIME_WAIT[:10],
        TIME_WAIT + TIME_WAIT[:40],
        TIME_WAIT + bytes(16),  # a length of 0 must not go round for ever
        struct.pack("=I", 84) + LISTEN[4:84],  # a socket without its inode
        LISTEN[:4] + b"\x99\x00" + LISTEN[6:],  # an unknown type
        NOOP[:4] + b"\x05\x00" + NOOP[6:],  # an unknown control type
        b"\x12" + error(1)[1:18],  # an error code of two bytes
    ],
)
def test_malformed_chunk_is_one_clear_error(chunk: bytes) -> None:
    with pytest.raises(CodecError):
        decode(chunk)


@given(st.binary(max_size=400))
@example(TIME_WAIT + DONE)
def test_garbage_is_decoded_or_refused(chunk: bytes) -> None:
    try:
        decode(chunk)
    except CodecError:
        return
    assert len(chunk) >= 16


@given(st.data())
def test_spoiled_dump_is_decoded_or_refused(data: st.DataObject) -> None:
    chunk = bytearray(
        b"".join(data.draw(st.lists(st.sampled_from([TIME_WAIT, LISTEN, DONE, NOOP]))))
    )
    for _ in range(data.draw(st.integers(0, 4)) if chunk else 0):
        chunk[data.draw(st.integers(0, len(chunk) - 1))] = data.draw(st.integers(0, 255))
    chunk = chunk[: data.draw(st.integers(0, len(chunk)))]
    try:
        rows = decode(chunk).sockets
    except CodecError:
        return
    assert len(rows) <= len(chunk) // 88


def test_dump_request_is_what_the_kernel_reads() -> None:
    assert encode_dump(
        family=socket.AF_INET, states=1 << TcpState.TIME_WAIT, seq=7
    ) == bytes.fromhex("48000000 1400 0103 07000000 00000000 02 06 00 00 40000000" + "00" * 48)
    assert encode_dump(family=socket.AF_UNSPEC, states=1 << TcpState.LISTEN) == bytes.fromhex(
        "4c000000 1200 0103 01000000 00000000 00000000" + "00" * 48 + "00040000 00000000"
    )


def test_destroy_request_names_the_one_socket_of_the_row() -> None:
    (row,) = decode(TIME_WAIT).sockets
    assert encode_destroy(row, seq=9) == (
        bytes.fromhex("48000000 1500 0500 09000000 00000000 02 06 00 00 40000000")
        + TIME_WAIT[20:68]
    )


def test_joined_parts_are_one_array_in_their_order() -> None:
    parts = [decode(TIME_WAIT * 2).sockets, decode(DONE).sockets, decode(LISTEN).sockets]
    assert [int(port) for port in join(parts)["sport"]] == [40001, 40001, 8080]
    assert len(join([])) == 0
