"""Servers for the fleet: the bundled one, and any made by hand; and a load offered to them."""

import asyncio
import itertools
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from twbench.fleet.ledger import Ledger
from twbench.fleet.sockets import SOCKET_OPTIONS
from twbench.fleet.streams import Streams
from twbench.fleet.uring import Uring, why_not
from twbench.model.endings import ENDINGS
from twbench.model.plans import Endpoint, FleetPlan, ServerPlan
from twbench.model.reports import FleetReport
from twbench.model.scenario import EndingSpec, Scenario, ServerSpec
from twbench.model.states import TcpState
from twbench.process.sockets import tcp_state
from twbench.server import ledger as server_ledger
from twbench.server.behaviour import Behaviour
from twbench.server.http import Listener
from twbench.uring.errors import RingClosedError
from twbench.uring.probe import probe

Handler = Callable[[socket.socket], Awaitable[None]]
Engine = Callable[[FleetPlan, Ledger], Streams | Uring]
WITHIN_S = 60
"""No load here takes more than a few seconds, unless the machine is busy."""
CUT_OFF = "connect:CANCELLED:run_ended"
NO_CONNECTION = ("connect:LIMIT:in_flight_limit", "connect:LATE:fleet_too_slow", CUT_OFF)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Endpoint]]:
    """Return a function that serves each connection by `handler`, which then is closed."""
    listeners: list[socket.socket] = []
    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.get_running_loop()

    async def meet(connection: socket.socket, handler: Handler) -> None:
        with connection:
            connection.setblocking(False)  # noqa: FBT003 - the socket module's own
            await handler(connection)

    async def accept(listener: socket.socket, handler: Handler) -> None:
        while True:
            connection, _ = await loop.sock_accept(listener)
            tasks.append(asyncio.create_task(meet(connection, handler)))

    def start(handler: Handler) -> Endpoint:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        listener.setblocking(False)  # noqa: FBT003 - the socket module's own
        listeners.append(listener)
        tasks.append(asyncio.create_task(accept(listener, handler)))
        endpoint: Endpoint = listener.getsockname()
        return endpoint

    yield start
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for listener in listeners:
        listener.close()
    assert [r for r in results if r and not isinstance(r, asyncio.CancelledError)] == []


@pytest.fixture
async def bundled() -> AsyncIterator[Callable[..., Awaitable[tuple[Endpoint, Listener]]]]:
    """Return a function that starts the bundled server in this loop, as a plan would have it."""
    servers: list[tuple[asyncio.Server, Listener]] = []

    async def start(
        *, ending: str = "client-fin", address: str = "127.0.0.1", **server: object
    ) -> tuple[Endpoint, Listener]:
        plan = ServerPlan(
            server=ServerSpec.model_validate(server),
            ending=EndingSpec(kind=ending),
            family="ipv6" if ":" in address else "ipv4",
            endpoints=((address, 0),),
        )
        listener = Listener(Behaviour.of(plan), server_ledger.Ledger())
        made = await asyncio.get_running_loop().create_server(listener, address, 0)
        servers.append((made, listener))
        return made.sockets[0].getsockname()[:2], listener

    yield start
    for made, listener in servers:
        made.close()
        for connection in tuple(listener.live):
            connection.leave()
        while listener.live:  # noqa: ASYNC110 - nothing tells when the last is gone
            await asyncio.sleep(0.001)


@pytest.fixture(scope="session")
def plan() -> Callable[..., FleetPlan]:
    """Return a function that makes a worker's plan out of the tables of a scenario."""

    def make(
        *destinations: Endpoint,
        ending: str = "client-fin",
        hold_s: float = 2,
        load: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
        sources: tuple[str, ...] = ("127.0.0.1",),
        worker: int = 0,
        workers: int = 1,
    ) -> FleetPlan:
        scenario = {
            "name": "test",
            "ending": {"kind": ending, "hold_s": hold_s},
            "server": {"keepalive_timeout_s": 0.1},
            "lab": {
                "family": "ipv6" if ":" in destinations[0][0] else "ipv4",
                "link": "wire" if ENDINGS[ending].needs_wire else "veth",
            },
            "load": {"concurrency": 1, "duration_s": 5, "requests": 1} if load is None else load,
            "client": client or {},
        }
        return FleetPlan(
            scenario=Scenario.model_validate(scenario),
            worker=worker,
            workers=workers,
            sources=sources,
            destinations=destinations,
        )

    return make


@pytest.fixture
async def full_backlog() -> AsyncIterator[Endpoint]:
    """Give an address whose accept queue is full: the kernel drops every further SYN."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        try:
            while not held or tcp_state(held[-1]) is not TcpState.SYN_SENT:
                held.append(socket.socket())
                held[-1].setblocking(False)  # noqa: FBT003 - the socket module's own
                held[-1].connect_ex(listener.getsockname())
                await asyncio.sleep(0.1)
            yield listener.getsockname()
        finally:
            for each in held:
                each.close()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is under way at a load's end finish for a tenth of a second only."""
    monkeypatch.setattr("twbench.fleet.part.GRACE_NS", 100_000_000)


def on_ring(plan: FleetPlan, ledger: Ledger) -> Uring:
    """Make the engine `uring`, or leave the test out where this machine cannot."""
    if reason := probe().refusal:
        pytest.xfail(reason)
    if reason := why_not(plan):
        pytest.skip(reason)
    return Uring(plan, ledger)


@pytest.fixture(name="on_ring")
def ring_engine() -> Callable[[FleetPlan], Uring]:
    """Return a function that makes the engine `uring` for a plan."""
    return lambda plan: on_ring(plan, Ledger())


ENGINES: Mapping[str, Engine] = {"streams": Streams, "uring": on_ring}


async def carry(
    engine: Engine, plan: FleetPlan, stop_after_s: float | None = None
) -> tuple[Streams | Uring, FleetReport]:
    """Carry out a plan in this loop and check that the books agree."""
    ledger = Ledger()
    carried = engine(plan, ledger)
    if stop_after_s is not None:
        asyncio.get_running_loop().call_later(stop_after_s, carried.stop)
    await asyncio.wait_for(carried.run(time.monotonic_ns()), WITHIN_S)
    report = ledger.take(time.monotonic_ns())
    check_books(report)
    return carried, report


@pytest.fixture(params=ENGINES)
def offer(request: pytest.FixtureRequest) -> Callable[..., Awaitable[FleetReport]]:
    """Return a function that offers a load, by each engine in turn: one suite specifies both."""

    async def run(plan: FleetPlan, *, stop_after_s: float | None = None) -> FleetReport:
        return (await carry(ENGINES[request.param], plan, stop_after_s))[1]

    return run


@pytest.fixture
def offer_by_each() -> Callable[[FleetPlan], Awaitable[list[FleetReport]]]:
    """Return a function that offers the same load by one engine and then by the other."""

    async def run(plan: FleetPlan) -> list[FleetReport]:
        return [(await carry(engine, plan))[1] for engine in ENGINES.values()]

    return run


def open_descriptors() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def offer_by_ring() -> Callable[..., Awaitable[FleetReport]]:
    """Return a function that offers a load by `uring` and checks that nothing is left of it."""

    async def run(plan: FleetPlan, *, stop_after_s: float | None = None) -> FleetReport:
        before = open_descriptors()
        engine, report = await carry(on_ring, plan, stop_after_s)
        assert isinstance(engine, Uring)
        assert all(slot.over for slot in engine.slots)
        with pytest.raises(RingClosedError):
            engine.ring.fileno()
        # the servers of a test live in this process too, and have yet to hear of the end
        async with asyncio.timeout(WITHIN_S):
            while open_descriptors() > before:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        return report

    return run


@pytest.fixture
def free_window() -> Callable[[int], tuple[int, int]]:
    """Return a function that finds so many neighbouring free ports for IP_LOCAL_PORT_RANGE.

    They lie in the range of the whole host: inet_sk_get_local_port_range ignores a window outside.
    """
    option = SOCKET_OPTIONS["IP_LOCAL_PORT_RANGE"]
    with socket.socket() as sock:
        try:
            sock.getsockopt(option.level, option.number)
        except OSError:
            pytest.skip("IP_LOCAL_PORT_RANGE needs Linux 6.3")
    _, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())

    def find(number: int) -> tuple[int, int]:
        for high in itertools.count(highest, -number):
            held = [socket.socket(socket.AF_INET6) for _ in range(number)]
            try:
                for n, each in enumerate(held):
                    each.bind(("::", high - n))
            except OSError:
                continue
            else:
                return high - number + 1, high
            finally:
                for each in held:
                    each.close()
        raise AssertionError

    return find


def check_books(report: FleetReport) -> None:
    """Every attempt has one outcome, every connection one departure, every answer a latency."""
    errors = Counter(report.errors)
    assert report.attempted == report.ok + errors.total()
    assert report.established == report.departures.total()
    unmade = sum(n for key, n in errors.items() if key.startswith(("connect:", "bind:")))
    begun = unmade - sum(errors[key] for key in NO_CONNECTION)
    assert 0 <= report.connects - report.established - begun <= errors[CUT_OFF]
    assert report.not_sent <= begun
    answered = report.ok + errors["read:STATUS:http_error"]
    assert count(report, "request") == answered
    assert count(report, "connect") == report.established
    assert count(report, "request_from_intended") in {0, answered}


def count(report: FleetReport, latency: str) -> int:
    """Return how many values a histogram of a report holds."""
    if latency not in report.histograms:
        return 0
    number: int = HdrHistogram.decode(report.histograms[latency]).get_total_count()
    return number
