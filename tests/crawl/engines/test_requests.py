"""requests: what the adapter's options do to the connections of a crawl."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from twbench.model.reports import FleetReport

Play = Callable[..., Awaitable[Any]]
Crawl = Callable[..., Awaitable[FleetReport]]


@pytest.mark.parametrize(("pool_connections", "connections"), [(1, 4), (2, 1)])
async def test_pools_are_kept_for_so_many_sites(
    play: Play, crawl: Crawl, pool_connections: int, connections: int
) -> None:
    sites = [await play(), await play()]
    endpoints = [site.endpoint for site in sites]
    options = {"pool_connections": pool_connections}
    report = await crawl("requests", *endpoints, pages=8, requests=options)
    assert report.ok == 8
    assert [site.connections for site in sites] == [connections] * 2


async def test_each_thread_has_a_session_of_its_own(play: Play, crawl: Crawl) -> None:
    site = await play()
    await crawl("requests", site.endpoint, pages=40, users=4)
    assert 1 <= site.connections <= 4
