"""Pools of our own on asyncio's Protocols, as `client.pool` has them; nothing is tried twice.

Without `client.pool` each page has a connection to itself. Redirects are followed, ten at most.
"""

import asyncio
import socket
import time
from collections import defaultdict
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

from twbench.crawl.engines.connection import Answer, Connection
from twbench.crawl.outcomes import PageError
from twbench.crawl.pages import Crawl, Pages
from twbench.fleet.part import NEVER_NS, SECOND_NS, sweep_every_ns
from twbench.model.outcomes import Phase, errno_name
from twbench.model.scenario import ClientSpec, PoolSpec

_MOST_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FOR_ONE_PAGE = PoolSpec(size=100_000, requests_per_connection=1)


def version() -> str:
    """Return the engine's name; it is as old as twbench."""
    return "streams"


def crawler(client: ClientSpec) -> Crawl:
    """Return a crawler that has one pool for all its users."""

    async def crawl(pages: Pages) -> None:
        async with Pool(client) as pool:

            async def user() -> None:
                async for visit in pages:
                    with visit:
                        answer = await pool.fetch(visit.url)
                        visit.got(answer.status, answer.body_bytes)

            await pages.share(user)

    return crawl


class Pool:
    """Connections by site; within a site the latest is used first."""

    def __init__(self, client: ClientSpec) -> None:
        """Open nothing yet."""
        pool = client.pool or _FOR_ONE_PAGE
        self.loop = asyncio.get_running_loop()
        self.request_timeout_s = client.request_timeout_s
        self._connect_timeout_s = client.connect_timeout_s
        self._size = pool.size
        self._limit = pool.requests_per_connection
        self._idle_per_site = pool.idle_per_site or pool.size
        self._idle_most = pool.idle or pool.size
        self._expiry_ns = round(pool.idle_expiry_s * SECOND_NS) if pool.idle_expiry_s else NEVER_NS
        self._room = asyncio.Semaphore(self._size)
        self._open = 0
        self._idle: dict[Connection, None] = {}
        """In the order in which they have become so."""
        self._idle_of: dict[str, list[Connection]] = defaultdict(list)
        self._addresses: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        """Begin to look for what has expired."""
        self._sweeper = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what is idle."""
        self._sweeper.cancel()
        for connection in tuple(self._idle):
            self.leave(connection)

    async def fetch(self, url: str) -> Answer:
        """Return the answer to a page, behind its redirects."""
        for _ in range(1 + _MOST_REDIRECTS):
            site, _, path = url.partition("//")[2].partition("/")
            async with self._room:
                answer = await self._fetch(site, path)
            if answer.status not in _REDIRECTS or not answer.location:
                return answer
            url = urljoin(url, answer.location.decode("latin-1"))
        raise PageError(Phase.READ, "REDIRECTS")

    async def _fetch(self, site: str, path: str) -> Answer:
        connection = self._latest(site) or await self._connect(site)
        last = connection.exchanges + 1 == self._limit
        ending = "Connection: close\r\n" if last else ""
        head = f"GET /{path} HTTP/1.1\r\nHost: {site}\r\nUser-Agent: twbench\r\n{ending}\r\n"
        stays = False
        try:
            answer = await connection.exchange(head.encode())
            room = len(self._idle_of[site]) < self._idle_per_site
            stays = answer.lasts and not last and room and not connection.left
        finally:
            if stays:
                connection.idle_ns = time.monotonic_ns()
                self._idle[connection] = None
                self._idle_of[site].append(connection)
                if len(self._idle) > self._idle_most:
                    self.leave(next(iter(self._idle)))
            else:
                self.leave(connection)
        return answer

    def _latest(self, site: str) -> Connection | None:
        idle = self._idle_of[site]
        if not idle:
            return None
        connection = idle.pop()
        del self._idle[connection]
        return connection

    async def _connect(self, site: str) -> Connection:
        if self._open >= self._size and self._idle:
            self.leave(next(iter(self._idle)))
        split = urlsplit(f"//{site}")
        host, port = split.hostname or "", split.port or 80
        connection = Connection(self, site)
        self._open += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                address = self._addresses.get(host) or await self._resolve(host, port)
                await self.loop.create_connection(lambda: connection, address, port)
        except BaseException as error:
            # a transport that has been made is closed by create_connection
            self._open -= not connection.left
            connection.left = True
            if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
                name = errno_name(error.errno) if error.errno else "TIMEOUT"
                raise PageError(Phase.CONNECT, name) from None
            raise
        return connection

    async def _resolve(self, host: str, port: int) -> str:
        """Return a name's address, asked for once: no crawler asks for each page."""
        found = await self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        address = self._addresses[host] = str(found[0][4][0])
        return address

    def leave(self, connection: Connection) -> None:
        """Close a connection, unless that has been done."""
        if connection.left:
            return
        connection.left = True
        self._open -= 1
        if connection in self._idle:
            del self._idle[connection]
            self._idle_of[connection.site].remove(connection)
        connection.transport.close()

    async def _sweep(self) -> None:
        """Close what has been idle for too long."""
        every_s = sweep_every_ns(self._expiry_ns) / SECOND_NS
        while self._expiry_ns < NEVER_NS:
            await asyncio.sleep(every_s)
            expired_ns = time.monotonic_ns() - self._expiry_ns
            while self._idle and (oldest := next(iter(self._idle))).idle_ns <= expired_ns:
                self.leave(oldest)
