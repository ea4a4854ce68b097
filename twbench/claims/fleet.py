"""Runs a whole scenario as `twbench run` does, in a process of its own, and reads what it left."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twbench.claims.claim import SetUpError
from twbench.claims.scenery import Scenery
from twbench.lab import enter
from twbench.record import Run, read_run
from twbench.wire.errors import StoppedError

_AT_ONCE = threading.BoundedSemaphore(6)
"""A fleet keeps a processor busy for a tenth of the time; more of them would starve each other."""
_GLANCE_S = 0.1
_ENDS_WITHIN_S = 20.0
_STARTS_WITHIN_S = 120.0


def run_scenario(at: Scenery, scenario: str, *, takes_s: float) -> Run:
    """Run a scenario, given as TOML, and return what it left in the scene's folder, under `run`.

    What its audit says is in the summary. Raises SetUpError where it does not come to its end, or
    takes two minutes longer than `takes_s`, and StoppedError when asked to stop.
    """
    source, kept, made = (at.folder / name for name in ("scenario.toml", "run", "making"))
    for before in (kept, made):
        shutil.rmtree(before, ignore_errors=True)
    source.write_text(scenario, encoding="utf-8")
    with _a_turn(at):
        status = _wait(at, _command(source, made), takes_s + _STARTS_WITHIN_S)
    folders = [*made.iterdir()] if made.exists() else []
    if len(folders) != 1:
        raise SetUpError(f"twbench run left with {status}; its words are in progress.txt")
    folders[0].rename(kept)
    made.rmdir()
    run = read_run(kept)
    if run.summary is None or run.summary["ended_early"]:
        raise SetUpError(f"twbench run ended early, with {status}: see progress.txt")
    return run


@contextmanager
def _a_turn(at: Scenery) -> Iterator[None]:
    while not _AT_ONCE.acquire(timeout=_GLANCE_S):
        at.wait(0)
    try:
        yield
    finally:
        _AT_ONCE.release()


def _command(source: Path, results: Path) -> list[str]:
    """Return the run's command, which is killed when this thread ends."""
    start = [sys.executable, "-I", "-S", enter.__file__, "--user", "-", "--net", "-"]
    run = [sys.executable, "-P", "-m", "twbench", "run", str(source), "--json"]
    return [*start, "--parent", str(os.getpid()), "--", *run, "--out", str(results)]


def _wait(at: Scenery, command: list[str], at_most_s: float) -> int:
    """Start the command and return its exit status; end it in order when it is to stop."""
    end_s = time.monotonic() + at_most_s
    paths = os.pathsep.join(map(os.path.abspath, sys.path))
    with (
        (at.folder / "progress.txt").open("wb") as progress,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=progress,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,
        ) as process,
    ):
        try:
            while process.poll() is None:
                if at.stop.wait(_GLANCE_S):
                    raise StoppedError("stopped while a fleet was running")
                if time.monotonic() > end_s:
                    raise SetUpError(f"twbench run was not done after {at_most_s:g} s")
        finally:
            _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
