"""A site that answers as a test says and counts, and crawls of it by the libraries' engines."""

import asyncio
import contextlib
import importlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from twbench.crawl.pages import Pages
from twbench.fleet.ledger import Ledger
from twbench.model.plans import Endpoint, FleetPlan
from twbench.model.reports import FleetReport
from twbench.model.scenario import Scenario
from twbench.model.states import TcpState
from twbench.process.sockets import tcp_state

WITHIN_S = 120
"""No crawl here takes more than seconds, unless the machine is busy."""
RESETS = struct.pack("ii", 1, 0)
"""Of SO_LINGER: close sends RST."""
BODY = b"<p>a page</p>"
Answer = Callable[[int, str], Awaitable[bytes | None]]
"""Makes the answer to the nth request of a connection, for a path.

None: the connection is closed instead; ConnectionError: it is reset.
"""


def page(status: str = "200 OK", *headers: str, body: bytes = BODY) -> bytes:
    """Return a whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def plain(_nth: int, _path: str) -> bytes | None:
    """Answer everything."""
    return page()


@dataclass(kw_only=True)
class Site:
    """What a server on the loopback heard."""

    answer: Answer
    endpoint: Endpoint = ("", 0)
    paths: list[str] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    most_open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Meet one connection."""
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._exchange(reader, writer)
        except ConnectionError:
            # of an answer's making, or the peer's, who is then past hearing
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
        finally:
            self.open -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nth = 0
        while head := (await _head(reader)):
            nth += 1
            path = head.split()[1].decode()
            self.paths.append(path)
            if (answer := await self.answer(nth, path)) is None:
                return
            writer.write(answer)
            await writer.drain()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


@pytest.fixture
async def play() -> AsyncIterator[Callable[..., Awaitable[Site]]]:
    """Return a function that starts a site."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None]] = set()

    async def start(answer: Answer = plain) -> Site:
        site = Site(answer=answer)

        def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(site.serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(meet, "127.0.0.1", 0)
        servers.append(server)
        site.endpoint = server.sockets[0].getsockname()
        return site

    yield start
    for server in servers:
        server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def crawl() -> Callable[..., Awaitable[FleetReport]]:
    """Return a function that visits pages of endpoints by an engine, as a worker would."""

    async def carry(
        engine: str, *endpoints: Endpoint, pages: int = 10, users: int = 1, **client: object
    ) -> FleetReport:
        scenario = {
            "name": "test",
            "load": {"concurrency": users, "duration_s": WITHIN_S, "requests": pages},
            "client": {"engine": engine, **client},
        }
        plan = FleetPlan(
            scenario=Scenario.model_validate(scenario),
            worker=0,
            workers=1,
            sources=("127.0.0.1",),
            destinations=endpoints,
        )
        handed = Pages(plan, Ledger())
        crawler = importlib.import_module(f"twbench.crawl.engines.{engine}").crawler
        handed.start(time.monotonic_ns())
        await asyncio.wait_for(crawler(plan.scenario.client)(handed), WITHIN_S)
        handed.cut_off()
        report = handed.report()
        assert report.attempted == report.ok + sum(report.errors.values())
        return report

    return carry


@pytest.fixture
async def full_backlog() -> AsyncIterator[Endpoint]:
    """Give an address whose accept queue is full: the kernel drops every further SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        state = None
        while state is not TcpState.SYN_SENT:
            held = stack.enter_context(socket.socket())
            held.setblocking(False)  # noqa: FBT003 - the socket module's own
            held.connect_ex(listener.getsockname())
            await asyncio.sleep(0.1)
            state = tcp_state(held)
        yield listener.getsockname()
