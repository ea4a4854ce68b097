"""httpx: what its Limits do to the connections of a crawl."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from twbench.model.reports import FleetReport

Play = Callable[..., Awaitable[Any]]
Crawl = Callable[..., Awaitable[FleetReport]]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_max_connections_bounds_them_and_the_others_wait(play: Play, crawl: Crawl) -> None:
    async def take_time(_nth: int, _path: str) -> bytes:
        await asyncio.sleep(0.05)
        return ANSWER

    site = await play(take_time)
    report = await crawl("httpx", site.endpoint, pages=12, users=6, httpx={"max_connections": 2})
    assert (report.ok, site.most_open) == (12, 2)


@pytest.mark.parametrize(("keepalive_expiry_s", "connections"), [(0.05, 3), (60, 1)])
async def test_idle_connection_is_not_used_after_its_expiry(
    play: Play, crawl: Crawl, keepalive_expiry_s: float, connections: int
) -> None:
    site = await play()
    await crawl(
        "httpx",
        site.endpoint,
        pages=3,
        crawl={"think_ms": 400},
        httpx={"keepalive_expiry_s": keepalive_expiry_s},
    )
    assert site.connections == connections
