"""What the peers need that no package brings: made on demand in build/, and kept there."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys

from bench.parts.child import ROOT
from bench.parts.errors import UnavailableError

BUILD = ROOT / "build"
_SOURCES = {"epoll": ROOT / "bench/clients/epoll.c", "drain": ROOT / "bench/drain.c"}
_LOCUST = ROOT / "bench/locust.lock"


@functools.cache
def compiled(name: str) -> str:
    """Return the path of a C program, compiled if its source is newer. UnavailableError."""
    program, source = BUILD / name, _SOURCES[name]
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        if not (compiler := shutil.which("cc")):
            raise UnavailableError("there is no C compiler (Debian: apt install gcc)")
        BUILD.mkdir(exist_ok=True)
        fresh = BUILD / f"{name}.{os.getpid()}"
        _made("cc", [compiler, "-O2", "-Wall", "-o", str(fresh), str(source)])
        fresh.replace(program)
    return str(program)


@functools.cache
def locust_python() -> str:
    """Return the Python that has Locust, installed as pinned in bench/locust.lock.

    Raises UnavailableError where that is refused, as without a network.
    """
    home = BUILD / "locust"
    python, mark = home / "bin/python", home / ".installed"
    wanted = hashlib.sha256(_LOCUST.read_bytes()).hexdigest()
    if not mark.exists() or mark.read_text() != wanted:
        print("installing Locust in build/locust …", file=sys.stderr, flush=True)
        _made("venv", [sys.executable, "-m", "venv", "--clear", str(home)])
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        _made("pip", [*pip, "--require-hashes", "-r", str(_LOCUST)])
        mark.write_text(wanted)
    return str(python)


def _made(what: str, command: list[str]) -> None:
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [f"status {done.returncode}"]
        raise UnavailableError(f"{what}: {said[-1]}")
