"""The yardstick of crawlers: the same library in a bare loop, with nothing around it but a status.

Speaks a fleet worker's protocol (twbench/fleet/worker.py) on standard input and output, and uses
nothing of twbench; but for `streams`, which is twbench's own: that gets pages without accounting.
"""

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any, Self, cast

import aiohttp
import httpx
import requests
import urllib3
import uvloop

Client = dict[str, Any]
"""`[client]` of the scenario, with all its tables."""
Fetch = Callable[[str], Awaitable[int]]
"""Gets a page and returns its status."""
FetchInThread = Callable[[str], int]


@contextlib.asynccontextmanager
async def by_aiohttp(client: Client) -> AsyncIterator[Fetch]:
    """Give one session."""
    spec = client["aiohttp"]
    connector = aiohttp.TCPConnector(
        limit=spec["limit"],
        limit_per_host=spec["limit_per_host"],
        force_close=spec["force_close"],
        keepalive_timeout=None if spec["force_close"] else spec["keepalive_timeout_s"],
    )
    timeout = aiohttp.ClientTimeout(
        total=client["request_timeout_s"], sock_connect=client["connect_timeout_s"]
    )
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def fetch(url: str) -> int:
            async with session.get(url) as answer:
                await answer.read()
                return answer.status

        yield fetch


@contextlib.asynccontextmanager
async def by_httpx(client: Client) -> AsyncIterator[Fetch]:
    """Give one client."""
    spec = client["httpx"]
    limits = httpx.Limits(
        max_connections=spec["max_connections"] or None,
        max_keepalive_connections=spec["max_keepalive_connections"],
        keepalive_expiry=spec["keepalive_expiry_s"],
    )
    timeout = httpx.Timeout(client["request_timeout_s"], connect=client["connect_timeout_s"])
    async with httpx.AsyncClient(limits=limits, timeout=timeout, follow_redirects=True) as session:

        async def fetch(url: str) -> int:
            return (await session.get(url)).status_code

        yield fetch


def by_requests(client: Client) -> Callable[[], FetchInThread]:
    """Return what makes a session for each thread."""
    spec = client["requests"]
    timeout_s = (client["connect_timeout_s"], client["request_timeout_s"])

    def make() -> FetchInThread:
        session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(
            pool_connections=spec["pool_connections"], pool_maxsize=spec["pool_maxsize"]
        )
        session.mount("http://", adapter)
        return lambda url: session.get(url, timeout=timeout_s).status_code

    return make


def by_urllib3(client: Client) -> Callable[[], FetchInThread]:
    """Return what gives every thread the same pools."""
    spec = client["urllib3"]
    manager = urllib3.PoolManager(
        num_pools=spec["num_pools"],
        maxsize=spec["maxsize"],
        block=spec["block"],
        timeout=urllib3.Timeout(
            connect=client["connect_timeout_s"], read=client["request_timeout_s"]
        ),
    )
    return lambda: lambda url: manager.request("GET", url).status


class Bare:
    """Stands in for twbench's Pages and a visit at once, and keeps no books."""

    def __init__(self, urls: Iterator[str], end_ns: int, users: int) -> None:
        self._urls = urls
        self._end_ns = end_ns
        self.concurrency = users
        self.url = ""
        self.good: list[bool] = []

    async def __aiter__(self) -> AsyncIterator[Self]:
        """Hand out pages until the end."""
        while time.monotonic_ns() < self._end_ns:
            # it is read before another user takes the next
            self.url = next(self._urls)
            yield self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def got(self, status: int, _body_bytes: int) -> None:
        """Look at the status."""
        self.good.append(status == HTTPStatus.OK)

    async def share(self, user: Callable[[], Awaitable[None]]) -> None:
        """Run all users."""
        await asyncio.gather(*(user() for _ in range(self.concurrency)))


async def in_tasks(fetch: Fetch, urls: Iterator[str], end_ns: int, users: int) -> list[bool]:
    """Make one request after another until `end_ns`, by so many users."""

    async def user() -> list[bool]:
        good = []
        while time.monotonic_ns() < end_ns:
            good.append(await fetch(next(urls)) == HTTPStatus.OK)
        return good

    return list(itertools.chain(*await asyncio.gather(*(user() for _ in range(users)))))


def in_threads(
    make: Callable[[], FetchInThread], urls: Iterator[str], end_ns: int, users: int
) -> list[bool]:
    """Do the same by threads."""
    good: list[bool] = []
    turn = threading.Lock()

    def user() -> None:
        fetch = make()
        while time.monotonic_ns() < end_ns:
            with turn:
                url = next(urls)
            good.append(fetch(url) == HTTPStatus.OK)

    threads = [threading.Thread(target=user) for _ in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return good


async def own_streams(client: Client, urls: Iterator[str], end_ns: int, users: int) -> list[bool]:
    """Let twbench's own pools fetch bare pages."""
    from twbench.crawl.engines.streams import crawler  # noqa: PLC0415 - for this one alone
    from twbench.crawl.pages import Pages  # noqa: PLC0415
    from twbench.model.scenario import ClientSpec  # noqa: PLC0415

    pages = Bare(urls, end_ns, users)
    await crawler(ClientSpec.model_validate(client))(cast("Pages", pages))
    return pages.good


def begin(engine: str) -> int:
    """Say that all is ready, wait for the start, and return when it was to be."""
    # as twbench's workers do it
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": {"engine": engine}}), flush=True)
    start_ns = int(sys.stdin.readline().split()[1])
    time.sleep(max(0, start_ns - time.monotonic_ns()) / 1e9)
    return start_ns


async def main() -> None:
    """Carry a fleet plan's closed load."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    plan = json.loads(sys.stdin.readline())
    client, load = plan["scenario"]["client"], plan["scenario"]["load"]
    urls = itertools.cycle([f"http://{a}:{p}/" for a, p in plan["destinations"]])
    engine, users = client["engine"], load["concurrency"]
    # sessions are made within the load, as a crawler makes them
    end_ns = begin(engine) + round(load["duration_s"] * 1e9)
    if engine in IN_TASKS:
        async with IN_TASKS[engine](client) as fetch:
            good = await in_tasks(fetch, urls, end_ns, users)
    elif engine in IN_THREADS:
        good = in_threads(IN_THREADS[engine](client), urls, end_ns, users)
    else:
        good = await own_streams(client, urls, end_ns, users)
    print(json.dumps({"t_ns": time.monotonic_ns(), "attempted": len(good), "ok": sum(good)}))
    print(json.dumps({"done": True}), flush=True)


IN_TASKS = {"aiohttp": by_aiohttp, "httpx": by_httpx}
IN_THREADS = {"requests": by_requests, "urllib3": by_urllib3}

if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
