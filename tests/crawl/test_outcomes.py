"""The same trouble is the same outcome, whichever library met it: what the fleet's streams book."""

import asyncio
import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import aiohttp
import httpx
import pytest
import requests
import urllib3

from twbench.crawl.outcomes import PageError, classify, keeps
from twbench.fleet.ledger import Ledger
from twbench.fleet.sockets import SOCKET_OPTIONS
from twbench.fleet.streams import Streams
from twbench.model.outcomes import Phase
from twbench.model.plans import Endpoint, FleetPlan
from twbench.model.scenario import ClientSpec, Scenario

Handler = Callable[[socket.socket], None]
Outcome = tuple[Phase, str]
SHORT_S = 0.5
"""A time-out that is to run out."""
LONG_S = 60.0
"""One that is not, on however busy a machine."""


def use_aiohttp(url: str, answer_s: float = LONG_S) -> None:
    async def get() -> None:
        timeout = aiohttp.ClientTimeout(total=answer_s)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            await answer.read()

    asyncio.run(get())


def use_httpx(url: str, answer_s: float = LONG_S) -> None:
    async def get() -> None:
        timeout = httpx.Timeout(answer_s)
        async with httpx.AsyncClient(
            timeout=timeout, follow_redirects=True, trust_env=False
        ) as client:
            await client.get(url)

    asyncio.run(get())


def use_requests(url: str, answer_s: float = LONG_S) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.get(url, timeout=answer_s)


def use_urllib3(url: str, answer_s: float = LONG_S) -> None:
    timeout = urllib3.Timeout(read=answer_s)
    with urllib3.PoolManager(timeout=timeout) as manager:
        manager.request("GET", url)


LIBRARIES = {
    "aiohttp": use_aiohttp,
    "httpx": use_httpx,
    "requests": use_requests,
    "urllib3": use_urllib3,
}


def outcome(library: str, url: str, answer_s: float = LONG_S) -> Outcome:
    """Get a page and return what the error says that comes of it."""
    with pytest.raises(Exception) as error:  # noqa: PT011 - each library has its own
        LIBRARIES[library](url, answer_s)
    return classify(error.value)


async def booked_by_streams(endpoint: Endpoint, answer_s: float = LONG_S) -> str:
    """Return what the fleet books of one request to the same server."""
    scenario = {
        "name": "test",
        "load": {"concurrency": 1, "duration_s": 5, "requests": 1},
        "client": {"request_timeout_s": answer_s},
    }
    plan = FleetPlan(
        scenario=Scenario.model_validate(scenario),
        worker=0,
        workers=1,
        sources=("127.0.0.1",),
        destinations=(endpoint,),
    )
    ledger = Ledger()
    await asyncio.wait_for(Streams(plan, ledger).run(time.monotonic_ns()), LONG_S)
    (key,) = ledger.report.errors
    return key.rpartition(":")[0]


@contextlib.contextmanager
def serving(handler: Handler) -> Iterator[Endpoint]:
    """Serve each connection by `handler`, which has read its request; then it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    asked = b""
                    while not asked.endswith(b"\r\n\r\n"):
                        if not (more := connection.recv(4096)):
                            break
                        asked += more
                    if asked == b"GET /stop\r\n\r\n":
                        return
                    handler(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            endpoint: Endpoint = listener.getsockname()
            yield endpoint
        finally:
            with socket.create_connection(endpoint) as last:
                last.sendall(b"GET /stop\r\n\r\n")
            thread.join()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))


def half_a_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")


def half_a_chunk(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello")


def no_further_chunk(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")


def half_a_body_and_reset(connection: socket.socket) -> None:
    half_a_body(connection)
    # the client is to have read it before the RST comes, which throws away what waits
    while unread_by_peer(connection):
        time.sleep(0.01)
    reset(connection)


def unread_by_peer(connection: socket.socket) -> bool:
    """Return whether the peer's socket, in this process too, still holds bytes."""
    local, port = connection.getpeername()
    hexed = f"{int.from_bytes(socket.inet_aton(local), 'little'):08X}:{port:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123 - no folder is meant
        rows = [line.split() for line in table]
    return any(row[1] == hexed and int(row[4].partition(":")[2], 16) for row in rows[1:])


def nothing(connection: socket.socket) -> None:
    """Go away without an answer."""


def silence(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def silence_in_a_body(connection: socket.socket) -> None:
    half_a_body(connection)
    silence(connection)


def no_http(connection: socket.socket) -> None:
    connection.sendall(b"220 mail.test ESMTP\r\n\r\n")


COURSES: Mapping[str, tuple[Handler, str, float]] = {
    "RST where an answer was due": (reset, "read:ECONNRESET", LONG_S),
    "RST in the middle of an answer": (half_a_body_and_reset, "read:ECONNRESET", LONG_S),
    "FIN where an answer was due": (nothing, "read:EOF", LONG_S),
    "FIN in the middle of an answer": (half_a_body, "read:SHORT", LONG_S),
    "no answer in time": (silence, "read:TIMEOUT", SHORT_S),
    "half an answer in time": (silence_in_a_body, "read:TIMEOUT", SHORT_S),
    "no HTTP": (no_http, "read:PROTOCOL", LONG_S),
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("course", COURSES)
def test_trouble_after_the_connect_is_told_by_the_librarys_error(course: str, library: str) -> None:
    handler, expected, answer_s = COURSES[course]
    with serving(handler) as (address, port):
        told = outcome(library, f"http://{address}:{port}/", answer_s=answer_s)
    assert ":".join(told) == expected


@pytest.mark.parametrize("course", COURSES)
async def test_fleet_books_the_same_of_the_same_trouble(course: str) -> None:
    handler, expected, answer_s = COURSES[course]
    with serving(handler) as endpoint:
        assert await booked_by_streams(endpoint, answer_s=answer_s) == expected


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("handler", [half_a_chunk, no_further_chunk])
def test_chunked_answer_that_ends_early_is_a_short_one(library: str, handler: Handler) -> None:
    with serving(handler) as (address, port):
        assert outcome(library, f"http://{address}:{port}/") == (Phase.READ, "SHORT")


@pytest.mark.parametrize("library", LIBRARIES)
def test_page_that_sends_to_itself_ends_by_the_librarys_limit(library: str) -> None:
    def round_and_round(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 302 Found\r\nLocation: /\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )

    with serving(round_and_round) as (address, port):
        assert outcome(library, f"http://{address}:{port}/") == (Phase.READ, "REDIRECTS")


@pytest.fixture
def closed_port() -> Iterator[Endpoint]:
    """Give a port that is bound, so that nobody else gets it, and on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.mark.parametrize("library", LIBRARIES)
def test_closed_port_refuses(library: str, closed_port: Endpoint) -> None:
    address, port = closed_port
    assert outcome(library, f"http://{address}:{port}/") == (Phase.CONNECT, "ECONNREFUSED")


async def test_fleet_is_refused_likewise(closed_port: Endpoint) -> None:
    assert await booked_by_streams(closed_port) == "connect:ECONNREFUSED"


@pytest.mark.parametrize("library", LIBRARIES)
def test_name_that_does_not_exist_fails_in_the_resolver(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert outcome(library, "http://nobody.invalid/") == (Phase.RESOLVE, "EAI_NONAME")


@pytest.mark.parametrize("library", LIBRARIES)
def test_port_range_that_is_full_is_told_of_the_connect(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = SOCKET_OPTIONS["IP_LOCAL_PORT_RANGE"]
    connect = socket.socket.connect

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as taken,
    ):
        port = taken.getsockname()[1]

        def connect_from_one_port(sock: socket.socket, address: Endpoint) -> None:
            sock.setsockopt(option.level, option.number, option.pack((port, port)))
            connect(sock, address)

        try:
            taken.getsockopt(option.level, option.number)
        except OSError:
            pytest.skip("IP_LOCAL_PORT_RANGE needs Linux 6.3")
        monkeypatch.setattr(socket.socket, "connect", connect_from_one_port)
        address, port_there = listener.getsockname()
        told = outcome(library, f"http://{address}:{port_there}/")
    assert told == (Phase.CONNECT, "EADDRNOTAVAIL")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), (Phase.CONNECT, "ECONNREFUSED")),
        (OSError(errno.EMFILE, ""), (Phase.CONNECT, "EMFILE")),
        (ConnectionResetError(errno.ECONNRESET, ""), (Phase.READ, "ECONNRESET")),
        (ConnectionResetError("Connection lost"), (Phase.READ, "ECONNRESET")),
        (BrokenPipeError(errno.EPIPE, ""), (Phase.WRITE, "EPIPE")),
        (TimeoutError(errno.ETIMEDOUT, ""), (Phase.READ, "ETIMEDOUT")),
        (TimeoutError(), (Phase.READ, "TIMEOUT")),
        (asyncio.IncompleteReadError(b"", 5), (Phase.READ, "EOF")),
        (asyncio.IncompleteReadError(b"ab", 5), (Phase.READ, "SHORT")),
        (asyncio.CancelledError(), (Phase.READ, "CANCELLED")),
        (PageError(Phase.WRITE, "TIMEOUT"), (Phase.WRITE, "TIMEOUT")),
        (ZeroDivisionError(), (Phase.READ, "ZeroDivisionError")),
        (ExceptionGroup("", [OSError(errno.ENETUNREACH, "")]), (Phase.CONNECT, "ENETUNREACH")),
        (httpx.PoolTimeout(""), (Phase.CONNECT, "TIMEOUT")),
        (httpx.WriteError(""), (Phase.WRITE, "WriteError")),
    ],
    ids=repr,
)
def test_error_without_a_library_is_told_by_its_errno_or_class(
    error: BaseException, expected: Outcome
) -> None:
    assert classify(error) == expected


def test_what_was_handled_before_does_not_speak_for_what_came_of_it() -> None:
    before, error = ConnectionResetError(errno.ECONNRESET, ""), TimeoutError()
    error.__context__ = before
    assert classify(error) == (Phase.READ, "ECONNRESET")
    error.__suppress_context__ = True  # as `raise … from None` does
    assert classify(error) == (Phase.READ, "TIMEOUT")


def test_errors_that_hold_each_other_come_to_an_end() -> None:
    one, other = ValueError(), KeyError()
    one.__cause__, other.__cause__ = other, one
    assert classify(one) == (Phase.READ, "ValueError")


def answering(status: bytes) -> Handler:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    return answer


@pytest.mark.parametrize("status", [b"400 Bad Request", b"404 Not Found", b"503 Busy"])
def test_raise_for_status_is_an_answer_that_reports_a_failure(status: bytes) -> None:
    async def raise_in_aiohttp(url: str) -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            answer.raise_for_status()

    with serving(answering(status)) as (address, port):
        url = f"http://{address}:{port}/"
        raising: list[Callable[[], object]] = [
            lambda: asyncio.run(raise_in_aiohttp(url)),
            lambda: httpx.get(url, trust_env=False).raise_for_status(),
            lambda: requests.get(url, timeout=LONG_S).raise_for_status(),
        ]
        for each in raising:
            with pytest.raises(Exception) as error:  # noqa: PT011 - each library has its own
                each()
            assert classify(error.value) == (Phase.READ, "STATUS")


@pytest.mark.parametrize(
    ("client", "kept"),
    [
        ({"engine": "aiohttp"}, True),
        ({"engine": "aiohttp", "aiohttp": {"force_close": True}}, False),
        ({"engine": "aiohttp", "aiohttp": {"session": "per-request"}}, False),
        ({"engine": "httpx"}, True),
        ({"engine": "httpx", "httpx": {"max_keepalive_connections": 0}}, False),
        ({"engine": "httpx", "httpx": {"session": "per-request"}}, False),
        ({"engine": "requests"}, True),
        ({"engine": "requests", "requests": {"session": "per-request"}}, False),
        ({"engine": "urllib3"}, True),
        ({"engine": "urllib3", "urllib3": {"session": "per-request"}}, False),
        ({"engine": "streams"}, False),
        ({"engine": "streams", "pool": {"size": 1}}, True),
        ({"engine": "crawler.py:crawl"}, True),
    ],
    ids=str,
)
def test_crawler_keeps_connections_unless_it_is_told_not_to(
    client: dict[str, object], kept: bool
) -> None:
    assert keeps(ClientSpec.model_validate(client)) is kept
