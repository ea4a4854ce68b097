"""Lines of /proc/net/tcp and tcp6 beside the rows they mean."""

import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.kernel.errors import CodecError
from twbench.kernel.proctcp import parse_table
from twbench.model.states import TcpState

HEADING = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"
LINE = (
    b"   1: 010012C6:9C41 010013C6:0050 06 0000000C:0000000B 03:00001718 00000000"
    b"  1000        0 13 3 0000000000000000\n"
)
LINE6 = (
    b"   0: B80D0120000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A"
    b" 00000000:00000003 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0\n"
)


@pytest.mark.skipif(sys.byteorder == "big", reason="the lines are those of a little endian")
def test_lines_become_rows() -> None:
    row, row6 = parse_table(HEADING + LINE + LINE6)
    assert (row["family"], row["state"], row["timer"]) == (socket.AF_INET, TcpState.TIME_WAIT, 3)
    assert (row["sport"], row["dport"], row["uid"], row["inode"]) == (40001, 80, 1000, 13)
    assert row["src"].tobytes() == socket.inet_aton("198.18.0.1") + bytes(12)
    assert row["dst"].tobytes() == socket.inet_aton("198.19.0.1") + bytes(12)
    assert (row["expires_ms"], row["rqueue"], row["wqueue"]) == (59120, 11, 12)
    assert (row6["family"], row6["state"]) == (socket.AF_INET6, TcpState.LISTEN)
    assert (row6["sport"], row6["rqueue"]) == (8080, 3)
    assert row6["src"].tobytes() == socket.inet_pton(socket.AF_INET6, "2001:db8::1")


@pytest.mark.parametrize("table", [b"", HEADING])
def test_table_without_lines_has_no_rows(table: bytes) -> None:
    assert len(parse_table(table)) == 0


@pytest.mark.parametrize(
    "line",
    [
        LINE[:-1],
        b"\n",
        LINE.replace(b"9C41", b"19C41"),
        LINE.replace(b"010012C6", b"0100"),
        LINE.replace(b"03:0", b"030"),
        LINE.replace(b"1000", b"99999999999"),
        LINE.replace(b"9C41", b"-001"),
        LINE.replace(b"1000", b"\xff\xff"),
    ],
)
def test_malformed_line_is_one_clear_error(line: bytes) -> None:
    with pytest.raises(CodecError):
        parse_table(HEADING + line)


@given(st.data())
def test_garbage_is_parsed_or_refused(data: st.DataObject) -> None:
    line = bytearray(LINE)
    for _ in range(data.draw(st.integers(1, 4))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        rows = parse_table(HEADING + bytes(line))
    except CodecError:
        return
    assert len(rows) <= 2
