"""What all libraries' engines do alike: visit, count, follow, give up in time, and keep or not."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

import pytest

from twbench.model.crawling import LIBRARIES
from twbench.model.plans import Endpoint
from twbench.model.reports import FleetReport

Play = Callable[..., Awaitable[Any]]
Crawl = Callable[..., Awaitable[FleetReport]]
BODY_BYTES = 13
PER_PAGE = [
    ("aiohttp", {"aiohttp": {"session": "per-request"}}),
    ("aiohttp", {"aiohttp": {"force_close": True}}),
    ("httpx", {"httpx": {"session": "per-request"}}),
    ("httpx", {"httpx": {"max_keepalive_connections": 0}}),
    ("requests", {"requests": {"session": "per-request"}}),
    ("urllib3", {"urllib3": {"session": "per-request"}}),
]
"""What makes a connection for each page."""


def answer(head: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("engine", LIBRARIES)
def test_version_names_the_library(engine: str) -> None:
    told = import_module(f"twbench.crawl.engines.{engine}").version()
    assert re.fullmatch(rf"{engine} \d+\.\d+[.\w]*", told)


@pytest.mark.parametrize("engine", LIBRARIES)
async def test_users_share_the_pages_and_keep_a_connection_each(
    play: Play, crawl: Crawl, engine: str
) -> None:
    site = await play()
    report = await crawl(engine, site.endpoint, pages=30, users=3)
    assert (report.ok, report.attempted, len(site.paths)) == (30, 30, 30)
    assert report.received_bytes == 30 * BODY_BYTES
    assert "request" in report.histograms
    if engine != "urllib3":  # whose pools keep one for all threads
        assert site.connections <= 3


@pytest.mark.parametrize(("engine", "options"), PER_PAGE, ids=str)
async def test_connection_for_each_page_is_one_for_each(
    play: Play, crawl: Crawl, engine: str, options: dict[str, Any]
) -> None:
    site = await play()
    report = await crawl(engine, site.endpoint, pages=10, users=2, **options)
    assert (report.ok, site.connections) == (10, 10)


@pytest.mark.parametrize(("engine", "options"), [*((e, {}) for e in LIBRARIES), *PER_PAGE], ids=str)
async def test_redirect_is_followed_and_belongs_to_its_page(
    play: Play, crawl: Crawl, engine: str, options: dict[str, Any]
) -> None:
    async def send_on(_nth: int, path: str) -> bytes:
        return answer("200 OK", b"there") if path == "/x" else answer("302 Found\r\nLocation: /x")

    site = await play(send_on)
    report = await crawl(engine, site.endpoint, pages=3, **options)
    assert site.paths == ["/", "/x"] * 3
    assert (report.attempted, report.ok, report.received_bytes) == (3, 3, 15)


@pytest.mark.parametrize("engine", LIBRARIES)
async def test_status_of_400_or_above_is_a_failure_and_ends_no_user(
    play: Play, crawl: Crawl, engine: str
) -> None:
    async def be_busy(_nth: int, _path: str) -> bytes:
        return answer("503 Busy", b"later")

    site = await play(be_busy)
    report = await crawl(engine, site.endpoint, pages=3)
    assert report.errors == {"read:STATUS:http_error": 3}
    assert len(site.paths) == 3


@pytest.mark.parametrize("engine", LIBRARIES)
async def test_answer_that_does_not_come_is_given_up_in_time(
    play: Play, crawl: Crawl, engine: str
) -> None:
    async def think_for_ever(_nth: int, _path: str) -> bytes | None:
        await asyncio.Event().wait()
        return None

    site = await play(think_for_ever)
    # urllib3 tries three times more, of its own
    report = await crawl(engine, site.endpoint, pages=1, request_timeout_s=1)
    assert report.errors == {"read:TIMEOUT:request_timeout": 1}
    assert len(site.paths) == (4 if engine == "urllib3" else 1)


@pytest.mark.parametrize("engine", LIBRARIES)
async def test_connect_that_does_not_come_about_is_given_up_in_time(
    full_backlog: Endpoint, crawl: Crawl, engine: str
) -> None:
    report = await crawl(engine, full_backlog, pages=1, connect_timeout_s=0.3)
    assert report.errors == {"connect:TIMEOUT:connect_timeout": 1}


SENDS_AGAIN = {"aiohttp": True, "httpx": False, "requests": False, "urllib3": True}


@pytest.mark.parametrize("engine", LIBRARIES)
async def test_kept_connection_that_dies_is_tried_again_in_silence_or_is_a_race_lost(
    play: Play, crawl: Crawl, engine: str
) -> None:
    async def answer_once(nth: int, _path: str) -> bytes | None:
        return answer("200 OK", b"once") if nth == 1 else None

    site = await play(answer_once)
    report = await crawl(engine, site.endpoint, pages=4)
    if SENDS_AGAIN[engine]:
        assert (report.attempted, report.ok) == (4, 4)
        assert len(site.paths) == 7
    else:
        assert report.ok == 2
        assert report.errors == {"read:EOF:keepalive_race": 2}
        assert len(site.paths) == 4


@pytest.mark.parametrize(("engine", "options"), PER_PAGE, ids=str)
async def test_without_kept_connections_an_answer_that_lacks_is_no_race(
    play: Play, crawl: Crawl, engine: str, options: dict[str, Any]
) -> None:
    async def go_away(_nth: int, _path: str) -> None:
        return None

    site = await play(go_away)
    report = await crawl(engine, site.endpoint, pages=1, **options)
    assert list(report.errors) == ["read:EOF:closed_unanswered"]


RACES = {
    "close": "read:EOF:closed_unanswered",
    "reset": "read:ECONNRESET:reset_by_peer",
}


@pytest.mark.parametrize("engine", LIBRARIES)
@pytest.mark.parametrize("how", RACES)
async def test_first_request_of_a_connection_loses_no_race(
    play: Play, crawl: Crawl, engine: str, how: str
) -> None:
    async def go_away(_nth: int, _path: str) -> None:
        if how == "reset":
            raise ConnectionResetError

    site = await play(go_away)
    report = await crawl(engine, site.endpoint, pages=2)
    assert report.errors == {RACES[how]: 2}
