"""Pools of our own: what they keep, drop and close, and how failures are booked."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from twbench.crawl.engines.streams import Pool
from twbench.model.plans import Endpoint
from twbench.model.reports import FleetReport
from twbench.model.scenario import ClientSpec, PoolSpec

Play = Callable[..., Awaitable["Site"]]
Crawl = Callable[..., Awaitable[FleetReport]]
WITHIN_S = 60
RESET = struct.pack("=ii", 1, 0)


def answer(head: str, body: bytes = b"ok") -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


OK = answer("200 OK")


async def take_time(_nth: int, _path: str) -> bytes:
    await asyncio.sleep(0.05)
    return OK


class Site(Protocol):
    """What these tests ask of a site that is played."""

    endpoint: Endpoint
    paths: list[str]
    connections: int
    open: int
    most_open: int
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def until_closed(site: Site, left: int = 0) -> None:
    async with asyncio.timeout(WITHIN_S):
        while site.open > left:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_without_a_pool_each_page_has_a_connection_to_itself(
    play: Play, crawl: Crawl
) -> None:
    site = await play()
    report = await crawl("streams", site.endpoint, pages=10, users=2)
    assert (report.ok, site.connections) == (10, 10)
    await until_closed(site)


async def test_pool_keeps_a_connection_for_each_user_and_closes_it_at_the_end(
    play: Play, crawl: Crawl
) -> None:
    site = await play()
    report = await crawl("streams", site.endpoint, pages=30, users=3, pool={"size": 10})
    assert (report.ok, report.received_bytes) == (30, 30 * 13)
    assert site.connections <= 3
    await until_closed(site)


async def test_connections_are_no_more_than_the_size_of_the_pool(play: Play, crawl: Crawl) -> None:
    sites = [await play(take_time) for _ in range(3)]
    endpoints = [site.endpoint for site in sites]
    report = await crawl("streams", *endpoints, pages=12, users=6, pool={"size": 1})
    assert report.ok == 12
    # all are visited, although the idle connection is to another site each time
    assert [len(site.paths) for site in sites] == [4, 4, 4]
    assert [site.most_open for site in sites] == [1, 1, 1]


async def test_idle_connections_to_a_site_are_no_more_than_asked(play: Play) -> None:
    site = await play(take_time)
    client = ClientSpec(engine="streams", pool=PoolSpec(size=10, idle_per_site=1))
    async with Pool(client) as pool:
        url = f"http://127.0.0.1:{site.endpoint[1]}/"
        answers = await asyncio.gather(*(pool.fetch(url) for _ in range(4)))
        assert [each.status for each in answers] == [200] * 4
        await until_closed(site, left=1)
        assert (site.connections, site.open) == (4, 1)
    await until_closed(site)


async def test_bound_on_all_idle_connections_closes_the_oldest_and_none_in_use(play: Play) -> None:
    came: list[str] = []
    all_came = asyncio.Event()

    async def wait_for_all(_nth: int, path: str) -> bytes:
        came.append(path)
        if len(came) == 6:
            all_came.set()
        await all_came.wait()
        return OK

    sites = [await play(wait_for_all) for _ in range(3)]
    urls = [f"http://127.0.0.1:{site.endpoint[1]}/" for site in sites]
    async with Pool(ClientSpec(engine="streams", pool=PoolSpec(size=10, idle=2))) as pool:
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*(pool.fetch(url) for url in (*urls, *urls)))
            for url in urls:
                await pool.fetch(url)
            # the latest two are left
            while [site.open for site in sites] != [0, 1, 1]:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        assert [site.most_open for site in sites] == [2, 2, 2]


async def test_connection_is_ended_after_its_number_of_requests(play: Play, crawl: Crawl) -> None:
    site = await play()
    pool = {"size": 1, "requests_per_connection": 4}
    report = await crawl("streams", site.endpoint, pages=12, pool=pool)
    assert (report.ok, site.connections) == (12, 3)


async def test_idle_connection_is_closed_when_it_expires(play: Play, crawl: Crawl) -> None:
    site = await play()
    pool = {"size": 10, "idle_expiry_s": 0.05}
    think = {"think_ms": 400}
    report = await crawl("streams", site.endpoint, pages=3, crawl=think, pool=pool)
    assert (report.ok, site.connections) == (3, 3)


async def test_announced_end_of_a_connection_is_honoured(play: Play, crawl: Crawl) -> None:
    async def end(_nth: int, _path: str) -> bytes:
        return answer("200 OK\r\nConnection: close")

    site = await play(end)
    report = await crawl("streams", site.endpoint, pages=5, pool={"size": 10})
    assert (report.ok, site.connections) == (5, 5)


async def test_connection_that_the_server_closed_while_idle_is_not_used(
    play: Play, crawl: Crawl
) -> None:
    async def leave(nth: int, _path: str) -> bytes | None:
        return OK if nth == 1 else None

    site = await play(leave)
    serve = site.serve

    async def close_when_idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asyncio.get_running_loop().call_later(0.1, writer.close)
        await serve(reader, writer)

    site.serve = close_when_idle
    think = {"think_ms": 1000}
    report = await crawl("streams", site.endpoint, pages=2, crawl=think, pool={"size": 10})
    assert (report.ok, report.errors) == (2, {})
    assert site.connections == 2


async def test_race_with_the_servers_close_is_booked_and_not_tried_again(
    play: Play, crawl: Crawl
) -> None:
    async def answer_once(nth: int, _path: str) -> bytes | None:
        return OK if nth == 1 else None

    site = await play(answer_once)
    report = await crawl("streams", site.endpoint, pages=4, pool={"size": 10})
    assert report.errors == {"read:EOF:keepalive_race": 2}
    assert (report.ok, len(site.paths)) == (2, 4)


async def go_away(_nth: int, _path: str) -> None:
    return None


async def say_half(_nth: int, _path: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n12"


async def say_nonsense(_nth: int, _path: str) -> bytes:
    return b"220 smtp.test ESMTP\r\n\r\n"


async def say_more(_nth: int, _path: str) -> bytes:
    return OK + b"HTTP/1.1 200 OK\r\n"


async def be_busy(_nth: int, _path: str) -> bytes:
    return answer("503 Busy")


async def think_for_ever(_nth: int, _path: str) -> bytes:
    await asyncio.Event().wait()
    return b""


async def send_in_a_ring(_nth: int, path: str) -> bytes:
    return answer(f"302 Found\r\nLocation: {path}x")


@pytest.mark.parametrize(
    ("does", "booked"),
    [
        (go_away, "read:EOF:closed_unanswered"),
        (say_nonsense, "read:PROTOCOL:malformed_answer"),
        (be_busy, "read:STATUS:http_error"),
        (think_for_ever, "read:TIMEOUT:request_timeout"),
        (send_in_a_ring, "read:REDIRECTS:redirect_loop"),
    ],
)
async def test_failure_of_a_fresh_connection_is_booked_by_what_happened(
    play: Play, crawl: Crawl, does: Callable[..., Awaitable[bytes]], booked: str
) -> None:
    site = await play(does)
    timeout_s = 0.3 if does is think_for_ever else 30
    report = await crawl(
        "streams", site.endpoint, pages=1, pool={"size": 1}, request_timeout_s=timeout_s
    )
    assert report.errors == {booked: 1}


async def test_end_in_the_middle_of_an_answer_is_no_whole_answer(play: Play, crawl: Crawl) -> None:
    async def say_half_and_leave(nth: int, _path: str) -> bytes | None:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12" if nth == 1 else None

    site = await play(say_half_and_leave)
    serve = site.serve

    async def close_soon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asyncio.get_running_loop().call_later(0.1, writer.close)
        await serve(reader, writer)

    site.serve = close_soon
    report = await crawl("streams", site.endpoint, pages=1)
    assert report.errors == {"read:SHORT:truncated_answer": 1}


async def test_reset_where_an_answer_is_due_is_booked(play: Play, crawl: Crawl) -> None:
    site = await play()

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()

    site.serve = reset
    report = await crawl("streams", site.endpoint, pages=1, pool={"size": 1})
    assert report.errors == {"read:ECONNRESET:reset_by_peer": 1}


async def test_bytes_that_nobody_asked_for_end_the_connection(play: Play, crawl: Crawl) -> None:
    site = await play(say_more)
    report = await crawl("streams", site.endpoint, pages=3, pool={"size": 1})
    assert (report.ok, site.connections) == (3, 3)


async def test_redirect_is_followed_and_belongs_to_its_page(play: Play, crawl: Crawl) -> None:
    async def send_on(_nth: int, path: str) -> bytes:
        to = answer("302 Found\r\nLocation: /x", b"moved")
        return answer("200 OK", b"there") if path == "/x" else to

    site = await play(send_on)
    report = await crawl("streams", site.endpoint, pages=3, pool={"size": 1})
    assert site.paths == ["/", "/x"] * 3
    assert (report.ok, report.received_bytes, site.connections) == (3, 15, 1)


async def test_redirect_to_another_site_is_followed_there(play: Play, crawl: Crawl) -> None:
    there = await play()

    async def send_away(_nth: int, _path: str) -> bytes:
        return answer(f"301 Moved\r\nLocation: http://127.0.0.1:{there.endpoint[1]}/far")

    here = await play(send_away)
    report = await crawl("streams", here.endpoint, pages=2)
    assert (report.ok, there.paths) == (2, ["/far", "/far"])


async def test_closed_port_refuses(crawl: Crawl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = listener.getsockname()
    report = await crawl("streams", endpoint, pages=1)
    assert report.errors == {"connect:ECONNREFUSED:refused": 1}


async def test_connect_that_does_not_come_about_is_given_up_in_time(
    full_backlog: Endpoint, crawl: Crawl
) -> None:
    report = await crawl("streams", full_backlog, pages=1, connect_timeout_s=0.3)
    assert report.errors == {"connect:TIMEOUT:connect_timeout": 1}


async def test_name_is_asked_for_once(
    play: Play, crawl: Crawl, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    resolve = Pool._resolve  # noqa: SLF001 - where names are asked for

    async def count(pool: Pool, host: str, port: int) -> str:
        asked.append(host)
        return await resolve(pool, host, port)

    monkeypatch.setattr(Pool, "_resolve", count)
    site = await play()
    report = await crawl("streams", site.endpoint, pages=5)
    assert (report.ok, asked) == (5, ["127.0.0.1"])
