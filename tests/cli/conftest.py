"""The command line as its user has it: a real process, its output, its exit status."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "twbench"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "xterm"}

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def twbench(tmp_path: Path) -> Twbench:
    """Return what runs a command to its end, in a folder of its own."""

    def run(*arguments: str, before: tuple[str, ...] = ()) -> Done:
        return subprocess.run(
            [*before, *PROGRAM, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a command and leaves it running; it is ended with the test."""
    started = []

    def begin(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*before, *PROGRAM, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[..., str]:
    """Return what writes a scenario of a hundred connections in half a second, and more TOML."""

    def write(more: str = "", *, name: str = "short", duration_s: float = 0.5) -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(
            f'name = "{name}"\n[load]\nmode = "open"\nrate_per_s = 200\n'
            f"duration_s = {duration_s}\n{more}"
        )
        return path.name

    return write


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """Give the number of a process alone in a network namespace of its own."""
    script = "ip link set lo up && echo ready && exec cat"
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"ready\n"
        yield holder.pid
        holder.kill()
