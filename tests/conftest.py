"""What every test shares: both event loops, the namespaces check, and the rule against skips."""

import asyncio
import ctypes
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping

import pytest
from hypothesis import HealthCheck, settings

# no files and no time limit: tests also run where the tree is read-only and the machine is busy
settings.register_profile(
    "twbench", database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("twbench")

NO_SKIPS = bool(os.environ.get("TWBENCH_TEST_NO_SKIPS"))
"""Set where nothing may be left out: a skip is then a failure that gives the skip's reason."""

# unshare(2) in a process of its own: it cannot be undone, and is refused where threads run.
NAMESPACES_PROBE = """
import ctypes, os, sys
NEWUSER, NEWNET = 0x10000000, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
for flags in (NEWNET, NEWUSER | NEWNET):
    if libc.unshare(flags) == 0:
        sys.exit(0)
print("unshare(CLONE_NEWUSER | CLONE_NEWNET): " + os.strerror(ctypes.get_errno()))
sys.exit(1)
"""


@functools.cache
def why_no_namespaces() -> str | None:
    """Return why this machine refuses network namespaces, or None where it grants them."""
    if sys.platform != "linux":
        return f"network namespaces are Linux's, and this is {sys.platform}"
    if not hasattr(ctypes.CDLL(None), "unshare"):
        return "the C library has no unshare()"
    probe = subprocess.run(
        [sys.executable, "-I", "-c", NAMESPACES_PROBE], capture_output=True, text=True, check=False
    )
    return None if probe.returncode == 0 else (probe.stdout or probe.stderr).strip()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `namespaces` where they are refused, and say what refused them."""
    if item.get_closest_marker("namespaces") and (reason := why_no_namespaces()):
        pytest.skip(f"needs network namespaces: {reason}")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each async test on asyncio's own loop and, where it can be installed, on uvloop."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    try:
        import uvloop
    except ImportError:
        return factories
    return factories | {"uvloop": uvloop.new_event_loop}


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: TWBENCH_TEST_NO_SKIPS is set, but: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one where skips are not allowed."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module skipped as a whole into an error where skips are not allowed."""
    report = yield
    _refuse_skip(report)
    return report
