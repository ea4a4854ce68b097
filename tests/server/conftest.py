"""The bundled server in the test's own loop, and a plain client of its bytes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from twbench.model.plans import Endpoint, ServerPlan
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.server.behaviour import Behaviour
from twbench.server.http import Listener
from twbench.server.ledger import Ledger


@pytest.fixture
async def serving() -> AsyncIterator[Callable[..., Awaitable[tuple[Endpoint, Listener]]]]:
    """Return a function that starts a server as a plan would have it, with its reaper."""
    servers: list[asyncio.Server] = []
    listeners: list[Listener] = []

    async def start(
        *, ending: str = "client-fin", hold_s: float = 5, by_url: bool = False, **server: object
    ) -> tuple[Endpoint, Listener]:
        plan = ServerPlan(
            server=ServerSpec.model_validate(server),
            ending=EndingSpec(kind=ending, hold_s=hold_s),
            family="ipv4",
            endpoints=(("127.0.0.1", 0),),
            by_url=by_url,
        )
        listener = Listener(Behaviour.of(plan), Ledger())
        made = await asyncio.get_running_loop().create_server(listener, "127.0.0.1", 0)
        servers.append(made)
        listeners.append(listener)
        address, port = made.sockets[0].getsockname()
        return (address, port), listener

    async def reap() -> None:
        while True:
            await asyncio.sleep(0.02)
            for listener in listeners:
                listener.reap()

    reaper = asyncio.create_task(reap())
    yield start
    reaper.cancel()
    for made in servers:
        made.close()
    for listener in listeners:
        for connection in tuple(listener.live):
            connection.close()
        while listener.live:  # noqa: ASYNC110 - nothing tells when the last is gone
            await asyncio.sleep(0.001)


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
