"""One connection against servers that behave, and misbehave: what each exchange is booked as."""

import asyncio
import dataclasses
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from twbench.fleet.answers import HeadReader
from twbench.fleet.connection import Connection
from twbench.fleet.ledger import Ledger
from twbench.model.outcomes import KINDS
from twbench.model.plans import Endpoint, FleetPlan
from twbench.model.reports import FleetReport
from twbench.server.http import Listener

Handler = Callable[[socket.socket], Awaitable[None]]
Serve = Callable[[Handler], Endpoint]
Plan = Callable[..., FleetPlan]
Offer = Callable[[FleetPlan], Awaitable[FleetReport]]
OfferByEach = Callable[[FleetPlan], Awaitable[list[FleetReport]]]
Bundled = Callable[..., Awaitable[tuple[Endpoint, Listener]]]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
ONE = {"concurrency": 1, "duration_s": 5, "requests": 1}
TWO = {"concurrency": 1, "duration_s": 5, "requests": 2}


async def read_request(sock: socket.socket) -> bytes:
    """Return the bytes up to the end of a request's head, or up to FIN."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await asyncio.get_running_loop().sock_recv(sock, 4096)
        if not piece:
            break
        data += piece
    return data


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def until_fin(sock: socket.socket) -> None:
    """Read until the client has left, be it by FIN or RST."""
    try:
        while await asyncio.get_running_loop().sock_recv(sock, 4096):
            pass
    except ConnectionError:
        pass


async def filled(seen: list[Any]) -> None:
    """Give a server in this loop its turn to note what it saw."""
    while not seen:  # noqa: ASYNC110 - the server has no event
        await asyncio.sleep(0.001)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    sock.close()


def says(answer: bytes, *, pause_s: float = 0) -> Handler:
    """Return a server that answers one request with these bytes and waits for the client to go."""

    async def handler(sock: socket.socket) -> None:
        await read_request(sock)
        await asyncio.sleep(pause_s)
        await send(sock, answer)
        await until_fin(sock)

    return handler


def says_and_closes(answer: bytes) -> Handler:
    async def handler(sock: socket.socket) -> None:
        await read_request(sock)
        await send(sock, answer)

    return handler


async def resets_unanswered(sock: socket.socket) -> None:
    await read_request(sock)
    reset(sock)


async def never_answers(sock: socket.socket) -> None:
    await until_fin(sock)


FAILURES: list[tuple[str, Handler, str]] = [
    ("closes without an answer", says_and_closes(b""), "read:EOF:closed_unanswered"),
    ("resets without an answer", resets_unanswered, "read:ECONNRESET:reset_by_peer"),
    ("closes in the head", says_and_closes(ANSWER[:20]), "read:SHORT:truncated_answer"),
    ("closes in the body", says_and_closes(ANSWER[:-1]), "read:SHORT:truncated_answer"),
    ("speaks another protocol", says(b"SSH-2.0-x\r\n\r\n"), "read:PROTOCOL:malformed_answer"),
    (
        "switches the protocol",
        says(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        "read:PROTOCOL:malformed_answer",
    ),
    ("says more than announced", says(ANSWER + b"!"), "read:PROTOCOL:malformed_answer"),
    (
        "fails politely",
        says(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"),
        "read:STATUS:http_error",
    ),
    ("never answers", never_answers, "read:TIMEOUT:request_timeout"),
    ("answers too late", says(ANSWER, pause_s=1), "read:TIMEOUT:request_timeout"),
]


def patience(key: str) -> dict[str, float]:
    """Return a time-out that is short only where the server leaves a request unanswered."""
    return {"request_timeout_s": 0.2} if key.split(":")[1] in {"TIMEOUT", "STATUS"} else {}


@pytest.mark.parametrize(
    ("handler", "key"),
    [pytest.param(handler, key, id=server) for server, handler, key in FAILURES],
)
@pytest.mark.parametrize("pool", [None, {"size": 1}], ids=["fresh", "pooled"])
async def test_exchange_fails_by_what_the_server_did(
    handler: Handler, key: str, pool: dict[str, Any] | None, serve: Serve, plan: Plan, offer: Offer
) -> None:
    client = {**patience(key), "pool": pool}
    report = await offer(plan(serve(handler), load=ONE, client=client))
    assert report.errors == {key: 1}
    assert report.attempted == report.established == 1
    assert set(report.first_error_ns) == {key}


@pytest.mark.parametrize("piece", [1, 2, 7, len(ANSWER) - 1])
async def test_answer_in_pieces_is_put_together(
    piece: int, serve: Serve, plan: Plan, offer: Offer
) -> None:
    async def handler(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            await read_request(sock)
            for start in range(0, len(ANSWER), piece):
                await send(sock, ANSWER[start : start + piece])
                await asyncio.sleep(0)
        await until_fin(sock)

    report = await offer(plan(serve(handler), load=TWO, client={"pool": {"size": 1}}))
    assert (report.ok, report.established) == (2, 1)
    assert report.received_bytes == 2 * len(ANSWER)


async def test_request_is_plain_http_and_the_last_one_announces_the_end(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    heard: list[bytes] = []

    async def handler(sock: socket.socket) -> None:
        while request := await read_request(sock):
            heard.append(request)
            await send(sock, ANSWER)

    endpoint = serve(handler)
    pool = {"size": 1, "requests_per_connection": 2}
    await offer(plan(endpoint, load=TWO, client={"pool": pool}))
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{endpoint[1]}\r\nUser-Agent: twbench\r\n"
    assert heard == [f"{head}\r\n".encode(), f"{head}Connection: close\r\n\r\n".encode()]


# the race of keep-alive: the same failures have another name on a connection that was used before


async def closes_at_the_second(sock: socket.socket) -> None:
    await says_and_closes(ANSWER)(sock)
    await read_request(sock)


async def resets_at_the_second(sock: socket.socket) -> None:
    await says_and_closes(ANSWER)(sock)
    await resets_unanswered(sock)


async def resets_in_the_second(sock: socket.socket) -> None:
    await stops_in_the_second(sock)
    await asyncio.sleep(0.02)
    reset(sock)


async def stops_in_the_second(sock: socket.socket) -> None:
    await says_and_closes(ANSWER)(sock)
    await says_and_closes(ANSWER[:30])(sock)


@pytest.mark.parametrize(
    ("handler", "key"),
    [
        (closes_at_the_second, "read:EOF:keepalive_race"),
        (resets_at_the_second, "read:ECONNRESET:keepalive_race"),
        (stops_in_the_second, "read:SHORT:truncated_answer"),
        (resets_in_the_second, "read:ECONNRESET:reset_by_peer"),
    ],
)
async def test_failure_on_a_reused_connection_is_told_apart(
    handler: Handler, key: str, serve: Serve, plan: Plan, offer: Offer
) -> None:
    report = await offer(plan(serve(handler), load=TWO, client={"pool": {"size": 1}}))
    assert (report.ok, report.established) == (1, 1)
    assert report.errors == {key: 1}


@pytest.mark.parametrize("ending", ["client-fin", "client-half-close"])
async def test_request_that_crosses_the_servers_fin_is_the_race(
    ending: str, serve: Serve, plan: Plan, offer: Offer
) -> None:
    pool = {"size": 1, "requests_per_connection": 2}
    server = serve(says_and_closes(ANSWER))
    report = await offer(plan(server, ending=ending, load=TWO, client={"pool": pool}))
    assert (report.ok, report.established) == (1, 1)
    assert report.errors == {"read:EOF:keepalive_race": 1}


async def closes_when_idle(sock: socket.socket) -> None:
    await says_and_closes(ANSWER)(sock)
    await asyncio.sleep(0.03)


async def resets_when_idle(sock: socket.socket) -> None:
    await closes_when_idle(sock)
    reset(sock)


@pytest.mark.parametrize(
    ("handler", "key", "departure"),
    [
        (closes_when_idle, "idle:EOF:closed_while_idle", "passive_close"),
        (resets_when_idle, "idle:ECONNRESET:reset_while_idle", "reset_by_peer"),
    ],
)
async def test_idle_connection_that_ends_fails_no_attempt(
    handler: Handler, key: str, departure: str, serve: Serve, plan: Plan, offer: Offer
) -> None:
    client = {"pool": {"size": 1, "idle_gap_ms": 100}}
    report = await offer(plan(serve(handler), load=TWO, client=client))
    assert (report.ok, report.established) == (2, 2)
    assert report.connection_errors[key] >= 1
    assert report.departures[departure] >= 1
    assert not report.errors


async def test_bytes_that_nobody_asked_for_end_an_idle_connection(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    async def handler(sock: socket.socket) -> None:
        await says_and_closes(ANSWER)(sock)
        await asyncio.sleep(0.03)
        await send(sock, ANSWER)
        await until_fin(sock)

    client = {"pool": {"size": 1, "idle_gap_ms": 100}}
    report = await offer(plan(serve(handler), load=TWO, client=client))
    assert (report.ok, report.established, report.closed_early) == (2, 2, 2)


# endings, as the client sees them


async def test_reset_after_a_complete_answer_fails_no_attempt(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    async def handler(sock: socket.socket) -> None:
        await says_and_closes(ANSWER)(sock)
        await asyncio.sleep(0.03)
        reset(sock)

    report = await offer(plan(serve(handler), ending="server-fin"))
    assert (report.ok, report.attempted) == (1, 1)
    assert report.connection_errors == {"close:ECONNRESET:reset_at_close": 1}
    assert report.departures == {"reset_by_peer": 1}


async def test_server_that_should_close_first_and_does_not_is_left_after_the_hold(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    report = await offer(plan(serve(says(ANSWER)), ending="server-fin", hold_s=0.1))
    assert report.ok == 1
    assert report.connection_errors == {"close:TIMEOUT:peer_did_not_close": 1}
    assert report.departures == {"active_close": 1}
    assert report.closed_early == 1


@pytest.mark.parametrize(
    ("ending", "departure", "last_seen"),
    [
        ("client-fin", "active_close", b""),
        ("simultaneous", "active_close", b""),
        ("client-rst", "active_reset", ConnectionResetError),
        ("client-half-close", "active_close", b""),
    ],
)
async def test_client_that_moves_first_does_so_itself(
    ending: str, departure: str, last_seen: object, serve: Serve, plan: Plan, offer: Offer
) -> None:
    seen: list[object] = []

    async def handler(sock: socket.socket) -> None:
        await read_request(sock)
        loop = asyncio.get_running_loop()
        if ending == "client-half-close":
            seen.append(await loop.sock_recv(sock, 1))
        await send(sock, ANSWER)
        if ending != "client-half-close":
            try:
                seen.append(await loop.sock_recv(sock, 1))
            except OSError as error:
                seen.append(type(error))

    report = await offer(plan(serve(handler), ending=ending))
    assert report.departures == {departure: 1}
    assert (report.ok, report.closed_early) == (1, 0)
    await filled(seen)
    assert seen == [last_seen]


async def test_half_closing_client_may_be_reset(serve: Serve, plan: Plan, offer: Offer) -> None:
    report = await offer(plan(serve(resets_unanswered), ending="client-half-close"))
    assert report.errors == {"read:ECONNRESET:reset_by_peer": 1}
    assert report.departures == {"reset_by_peer": 1}


@dataclass
class Alone:
    """The least that a connection needs of an engine."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    ledger: Ledger = field(default_factory=Ledger)
    heads: HeadReader = field(default_factory=HeadReader)
    ending: str = "client-fin"
    half_closes: bool = False
    hold_ns: int = 1_000_000_000
    idle_ns: int = 1_000_000_000
    request_timeout_ns: int = 1_000_000_000

    def ended(self, connection: Connection) -> None:
        assert connection.over


async def test_client_that_leaves_after_the_servers_fin_closes_passively(serve: Serve) -> None:
    accepted: list[socket.socket] = []

    async def handler(sock: socket.socket) -> None:
        accepted.append(sock)
        await says_and_closes(ANSWER)(sock)
        await asyncio.sleep(5)

    owner = Alone()
    connection = Connection(owner, b"GET / HTTP/1.1\r\n\r\n", intended_ns=0, last=False)
    await asyncio.get_running_loop().create_connection(lambda: connection, *serve(handler))
    assert await asyncio.wait_for(connection.outcome, 1)
    # over a loopback the FIN is in the client's socket when close(2) returns
    accepted[0].close()
    connection.leave()
    while not connection.over:  # noqa: ASYNC110 - only the connection knows
        await asyncio.sleep(0.001)
    report = owner.ledger.take(0)
    assert report.departures == {"passive_close": 1}
    assert report.closed_early == 0


async def test_client_waits_for_a_server_that_closes_first(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    seen: list[bytes] = []

    async def handler(sock: socket.socket) -> None:
        await read_request(sock)
        await send(sock, ANSWER)
        await asyncio.sleep(0.05)
        sock.shutdown(socket.SHUT_WR)
        seen.append(await asyncio.get_running_loop().sock_recv(sock, 1))

    report = await offer(plan(serve(handler), ending="server-fin"))
    assert report.departures == {"passive_close": 1}
    await filled(seen)
    assert seen == [b""]


async def test_answer_that_announces_the_end_is_the_connections_last(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    answer = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    load = {"concurrency": 1, "duration_s": 5, "requests": 3}
    report = await offer(plan(serve(says(answer)), load=load, client={"pool": {"size": 1}}))
    assert (report.ok, report.established) == (3, 3)
    assert report.closed_early == 0


# the same course of events is the same in the books of both engines


def resets_after(answer: bytes) -> Handler:
    """Return a server that resets once the client has surely read these bytes."""

    async def handler(sock: socket.socket) -> None:
        await says_and_closes(answer)(sock)
        await asyncio.sleep(0.1)
        reset(sock)

    return handler


POOL = {"pool": {"size": 2, "requests_per_connection": 2}}
COURSES: dict[str, tuple[Handler, dict[str, Any]]] = {
    **{
        f"{name}, {ending}": (handler, {"ending": ending, "client": patience(key)})
        for name, handler, key in FAILURES
        for ending in ("client-fin", "client-rst", "client-half-close", "server-fin")
    },
    **{
        f"{name}, pooled": (handler, {"client": POOL | patience(key)})
        for name, handler, key in FAILURES
    },
    "resets in the head": (resets_after(ANSWER[:20]), {}),
    "resets in the body": (resets_after(ANSWER[:-1]), {}),
    "resets after the answer": (resets_after(ANSWER), {"ending": "server-fin", "hold_s": 5}),
    "closes at the second": (closes_at_the_second, {"client": POOL}),
    "resets at the second": (resets_at_the_second, {"client": POOL}),
    "stops in the second": (stops_in_the_second, {"client": POOL}),
    "answers, and the client resets": (says(ANSWER), {"ending": "client-rst"}),
    "answers, and the client lingers": (says(ANSWER), {"client": {"socket": {"SO_LINGER": 0}}}),
}


@pytest.mark.parametrize(("handler", "more"), COURSES.values(), ids=COURSES)
async def test_both_engines_book_the_same(
    handler: Handler, more: dict[str, Any], serve: Serve, plan: Plan, offer_by_each: OfferByEach
) -> None:
    load = {"concurrency": 2, "duration_s": 60, "requests": 4}
    offered = plan(serve(handler), **{"hold_s": 0.3, "load": load} | more)
    by_streams, by_uring = map(comparable, await offer_by_each(offered))
    assert by_streams == by_uring


@pytest.mark.parametrize(
    ("destination", "more"),
    [
        (("127.0.0.1", 1), {}),
        (("127.0.0.1", 1), {"client": {"retries": 2, "retry_backoff_ms": 1}}),
        (("127.0.0.1", 1), {"client": {"pool": {"size": 1}}}),
        (("127.0.0.1", 1), {"sources": ("192.0.2.1", "192.0.2.2")}),
        (("255.255.255.255", 80), {}),
        (("198.51.100.1", 80), {"sources": ("127.0.0.1", "127.0.0.2")}),
        (None, {"client": {"connect_timeout_s": 0.2}}),
        (None, {"client": {"connect_timeout_s": 0.2, "pool": {"size": 1}}}),
    ],
)
async def test_both_engines_book_the_same_where_there_is_no_connection(
    destination: Endpoint | None,
    more: dict[str, Any],
    full_backlog: Endpoint,
    plan: Plan,
    offer_by_each: OfferByEach,
) -> None:
    load = {"concurrency": 2, "duration_s": 60, "requests": 2}
    reports = await offer_by_each(plan(destination or full_backlog, load=load, **more))
    by_streams, by_uring = map(comparable, reports)
    assert by_streams == by_uring
    assert by_streams["ok"] == 0


@pytest.mark.parametrize("client", [{}, POOL], ids=["fresh", "pooled"])
@pytest.mark.parametrize(
    "ending", ["client-fin", "client-rst", "client-half-close", "server-fin", "server-rst"]
)
async def test_both_engines_and_their_servers_book_the_same_where_all_goes_well(
    ending: str, client: dict[str, Any], bundled: Bundled, plan: Plan, offer_by_each: OfferByEach
) -> None:
    endpoint, listener = await bundled(ending=ending)
    load = {"concurrency": 3, "duration_s": 60, "requests": 12}
    reports = await offer_by_each(plan(endpoint, ending=ending, load=load, client=client))
    by_streams, by_uring = map(comparable, reports)
    assert by_streams == by_uring
    assert (by_streams["ok"], by_streams["closed_early"]) == (12, 0)
    while listener.live:  # noqa: ASYNC110 - nothing tells when the last is gone
        await asyncio.sleep(0.001)
    assert all(number % 2 == 0 for number in listener.ledger.report.departures.values())


def comparable(report: FleetReport) -> dict[str, Any]:
    """Return what does not depend on the clock; of latencies how many there are."""
    told = dataclasses.asdict(report)
    del told["t_ns"]
    told["first_error_ns"] = set(told["first_error_ns"])
    decoded = {name: HdrHistogram.decode(raw) for name, raw in told["histograms"].items()}
    told["histograms"] = {name: each.get_total_count() for name, each in decoded.items()}
    return told


def test_every_kind_of_failure_here_is_listed() -> None:
    keys = [key for _, _, key in FAILURES]
    assert all((phase, error, False) in KINDS for phase, error, _ in map(split, keys))


def split(key: str) -> tuple[str, str, str]:
    phase, error, kind = key.split(":")
    return phase, error, kind
