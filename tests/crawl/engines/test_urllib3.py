"""urllib3: what the PoolManager's options do to the connections of a crawl."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from twbench.model.reports import FleetReport

Play = Callable[..., Awaitable[Any]]
Crawl = Callable[..., Awaitable[FleetReport]]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def take_time(_nth: int, _path: str) -> bytes:
    await asyncio.sleep(0.02)
    return ANSWER


@pytest.mark.parametrize("maxsize", [1, 3])
async def test_pool_that_blocks_has_no_more_connections_than_its_size(
    play: Play, crawl: Crawl, maxsize: int
) -> None:
    site = await play(take_time)
    options = {"maxsize": maxsize, "block": True}
    report = await crawl("urllib3", site.endpoint, pages=12, users=6, urllib3=options)
    assert report.ok == 12
    assert 1 <= site.connections <= maxsize


@pytest.mark.parametrize(("num_pools", "connections"), [(1, 4), (2, 1)])
async def test_pools_are_kept_for_so_many_sites(
    play: Play, crawl: Crawl, num_pools: int, connections: int
) -> None:
    sites = [await play(), await play()]
    endpoints = [site.endpoint for site in sites]
    report = await crawl("urllib3", *endpoints, pages=8, urllib3={"num_pools": num_pools})
    assert report.ok == 8
    assert [site.connections for site in sites] == [connections] * 2


async def test_pool_that_overflows_is_counted_and_not_written_about(
    play: Play, crawl: Crawl, caplog: pytest.LogCaptureFixture
) -> None:
    site = await play(take_time)
    await crawl("urllib3", site.endpoint, pages=30, users=6)
    assert caplog.records == []
