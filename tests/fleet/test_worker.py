"""The worker's process: a plan and a start come in, reports and the end go out."""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from twbench.fleet.uring import why_not
from twbench.model.plans import Endpoint, FleetPlan
from twbench.model.reports import FleetReport
from twbench.model.states import TcpState
from twbench.server.http import Listener
from twbench.uring.probe import probe

WITHIN_S = 60
"""Nothing here takes more than a few seconds, unless the machine is busy."""
ENDED = {TcpState.TIME_WAIT, TcpState.FIN_WAIT2, TcpState.CLOSE}
ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = ("-m", "twbench.fleet.worker")
WITHOUT_UVLOOP = (
    "-c",
    "import sys; sys.modules['uvloop'] = None\nfrom twbench.fleet.worker import main\nmain()",
)
# A BPF filter in which io_uring_setup (425 everywhere but alpha and mips) fails with EPERM: load
# the number; if it is 425, return SECCOMP_RET_ERRNO | EPERM; else SECCOMP_RET_ALLOW.
UNDER_SECCOMP = (
    "-c",
    """
import ctypes, struct
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (6, 0, 0, 0x00050001), (6, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
filter = struct.pack("@HP", len(steps), ctypes.addressof(program))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, 2, filter, 0, 0) == 0, ctypes.get_errno()
from twbench.fleet.worker import main
main()
""",
)

Bundled = Callable[..., Awaitable[tuple[Endpoint, Listener]]]
Handler = Callable[[socket.socket], Awaitable[None]]
Serve = Callable[[Handler], Endpoint]
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


@pytest.fixture(params=["streams", "uring"])
def engine(request: pytest.FixtureRequest) -> str:
    """Return the name of each engine in turn."""
    name: str = request.param
    if name == "uring" and (reason := probe().refusal):
        pytest.xfail(reason)
    return name


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
    arguments: tuple[str, ...],
    loop: str,
    engine: str,
    start: Start,
    bundled: Bundled,
    plan: Plan,
) -> None:
    endpoint, listener = await bundled(delay_ms=20)
    worker = await start(*arguments)
    load = {"concurrency": 4, "duration_s": 5, "requests": 60}
    begun_ns = time.monotonic_ns()
    ready = await worker.begin(plan(endpoint, load=load, client={"engine": engine}))
    assert ready.pop("why")
    assert ready == {"engine": engine, "loop": loop}
    assert await worker.finish() == 0
    assert worker.done
    assert worker.reports >= 3, "one report a tick of 0.1 s"
    # a process of one thread cannot have used more than there was
    assert 0 < worker.total.cpu_ns < time.monotonic_ns() - begun_ns
    assert (worker.total.attempted, worker.total.ok) == (60, 60)
    assert listener.ledger.report.requests == 60


async def test_worker_takes_the_ring_where_it_may_choose(
    start: Start, bundled: Bundled, plan: Plan
) -> None:
    endpoint, _ = await bundled()
    worker = await start()
    offered = plan(endpoint, client={"engine": "auto"})
    ready = await worker.begin(offered)
    lacks = why_not(offered)
    assert ready["engine"] == ("streams" if lacks else "uring")
    assert ready["why"] == (lacks or "this kernel's io_uring can do all that the scenario asks for")
    assert await worker.finish() == 0
    assert worker.total.ok == 1


async def test_worker_without_io_uring_takes_streams_and_says_why(
    start: Start, bundled: Bundled, plan: Plan
) -> None:
    endpoint, _ = await bundled()
    worker = await start(*UNDER_SECCOMP)
    ready = await worker.begin(plan(endpoint, client={"engine": "auto"}))
    assert ready["engine"] == "streams"
    assert "permitted" in ready["why"] or "io_uring_disabled" in ready["why"]
    assert await worker.finish() == 0
    assert worker.total.ok == 1


async def test_worker_that_must_have_io_uring_and_cannot_fails_with_the_reason(
    start: Start, plan: Plan
) -> None:
    worker = await start(*UNDER_SECCOMP)
    worker.say(plan(("127.0.0.1", 1), client={"engine": "uring"}).as_line())
    failed = await worker.hear()
    assert failed["error"] == "uring"
    assert "permitted" in failed["failed"] or "io_uring_disabled" in failed["failed"]
    assert await worker.finish() == 0
    assert (worker.done, worker.reports) == (False, 0)


async def test_killed_worker_leaves_no_connection(
    engine: str, start: Start, serve: Serve, plan: Plan
) -> None:
    loop = asyncio.get_running_loop()
    met, left = 0, 0

    async def handler(sock: socket.socket) -> None:
        nonlocal met, left
        met += 1
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(sock, 4096):
                pass
        left += 1

    _, port = endpoint = serve(handler)
    worker = await start()
    load = {"concurrency": 30, "duration_s": 600}
    await worker.begin(plan(endpoint, load=load, client={"engine": engine}))
    async with asyncio.timeout(WITHIN_S):
        while met < 30:  # noqa: ASYNC110 - the server has no event
            await asyncio.sleep(0.01)
        worker.process.kill()
        await worker.process.wait()
        while left < met or towards(port) - ENDED:  # noqa: ASYNC110 - nor has the kernel
            await asyncio.sleep(0.01)


def towards(port: int) -> set[TcpState]:
    """Return the states of this machine's sockets whose peer has that port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {TcpState(int(row[3], 16)) for row in rows if int(row[2].partition(":")[2], 16) == port}


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
    how: str, engine: str, start: Start, bundled: Bundled, plan: Plan
) -> None:
    endpoint, listener = await bundled(delay_ms=5)
    worker = await start()
    await worker.begin(
        plan(endpoint, load={"concurrency": 2, "duration_s": 60}, client={"engine": engine})
    )
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
    engine: str,
    start: Start,
    bundled: Bundled,
    plan: Plan,
) -> None:
    endpoint, listener = await bundled(delay_ms=800)
    descriptors = 128
    worker = await start(
        *arguments,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
    )
    load = {"concurrency": 200, "duration_s": 60, "requests": 200}
    await worker.begin(plan(endpoint, load=load, client=client | {"engine": engine}))
    assert await worker.finish() == 0
    total = worker.total
    assert set(total.errors) == {"connect:EMFILE:descriptors_exhausted"}
    assert total.attempted == 200 == total.ok + total.errors.total()
    assert total.not_sent == total.errors.total()
    assert total.ok == listener.ledger.report.accepted
    # a worker has some for itself, and the ring's file table leaves room for more
    assert descriptors // 2 <= total.ok < descriptors
