"""The endings in which the request is never read."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from twbench.server.abrupt import AbruptListener
from twbench.server.ledger import Ledger

Start = Callable[..., tuple[tuple[str, int], Ledger]]
PATIENCE_S = 5


@pytest.fixture(params=[False, True], ids=["server-unread", "crash"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Return a function that starts the listener of one of the two endings, with its reaper."""
    listeners: list[AbruptListener] = []

    def make(*, hold_s: float = 5) -> tuple[tuple[str, int], Ledger]:
        sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        sock.setblocking(False)  # noqa: FBT003 - the socket module's own
        ledger = Ledger()
        listeners.append(AbruptListener(sock, ledger, crash=request.param, hold_s=hold_s))
        return sock.getsockname(), ledger

    async def reap() -> None:
        while True:
            await asyncio.sleep(0.01)
            for listener in listeners:
                listener.reap()

    reaper = asyncio.create_task(reap())
    yield make
    reaper.cancel()
    for listener in listeners:
        listener.close()


async def departed(ledger: Ledger, number: int) -> dict[str, int]:
    """Wait until so many connections are over; return how the server left them."""
    async with asyncio.timeout(PATIENCE_S):
        while ledger.report.departures.total() < number:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)
    return dict(ledger.report.departures)


async def dial(endpoint: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)  # noqa: FBT003 - the socket module's own
    await asyncio.get_running_loop().sock_connect(sock, endpoint)
    return sock


async def test_request_is_answered_by_a_reset(start: Start) -> None:
    endpoint, ledger = start()
    loop = asyncio.get_running_loop()
    with await dial(endpoint) as sock:
        await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(loop.sock_recv(sock, 1), PATIENCE_S)
    assert await departed(ledger, 1) == {"active_reset": 1}
    assert ledger.report.accepted == 1


async def test_many_at_once_are_all_reset(start: Start) -> None:
    endpoint, ledger = start()
    loop = asyncio.get_running_loop()

    async def meet() -> str:
        with await dial(endpoint) as sock:
            await loop.sock_sendall(sock, b"x")
            try:
                await asyncio.wait_for(loop.sock_recv(sock, 1), PATIENCE_S)
            except ConnectionResetError:
                return "reset"
            return "closed"

    assert set(await asyncio.gather(*(meet() for _ in range(150)))) == {"reset"}
    assert await departed(ledger, 150) == {"active_reset": 150}


async def test_client_that_sends_nothing_is_left_after_the_hold(start: Start) -> None:
    endpoint, ledger = start(hold_s=0.1)
    with await dial(endpoint) as sock:
        received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), PATIENCE_S)
        assert received == b""
    assert await departed(ledger, 1) == {"active_close": 1}


async def test_no_process_is_left_behind(start: Start) -> None:
    own = psutil.Process()
    before = own.children()
    endpoint, ledger = start()
    for number in range(1, 4):
        with await dial(endpoint) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, b"x")
            await departed(ledger, number)
    assert own.children() == before


@pytest.mark.parametrize("crash", [False, True], ids=["server-unread", "crash"])
async def test_end_of_the_listener_ends_and_books_every_connection_at_once(crash: bool) -> None:
    own = psutil.Process()
    before = own.children()
    loop = asyncio.get_running_loop()
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)  # noqa: FBT003 - the socket module's own
    endpoint = sock.getsockname()
    ledger = Ledger()
    listener = AbruptListener(sock, ledger, crash=crash, hold_s=1000)
    clients = [await dial(endpoint) for _ in range(3)]
    clients.pop().close()
    async with asyncio.timeout(PATIENCE_S):
        while ledger.report.accepted < 3:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)
        listener.close()
        for client in clients:
            with client:
                assert await loop.sock_recv(client, 1) == b""
    assert ledger.report.departures == {"active_close": 2, "passive_close": 1}
    assert own.children() == before


def kinds_held(pid: int) -> list[str]:
    """Return `socket`, `pipe` or a path for each descriptor that a process holds."""
    kinds = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            kinds.append(str(each.readlink()).split(":")[0])
    return kinds


async def test_victim_holds_nothing_of_the_servers_but_its_connection_and_the_lifeline() -> None:
    own = psutil.Process()
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)  # noqa: FBT003 - the socket module's own
    listener = AbruptListener(sock, Ledger(), crash=True, hold_s=1000)
    before = set(own.children())
    try:
        with await dial(sock.getsockname()):
            async with asyncio.timeout(PATIENCE_S):
                while not (born := set(own.children()) - before):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.005)
                (victim,) = born
                while len(kinds_held(victim.pid)) > 2:  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.005)
            assert sorted(kinds_held(victim.pid)) == ["pipe", "socket"]
    finally:
        listener.close()


async def test_connection_is_closed_and_booked_where_no_process_can_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # RLIMIT_NPROC, the real cause, does not hold for root
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("os.fork", refuse)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)  # noqa: FBT003 - the socket module's own
    ledger = Ledger()
    listener = AbruptListener(sock, ledger, crash=True, hold_s=1000)
    try:
        for number in range(1, 3):
            with await dial(sock.getsockname()) as client:
                received = asyncio.get_running_loop().sock_recv(client, 1)
                assert await asyncio.wait_for(received, PATIENCE_S) == b""
            assert await departed(ledger, number) == {"active_close": number}
    finally:
        listener.close()
    assert (ledger.report.accepted, ledger.report.closed_early) == (2, 2)
