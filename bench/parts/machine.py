"""What figures were measured on, in words and as the name of a folder."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

_PROGRAMS = {
    "wrk": ("wrk", "-v"),
    "ab": ("ab", "-V"),
    "h2load": ("h2load", "--version"),
    "nginx": ("nginx", "-v"),
}
_VERSION = re.compile(r"\d+\.\d+[\w.-]*")
_NOISE = re.compile(r"\((?:R|TM|C)\)|@.*|\bCPU\b|\bProcessor\b", re.IGNORECASE)


def describe() -> dict[str, str]:
    """Return machine and versions, and how busy it was with other things."""
    packages = ("uvloop", "aiohttp", "httptools", "numpy")
    programs = (f"{name} {_version_of(argv)}" for name, argv in _PROGRAMS.items())
    return {
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": f"{os.cpu_count()}, of which usable {len(os.sched_getaffinity(0))}",
        "python": ", ".join([platform.python_version(), *(f"{n} {version(n)}" for n in packages)]),
        "peers": ", ".join(programs),
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }


def slug(processor: str, kernel: str) -> str:
    """Return a short name of processor and kernel for a folder. Pure."""
    words = re.findall(r"[a-z0-9]+", _NOISE.sub(" ", processor).lower())
    numbers = re.match(r"\d+(?:\.\d+)*", kernel)
    return "-".join([*words[:4], f"linux-{numbers[0] if numbers else 'unknown'}"])


def here() -> str:
    """Return the slug of this machine."""
    return slug(_processor(), platform.release())


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _version_of(argv: tuple[str, ...]) -> str:
    if not (program := shutil.which(argv[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin")):
        return "missing"
    said = subprocess.run([program, *argv[1:]], check=False, capture_output=True, text=True)
    found = _VERSION.search(said.stdout + said.stderr)
    return found[0] if found else "of unknown version"
