"""What the kernel tells of a transport's socket, and what it does when told, on both loops."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from twbench.model.states import TcpState
from twbench.process.sockets import Fin, reset_on_close, send_fin, tcp_state

ENOUGH_S = 5.0
TIME_WAIT = "06"
LINGER_ZERO = struct.pack("=ii", 1, 0)


class Deaf(asyncio.Protocol):
    """Reads nothing: what the peer sends stays with the kernel."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.Transport, socket.socket]]:
    """Yield a transport of the running loop and the plain socket at the other end."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await loop.create_connection(Deaf, *listener.getsockname())
        peer, _ = listener.accept()
    peer.settimeout(ENOUGH_S)
    with peer:
        try:
            yield transport, peer
        finally:
            transport.abort()
            await asyncio.sleep(0)


async def comes_true(condition: Callable[[], bool]) -> bool:
    limit_s = time.monotonic() + ENOUGH_S
    while not condition():
        if time.monotonic() > limit_s:
            return False
        await asyncio.sleep(0.005)
    return True


def waits(port: int, peers_port: int) -> bool:
    """Return whether a socket with these ports is in TIME_WAIT, by /proc/net/tcp."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = (f"{port:04X}", f"{peers_port:04X}")
    return any((row[1][-4:], row[2][-4:], row[3]) == (*ports, TIME_WAIT) for row in rows)


async def test_fin_of_an_open_connection_is_the_first_and_brings_time_wait() -> None:
    async with connected() as (transport, peer):
        ports = peer.getpeername()[1], peer.getsockname()[1]
        assert send_fin(transport) is Fin.FIRST
        assert peer.recv(1) == b""
        peer.close()
        assert await comes_true(lambda: waits(*ports))


async def test_fin_after_the_peers_is_not_the_first_though_nobody_has_read_that() -> None:
    async with connected() as (transport, peer):
        ports = peer.getpeername()[1], peer.getsockname()[1]
        sock = transport.get_extra_info("socket")
        peer.shutdown(socket.SHUT_WR)
        assert await comes_true(lambda: tcp_state(sock) is TcpState.CLOSE_WAIT)
        assert send_fin(transport) is Fin.SECOND
        transport.close()
        await asyncio.sleep(0.01)
        assert not waits(*ports)


async def test_fin_behind_unread_data_was_first_too() -> None:
    async with connected() as (transport, peer):
        sock = transport.get_extra_info("socket")
        peer.sendall(b"data")
        peer.close()
        assert await comes_true(lambda: tcp_state(sock) is TcpState.CLOSE_WAIT)
        assert send_fin(transport) is Fin.SECOND


async def test_no_fin_is_first_after_a_reset() -> None:
    async with connected() as (transport, peer):
        sock = transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        peer.close()
        assert await comes_true(lambda: tcp_state(sock) is TcpState.CLOSE)
        assert send_fin(transport) is Fin.SECOND


async def test_transport_that_is_closed_sends_no_fin() -> None:
    async with connected() as (transport, _):
        transport.abort()
        await asyncio.sleep(0.01)
        assert send_fin(transport) is Fin.SECOND


@pytest.mark.parametrize("leave", ["close", "abort"])
async def test_close_after_reset_on_close_is_a_reset_and_leaves_no_time_wait(leave: str) -> None:
    async with connected() as (transport, peer):
        ports = peer.getpeername()[1], peer.getsockname()[1]
        reset_on_close(transport)
        getattr(transport, leave)()
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert not waits(*ports)


@pytest.mark.parametrize("leave", ["close", "abort"])
async def test_close_without_it_is_a_fin_and_leaves_time_wait(leave: str) -> None:
    async with connected() as (transport, peer):
        ports = peer.getpeername()[1], peer.getsockname()[1]
        getattr(transport, leave)()
        await asyncio.sleep(0.01)
        assert peer.recv(1) == b""
        peer.close()
        assert await comes_true(lambda: waits(*ports))
