"""The files of /proc/net as the kernel prints them beside the counters they mean."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.kernel.errors import CodecError
from twbench.kernel.procnet import parse_counters, parse_sockstat

SOCKSTAT = b"""\
sockets: used 12
TCP: inuse 5 orphan 1 tw 7 alloc 6 mem 8
UDP: inuse 3 mem 0
"""
SOCKSTAT6 = b"TCP6: inuse 2\nUDP6: inuse 0\n"
SNMP = b"""\
Ip: Forwarding DefaultTTL
Ip: 2 64
Tcp: RtoAlgorithm MaxConn ActiveOpens
Tcp: 1 -1 25
"""
NETSTAT = b"""\
TcpExt: SyncookiesSent TW
TcpExt: 0 18446744073709551615
IpExt: InOctets
IpExt: 99
MPTcpExt: MPCapableSYNRX
MPTcpExt: 3
"""


def test_sockstat_gives_its_tcp_line_and_that_of_sockstat6() -> None:
    tcp = {"inuse": 5, "orphan": 1, "tw": 7, "alloc": 6, "mem": 8}
    assert parse_sockstat(SOCKSTAT) == tcp
    assert parse_sockstat(SOCKSTAT, SOCKSTAT6) == tcp | {"inuse6": 2}


def test_counters_have_the_names_that_nstat_prints() -> None:
    assert parse_counters(SNMP, NETSTAT) == {
        "TcpRtoAlgorithm": 1,
        "TcpMaxConn": -1,
        "TcpActiveOpens": 25,
        "TcpExtSyncookiesSent": 0,
        "TcpExtTW": 18446744073709551615,
        "MPTcpExtMPCapableSYNRX": 3,
    }


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"UDP: inuse 3\n",
        b"TCP: inuse 5 orphan\n",
        b"TCP: inuse five\n",
        b"TCP: orphan 5\n",
        b"TCP: inuse 5",
        b"xTCP: inuse 5\n",
        b"TCP: \xff 5 inuse 5\n",
    ],
)
def test_malformed_sockstat_is_one_clear_error(text: bytes) -> None:
    with pytest.raises(CodecError):
        parse_sockstat(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Ip: Forwarding\nIp: 1\n",
        b"Tcp: A B\nTcp: 1\n",
        b"Tcp: A\nTcp: x\n",
        b"Tcp: A\nUdp: 1\n",
        b"Tcp: A\nTcp: 1",
        b"Tcp: A",
        b"Tcp: \xff\nTcp: 1\n",
    ],
)
def test_malformed_counters_are_one_clear_error(text: bytes) -> None:
    with pytest.raises(CodecError):
        parse_counters(text)


@given(st.one_of(st.binary(), st.binary().map(lambda tail: b"TCP: inuse " + tail)))
def test_garbage_is_parsed_or_refused_as_sockstat(text: bytes) -> None:
    try:
        assert "inuse" in parse_sockstat(text, text)
    except CodecError:
        return


@given(st.one_of(st.binary(), st.binary().map(lambda tail: b"Tcp: A\nTcp: " + tail)))
def test_garbage_is_parsed_or_refused_as_counters(text: bytes) -> None:
    try:
        assert all(isinstance(value, int) for value in parse_counters(text).values())
    except CodecError:
        return


def test_every_counter_of_this_kernel_is_read() -> None:
    text = Path("/proc/net/netstat").read_bytes()
    names = next(line for line in text.splitlines() if line.startswith(b"TcpExt: ")).split()[1:]
    counters = parse_counters(text)
    assert {f"TcpExt{name.decode()}" for name in names} <= counters.keys()
    assert "TcpExtTW" in counters


def test_tick_costs_less_than_half_a_millisecond_of_cpu() -> None:
    files = [
        os.open(f"/proc/net/{name}", os.O_RDONLY)
        for name in ("sockstat", "sockstat6", "snmp", "netstat")
    ]
    costs = []
    try:
        for _ in range(50):
            started_ns = time.thread_time_ns()
            sockstat, sockstat6, snmp, netstat = (os.pread(fd, 65536, 0) for fd in files)
            parse_sockstat(sockstat, sockstat6)
            parse_counters(snmp, netstat)
            costs.append(time.thread_time_ns() - started_ns)
    finally:
        for fd in files:
            os.close(fd)
    assert min(costs) < 500_000
