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

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan
from twbench.model.errors import Problem, ScenarioError, TwbenchError
from twbench.model.scenario import Scenario
from twbench.run.planning import SERVER_NAME, endpoints, site_addresses

_GRACE_S = {signal.SIGINT: 5.0, signal.SIGTERM: 5.0}
"""How long a program has to end after each of these."""
_KILLED = 128
"""What a shell adds to the number of the signal that ended a program."""


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
    """There is no such program, or it cannot be run."""

    exit_status: ClassVar[int] = 127
    """A shell's."""


class Program:
    """One program, from its start to its end, and what it used."""

    def __init__(self, argv: Sequence[str], *, stdout: int | None = None) -> None:
        """Name the program and its arguments; `stdout` is a descriptor in place of ours.

        Raises:
            NoProgramError: there is none of that name on PATH.
        """
        if shutil.which(argv[0]) is None:
            raise NoProgramError(f"cannot run {argv[0]}: there is no such program")
        self.argv = tuple(argv)
        self.ended: asyncio.Future[None]
        """Done when the program is, and what it left running in its process group is killed."""
        self._stdout = stdout
        self._process: subprocess.Popen[bytes] | None = None
        self._alive = -1
        self._ended_by = EndedBy.ITSELF
        self._started_s = 0.0
        self._elapsed_s = 0.0
        self._cpu_s = 0.0

    def start(self, lab: Lab, host: str, *, hosts: Path, environment: Mapping[str, str]) -> None:
        """Start it, without privileges, on `host`; it finds the names of the file `hosts`.

        It keeps our standard streams, folder and environment, to which `environment` is added. It
        has a session of its own, so Ctrl-C is ours to pass on.
        """
        loop = asyncio.get_running_loop()
        argv, descriptors = lab.command(host, self.argv, hosts=hosts, privileged=False)
        self._started_s = time.monotonic()
        self._process = subprocess.Popen(
            argv,
            pass_fds=descriptors,
            stdout=self._stdout,
            env=os.environ | dict(environment),
            start_new_session=True,
        )
        self.ended = loop.create_future()
        self._alive = os.pidfd_open(self._process.pid)
        loop.add_reader(self._alive, self._reap)

    async def end(self, by: EndedBy) -> bool:
        """End the program, with all of its process group; return whether it had to be killed."""
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
        """End the program now, if it has not ended."""
        if self._process is not None and not self.ended.done():
            self._send(signal.SIGKILL)
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

    def _send(self, number: int) -> None:
        assert self._process is not None  # noqa: S101 - it was started
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _reap(self) -> None:
        assert self._process is not None  # noqa: S101 - it was started
        self._elapsed_s = time.monotonic() - self._started_s
        asyncio.get_running_loop().remove_reader(self._alive)
        os.close(self._alive)
        # the group first: its number stays ours until the program is waited for
        self._send(signal.SIGKILL)
        _, status, used = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._cpu_s = used.ru_utime + used.ru_stime
        self.ended.set_result(None)


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
