"""The engine `uring` alone: lives cut short, answers of any size, slots that are used again."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from twbench.fleet.lives import PIECE_BYTES, Step
from twbench.fleet.slot import STEPS
from twbench.fleet.sockets import SOCKET_OPTIONS
from twbench.fleet.uring import Uring
from twbench.model.plans import Endpoint, FleetPlan
from twbench.model.reports import FleetReport
from twbench.server.http import Listener
from twbench.uring import operations as do

Handler = Callable[[socket.socket], Awaitable[None]]
Serve = Callable[[Handler], Endpoint]
Bundled = Callable[..., Awaitable[tuple[Endpoint, Listener]]]
Plan = Callable[..., FleetPlan]
Offer = Callable[..., Awaitable[FleetReport]]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LARGE = 1 << 20
ONE = {"concurrency": 1, "duration_s": 60, "requests": 1}
THREE = {"concurrency": 3, "duration_s": 60, "requests": 3}
BRIEFLY = {"concurrency": 3, "duration_s": 0.1}


def answer(body_bytes: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (body_bytes, b"." * body_bytes)


async def until_fin(sock: socket.socket) -> None:
    """Read until the client has left, be it by FIN or RST."""
    try:
        while await asyncio.get_running_loop().sock_recv(sock, 4096):
            pass
    except ConnectionError:
        pass


def says(content: bytes, *, piece: int | None = None) -> Handler:
    """Return a server that answers every request with these bytes, in pieces if so asked."""

    async def handler(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await loop.sock_recv(sock, 4096):
                for start in range(0, len(content), piece or len(content)):
                    await loop.sock_sendall(sock, content[start : start + (piece or len(content))])
                    await asyncio.sleep(0)
        except ConnectionError:
            pass

    return handler


# a life that is cut short, at each of its stages


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where three connections stand when they are given up, and how they are booked then."""

    server: Handler | None
    """None: it takes no connection."""
    ending: str = "client-fin"
    load: dict[str, Any] = field(default_factory=lambda: THREE)
    client: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    connection_errors: dict[str, int] = field(default_factory=dict)
    departures: dict[str, int] = field(default_factory=lambda: {"active_close": 3})


HASTY = {"request_timeout_s": 0.2}
LATE = {"read:TIMEOUT:request_timeout": 3}
AT_THE_END = {"read:CANCELLED:run_ended": 3}
CUTS = {
    "no connection in time": Cut(
        server=None,
        client={"connect_timeout_s": 0.2},
        errors={"connect:TIMEOUT:connect_timeout": 3},
        departures={},
    ),
    "no connection at the end": Cut(
        server=None, load=BRIEFLY, errors={"connect:CANCELLED:run_ended": 3}, departures={}
    ),
    "no answer in time": Cut(server=until_fin, client=HASTY, errors=LATE),
    "no answer at the end": Cut(server=until_fin, load=BRIEFLY, errors=AT_THE_END),
    "half a head in time": Cut(server=says(ANSWER[:20]), client=HASTY, errors=LATE),
    "half a head at the end": Cut(server=says(ANSWER[:20]), load=BRIEFLY, errors=AT_THE_END),
    "half a body in time": Cut(server=says(answer(LARGE)[:-1]), client=HASTY, errors=LATE),
    "half a body at the end": Cut(server=says(answer(LARGE)[:-1]), load=BRIEFLY, errors=AT_THE_END),
    "no FIN in time": Cut(
        server=says(ANSWER),
        ending="server-fin",
        connection_errors={"close:TIMEOUT:peer_did_not_close": 3},
    ),
    "idle at the end": Cut(server=says(ANSWER), client={"pool": {"size": 3, "idle_gap_ms": 100}}),
    "idle for too long": Cut(
        server=says(ANSWER),
        load={"concurrency": 3, "duration_s": 0.5},
        client={"pool": {"size": 3, "idle_gap_ms": 10_000, "idle_expiry_s": 0.05}},
    ),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.usefixtures("short_grace")
async def test_life_cut_short_leaves_nothing(
    cut: Cut, full_backlog: Endpoint, serve: Serve, plan: Plan, offer_by_ring: Offer
) -> None:
    endpoint = serve(cut.server) if cut.server else full_backlog
    offered = plan(endpoint, ending=cut.ending, hold_s=0.2, load=cut.load, client=cut.client)
    report = await offer_by_ring(offered)
    assert report.errors == cut.errors
    assert report.connection_errors == cut.connection_errors
    assert report.departures == cut.departures
    assert report.closed_early == report.established == sum(cut.departures.values())


async def test_stop_in_the_midst_of_many_lives_leaves_nothing(
    bundled: Bundled, plan: Plan, offer_by_ring: Offer
) -> None:
    endpoint, listener = await bundled()
    load = {"concurrency": 50, "duration_s": 60}
    report = await offer_by_ring(plan(endpoint, load=load), stop_after_s=0.2)
    assert report.ok == report.attempted == listener.ledger.report.requests > 50


async def test_stop_before_the_start_offers_nothing(plan: Plan, offer_by_ring: Offer) -> None:
    report = await offer_by_ring(plan(("127.0.0.1", 1)), stop_after_s=0)
    assert report.attempted <= 1


# answers


HEAD = len(answer(PIECE_BYTES)) - PIECE_BYTES


@pytest.mark.parametrize("gap_ms", [0, 50], ids=["at once", "with a receive waiting"])
@pytest.mark.parametrize("piece", [None, 7000], ids=["whole", "in pieces"])
@pytest.mark.parametrize(
    "body_bytes",
    [0, 1, *range(PIECE_BYTES - HEAD - 1, PIECE_BYTES - HEAD + 2), PIECE_BYTES, LARGE],
)
async def test_answer_of_any_size_is_taken_whole(
    body_bytes: int, piece: int | None, gap_ms: int, serve: Serve, plan: Plan, offer_by_ring: Offer
) -> None:
    content = answer(body_bytes)
    client = {"pool": {"size": 1, "idle_gap_ms": gap_ms}}
    load = {"concurrency": 1, "duration_s": 60, "requests": 3}
    offered = plan(serve(says(content, piece=piece)), load=load, client=client)
    report = await offer_by_ring(offered)
    assert (report.ok, report.established) == (3, 1)
    assert report.received_bytes == 3 * len(content)


@pytest.mark.parametrize("cut_at", [1, 10, HEAD - 1, HEAD, HEAD + 1])
async def test_head_may_come_in_two_pieces(
    cut_at: int, serve: Serve, plan: Plan, offer_by_ring: Offer
) -> None:
    content = answer(PIECE_BYTES)

    async def handler(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_recv(sock, 4096)
        await loop.sock_sendall(sock, content[:cut_at])
        await asyncio.sleep(0.02)
        await loop.sock_sendall(sock, content[cut_at:])
        await until_fin(sock)

    report = await offer_by_ring(plan(serve(handler), load=ONE))
    assert (report.ok, report.received_bytes) == (1, len(content))


@pytest.mark.parametrize("body_bytes", [5, 20_000])
async def test_byte_too_many_is_noticed(
    body_bytes: int, serve: Serve, plan: Plan, offer_by_ring: Offer
) -> None:
    report = await offer_by_ring(plan(serve(says(answer(body_bytes) + b"!")), load=ONE))
    assert report.errors == {"read:PROTOCOL:malformed_answer": 1}


@pytest.mark.parametrize(
    ("ending", "departure"), [("client-fin", "active_close"), ("server-fin", "passive_close")]
)
@pytest.mark.parametrize("body_bytes", [5, 20_000])
async def test_fin_may_come_with_the_last_bytes(
    body_bytes: int, ending: str, departure: str, serve: Serve, plan: Plan, offer_by_ring: Offer
) -> None:
    async def handler(sock: socket.socket) -> None:
        await asyncio.get_running_loop().sock_recv(sock, 4096)
        # held back until the FIN goes with it
        sock.send(answer(body_bytes), socket.MSG_MORE)
        sock.shutdown(socket.SHUT_WR)
        await until_fin(sock)

    report = await offer_by_ring(plan(serve(handler), ending=ending, load=THREE))
    assert (report.ok, report.closed_early) == (3, 0)
    assert report.departures == {departure: 3}


# slots and sockets


@pytest.mark.parametrize("ending", ["client-fin", "client-rst", "client-half-close", "server-fin"])
async def test_few_slots_live_thousands_of_lives(
    ending: str, bundled: Bundled, plan: Plan, offer_by_ring: Offer
) -> None:
    endpoint, listener = await bundled(ending=ending)
    load = {"concurrency": 8, "duration_s": 600, "requests": 1500}
    report = await offer_by_ring(plan(endpoint, ending=ending, load=load))
    assert (report.ok, report.established, report.closed_early) == (1500, 1500, 0)
    assert listener.ledger.report.accepted == 1500


async def test_port_window_and_linger_are_those_asked_for(
    serve: Serve,
    plan: Plan,
    offer_by_ring: Offer,
    free_window: Callable[[int], tuple[int, int]],
) -> None:
    low, high = free_window(4)
    seen: list[tuple[int, type[object]]] = []

    async def handler(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        port = sock.getpeername()[1]
        await loop.sock_recv(sock, 4096)
        await loop.sock_sendall(sock, ANSWER)
        try:
            seen.append((port, type(await loop.sock_recv(sock, 1))))
        except OSError as error:
            seen.append((port, type(error)))

    client = {"socket": {"IP_LOCAL_PORT_RANGE": (low, high), "SO_LINGER": 0}}
    report = await offer_by_ring(plan(serve(handler), load=THREE, client=client))
    assert report.ok == 3
    while len(seen) < 3:  # noqa: ASYNC110 - the server has no event
        await asyncio.sleep(0.001)
    assert all(low <= port <= high and kind is ConnectionResetError for port, kind in seen)


async def test_every_option_is_set_as_on_a_socket_made_by_hand(
    serve: Serve, plan: Plan, monkeypatch: pytest.MonkeyPatch, on_ring: Callable[..., Uring]
) -> None:
    options = {
        "SO_LINGER": 7,
        "SO_REUSEADDR": True,
        "SO_KEEPALIVE": True,
        "SO_SNDBUF": 50_000,
        "SO_RCVBUF": 60_000,
        "TCP_NODELAY": True,
        "TCP_USER_TIMEOUT": 12_345,
        "TCP_SYNCNT": 3,
        "TCP_KEEPIDLE": 11,
        "TCP_KEEPINTVL": 12,
        "TCP_KEEPCNT": 5,
    }
    engines: list[Uring] = []
    results: list[int] = []
    listening = (*STEPS[: Step.ASIDE], lambda _, result: results.append(result))
    monkeypatch.setattr("twbench.fleet.uring.STEPS", listening)

    async def handler(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_recv(sock, 4096)
        # the answer makes the engine turn the ring, and this comes before what follows on it
        engines[0].ring.push(do.install(do.Slot(0), user_data=Step.ASIDE).pack())
        await loop.sock_sendall(sock, ANSWER)
        await until_fin(sock)

    offered = plan(serve(handler), load=ONE, client={"socket": options})
    engines.append(on_ring(offered))
    await engines[0].run(time.monotonic_ns())
    (descriptor,) = results
    with socket.socket(fileno=descriptor) as prepared, socket.socket() as by_hand:
        for name, value in options.items():
            level, number = SOCKET_OPTIONS[name].level, SOCKET_OPTIONS[name].number
            by_hand.setsockopt(level, number, SOCKET_OPTIONS[name].pack(value))
            expected = by_hand.getsockopt(level, number, 8)
            assert prepared.getsockopt(level, number, 8) == expected, name


async def test_users_beyond_the_file_table_are_refused_as_for_want_of_descriptors(
    serve: Serve, plan: Plan, offer_by_ring: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twbench.fleet.uring._SPARE_SLOTS", -8)
    load = {"concurrency": 10, "duration_s": 60, "requests": 10}
    report = await offer_by_ring(plan(serve(says(ANSWER)), load=load))
    assert report.errors["connect:EMFILE:descriptors_exhausted"] == report.not_sent == 8
    assert (report.ok, report.connects) == (2, 10)
