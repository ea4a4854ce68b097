"""One load, carried once: a lab of its own, the client on one core, twbench's server on another."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.parts.child import ROOT, Child
from twbench.lab.lab import Lab
from twbench.model.endings import Departure
from twbench.model.errors import UsageError
from twbench.model.parse import build_scenario
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.scenario import Scenario
from twbench.run.books import histogram, percentiles_ms
from twbench.run.planning import fleet_plans, lab_plan, server_plan

USERS = 64
_LEAD_NS = 200_000_000
_GRACE_S = 60.0

CLIENTS: Mapping[str, tuple[str, ...]] = {
    "bare uvloop": (str(ROOT / "bench/clients/bare_uvloop.py"),),
    "streams": ("-m", "twbench.fleet.worker"),
    "aiohttp": (str(ROOT / "bench/clients/aiohttp_force_close.py"),),
    "watched streams": (str(ROOT / "bench/clients/watched_fleet.py"),),
}
"""How each client is started. All are told a FleetPlan and answer as a fleet worker does."""

# The server closes first and holds TIME_WAIT. With 64,512 ports to each of 8 destinations no
# connection meets the TIME_WAIT of an earlier one, and no table runs full.
_LAB = {
    "client": {"sysctl": {"net.ipv4.ip_local_port_range": "1024 65535"}},
    "server": {
        "ports": list(range(8080, 8088)),
        "sysctl": {"net.ipv4.tcp_max_tw_buckets": 1_000_000},
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """What a load came to."""

    exchanges: int
    failed: int
    """Attempts that came to nothing: arrivals beyond `load.max_in_flight`, time-outs."""
    elapsed_s: float
    """From the start to the end of the last connection."""
    client_cpu_s: float
    server_cpu_s: float
    server_first: int
    """Connections that the server closed before it had heard of the client's close."""
    p99_from_intended_ms: float | None
    history: Sequence[tuple[int, int]]
    """CLOCK_MONOTONIC ns, and exchanges attempted until then."""
    errors: Sequence[str]
    """What the client wrote to standard error."""

    @property
    def rate_per_s(self) -> float:
        """Return exchanges per second."""
        return self.exchanges / self.elapsed_s

    @property
    def client_cpu_us(self) -> float:
        """Return the client's CPU time per exchange, user and kernel, in microseconds."""
        return self.client_cpu_s / self.exchanges * 1e6

    @property
    def client_busy_percent(self) -> float:
        """Return how much of the client's core the client's process took."""
        return 100 * self.client_cpu_s / self.elapsed_s

    @property
    def server_first_percent(self) -> float:
        """Return of how many exchanges in a hundred the server closed the connection first."""
        return 100 * self.server_first / self.exchanges

    @property
    def server_busy_percent(self) -> float:
        """Return how much of the server's core the server's process took."""
        return 100 * self.server_cpu_s / self.elapsed_s


def scenario(name: str, load: Mapping[str, Any], **tables: Any) -> Scenario:  # noqa: ANN401 - TOML
    """Return a scenario in which the server closes first, with the given load."""
    raw = {"name": name, "ending": {"kind": "server-fin"}, "lab": _LAB, "load": load, **tables}
    return build_scenario(raw, source=name)


def closed(duration_s: float) -> dict[str, Any]:
    """Return the closed load that every client carries."""
    return {"concurrency": USERS, "duration_s": duration_s}


def carry(client: str, task: Scenario, *, may_fail: bool = False) -> Carried:
    """Run a load on hosts made for it; only with `may_fail` is a failed attempt a figure.

    Raises:
        LabError: the hosts cannot be made here.
        UsageError: there is only one core.
        SystemExit: a process or an attempt failed, or the server's count is another.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UsageError("client and server need a core each, and this program may use only one")
    with Lab(lab_plan(task)) as lab:
        ((host, plan),) = fleet_plans(task, lab.plan)
        worker = ("-m", "twbench.server.worker")
        with (
            Child(lab, "server", worker, core=cores[1]) as server,
            Child(lab, host, CLIENTS[client], core=cores[0]) as fleet,
        ):
            server.say(server_plan(task, lab.plan).as_line())
            fleet.say(plan.as_line())
            server.wait_ready()
            fleet.wait_ready()
            before_s = fleet.cpu_now_s(), server.cpu_now_s()
            start_ns = time.monotonic_ns() + _LEAD_NS
            fleet.say(b"start %d\n" % start_ns)
            fleet.wait_done(task.load.total_s + _GRACE_S)
            server_cpu_s = server.cpu_now_s() - before_s[1]
            server.say(b"stop\n")
            server.wait_done(_GRACE_S)
        carried, answered = _added_up(
            fleet, server, start_ns, (fleet.cpu_s - before_s[0], server_cpu_s)
        )
    # an answer may come too late for its client
    agreed = carried.exchanges <= answered if carried.failed else carried.exchanges == answered
    if not agreed or (carried.failed and not may_fail):
        raise SystemExit(
            f"{client}: {carried.exchanges:,} answers and {carried.failed:,} failed attempts;"
            f" the server counts {answered:,} answers"
        )
    return carried


def _added_up(
    fleet: Child, server: Child, start_ns: int, cpu_s: tuple[float, float]
) -> tuple[Carried, int]:
    """Return what the client counted, and how many requests the server answered."""
    counted, answered, latency, history = FleetReport(), ServerReport(), histogram(), []
    for message in fleet.messages:
        report = FleetReport.from_json(message)
        counted.add(report)
        history.append((report.t_ns, counted.attempted))
        if encoded := report.histograms.get("request_from_intended"):
            latency.decode_and_add(encoded)
    for message in server.messages:
        answered.add(ServerReport.from_json(message))
    percentiles = percentiles_ms(latency)
    carried = Carried(
        exchanges=counted.ok,
        failed=counted.attempted - counted.ok,
        elapsed_s=(counted.t_ns - start_ns) / 1e9,
        client_cpu_s=cpu_s[0],
        server_cpu_s=cpu_s[1],
        server_first=answered.departures[Departure.ACTIVE_CLOSE],
        p99_from_intended_ms=percentiles["p99"] if percentiles else None,
        history=history,
        errors=fleet.errors,
    )
    return carried, answered.requests
