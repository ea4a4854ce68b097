"""The bundled server in the test's own loop, on each engine, and a plain client of its bytes."""

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from twbench.model.plans import Endpoint, ServerPlan
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.server.behaviour import Behaviour
from twbench.server.http import Listener
from twbench.server.ledger import Ledger
from twbench.server.uring import NEEDED, UringServer
from twbench.uring.probe import Abilities, probe

PATIENCE_S = 20


@functools.cache
def abilities() -> Abilities:
    return probe()


def need_ring() -> None:
    """Leave the test out, and say why, where the server cannot have a ring.

    A machine that refuses io_uring altogether is expected to, even where nothing may be skipped.
    """
    if reason := abilities().refusal:
        pytest.xfail(reason)
    if reason := abilities().why_not(NEEDED):
        pytest.skip(reason)


def behaviour_of(
    *, ending: str = "client-fin", hold_s: float = 5, by_url: bool = False, **server: object
) -> Behaviour:
    """Return a server's behaviour; `server` is as in the scenario's table."""
    plan = ServerPlan(
        server=ServerSpec.model_validate(server),
        ending=EndingSpec(kind=ending, hold_s=hold_s),
        family="ipv4",
        endpoints=(("127.0.0.1", 0),),
        by_url=by_url,
    )
    return Behaviour.of(plan)


class Hosts:
    """Servers of one engine in the running loop."""

    def __init__(self, engine: str) -> None:
        self.listeners: list[Listener] = []
        self.rings: list[UringServer] = []
        self._engine = engine
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._tasks = [asyncio.create_task(self._reap())]

    async def serve(
        self,
        *,
        request_timeout_s: float = 60,
        slots: int = 1024,
        send_buffer_bytes: int | None = None,
        **plan: object,
    ) -> tuple[Endpoint, Listener]:
        """Start a server as a plan would have it; `plan` is what `behaviour_of` takes."""
        behaviour = behaviour_of(**plan)  # type: ignore[arg-type]  # names of the tables
        behaviour = replace(behaviour, request_timeout_s=request_timeout_s)
        sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        sock.setblocking(False)  # noqa: FBT003 - the socket module's own
        if send_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        endpoint: Endpoint = sock.getsockname()
        self._sockets.append(sock)
        listener = Listener(behaviour, Ledger())
        if self._engine == "uring":
            ring = UringServer(family="ipv4", listeners=1, slots=slots)
            listener = ring.listen(sock, behaviour, listener.ledger)
            self.rings.append(ring)
            self._tasks.append(asyncio.create_task(ring.run()))
        else:
            self._servers.append(
                await asyncio.get_running_loop().create_server(listener, sock=sock, backlog=512)
            )
        self.listeners.append(listener)
        return endpoint, listener

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            for ring in self.rings:
                ring.look()
            for listener in self.listeners:
                listener.reap()

    async def end(self) -> None:
        """End everything; raise what went wrong meanwhile."""
        for made in self._servers:
            made.close()
        for listener in self.listeners:
            for connection in tuple(listener.live):
                connection.leave()
        async with asyncio.timeout(PATIENCE_S):
            while any(listener.live for listener in self.listeners):
                if any(task.done() for task in self._tasks):
                    break
                await asyncio.sleep(0.001)
        for ring in self.rings:
            ring.close()
        reaper, *runners = self._tasks
        reaper.cancel()
        await asyncio.gather(*runners)
        for sock in self._sockets:
            sock.close()


@pytest.fixture(params=["streams", "uring"])
def engine(request: pytest.FixtureRequest) -> str:
    """Give one engine after the other."""
    if request.param == "uring":
        need_ring()
    return str(request.param)


@pytest.fixture
def hosting(engine: str) -> Callable[[], Hosts]:
    """Return a function that begins with no server; for a test that runs a loop of its own."""
    return functools.partial(Hosts, engine)


@pytest.fixture
async def serving(
    hosting: Callable[[], Hosts],
) -> AsyncIterator[Callable[..., Awaitable[tuple[Endpoint, Listener]]]]:
    """Return a function that starts a server as a plan would have it, with its reaper."""
    hosts = hosting()
    yield hosts.serve
    await hosts.end()


@pytest.fixture
def ring_needed() -> None:
    """Leave the test out where the server cannot have a ring."""
    need_ring()


@pytest.fixture
async def dial() -> AsyncIterator[
    Callable[[Endpoint], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
]:
    """Return a function that opens a connection, which is closed after the test."""
    writers: list[asyncio.StreamWriter] = []

    async def connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*endpoint)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)
