"""The state numbers against the kernel's own /proc/net/tcp, with a real socket in each state.

FIN_WAIT1, CLOSING and LAST_ACK pass in microseconds on loopback, unless the peer's receive buffer
is full: then the FIN waits behind the data, and its socket waits with it.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from twbench.model.states import Side, TcpState

ENOUGH_S = 5.0
Pair = tuple[socket.socket, socket.socket]


@contextlib.contextmanager
def connected() -> Iterator[Pair]:
    """Yield two ends of a connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        yield one, other


def states(local: tuple[str, int], remote: tuple[str, int]) -> set[int]:
    """Return the state numbers that /proc/net/tcp gives a pair of IPv4 addresses."""

    def in_hex(address: tuple[str, int]) -> str:
        return f"{socket.inet_aton(address[0])[::-1].hex().upper()}:{address[1]:04X}"

    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(r[3], 16) for r in rows if (r[1], r[2]) == (in_hex(local), in_hex(remote))}


def settles(local: tuple[str, int], remote: tuple[str, int], state: TcpState) -> bool:
    """Wait until the kernel gives the socket this state."""
    limit_s = time.monotonic() + ENOUGH_S
    while time.monotonic() < limit_s:
        if states(local, remote) == {state}:
            return True
        time.sleep(0.005)
    return False


def fill(sender: socket.socket) -> None:
    """Send until the peer's receive buffer and the own send buffer are full."""
    sender.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while sender.send(bytes(1 << 16)):
            pass


def close_first(one: socket.socket, _: socket.socket) -> None:
    one.shutdown(socket.SHUT_WR)


def close_second(one: socket.socket, other: socket.socket) -> None:
    other.shutdown(socket.SHUT_WR)
    one.recv(1)


def close_with_the_fin_stuck(one: socket.socket, _: socket.socket) -> None:
    fill(one)
    one.shutdown(socket.SHUT_WR)


def close_second_with_the_fin_stuck(one: socket.socket, other: socket.socket) -> None:
    fill(one)
    other.shutdown(socket.SHUT_WR)
    assert settles(one.getsockname(), other.getsockname(), TcpState.CLOSE_WAIT)
    one.shutdown(socket.SHUT_WR)


def close_at_once_with_the_fin_stuck(one: socket.socket, other: socket.socket) -> None:
    close_with_the_fin_stuck(one, other)
    other.shutdown(socket.SHUT_WR)


def close_both(one: socket.socket, other: socket.socket) -> None:
    one.close()
    other.recv(1)
    other.close()


@pytest.mark.parametrize(
    ("act", "state"),
    [
        (lambda _, __: None, TcpState.ESTABLISHED),
        (close_first, TcpState.FIN_WAIT2),
        (close_second, TcpState.CLOSE_WAIT),
        (close_with_the_fin_stuck, TcpState.FIN_WAIT1),
        (close_second_with_the_fin_stuck, TcpState.LAST_ACK),
        (close_at_once_with_the_fin_stuck, TcpState.CLOSING),
        (close_both, TcpState.TIME_WAIT),
    ],
    ids=lambda value: value.name if isinstance(value, TcpState) else "",
)
def test_kernel_gives_a_connection_the_same_number(
    act: Callable[[socket.socket, socket.socket], None], state: TcpState
) -> None:
    with connected() as (one, other):
        local, remote = one.getsockname(), other.getsockname()
        act(one, other)
        assert settles(local, remote, state), states(local, remote)


def test_kernel_gives_a_listener_the_same_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert states(listener.getsockname(), ("0.0.0.0", 0)) == {TcpState.LISTEN}


def test_kernel_gives_an_unanswered_connect_the_same_number() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as late:
        address = listener.getsockname()
        with socket.create_connection(address):
            late.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                late.connect(address)
            assert states(late.getsockname(), address) == {TcpState.SYN_SENT}


def test_kernel_gives_an_unused_socket_the_same_number() -> None:
    with socket.socket() as unused:
        tcp_info = unused.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    assert tcp_info[0] == TcpState.CLOSE


@pytest.mark.parametrize(("side", "other"), [("client", "server"), ("server", "client")])
def test_each_side_knows_the_other(side: str, other: str) -> None:
    assert Side(side).other is Side(other)
