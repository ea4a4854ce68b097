"""The server on io_uring: its slots, its accepts, and that nothing of them is lost."""

import asyncio
import errno
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from twbench.model.endings import ENDINGS
from twbench.model.plans import Endpoint, ServerPlan
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.server.behaviour import Behaviour
from twbench.server.http import Listener
from twbench.server.ledger import Ledger
from twbench.server.uring import UringServer, slots_for

Serving = Callable[..., Awaitable[tuple[Endpoint, Listener]]]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LINGER_ZERO = struct.pack("=ii", 1, 0)
PATIENCE_S = 15
MANY = 3000

pytestmark = pytest.mark.usefixtures("ring_needed")


@pytest.fixture
def engine() -> str:
    """Give the one engine that is meant here."""
    return "uring"


async def until(so: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not so():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return len([*Path("/proc/self/fd").iterdir()])


def connected(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection(endpoint, timeout=PATIENCE_S)


def read_on(sock: socket.socket) -> bytes:
    """Read to the server's FIN or RST."""
    found = bytearray()
    try:
        while piece := sock.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return bytes(found)


def behave(endpoint: Endpoint, ending: str) -> None:
    """Do a client's part of an ending."""
    with connected(endpoint) as sock:
        sock.sendall(GET if ending == "server-idle" else LAST)
        if ending == "client-half-close":
            sock.shutdown(socket.SHUT_WR)
        if ending in ("client-fin", "client-rst"):
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        else:
            assert read_on(sock).startswith(b"HTTP/1.1 200 OK\r\n")
        if ending == "client-rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)


@pytest.mark.parametrize(
    "ending", [name for name, each in ENDINGS.items() if each.answered and not each.needs_wire]
)
async def test_nothing_is_lost_over_many_connections(ending: str, serving: Serving) -> None:
    idle_s = 0.01 if ending == "server-idle" else 75
    endpoint, listener = await serving(ending=ending, keepalive_timeout_s=idle_s, slots=40)
    await asyncio.to_thread(behave, endpoint, ending)
    await until(lambda: listener.ledger.report.departures.total() == 1)
    listener.ledger.take(0)
    before = descriptors()

    def meet(number: int) -> None:
        for _ in range(number):
            behave(endpoint, ending)

    crowd = 20
    await asyncio.gather(*(asyncio.to_thread(meet, MANY // crowd) for _ in range(crowd)))
    report = listener.ledger.report
    await until(lambda: report.departures.total() == MANY)
    assert report.departures == {ENDINGS[ending].server.value: MANY}
    assert (report.accepted, report.requests) == (MANY, MANY)
    assert (report.closed_early, report.held_in_vain, report.not_accepted) == (0, 0, 0)
    assert not listener.live
    assert descriptors() == before
    # each of its 40 slots can still take a connection: none is lost
    held = [await asyncio.to_thread(connected, endpoint) for _ in range(40)]
    for sock in held:
        sock.sendall(GET)
    await until(lambda: report.requests == MANY + 40 or ending == "server-idle")
    for sock in held:
        sock.close()
    await until(lambda: report.departures.total() == MANY + 40)


@pytest.mark.parametrize("sent", [b"", GET[:9], GET, LAST, GET * 9, b"nonsense\r\n\r\n"])
@pytest.mark.parametrize("ending", ["client-fin", "server-fin", "client-half-close", "server-rst"])
async def test_clients_that_reset_at_any_time_are_booked(
    sent: bytes, ending: str, serving: Serving
) -> None:
    endpoint, listener = await serving(ending=ending, slots=20)
    for _ in range(100):
        with connected(endpoint) as sock:
            sock.sendall(sent)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        await asyncio.sleep(0)
    report = listener.ledger.report
    await until(lambda: report.departures.total() == 100)
    assert report.accepted == 100
    assert not listener.live
    await asyncio.to_thread(behave, endpoint, ending)


async def test_connections_wait_where_all_slots_are_taken(serving: Serving) -> None:
    endpoint, listener = await serving(slots=8)
    crowd = [await asyncio.to_thread(connected, endpoint) for _ in range(30)]
    for sock in crowd:
        sock.sendall(GET)
    await until(lambda: listener.ledger.report.requests == 8)
    assert listener.ledger.report.accepted == len(listener.live) == 8
    for sock in crowd:
        assert (await asyncio.to_thread(sock.recv, 65536)).startswith(b"HTTP/1.1 200 OK\r\n")
        sock.close()
    await until(lambda: listener.ledger.report.departures.total() == 30)


async def test_silent_connections_are_booked_and_keep_nobody_waiting(serving: Serving) -> None:
    endpoint, listener = await serving()
    silent = [await asyncio.to_thread(connected, endpoint) for _ in range(400)]
    await asyncio.to_thread(behave, endpoint, "client-fin")
    await until(lambda: listener.ledger.report.accepted == 401)
    await until(lambda: len(listener.live) == 400)
    for sock in silent:
        sock.close()
    await until(lambda: not listener.live)
    assert listener.ledger.report.departures == {"passive_close": 401}


@pytest.mark.parametrize(("family", "address"), [("ipv4", "127.0.0.1"), ("ipv6", "::1")])
async def test_many_listeners_share_few_slots(family: str, address: str) -> None:
    number = 40
    plan = ServerPlan(
        server=ServerSpec(),
        ending=EndingSpec(kind="server-fin"),
        family=family,
        endpoints=((address, 0),) * number,
    )
    ledger = Ledger()
    kind = socket.AF_INET6 if family == "ipv6" else socket.AF_INET
    server = UringServer(family=plan.family, listeners=number, slots=number + 4)
    endpoints = []
    for endpoint in plan.endpoints:
        sock = socket.create_server(endpoint, family=kind, backlog=64)
        endpoints.append(sock.getsockname()[:2])
        server.listen(sock, Behaviour.of(plan), ledger)
    task = asyncio.create_task(server.run())
    for endpoint in endpoints * 3:
        await asyncio.to_thread(behave, endpoint, "server-fin")
    assert ledger.report.requests == number * 3
    server.close()
    await task


async def test_failed_accepts_are_counted_and_tried_again_after_a_rest() -> None:
    plan = ServerPlan(
        server=ServerSpec(), ending=EndingSpec(), family="ipv4", endpoints=(("127.0.0.1", 0),)
    )
    ledger = Ledger()
    server = UringServer(family="ipv4", listeners=1, slots=8)
    sock = socket.create_server(("127.0.0.1", 0))
    endpoint = sock.getsockname()
    server.listen(sock, Behaviour.of(plan), ledger)
    task = asyncio.create_task(server.run())
    await asyncio.to_thread(behave, endpoint, "client-fin")
    # accept says EINVAL while the socket does not listen
    sock.shutdown(socket.SHUT_RDWR)
    await until(lambda: ledger.report.not_accepted > 4)
    sock.listen()
    await asyncio.to_thread(behave, sock.getsockname(), "client-fin")
    server.close()
    await task


async def test_peer_that_comes_again_has_ended_its_time_wait(serving: Serving) -> None:
    endpoint, listener = await serving(ending="server-fin")

    def meet(port: int) -> int:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            sock.settimeout(PATIENCE_S)
            sock.connect(endpoint)
            sock.sendall(LAST)
            read_on(sock)
            return int(sock.getsockname()[1])

    port = await asyncio.to_thread(meet, 0)
    await until(lambda: listener.ledger.report.departures.total() == 1)
    await asyncio.to_thread(meet, port)
    assert listener.ledger.report.reopened == 1


async def test_large_answer_is_not_copied_for_each_connection(serving: Serving) -> None:
    size = 50_000_000
    endpoint, listener = await serving(ending="server-fin", response_bytes=size)
    before = psutil.Process().memory_info().rss
    crowd = [await asyncio.to_thread(connected, endpoint) for _ in range(10)]
    for sock in crowd:
        sock.sendall(LAST)
    await until(lambda: listener.ledger.report.requests == 10)
    assert psutil.Process().memory_info().rss - before < 2 * size
    received = await asyncio.to_thread(read_on, crowd[0])
    assert len(received.partition(b"\r\n\r\n")[2]) == size
    for sock in crowd:
        sock.close()


@pytest.mark.parametrize(
    ("soft", "connections", "slots"),
    [
        (200, 0, 126),
        (20_000, 0, 16_384),
        (20_000, 10_000, 16_384),
        (20_000, 19_000, 19_926),
        (20_000, 19_926, 19_926),
        (1 << 20, 100_000, 112_500),
    ],
)
def test_there_are_slots_for_what_is_expected_within_the_limit_of_descriptors(
    soft: int, connections: int, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (soft, soft))
    assert slots_for(10, connections) == slots


@pytest.mark.parametrize(("soft", "connections"), [(83, 0), (20_000, 19_927)])
def test_too_few_descriptors_for_the_slots_are_told(
    soft: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (soft, soft))
    with pytest.raises(ValueError, match=f"{soft} descriptors"):
        slots_for(10, connections)


@pytest.mark.parametrize("sent", [GET, LAST])
async def test_answer_that_is_still_being_sent_leaves_whole_before_the_close(
    sent: bytes, serving: Serving
) -> None:
    endpoint, listener = await serving(
        ending="client-fin",
        hold_s=0.2,
        keepalive_timeout_s=0.2,
        response_bytes=16_000,
        send_buffer_bytes=2048,
    )
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sock.settimeout(PATIENCE_S)
    sock.connect(endpoint)
    sock.sendall(sent)
    report = listener.ledger.report
    await until(lambda: report.closed_early == 1)
    assert not report.departures
    received = await asyncio.to_thread(read_on, sock)
    assert len(received.partition(b"\r\n\r\n")[2]) == 16_000
    await until(lambda: report.departures.total() == 1)
    assert report.departures == {"active_close": 1}
    sock.close()


async def test_client_that_resets_while_it_is_answered_is_booked(serving: Serving) -> None:
    endpoint, listener = await serving(
        ending="client-fin", hold_s=0.2, response_bytes=16_000, send_buffer_bytes=2048
    )
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.connect(endpoint)
        sock.sendall(LAST)
        await until(lambda: listener.ledger.report.closed_early == 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    await until(lambda: listener.ledger.report.departures == {"reset_by_peer": 1})
    assert not listener.live


@pytest.mark.parametrize("call", ["register", "enter"])
def test_ring_that_is_refused_on_the_way_leaves_nothing(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        if call == "register":
            raise PermissionError(errno.EPERM, "no")
        return -errno.EPERM

    before = descriptors()
    monkeypatch.setattr(f"twbench.uring.syscalls.{call}", refuse)
    with pytest.raises(PermissionError):
        UringServer(family="ipv4", listeners=1, slots=8)
    assert descriptors() == before


async def test_server_that_never_ran_is_closed_too() -> None:
    before = descriptors()
    server = UringServer(family="ipv4", listeners=1, slots=8)
    server.close()
    server.close()
    assert descriptors() == before
