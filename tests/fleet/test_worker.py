"""The worker's process: a plan and a start come in, reports and the end go out."""

import asyncio
import json
import resource
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from twbench.model.plans import Endpoint, FleetPlan
from twbench.model.reports import FleetReport
from twbench.server.http import Listener

ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = ("-m", "twbench.fleet.worker")
WITHOUT_UVLOOP = (
    "-c",
    "import sys; sys.modules['uvloop'] = None\nfrom twbench.fleet.worker import main\nmain()",
)

Bundled = Callable[..., Awaitable[tuple[Endpoint, Listener]]]
Plan = Callable[..., FleetPlan]
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
        line = await asyncio.wait_for(self.process.stdout.readline(), 10)
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
        return await asyncio.wait_for(self.process.wait(), 5)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Return a function that starts a worker, in an interpreter given these arguments."""
    workers: list[Worker] = []

    async def make(*arguments: str, preexec_fn: Callable[[], None] | None = None) -> Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(arguments or MODULE),
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            preexec_fn=preexec_fn,
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


@pytest.mark.parametrize(("arguments", "loop"), [(MODULE, "uvloop"), (WITHOUT_UVLOOP, "asyncio")])
async def test_worker_carries_out_its_plan_and_says_so(
    arguments: tuple[str, ...], loop: str, start: Start, bundled: Bundled, plan: Plan
) -> None:
    endpoint, listener = await bundled(delay_ms=20)
    worker = await start(*arguments)
    load = {"concurrency": 4, "duration_s": 5, "requests": 60}
    assert await worker.begin(plan(endpoint, load=load)) == {"engine": "streams", "loop": loop}
    assert await worker.finish() == 0
    assert worker.done
    assert worker.reports >= 3, "one report a tick of 0.1 s"
    assert (worker.total.attempted, worker.total.ok) == (60, 60)
    assert listener.ledger.report.requests == 60


async def test_worker_waits_for_its_moment(start: Start, bundled: Bundled, plan: Plan) -> None:
    endpoint, listener = await bundled()
    worker = await start()
    worker.say(plan(endpoint).as_line())
    assert "ready" in await worker.hear()
    worker.say(b"start %d\n" % (time.monotonic_ns() + 300_000_000))
    await asyncio.sleep(0.15)
    assert listener.ledger.report.accepted == 0
    await worker.finish()
    assert listener.ledger.report.accepted == 1


@pytest.mark.parametrize("how", ["stop", "end of input"])
async def test_worker_stops_when_told_and_when_its_parent_is_gone(
    how: str, start: Start, bundled: Bundled, plan: Plan
) -> None:
    endpoint, listener = await bundled(delay_ms=5)
    worker = await start()
    await worker.begin(plan(endpoint, load={"concurrency": 2, "duration_s": 60}))
    await asyncio.sleep(0.25)
    if how == "stop":
        worker.say(b"stop\n")
    else:
        assert worker.process.stdin is not None
        worker.process.stdin.close()
    assert await worker.finish() == 0
    assert worker.done
    assert worker.total.ok == worker.total.attempted == listener.ledger.report.requests > 10


async def test_worker_that_is_never_started_ends_with_its_input(
    start: Start, bundled: Bundled, plan: Plan
) -> None:
    endpoint, listener = await bundled()
    worker = await start()
    worker.say(plan(endpoint).as_line())
    assert "ready" in await worker.hear()
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    assert await worker.finish() == 0
    assert (worker.done, worker.reports, listener.ledger.report.accepted) == (False, 0, 0)


async def test_worker_leaves_ctrl_c_to_its_parent(
    start: Start, bundled: Bundled, plan: Plan
) -> None:
    endpoint, _ = await bundled(delay_ms=20)
    worker = await start()
    await worker.begin(plan(endpoint, load={"concurrency": 1, "duration_s": 5, "requests": 10}))
    worker.process.send_signal(signal.SIGINT)
    assert await worker.finish() == 0
    assert worker.total.ok == 10


@pytest.mark.parametrize("arguments", [MODULE, WITHOUT_UVLOOP], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("client", [{}, {"socket": {"TCP_NODELAY": True}}], ids=["loop", "own"])
async def test_descriptors_that_run_out_are_booked(
    arguments: tuple[str, ...],
    client: dict[str, object],
    start: Start,
    bundled: Bundled,
    plan: Plan,
) -> None:
    endpoint, listener = await bundled(delay_ms=200)
    descriptors = 64
    worker = await start(
        *arguments,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
    )
    load = {"mode": "open", "rate_per_s": 1000, "duration_s": 0.1}
    await worker.begin(plan(endpoint, load=load, client=client))
    assert await worker.finish() == 0
    total = worker.total
    assert set(total.errors) == {"connect:EMFILE:descriptors_exhausted"}
    assert total.attempted == 100 == total.ok + total.errors.total()
    assert total.not_sent == total.errors.total()
    assert total.ok == listener.ledger.report.accepted
    assert descriptors - 30 < total.ok < descriptors
