"""HTTP/1.1 as the bundled server speaks it: what is answered, in which order, and what is kept."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twbench.model.endings import ENDINGS
from twbench.model.plans import Endpoint
from twbench.server.http import Listener

Serving = Callable[..., Awaitable[tuple[Endpoint, Listener]]]
Dial = Callable[[Endpoint], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
PATIENCE_S = 20
CHUNKS = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
DELAY_S = 0.08
LOOP_TICK_S = 0.001
"""uvloop keeps time in whole milliseconds, and may be early by one."""


async def head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read the head of an answer: its status and its headers in lower case."""
    raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    first, *lines = raw.decode().split("\r\n")[:-2]
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Read a whole answer: status, headers, body."""
    status, headers = await head(reader)
    body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), PATIENCE_S)
    return status, headers, body


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Read on to the server's FIN."""
    return await asyncio.wait_for(reader.read(), PATIENCE_S)


async def over(listener: Listener) -> None:
    """Wait until the server has no connection left."""
    async with asyncio.timeout(PATIENCE_S):
        while listener.live:  # noqa: ASYNC110 - nothing tells when the last is gone
            await asyncio.sleep(0.002)


async def departed(listener: Listener) -> None:
    """Wait until the server has had a connection, and has none left."""
    async with asyncio.timeout(PATIENCE_S):
        while not listener.ledger.report.departures:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.002)
    await over(listener)


# answers


@pytest.mark.parametrize("size", [0, 1, 512, 100_000, 3_000_000])
async def test_body_has_exactly_the_size_asked_for(size: int, serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(response_bytes=size)
    reader, writer = await dial(endpoint)
    for request, connection in ((GET, "keep-alive"), (LAST, "close")):
        writer.write(request)
        status, headers, body = await answer(reader)
        assert (status, len(body), headers["connection"]) == (200, size, connection)


async def test_answer_comes_after_the_delay(serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(delay_ms=DELAY_S * 1000)
    reader, writer = await dial(endpoint)
    for _ in range(2):
        sent_s = time.monotonic()
        writer.write(GET)
        await answer(reader)
        assert DELAY_S - LOOP_TICK_S <= time.monotonic() - sent_s < 1


async def test_head_is_answered_without_the_body(serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(ending="server-fin", response_bytes=1234)
    reader, writer = await dial(endpoint)
    writer.write(GET.replace(b"GET", b"HEAD") + LAST.replace(b"GET", b"HEAD"))
    for connection in ("keep-alive", "close"):
        status, headers = await head(reader)
        assert (status, headers["content-length"]) == (200, "1234")
        assert headers["connection"] == connection
    assert await rest(reader) == b""


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"b" * 200_000,
        b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    ],
)
async def test_body_of_a_request_is_read_to_its_end(
    request_: bytes, serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving()
    reader, writer = await dial(endpoint)
    for _ in range(2):
        writer.write(request_)
        assert (await answer(reader))[0] == 200
    assert listener.ledger.report.requests == 2


async def test_client_that_expects_100_is_asked_for_its_body(serving: Serving, dial: Dial) -> None:
    endpoint, listener = await serving()
    reader, writer = await dial(endpoint)
    for _ in range(2):
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nexpect: 100-Continue\r\n\r\n"
        )
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S) == (
            b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        assert len(listener.live) == 1
        writer.write(b"body")
        assert (await answer(reader))[0] == 200
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    assert listener.ledger.report.requests == 3


async def test_http_1_0_gets_no_100(serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(ending="server-fin")
    reader, writer = await dial(endpoint)
    writer.write(b"POST / HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody")
    assert (await answer(reader))[0] == 200


async def test_http_1_0_ends_unless_it_asks_to_be_kept(serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(ending="server-fin")
    reader, writer = await dial(endpoint)
    writer.write(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
    assert (await answer(reader))[1]["connection"] == "keep-alive"
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await answer(reader))[1]["connection"] == "close"
    assert await rest(reader) == b""


async def test_upgrade_is_ignored_and_http_goes_on(serving: Serving, dial: Dial) -> None:
    endpoint, listener = await serving(ending="server-fin")
    reader, writer = await dial(endpoint)
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    writer.write(upgrade + GET + upgrade)
    for _ in range(3):
        assert (await answer(reader))[0] == 200
    writer.write(LAST)
    assert (await answer(reader))[0] == 200
    assert await rest(reader) == b""
    assert listener.ledger.report.requests == 4


async def test_request_may_come_a_byte_at_a_time(serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(by_url=True)
    reader, writer = await dial(endpoint)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in b"GET /server-fin?bytes=77 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
        writer.write(bytes([byte]))
        await asyncio.sleep(0.001)
    status, _, body = await answer(reader)
    assert (status, len(body)) == (200, 77)
    assert await rest(reader) == b""


# pipelining


@pytest.mark.parametrize("delay_ms", [0, 20])
async def test_pipelined_requests_are_answered_in_order_and_only_the_last_ends(
    delay_ms: float, serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving(ending="server-fin", by_url=True, delay_ms=delay_ms)
    reader, writer = await dial(endpoint)
    sizes = [300, 1, 20_000, 0]
    requests = [GET.replace(b"/ ", b"/?bytes=%d " % size) for size in sizes]
    writer.write(b"".join(requests) + LAST)
    for size in sizes:
        status, headers, body = await answer(reader)
        assert (status, len(body), headers["connection"]) == (200, size, "keep-alive")
    assert (await answer(reader))[1]["connection"] == "close"
    assert await rest(reader) == b""
    assert listener.ledger.report.requests == 5


async def test_quick_answer_does_not_overtake_a_slow_one(serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(by_url=True)
    reader, writer = await dial(endpoint)
    writer.write(
        GET.replace(b"/ ", b"/?bytes=1&delay_ms=60 ") + GET.replace(b"/ ", b"/?bytes=2 ") * 2
    )
    assert [len((await answer(reader))[2]) for _ in range(3)] == [1, 2, 2]


async def test_fin_after_pipelined_requests_leaves_every_answer_due(
    serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving(delay_ms=20)
    reader, writer = await dial(endpoint)
    writer.write(GET * 3)
    writer.write_eof()
    for _ in range(3):
        assert (await answer(reader))[0] == 200
    assert await rest(reader) == b""
    await over(listener)
    assert listener.ledger.report.departures == {"passive_close": 1}


async def test_client_that_never_reads_is_not_read_either(serving: Serving, dial: Dial) -> None:
    endpoint, listener = await serving(response_bytes=200_000)
    reader, writer = await dial(endpoint)
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001 - no other way
    for _ in range(60):
        writer.write(GET * 10)
        await asyncio.sleep(0.001)
    answered = listener.ledger.report.requests
    assert answered < 300
    reader._transport.resume_reading()  # type: ignore[attr-defined]  # noqa: SLF001 - likewise
    for _ in range(answered):
        assert len((await answer(reader))[2]) == 200_000


# what is no HTTP


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_bad_request_gets_400_and_the_end(
    garbage: bytes, serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving()
    reader, writer = await dial(endpoint)
    writer.write(garbage)
    status, headers, body = await answer(reader)
    assert (status, headers["connection"], body) == (400, "close", b"")
    assert await rest(reader) == b""
    await over(listener)
    assert listener.ledger.report.closed_early == 1


async def test_400_waits_for_the_answers_before_it(serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(delay_ms=30)
    reader, writer = await dial(endpoint)
    writer.write(GET + b"nonsense\r\n\r\n")
    assert [(await answer(reader))[0] for _ in range(2)] == [200, 400]
    assert await rest(reader) == b""


async def test_what_follows_the_last_request_is_ignored(serving: Serving, dial: Dial) -> None:
    endpoint, listener = await serving(ending="client-fin")
    reader, writer = await dial(endpoint)
    writer.write(LAST + GET + b"nonsense")
    assert (await answer(reader))[0] == 200
    writer.write(GET + b"nonsense")
    writer.write_eof()
    assert await rest(reader) == b""
    assert listener.ledger.report.requests == 1


@pytest.mark.parametrize("by_url", [False, True])
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    pieces=st.lists(
        st.one_of(
            st.sampled_from(
                [
                    *(GET, LAST, b"\r\n", b"HEAD / HTTP/1.1\r\n", b"Expect: 100-continue\r\n"),
                    *(b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Content-Length: 3\r\n"),
                    *(b"POST http://[/ HTTP/1.1\r\n", b"CONNECT x:1 HTTP/1.1\r\n", b"\r\n\r\n"),
                    *(
                        b"GET /server-rst?delay_ms=1 HTTP/1.1\r\n",
                        b"Transfer-Encoding: chunked\r\n",
                    ),
                ]
            ),
            st.binary(max_size=20),
        ),
        max_size=10,
    )
)
def test_server_survives_any_bytes(
    hosting: Callable[[], Any], by_url: bool, pieces: list[bytes]
) -> None:
    async def meet() -> None:
        faults: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        hosts = hosting()
        endpoint, listener = await hosts.serve(by_url=by_url, hold_s=1)
        reader, writer = await asyncio.open_connection(*endpoint)
        # the server may have reset what came after its end; StreamWriter raises ENOTCONN bare
        with contextlib.suppress(OSError):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            writer.write_eof()
            await rest(reader)
        await departed(listener)
        writer.transport.abort()
        await hosts.end()
        assert faults == []
        assert listener.ledger.report.departures.total() == 1

    asyncio.run(meet())


# how long a connection is kept


async def test_connection_is_closed_after_its_number_of_requests(
    serving: Serving, dial: Dial
) -> None:
    endpoint, _ = await serving(ending="server-fin", keepalive_requests=3)
    reader, writer = await dial(endpoint)
    connections = []
    for _ in range(3):
        writer.write(GET)
        connections.append((await answer(reader))[1]["connection"])
    assert connections == ["keep-alive", "keep-alive", "close"]
    assert await rest(reader) == b""


async def test_idle_connection_is_closed_after_the_keep_alive_time(
    serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving(keepalive_timeout_s=0.15)
    reader, writer = await dial(endpoint)
    for _ in range(3):
        writer.write(GET)
        await answer(reader)
        await asyncio.sleep(0.08)
    assert len(listener.live) == 1
    idle_s = time.monotonic()
    assert await rest(reader) == b""
    assert 0.04 <= time.monotonic() - idle_s < 0.5
    assert listener.ledger.report.departures == {"active_close": 1}
    assert listener.ledger.report.closed_early == 1


async def test_connection_that_waits_for_its_answer_is_not_idle(
    serving: Serving, dial: Dial
) -> None:
    endpoint, _ = await serving(keepalive_timeout_s=0.05, by_url=True)
    reader, writer = await dial(endpoint)
    writer.write(GET)
    await answer(reader)
    writer.write(GET.replace(b"/ ", b"/?delay_ms=200 "))
    assert (await answer(reader))[0] == 200


async def test_client_that_sends_no_request_is_left_in_the_end(
    serving: Serving, dial: Dial
) -> None:
    endpoint, _ = await serving(request_timeout_s=0.1)
    reader, writer = await dial(endpoint)
    writer.write(GET[:10])
    assert await rest(reader) == b""


async def test_time_to_think_is_no_time_to_send_a_request(serving: Serving, dial: Dial) -> None:
    endpoint, _ = await serving(delay_ms=200, request_timeout_s=0.05)
    reader, writer = await dial(endpoint)
    sent_s = time.monotonic()
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    assert time.monotonic() - sent_s >= 0.2 - LOOP_TICK_S


# endings


@pytest.mark.parametrize(
    ("ending", "departure"),
    [(name, "active_close") for name in ("server-fin", "server-half-close", "simultaneous")],
)
async def test_server_that_closes_first_sends_its_fin_after_the_answer(
    ending: str, departure: str, serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving(ending=ending, response_bytes=500_000)
    reader, writer = await dial(endpoint)
    writer.write(LAST)
    assert len((await answer(reader))[2]) == 500_000
    assert await rest(reader) == b""
    writer.close()
    await over(listener)
    assert listener.ledger.report.departures == {departure: 1}
    assert listener.ledger.report.closed_early == 0


@pytest.mark.parametrize("size", [0, 512, 2_000_000])
async def test_server_that_resets_has_sent_its_whole_answer(size: int, serving: Serving) -> None:
    endpoint, listener = await serving(ending="server-rst", response_bytes=size)
    sock = socket.socket()
    sock.setblocking(False)  # noqa: FBT003 - the socket module's own
    loop = asyncio.get_running_loop()
    received = bytearray()
    with sock:
        await loop.sock_connect(sock, endpoint)
        await loop.sock_sendall(sock, LAST)
        error: OSError | None = None
        while error is None:
            try:
                piece = await asyncio.wait_for(loop.sock_recv(sock, 65536), PATIENCE_S)
            except ConnectionResetError as reset:
                error = reset
            else:
                assert piece, "a FIN where a RST was due"
                received += piece
    assert len(received.partition(b"\r\n\r\n")[2]) == size
    await over(listener)
    assert listener.ledger.report.departures == {"active_reset": 1}


@pytest.mark.parametrize("ending", ["client-fin", "client-rst"])
async def test_server_waits_for_a_client_that_closes_first(
    ending: str, serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving(ending=ending)
    reader, writer = await dial(endpoint)
    writer.write(LAST)
    await answer(reader)
    await asyncio.sleep(0.1)
    assert len(listener.live) == 1
    if ending == "client-rst":
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    writer.transport.abort()
    await over(listener)
    expected = {"client-fin": "passive_close", "client-rst": "reset_by_peer"}[ending]
    assert listener.ledger.report.departures == {expected: 1}


@pytest.mark.parametrize("ending", ["client-fin", "client-rst", "server-half-close"])
async def test_client_that_does_not_close_is_left_after_the_hold(
    ending: str, serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving(ending=ending, hold_s=0.15)
    reader, writer = await dial(endpoint)
    writer.write(LAST)
    await answer(reader)
    assert await rest(reader) == b""
    await over(listener)
    assert listener.ledger.report.departures == {"active_close": 1}
    assert listener.ledger.report.closed_early == (ending != "server-half-close")


async def test_server_that_leaves_after_the_clients_fin_closes_passively(serving: Serving) -> None:
    endpoint, listener = await serving()
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)  # noqa: FBT003 - the socket module's own
    await loop.sock_connect(sock, endpoint)
    await loop.sock_sendall(sock, GET)
    await asyncio.wait_for(loop.sock_recv(sock, 65536), PATIENCE_S)
    # over a loopback the FIN is in the server's socket when close(2) returns
    sock.close()
    (connection,) = listener.live
    connection.leave()
    await over(listener)
    assert listener.ledger.report.departures == {"passive_close": 1}
    assert listener.ledger.report.closed_early == 0


async def test_half_closing_client_gets_its_answer_after_its_fin(
    serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving(ending="client-half-close")
    reader, writer = await dial(endpoint)
    writer.write(GET)
    await answer(reader)
    writer.write(LAST)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    writer.write_eof()
    assert (await answer(reader))[0] == 200
    assert await rest(reader) == b""
    assert listener.ledger.report.departures == {"passive_close": 1}


async def test_client_that_should_half_close_and_does_not_is_answered_after_the_hold(
    serving: Serving, dial: Dial
) -> None:
    endpoint, listener = await serving(ending="client-half-close", hold_s=0.1)
    reader, writer = await dial(endpoint)
    writer.write(LAST)
    assert (await answer(reader))[0] == 200
    writer.close()
    await over(listener)
    assert listener.ledger.report.departures == {"passive_close": 1}


async def test_idle_ending_is_no_early_close(serving: Serving, dial: Dial) -> None:
    endpoint, listener = await serving(ending="server-idle", keepalive_timeout_s=0.1)
    reader, writer = await dial(endpoint)
    writer.write(GET)
    await answer(reader)
    assert await rest(reader) == b""
    assert listener.ledger.report.departures == {"active_close": 1}
    assert listener.ledger.report.closed_early == 0


def test_every_ending_that_is_answered_has_its_move() -> None:
    from twbench.server.http import MOVES

    assert MOVES.keys() - {""} == {name for name, ending in ENDINGS.items() if ending.answered}


async def test_ending_without_a_move_is_refused_at_the_start(serving: Serving) -> None:
    with pytest.raises(ValueError, match="no way to show the ending 'crash'"):
        await serving(ending="crash")


async def test_listener_forgets_peers_whose_time_wait_is_over(
    serving: Serving, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, listener = await serving(ending="server-fin")
    reader, writer = await dial(endpoint)
    writer.write(LAST)
    await answer(reader)
    await rest(reader)
    writer.close()
    await over(listener)
    assert len(listener.left_ns) == 1
    monkeypatch.setattr("twbench.server.ledger._PERHAPS_NS", 0)
    listener.reap()
    assert listener.left_ns == {}
