"""aiohttp: what the connector's options do to the connections of a crawl."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from twbench.model.reports import FleetReport

Play = Callable[..., Awaitable[Any]]
Crawl = Callable[..., Awaitable[FleetReport]]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def take_time(_nth: int, _path: str) -> bytes:
    await asyncio.sleep(0.05)
    return ANSWER


@pytest.mark.parametrize(
    ("options", "most"), [({"limit": 2}, 2), ({"limit_per_host": 1}, 1)], ids=str
)
async def test_limits_bound_the_connections(
    play: Play, crawl: Crawl, options: dict[str, int], most: int
) -> None:
    sites = [await play(take_time), await play(take_time)]
    endpoints = [site.endpoint for site in sites]
    report = await crawl("aiohttp", *endpoints, pages=16, users=8, aiohttp=options)
    assert report.ok == 16
    assert all(site.paths and site.most_open <= most for site in sites)


@pytest.mark.parametrize(("keepalive_timeout_s", "connections"), [(0.05, 3), (60, 1)])
async def test_idle_connection_is_not_used_after_its_keep_alive_time_out(
    play: Play, crawl: Crawl, keepalive_timeout_s: float, connections: int
) -> None:
    site = await play()
    await crawl(
        "aiohttp",
        site.endpoint,
        pages=3,
        crawl={"think_ms": 400},
        aiohttp={"keepalive_timeout_s": keepalive_timeout_s},
    )
    assert site.connections == connections
