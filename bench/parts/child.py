"""A worker process on a host of the lab: pinned to a core, spoken to in lines, and its CPU time."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from bench.parts.errors import BrokenError, UnavailableError
from twbench.lab.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
_READY_WITHIN_S = 30.0
_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: CPU time of user and kernel together


def cpu_clock_s(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds (clock_getcpuclockid(3)). OSError."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


class Child:
    """A process that speaks a worker's protocol: plan, `ready`, start, reports, `done`.

    A thread reads each of its pipes, so that it never waits for this program.
    """

    def __init__(
        self, lab: Lab, host: str, argv: Sequence[str], *, core: int, python: str = ""
    ) -> None:
        """Start a script (`-m` and a module too) on the host.

        Without a `python` of its own it runs on this program's, and finds the same packages.
        """
        command, descriptors = lab.command(host, [python or sys.executable, "-P", *argv])
        paths = {} if python else {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            env=os.environ | paths,
            start_new_session=True,
        )
        os.sched_setaffinity(self._process.pid, {core})
        self.name = " ".join(argv)
        self.messages: list[dict[str, Any]] = []
        """Every message between `ready` and `done`."""
        self.errors: list[str] = []
        """The lines of standard error."""
        self.cpu_s = 0.0
        """CPU time at `done`, in seconds since the process began."""
        self.ready: dict[str, Any] = {}
        """What it said it runs on."""
        self.refusal = ""
        """Why it cannot do what it was told, if it says so."""
        self._is_ready, self._is_done = threading.Event(), threading.Event()
        self._done = False
        self._readers = [
            threading.Thread(target=self._listen, args=(self._process.stdout,)),
            threading.Thread(target=self._listen_to_errors, args=(self._process.stderr,)),
        ]
        for reader in self._readers:
            reader.start()

    def say(self, line: bytes) -> None:
        """Write a line to the process."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail("ended too early")

    def wait_ready(self) -> None:
        """Return when the process is ready; BrokenError if it never is.

        Raises:
            UnavailableError: the process says that it cannot do this here.
        """
        self._is_ready.wait(_READY_WITHIN_S)
        if self.refusal:
            raise UnavailableError(self.refusal)
        if not self._is_ready.is_set() or self._done or self._is_done.is_set():
            self._fail("was not ready")

    def wait_done(self, within_s: float) -> None:
        """Return when the process has said `done`; BrokenError if it ends without, or is late."""
        self._is_done.wait(within_s)
        if not self._done:
            self._fail("did not come to its end")

    def cpu_now_s(self) -> float:
        """Return the CPU time of all its threads so far, in seconds."""
        return cpu_clock_s(self._process.pid)

    def _listen(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            message = json.loads(line)
            if "ready" in message:
                self.ready = message["ready"]
                self._is_ready.set()
            elif "failed" in message:
                self.refusal = message["failed"]
            elif "done" in message:
                self.cpu_s = self.cpu_now_s()
                self._done = True
                self._is_done.set()
            else:
                self.messages.append(message)
        self._is_done.set()
        self._is_ready.set()

    def _listen_to_errors(self, stderr: IO[bytes]) -> None:
        self.errors.extend(line.decode(errors="replace") for line in stderr)

    def _fail(self, how: str) -> None:
        self._process.kill()
        for reader in self._readers:
            reader.join()
        said = [*map(str, self.messages[-3:]), *self.errors[-20:]]
        raise BrokenError(f"{self.name} {how}\n{''.join(said)}")

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process and take up what it still says."""
        self._process.kill()
        for reader in self._readers:
            reader.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
