"""The crawling worker's process: as a fleet's worker, and with a crawler of the user's."""

import asyncio
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from twbench.crawl.worker import _own_part
from twbench.model.crawling import LIBRARIES
from twbench.model.plans import Endpoint, FleetPlan, ServerPlan
from twbench.model.reports import FleetReport
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.server.behaviour import Behaviour
from twbench.server.http import Listener
from twbench.server.ledger import Ledger as ServerLedger

WITHIN_S = 60
"""Nothing here takes more than a few seconds, unless the machine is busy."""
ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = ("-m", "twbench.crawl.worker")
WITHOUT_UVLOOP = (
    "-c",
    "import sys; sys.modules['uvloop'] = None\nfrom twbench.crawl.worker import main\nmain()",
)
OWN = """
import asyncio, os, subprocess, time
from twbench.crawl import Pages

async def crawl(pages: Pages) -> None:
    print("this is no message")
    assert not [name for name in os.environ if name.lower().endswith("_proxy")]

    async def user() -> None:
        async for visit in pages:
            with visit:
                host, port = visit.url.split("/")[2].split(":")
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
                answer = await reader.read()
                writer.close()
                visit.got(int(answer[9:12]), len(answer.partition(b"\\r\\n\\r\\n")[2]))

    await pages.share(user)

async def beside(pages: Pages) -> None:
    subprocess.run(["sh", "-c", "cat; echo hello; ls -l /proc/self/fd"], check=True)
    os.write(1, b"nor is this")
    await crawl(pages)

async def leave(pages: Pages) -> None:
    pass

async def hang(pages: Pages) -> None:
    await asyncio.to_thread(time.sleep, 600)

async def stumble(pages: Pages) -> None:
    async for visit in pages:
        with visit:
            visit.got(200, 1)
        raise LookupError("a page without a title")
"""

PROXIES = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
"""Nobody is there, and nobody is to ask there."""

Plan = Callable[..., FleetPlan]
Serve = Callable[..., Awaitable[tuple[Endpoint, Listener]]]
Start = Callable[..., Awaitable["Worker"]]


class Worker:
    """A worker's process and what it has said."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.total = FleetReport()
        self.reports = 0
        self.done = False

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), WITHIN_S)
        message: dict[str, Any] = json.loads(line) if line else {}
        return message

    async def begin(self, plan: FleetPlan) -> dict[str, Any]:
        """Hand over the plan, start the load at once, and return what the worker is ready with."""
        self.say(plan.as_line())
        ready: dict[str, Any] = (await self.hear())["ready"]
        self.say(b"start %d\n" % time.monotonic_ns())
        return ready

    async def finish(self) -> int:
        """Take every report until the process ends; return its exit status."""
        while message := await self.hear():
            assert not self.done, "nothing follows the end"
            self.done = "done" in message
            if not self.done:
                self.reports += 1
                self.total.add(FleetReport.from_json(message))
        total = self.total
        assert total.attempted == total.ok + total.errors.total()
        return await asyncio.wait_for(self.process.wait(), WITHIN_S)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Return a function that starts a worker, in a folder with the user's `own.py`."""
    (tmp_path / "own.py").write_text(OWN)
    workers: list[Worker] = []

    async def make(*arguments: str) -> Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(arguments or MODULE),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), **PROXIES},
        )
        workers.append(Worker(process))
        return workers[-1]

    yield make
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        if worker.process.returncode is None:
            worker.process.kill()
        await worker.process.communicate()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a function that starts the bundled server in this loop."""
    servers: list[tuple[asyncio.Server, Listener]] = []

    async def begin(**server: object) -> tuple[Endpoint, Listener]:
        plan = ServerPlan(
            server=ServerSpec.model_validate(server),
            ending=EndingSpec(kind="server-fin"),
            family="ipv4",
            endpoints=(("127.0.0.1", 0),),
        )
        listener = Listener(Behaviour.of(plan), ServerLedger())
        made = await asyncio.get_running_loop().create_server(listener, "127.0.0.1", 0)
        servers.append((made, listener))
        return made.sockets[0].getsockname()[:2], listener

    yield begin
    for made, listener in servers:
        made.close()
        for connection in tuple(listener.live):
            connection.leave()
        while listener.live:  # noqa: ASYNC110 - nothing tells when the last is gone
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("engine", ["streams", *LIBRARIES, "./own.py:crawl"])
async def test_worker_carries_out_its_plan_with_every_engine(
    engine: str, start: Start, serve: Serve, plan: Plan
) -> None:
    endpoint, listener = await serve(delay_ms=20)
    worker = await start()
    load = {"concurrency": 4, "requests": 60}
    ready = await worker.begin(plan(endpoint, load=load, client={"engine": engine}))
    assert ready.pop("why") == f"client.engine is {engine!r}"
    assert ready["loop"] == "uvloop"
    assert ready["engine"].startswith(engine)
    assert await worker.finish() == 0
    assert worker.done
    assert worker.reports >= 2, "a report each 0.1 s, of a load of 0.3 s, and the last"
    assert (worker.total.attempted, worker.total.ok) == (60, 60)
    assert worker.total.received_bytes == 60 * 512
    assert listener.ledger.report.requests == 60
    assert worker.total.cpu_ns > 0


async def test_crawl_without_a_choice_has_pools_of_our_own_on_either_loop(
    start: Start, serve: Serve, plan: Plan
) -> None:
    endpoint, _ = await serve()
    worker = await start(*WITHOUT_UVLOOP)
    ready = await worker.begin(plan(endpoint, load={"requests": 9}, client={"engine": "auto"}))
    assert ready["why"]
    assert (ready["engine"], ready["loop"]) == ("streams", "asyncio")
    assert await worker.finish() == 0
    assert worker.total.ok == 9


@pytest.mark.parametrize(
    ("engine", "error", "says"),
    [
        ("./none.py:crawl", "crawler", "./none.py: there is no such file"),
        ("./own.py:walk", "crawler", "./own.py has no 'walk'"),
    ],
)
async def test_crawler_that_cannot_be_had_is_told_in_the_place_of_ready(
    engine: str, error: str, says: str, start: Start, plan: Plan
) -> None:
    worker = await start()
    worker.say(plan(client={"engine": engine}).as_line())
    failed = await worker.hear()
    assert failed["error"] == error
    assert says in failed["failed"]
    assert await worker.finish() == 0
    assert (worker.done, worker.reports) == (False, 0)


async def test_missing_library_is_told_in_the_place_of_ready(start: Start, plan: Plan) -> None:
    without = WITHOUT_UVLOOP[1].replace("uvloop", "httpx")
    worker = await start("-c", without)
    worker.say(plan(client={"engine": "httpx"}).as_line())
    failed = await worker.hear()
    assert failed["error"] == "library"
    assert failed["failed"].startswith("httpx is not installed")
    assert await worker.finish() == 0


async def test_users_exception_ends_the_worker_with_its_traceback_and_every_report(
    start: Start, plan: Plan
) -> None:
    worker = await start()
    await worker.begin(plan(client={"engine": "./own.py:stumble"}))
    assert await worker.finish() == 1
    assert not worker.done
    assert worker.total.ok == 1
    assert worker.process.stderr is not None
    lines = (await worker.process.stderr.read()).decode().splitlines()
    assert "own.py" in lines[1]
    reason = "LookupError: a page without a title"
    assert lines[-1] == f"the crawler ./own.py:stumble failed: {reason}"
    assert all("twbench/crawl" not in line for line in lines)


async def test_what_a_crawler_starts_and_writes_is_apart_from_the_lines(
    start: Start, serve: Serve, plan: Plan
) -> None:
    endpoint, _ = await serve()
    worker = await start()
    await worker.begin(plan(endpoint, load={"requests": 9}, client={"engine": "./own.py:beside"}))
    assert await worker.finish() == 0
    assert (worker.done, worker.total.ok) == (True, 9)
    assert worker.process.stderr is not None
    written = (await worker.process.stderr.read()).decode()
    assert written.startswith("hello\n")
    assert "nor is this" in written
    assert "0 -> /dev/null" in written
    # its own listing, and the standard streams
    assert written.count(" -> ") == 4


async def test_crawler_that_returns_at_once_ends_the_worker_with_a_sentence(
    start: Start, plan: Plan
) -> None:
    worker = await start()
    await worker.begin(plan(client={"engine": "./own.py:leave"}))
    assert await worker.finish() == 1
    assert not worker.done
    assert worker.process.stderr is not None
    said = (await worker.process.stderr.read()).decode().splitlines()[-1]
    assert "the crawler ./own.py:leave failed: CrawlerError: it returned while" in said


@pytest.mark.parametrize("how", ["stop", "end of input"])
@pytest.mark.parametrize("engine", ["streams", "requests"])
async def test_worker_stops_when_told_and_when_its_parent_is_gone(
    how: str, engine: str, start: Start, serve: Serve, plan: Plan
) -> None:
    endpoint, listener = await serve(delay_ms=5)
    worker = await start()
    load = {"concurrency": 2, "duration_s": 600}
    await worker.begin(plan(endpoint, load=load, client={"engine": engine}))
    async with asyncio.timeout(WITHIN_S):
        while listener.ledger.report.requests < 20:  # noqa: ASYNC110 - the server has no event
            await asyncio.sleep(0.01)
    if how == "stop":
        worker.say(b"stop\n")
    else:
        assert worker.process.stdin is not None
        worker.process.stdin.close()
    assert await worker.finish() == 0
    assert worker.done
    assert worker.total.ok == worker.total.attempted == listener.ledger.report.requests


async def test_threads_that_hang_do_not_hold_the_worker(start: Start, plan: Plan) -> None:
    worker = await start()
    # its time-out is the grace
    client = {"engine": "./own.py:hang", "request_timeout_s": 0.1}
    await worker.begin(plan(client=client))
    await asyncio.wait_for(worker.hear(), WITHIN_S)
    worker.say(b"stop\n")
    assert await worker.finish() == 0
    assert worker.done


async def test_worker_that_is_never_started_ends_with_its_input(
    start: Start, serve: Serve, plan: Plan
) -> None:
    endpoint, listener = await serve()
    worker = await start()
    worker.say(plan(endpoint).as_line())
    assert "ready" in await worker.hear()
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert await worker.finish() == 0
    assert (worker.done, worker.reports, listener.ledger.report.accepted) == (False, 0, 0)


async def test_worker_leaves_ctrl_c_to_its_parent(start: Start, serve: Serve, plan: Plan) -> None:
    endpoint, _ = await serve(delay_ms=20)
    worker = await start()
    await worker.begin(plan(endpoint, load={"concurrency": 1, "requests": 10}))
    worker.process.send_signal(signal.SIGINT)
    assert await worker.finish() == 0
    assert worker.total.ok == 10


async def test_pool_is_shared_among_the_workers(start: Start, serve: Serve, plan: Plan) -> None:
    endpoint, listener = await serve(delay_ms=20)
    worker = await start()
    load = {"concurrency": 40, "requests": 60}
    client = {"engine": "streams", "pool": {"size": 5}}
    await worker.begin(plan(endpoint, load=load, client=client, worker=1, workers=2))
    assert await worker.finish() == 0
    assert worker.total.ok == 30
    assert listener.ledger.report.accepted == 2


async def test_bound_on_idle_connections_is_shared_among_the_workers(plan: Plan) -> None:
    for most, own in ((None, None), (5, 2), (1, 1)):
        pool = {"size": 100, "idle": most}
        client = {"engine": "streams", "pool": pool}
        made = _own_part(plan(("127.0.0.1", 1), client=client, worker=1, workers=2))
        assert made.pool
        assert (made.pool.size, made.pool.idle) == (50, own)
