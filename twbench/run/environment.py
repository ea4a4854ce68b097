"""What a run's figures depend on: kernel, versions, sysctls, the machine's size."""

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("twbench", "uvloop", "httptools", "numpy", "pydantic", "hdrhistogram", "psutil")


def describe_environment(
    *,
    before: Mapping[str, Mapping[str, str]],
    after: Mapping[str, Mapping[str, str]] | None = None,
    engines: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Return the content of environment.json.

    Args:
        before: each stack's sysctls when the hosts had been made.
        after: the same at the end; None while the run goes on.
        engines: what server and fleet said they run on.
        sources: where each stack's ticks and looks come from.
    """
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "python": sys.version.split()[0],
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "privileged": os.geteuid() == 0,
        "engines": dict(engines),
        "sources": dict(sources),
        "sysctls": {
            stack: {"before": dict(values), "after": dict((after or {}).get(stack, {}))}
            for stack, values in before.items()
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
