"""The clients that carry a load: twbench's engines, yardsticks of ours, and other people's tools.

Each runs on the lab's client host, pinned to one core, and tells what it did.
"""

import functools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.parts.builds import compiled, locust_python
from bench.parts.child import ROOT, Child
from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.tools import TOOLS, Target, Told, UnreadableError
from twbench.lab.lab import Lab
from twbench.model.plans import FleetPlan
from twbench.model.reports import FleetReport
from twbench.run.books import histogram, percentiles_ms

_FLEET = ("-m", "twbench.fleet.worker")
_LEAD_NS = 200_000_000
_GRACE_S = 60.0
_HERE = ROOT / "bench/clients"


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """What a client did, by its own account and the kernel's clocks."""

    told: Told
    cpu_s: float
    """User and kernel time of its processes, without what it took to start."""
    p99_ms: float | None = None
    """From the intended start to the answer; only twbench's engines tell."""
    limited: int = 0
    """Of the failed, arrivals that an open loop let go: for want of room, or too late."""
    history: Sequence[tuple[int, int]] = ()
    """CLOCK_MONOTONIC ns, and exchanges attempted until then."""
    errors: Sequence[str] = ()
    """The lines of standard error."""


Carry = Callable[[Lab, FleetPlan, int], Account]
"""Carries a plan's load on the client host, pinned to a core."""


def _worker(
    lab: Lab, plan: FleetPlan, core: int, *, argv: tuple[str, ...], python: Callable[[], str]
) -> Account:
    """Run a client that speaks a fleet worker's protocol."""
    host = lab.plan.clients[0].name
    with Child(lab, host, argv, core=core, python=python()) as child:
        child.say(plan.as_line())
        child.wait_ready()
        # a library's version follows its name
        wanted, has = plan.scenario.client.engine, child.ready.get("engine", "").partition(" ")[0]
        if wanted not in ("auto", has):
            raise UnavailableError(f"the fleet has engine {has} instead of {wanted}")
        before_s = child.cpu_now_s()
        start_ns = time.monotonic_ns() + _LEAD_NS
        child.say(b"start %d\n" % start_ns)
        child.wait_done(plan.scenario.load.total_s + _GRACE_S)
    load = plan.scenario.load
    # a closed load's requests go out when they are due
    latencies = "request" if load.mode == "closed" else "request_from_intended"
    counted, latency, history = FleetReport(), histogram(), []
    for message in child.messages:
        report = FleetReport.from_json(message)
        counted.add(report)
        history.append((report.t_ns, counted.attempted))
        if encoded := report.histograms.get(latencies):
            latency.decode_and_add(encoded)
    tail = percentiles_ms(latency)
    told = Told(
        exchanges=counted.ok,
        failed=counted.attempted - counted.ok,
        elapsed_s=(counted.t_ns - start_ns) / 1e9,
    )
    return Account(
        told=told,
        cpu_s=child.cpu_s - before_s,
        p99_ms=tail["p99"] if tail else None,
        limited=sum(n for key, n in counted.errors.items() if key.endswith(("LIMIT", "LATE"))),
        history=history,
        errors=child.errors,
    )


def _tool(lab: Lab, plan: FleetPlan, core: int, *, name: str) -> Account:
    """Run somebody else's program to its end; its CPU time by itself, or by wait4(2)."""
    tool, (address, port) = TOOLS[name], plan.destinations[0]
    load = plan.scenario.load
    seconds = max(1, round(load.total_s))
    target = Target(
        address=address,
        port=port,
        users=load.concurrency or 1,
        seconds=seconds,
        exchanges=round(_rates_per_s.get(name, _FIRST_PER_S) * seconds),
        keep_alive=plan.scenario.client.pool is not None,
    )
    program, *rest = tool.argv(target)
    if name == "C epoll":
        program = compiled("epoll")
    elif not shutil.which(program):
        raise UnavailableError(f"{program} is not installed (Debian: apt install {tool.package})")
    host = lab.plan.clients[0].name
    said, cpu_s = _run(lab, host, [program, *rest], core, within_s=target.seconds + _GRACE_S)
    try:
        told = tool.told(said)
    except UnreadableError as error:
        raise BrokenError(f"{name}: {error}") from None
    if told.exchanges:
        _rates_per_s[name] = told.exchanges / told.elapsed_s
    if told.cpu_s is not None:
        return Account(told=told, cpu_s=told.cpu_s)
    return Account(told=told, cpu_s=cpu_s - _start_up_s(lab, host, core))


_FIRST_PER_S = 8_000
_rates_per_s: dict[str, float] = {}
"""What each program reached when it last ran."""
_started_s: list[float] = []


def _start_up_s(lab: Lab, host: str, core: int) -> float:
    """Return what it takes to start a program that does nothing, once measured."""
    if not _started_s:
        _started_s.extend(_run(lab, host, ["true"], core, within_s=_GRACE_S)[1] for _ in range(3))
    return min(_started_s)


def _run(
    lab: Lab, host: str, argv: Sequence[str], core: int, *, within_s: float
) -> tuple[str, float]:
    """Run a program; return its standard output and its CPU time, in seconds.

    BrokenError if it fails or takes too long.
    """
    command, descriptors = lab.command(host, argv)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            pass_fds=descriptors,
            start_new_session=True,
        )
        limit = threading.Timer(within_s, process.kill)
        limit.start()
        try:
            os.sched_setaffinity(process.pid, {core})
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            limit.cancel()
            if process.returncode is None:
                process.kill()
                process.wait()
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    if process.returncode:
        raise BrokenError(f"{argv[0]} ended with {process.returncode}\n{''.join(texts)}")
    return texts[0], usage.ru_utime + usage.ru_stime


def _ours() -> str:
    return ""


def _by(*argv: str, python: Callable[[], str] = _ours) -> Carry:
    return functools.partial(_worker, argv=argv, python=python)


CLIENTS: Mapping[str, Carry] = {
    "streams": _by(*_FLEET),
    "uring": _by(*_FLEET),
    "watched": _by(str(_HERE / "watched_fleet.py")),
    "bare uring": _by(str(_HERE / "bare_uring.py")),
    "bare uvloop": _by(str(_HERE / "bare_uvloop.py")),
    "aiohttp": _by(str(_HERE / "aiohttp_force_close.py")),
    "crawl": _by("-m", "twbench.crawl.worker"),
    "bare crawl": _by(str(_HERE / "bare_crawl.py")),
    "Locust": _by(str(_HERE / "locust_fast.py"), python=locust_python),
    **{name: functools.partial(_tool, name=name) for name in TOOLS},
}
"""By name; `streams` and `uring` differ by the plan that they are given, and so do crawlers."""
FOREIGN = frozenset({*TOOLS, "Locust", "aiohttp"} - {"C epoll"})
"""Other people's: that a few of their attempts fail is a figure, where ours would be a fault."""
