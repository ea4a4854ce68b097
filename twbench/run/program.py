"""A program of the user's, on the client's host in the fleet's place: `twbench exec`."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from itertools import cycle
from pathlib import Path
from typing import Any, ClassVar

from twbench.lab.enter import KILL_ALL, NOT_ENTERED, NOT_FOUND, NOT_RUN
from twbench.lab.lab import Lab, Reaper
from twbench.lab.plan import LabPlan
from twbench.model.errors import LabError, Problem, ScenarioError, TwbenchError
from twbench.model.scenario import Scenario
from twbench.run.planning import SERVER_NAME, endpoints, site_addresses

_GRACE_S = {signal.SIGINT: 5.0, signal.SIGTERM: 5.0}
"""How long a program has to end after each of these, with all that it has started."""
_KILLED = 128
"""What a shell adds to the number of the signal that ended a program."""
_PROXY = "_proxy"
"""How the variables end by which programs find a proxy: none knows the server's names."""
_NO_PROXY = {"no_proxy": "*", "NO_PROXY": "*"}
_TOLD_BYTES = 4096


class EndedBy(StrEnum):
    """Why a program ended."""

    ITSELF = "itself"
    DURATION = "duration"
    """The load was over."""
    INTERRUPT = "interrupt"
    """Whoever runs it had enough."""
    RUN = "run"
    """The run could not go on, say for want of a server."""


_SIGNALS = {
    EndedBy.DURATION: (signal.SIGTERM,),
    EndedBy.INTERRUPT: (signal.SIGINT, signal.SIGTERM),
    EndedBy.RUN: (signal.SIGTERM,),
}
"""What is tried before SIGKILL."""


class NoProgramError(TwbenchError):
    """There is no such program; the exit status is a shell's."""

    exit_status: ClassVar[int] = NOT_FOUND


class NotExecutableError(NoProgramError):
    """There is a file of that name, and it cannot be run; the exit status is a shell's."""

    exit_status: ClassVar[int] = NOT_RUN


_REFUSALS: dict[int, type[LabError | NoProgramError]] = {
    NOT_ENTERED: LabError,
    NOT_RUN: NotExecutableError,
    NOT_FOUND: NoProgramError,
}


class Program:
    """One program, from its start to its end, and what it used."""

    def __init__(self, argv: Sequence[str], *, stdout: int | None = None) -> None:
        """Name the program and its arguments; `stdout` is a descriptor in place of ours.

        Raises:
            NoProgramError: there is none of that name on PATH, or it is not executable.
        """
        _check_executable(argv[0])
        self.argv = tuple(argv)
        self.ended: asyncio.Future[None]
        """Done when the program and all that it started have ended."""
        self._stdout = stdout
        self._process: subprocess.Popen[bytes] | None = None
        self._alive = -1
        self._ended_by = EndedBy.ITSELF
        self._started_s = 0.0
        self._elapsed_s = 0.0
        self._cpu_s = 0.0

    async def start(
        self, lab: Lab, host: str, *, hosts: Path, environment: Mapping[str, str]
    ) -> None:
        """Start it, without privileges, on `host`; it finds the names of the file `hosts`.

        It keeps our standard streams, folder and environment, to which `environment` is added and
        from which proxies are taken. It has a session of its own, so Ctrl-C is ours to pass on.

        Raises:
            LabError: it cannot be brought onto the host.
            NoProgramError: it is there, the kernel does not run it.
        """
        ear, told = os.pipe()
        try:
            self._spawn(lab, host, hosts, environment, told)
        except BaseException:
            os.close(ear)
            raise
        finally:
            os.close(told)
        if refused := await _hear(ear):
            await self.ended
            raise _refusal(self.argv[0], refused)

    async def end(self, by: EndedBy) -> bool:
        """End the program, with all that it started; return whether it had to be killed."""
        if self._process is None or self.ended.done():
            return False
        self._ended_by = by
        for number in _SIGNALS[by]:
            self._send(number)
            await asyncio.wait({self.ended}, timeout=_GRACE_S[number])
            if self.ended.done():
                return False
        await self.kill()
        return True

    async def kill(self) -> None:
        """End the program and all that it started now, if they have not ended."""
        if self._process is not None and not self.ended.done():
            self._send(KILL_ALL)
            await self.ended

    def account(self) -> dict[str, Any]:
        """Return what summary.json says of a program that has ended."""
        status = self._process.returncode if self._process else 0
        return {
            "argv": list(self.argv),
            "exit_status": status if status >= 0 else _KILLED - status,
            "cpu_s": round(self._cpu_s, 3),
            "elapsed_s": round(self._elapsed_s, 3),
            "ended_by": self._ended_by.value,
        }

    def _spawn(
        self, lab: Lab, host: str, hosts: Path, environment: Mapping[str, str], told: int
    ) -> None:
        reaper = Reaper(grace_s=_GRACE_S[signal.SIGTERM], told=told)
        argv, descriptors = lab.command(
            host, self.argv, hosts=hosts, privileged=False, reaper=reaper
        )
        loop = asyncio.get_running_loop()
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(
            argv,
            pass_fds=descriptors,
            stdout=self._stdout,
            env=_without_proxies(os.environ) | dict(environment),
            start_new_session=True,
        )
        self.ended = loop.create_future()
        self._alive = os.pidfd_open(self._process.pid)
        loop.add_reader(self._alive, self._reap)

    def _send(self, number: int) -> None:
        assert self._process is not None  # noqa: S101 - it was started
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def _reap(self) -> None:
        assert self._process is not None  # noqa: S101 - it was started
        self._elapsed_s = time.monotonic() - self._started_s
        asyncio.get_running_loop().remove_reader(self._alive)
        os.close(self._alive)
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._cpu_s = used.ru_utime + used.ru_stime
        self.ended.set_result(None)


def _check_executable(name: str) -> None:
    if shutil.which(name) is not None:
        return
    if Path(name).exists() if os.sep in name else shutil.which(name, os.F_OK):
        raise NotExecutableError(f"cannot run {name}: permission denied")
    raise NoProgramError(f"cannot run {name}: there is no such program")


def _without_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in environment.items() if not k.lower().endswith(_PROXY)}
    return kept | _NO_PROXY


async def _hear(ear: int) -> str:
    """Return what comes out of a pipe, in one piece, or "" where it is closed; close our end."""
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_reader(ear, heard.set)
    try:
        await heard.wait()
        return os.read(ear, _TOLD_BYTES).decode()
    finally:
        loop.remove_reader(ear)
        os.close(ear)


def _refusal(name: str, told: str) -> TwbenchError:
    """Return the error for "STATUS WHY", as `twbench.lab.enter` tells it."""
    status, _, why = told.partition(" ")
    return _REFUSALS[int(status)](f"cannot run {name}: {why}")


def check_program(scenario: Scenario) -> None:
    """Refuse a scenario in which no program can take the fleet's place, with every reason.

    Raises:
        ScenarioError: it has no host of its own for the program, or several.
    """
    problems = []
    if scenario.lab.link == "host":
        allowed = "a program finds the server by its name: allowed is veth, wire or loopback"
        problems.append(Problem(key="lab.link", found="'host'", allowed=allowed))
    if (several := scenario.lab.client.hosts) > 1:
        allowed = "a program runs on one host: allowed is 1"
        problems.append(Problem(key="lab.client.hosts", found=str(several), allowed=allowed))
    if problems:
        raise ScenarioError("twbench exec", problems)


def urls(scenario: Scenario, plan: LabPlan) -> dict[str, str]:
    """Return the environment that tells a program where the server is.

    `TWBENCH_URL` is one URL, and `TWBENCH_SITES` those of all sites, a space between; where there
    are no sites, those of all ports.
    """
    ports = [port for _, port in endpoints(plan)]
    names = [name for name in site_addresses(scenario, plan) if name != SERVER_NAME]
    at = zip(names, cycle(ports), strict=False) if names else ((SERVER_NAME, p) for p in ports)
    sites = dict.fromkeys(f"http://{name}:{port}/" for name, port in at)
    return {"TWBENCH_URL": f"http://{SERVER_NAME}:{ports[0]}/", "TWBENCH_SITES": " ".join(sites)}
