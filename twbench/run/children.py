"""The processes of a run: started on their hosts, spoken to in lines, and never left behind."""

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from twbench.lab import enter
from twbench.lab.lab import Lab
from twbench.model.errors import LabError
from twbench.model.plans import ServerPlan
from twbench.process.listening import CannotListenError, refuse_taken

_READY_WITHIN_S = 30.0
_LONGEST_LINE = 1 << 22
_KEPT_OF_STDERR = 4000
_KEPT_OF_LINE = 200
_READ_BYTES = 1 << 16
_RETRY_S = 0.001
_REMEDIES = {
    "EADDRINUSE": "choose another port, or end what listens there",
    "EACCES": "choose a port from net.ipv4.ip_unprivileged_port_start (1024) on, or run as root",
    "EADDRNOTAVAIL": "choose an address that this machine has; `ip address` lists them",
    "EAFNOSUPPORT": "choose the other IP version; this kernel does not have the one asked for",
    "crawler": "docs/your-own-crawler.md has an example that works",
    "library": "the README's extras bring the libraries",
    "uring": "with engine = 'auto' the run takes 'streams' where io_uring is not to be had",
}
"""What helps where the kernel refuses an endpoint or an engine, by its reason."""
Message = dict[str, Any]


_starting = threading.Lock()


@contextlib.asynccontextmanager
async def _one_at_a_time() -> AsyncIterator[None]:
    """Keep runs in other threads from starting a process meanwhile: uvloop refuses to."""
    while not _starting.acquire(blocking=False):  # noqa: ASYNC110 - no event spans two loops
        await asyncio.sleep(_RETRY_S)
    try:
        yield
    finally:
        _starting.release()


def refuse_taken_endpoints(plan: ServerPlan) -> None:
    """Find out, before servers share them, that the plan's endpoints are nobody else's yet.

    For this machine's own network, where another server of the same user may listen.

    Raises:
        LabError: one of them is taken, or is not to be had.
    """
    for endpoint in plan.endpoints:
        try:
            refuse_taken(endpoint, family=plan.family)
        except CannotListenError as failure:
            raise _refused(str(failure), failure.error) from None


def _refused(why: str, error: str) -> LabError:
    remedy = _REMEDIES.get(error)
    return LabError(why, remedy=remedy) if remedy else LabError(why)


def _beside(program: list[str]) -> list[str]:
    """Return `program` made to end with this process, in no namespace of a lab."""
    head = [sys.executable, "-I", "-S", enter.__file__, "--user", "-", "--net", "-"]
    return [*head, "--parent", str(os.getpid()), "--", *program]


class Child:
    """A server process, a fleet worker, or the carrier of a wire.

    Messages other than the first (`ready` or `failed`) and the last (`done`) go to `hear`. A line
    that is no message, or that `hear` raises for, is the end of the process, and the reason its
    complaint. When the process ends, for whatever reason, `ended` becomes its exit status.
    """

    def __init__(self, name: str, host: str, hear: Callable[["Child", Message], None]) -> None:
        """Name the process; `start` makes it."""
        self.name = name
        self.host = host
        self.done = False
        """Whether it said that it had come to its end."""
        self.ended: asyncio.Task[int]
        self.complaint = ""
        """The end of what it wrote to standard error, and what was wrong with its last line."""
        self._hear = hear
        self._process: asyncio.subprocess.Process

    async def start(
        self,
        lab: Lab,
        module: str,
        plan: bytes,
        *,
        pass_fds: tuple[int, ...] = (),
        hosts: Path | None = None,
    ) -> Message:
        """Start `python -m module` on the host, hand it its plan, and return what it is ready with.

        It inherits `pass_fds`, which stay the caller's to close. With the file `hosts` as its
        /etc/hosts it has no privileges over the lab. On what is no host of the lab, it runs beside
        the lab, on the machine's own network.

        Raises:
            LabError: it could not do what the plan asks for.
        """
        program = [sys.executable, "-P", "-m", module]
        if self.host in lab.hosts:
            argv, descriptors = lab.command(
                self.host, program, hosts=hosts, privileged=hosts is None
            )
        else:
            argv, descriptors = _beside(program), ()
        async with _one_at_a_time():
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(*descriptors, *pass_fds),
                limit=_LONGEST_LINE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                # Ctrl-C is the run's to answer: it ends its children in order
                start_new_session=True,
            )
        ready: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.create_task(self._listen(ready))
        await self.say(plan)
        try:
            first = await asyncio.wait_for(ready, _READY_WITHIN_S)
        except TimeoutError:
            raise LabError(f"{self.name} was not ready within {_READY_WITHIN_S:g} s") from None
        if why := first.get("failed"):
            raise _refused(f"{self.name}: {why}", first.get("error", ""))
        if "ready" not in first:
            raise LabError(f"{self.name} ended at once: {self.complaint.strip()}")
        answer: Message = first["ready"]
        return answer

    async def say(self, line: bytes) -> None:
        """Write a line to the process; one that has ended does not hear it."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        if self.ended.done():
            return
        # uvloop raises RuntimeError where asyncio raises ConnectionError
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(line)
            await self._process.stdin.drain()

    async def _listen(self, ready: asyncio.Future[Message]) -> int:
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None and stderr is not None  # noqa: S101, PT018 - both are pipes
        last_words = asyncio.create_task(_tail(stderr))
        wrong = await self._hear_lines(stdout, ready)
        if wrong:
            self.done = False
            self.kill()
            while await stdout.read(_READ_BYTES):
                pass
        self.complaint = "\n".join(filter(None, (await last_words, wrong)))
        status = await self._process.wait()
        if not ready.done():
            ready.set_result({})
        return status

    async def _hear_lines(
        self, stdout: asyncio.StreamReader, ready: asyncio.Future[Message]
    ) -> str:
        """Hear the process to its end and return ""; or up to a bad line, and return the reason."""
        while True:
            try:
                line = await stdout.readuntil()
            except asyncio.IncompleteReadError:
                # what is left was cut by a kill
                return ""
            except asyncio.LimitOverrunError:
                start = await stdout.read(_KEPT_OF_LINE)
                return f"a line longer than {_LONGEST_LINE} bytes: {_shown(start)}"
            try:
                self._take(json.loads(line), ready)
            except Exception as error:  # noqa: BLE001 - told as the cause of the process's end
                return f"{type(error).__name__}: {error}, of the line {_shown(line)}"

    def _take(self, message: Message, ready: asyncio.Future[Message]) -> None:
        if not isinstance(message, dict):
            raise TypeError("no JSON object")
        if not ready.done():
            ready.set_result(message)
        elif "done" in message:
            self.done = True
        else:
            self._hear(self, message)

    async def finish(self, within_s: float) -> None:
        """Wait for the end of the process; kill it when it takes longer."""
        if not self.started:
            return
        done, _ = await asyncio.wait({self.ended}, timeout=within_s)
        if not done:
            self.kill()
            await self.ended

    @property
    def started(self) -> bool:
        """Return whether there is a process."""
        return hasattr(self, "ended")

    def kill(self) -> None:
        """End the process now."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


async def _tail(stream: asyncio.StreamReader) -> str:
    """Read to the end; return the last of it."""
    kept = b""
    while part := await stream.read(_READ_BYTES):
        kept = (kept + part)[-_KEPT_OF_STDERR:]
    return kept.decode(errors="replace")


def _shown(line: bytes) -> str:
    return line[:_KEPT_OF_LINE].decode(errors="replace").rstrip()
