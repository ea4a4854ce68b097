"""Socket addresses and times, byte by byte and against the kernel's own."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.uring.structs import SOCKADDR_BYTES, read_sockaddr, sockaddr, timespec


def test_ipv4_address_has_port_and_address_in_network_order() -> None:
    family = struct.pack("=H", socket.AF_INET)
    assert sockaddr("198.18.0.1", 8080) == family + bytes.fromhex("1f90 c6120001") + bytes(8)


def test_ipv6_address_has_flow_address_and_scope() -> None:
    family = struct.pack("=H", socket.AF_INET6)
    raw = family + bytes.fromhex("1f90 00000000 20010db8 00000000 00000000 00000001")
    assert sockaddr("2001:db8::1", 8080, scope=3) == raw + struct.pack("=I", 3)
    assert len(raw) + 4 == SOCKADDR_BYTES


@given(st.ip_addresses().map(str), st.integers(0, 65535))
def test_bytes_give_address_and_port_back(address: str, port: int) -> None:
    assert read_sockaddr(sockaddr(address, port)) == (address, port)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "too few"),
        (struct.pack("=H", socket.AF_INET) + bytes(13), "too few"),
        (struct.pack("=H", socket.AF_INET6) + bytes(25), "too few"),
        (struct.pack("=H", socket.AF_UNIX) + bytes(30), "neither"),
    ],
)
def test_other_bytes_are_no_address(raw: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_sockaddr(raw)


def test_names_and_large_ports_are_refused() -> None:
    with pytest.raises(ValueError, match="localhost"):
        sockaddr("localhost", 80)
    with pytest.raises(struct.error):
        sockaddr("127.0.0.1", 65536)


def test_time_is_seconds_and_the_rest() -> None:
    assert timespec(2_000_000_003) == struct.pack("=qq", 2, 3)
