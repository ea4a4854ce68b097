"""One load, carried once: a client on one core, a server on another, on hosts made for it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.parts.clients import CLIENTS, FOREIGN
from bench.parts.counters import Counters
from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.servers import serve
from twbench.lab.lab import Lab
from twbench.model.errors import ScenarioError, UsageError
from twbench.model.parse import build_scenario
from twbench.model.scenario import ClientSpec, Scenario, ServerSpec
from twbench.run.planning import fleet_plans, lab_plan

USERS = 64
FEW = 8
"""So many connections beyond one a user are none lost: nginx is asked for its status on one."""
MANY = tuple(range(8080, 8088))
"""Ports of the server for a long load: no connection meets the TIME_WAIT of an earlier one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """What a load came to."""

    exchanges: int
    failed: int
    """Attempts that came to nothing: other people's, or arrivals that an open loop let go."""
    elapsed_s: float
    """From the start to the end of the last connection."""
    client_cpu_s: float
    """Of the client's processes, user and kernel."""
    server_cpu_s: float
    server_first: int
    """Connections for which the server's host entered TIME_WAIT, by its kernel (TcpExtTW)."""
    p99_ms: float | None
    """From the intended start; None from a client that does not measure it."""
    history: Sequence[tuple[int, int]]
    """CLOCK_MONOTONIC ns, and exchanges attempted until then."""
    errors: Sequence[str]
    """What the client wrote to standard error."""

    @property
    def rate_per_s(self) -> float:
        """Return exchanges per second."""
        return self.exchanges / self.elapsed_s

    @property
    def failed_percent(self) -> float:
        """Return of how many attempts in a hundred nothing came."""
        return 100 * self.failed / (self.exchanges + self.failed)

    @property
    def client_cpu_us(self) -> float:
        """Return the client's CPU time per exchange, user and kernel, in microseconds."""
        return self.client_cpu_s / self.exchanges * 1e6

    @property
    def server_cpu_us(self) -> float:
        """Return the server's CPU time per exchange, user and kernel, in microseconds."""
        return self.server_cpu_s / self.exchanges * 1e6

    @property
    def client_busy_percent(self) -> float:
        """Return how much of its core the client took."""
        return 100 * self.client_cpu_s / self.elapsed_s

    @property
    def server_busy_percent(self) -> float:
        """Return how much of its core the server took."""
        return 100 * self.server_cpu_s / self.elapsed_s

    @property
    def server_first_percent(self) -> float:
        """Return of how many exchanges in a hundred the server closed the connection first."""
        return 100 * self.server_first / self.exchanges


def closed(duration_s: float) -> dict[str, Any]:
    """Return the closed load that every client carries."""
    return {"concurrency": USERS, "duration_s": duration_s}


def scenario(
    load: Mapping[str, Any],
    *,
    client: str = "",
    server: str = "",
    ending: str = "server-fin",
    pool: bool = False,
    tables: Mapping[str, Any] | None = None,
    lab: Mapping[str, Any] | None = None,
    sampling: Mapping[str, float] | None = None,
) -> Scenario:
    """Return a scenario for an engine each of client and server, where they are twbench's.

    One destination, unless `lab` says otherwise: other tools know only one. `tables` are what
    `[client]` has besides.

    Raises:
        UnavailableError: twbench has no such engine.
    """
    raw: dict[str, Any] = {"name": "bench", "ending": {"kind": ending}, "load": load}
    raw["sampling"] = sampling or {}
    raw["lab"] = lab or hosts()
    raw["client"] = _engine(ClientSpec, client) | ({"pool": {"size": USERS}} if pool else {})
    raw["client"] |= tables or {}
    raw["server"] = _engine(ServerSpec, server) | {"keepalive_requests": 1_000_000_000}
    try:
        return build_scenario(raw, source="bench")
    except ScenarioError as error:
        if "engine" in str(error):
            wanted = client if "client.engine" in str(error) else server
            raise UnavailableError(f"twbench has no engine '{wanted}' here") from None
        raise


def _engine(spec: type[ClientSpec | ServerSpec], name: str) -> dict[str, Any]:
    """Name the engine, but not the one that a side without a choice has anyway."""
    chosen = name == "uring" or (name == "streams" and "engine" in spec.model_fields)
    return {"engine": name} if chosen else {}


def hosts(
    *, ports: Sequence[int] = MANY[:1], addresses: int = 1, buckets: int | None = None
) -> dict[str, Any]:
    """Return a lab with every port for the client, and room for two million TIME_WAITs a side."""
    room = {"net.ipv4.tcp_max_tw_buckets": 2_000_000}
    return {
        "client": {
            "addresses": addresses,
            "sysctl": {"net.ipv4.ip_local_port_range": "1024 65535", **room},
        },
        "server": {"ports": ports, "sysctl": room},
        **({"ehash_entries": buckets} if buckets else {}),
    }


def carry(client: str, task: Scenario, *, server: str) -> Carried:
    """Run a load on hosts made for it.

    That attempts of other people's client fail at other people's server, or are let go by an
    open loop, is a figure; every other failure is a fault.

    Raises:
        LabError: the hosts cannot be made here.
        UnavailableError: client or server is not to be had.
        UsageError: there is only one core.
        BrokenError: a process or an attempt failed, nothing was done, or the server's side counts
            otherwise.
    """
    with Lab(lab_plan(task)) as lab:
        return carry_in(lab, client, task, server=server)


def carry_in(lab: Lab, client: str, task: Scenario, *, server: str) -> Carried:
    """Run a load in a lab that stands already; the rest is as for `carry`."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UsageError("client and server need a core each, and this program may use only one")
    ((_, plan),) = fleet_plans(task, lab.plan)
    with (
        serve(server, lab, task, core=cores[1]) as serving,
        Counters(lab, lab.plan.server.stack) as counters,
    ):
        before, server_before_s = counters.read(), serving.cpu_now_s()
        account = CLIENTS[client](lab, plan, cores[0])
        server_cpu_s = serving.cpu_now_s() - server_before_s
        requests = serving.stop()
        after = counters.read()
    carried = Carried(
        exchanges=account.told.exchanges,
        failed=account.told.failed,
        elapsed_s=account.told.elapsed_s,
        client_cpu_s=account.cpu_s,
        server_cpu_s=server_cpu_s,
        server_first=after.waited - before.waited,
        p99_ms=account.p99_ms,
        history=account.history,
        errors=account.errors,
    )
    _check(client, carried, account.limited, foreign=client in FOREIGN and server == "nginx")
    opened, under_way = after.opened - before.opened, 2 * USERS + carried.failed
    if task.crawls:
        pass  # a library keeps what it likes
    elif task.client.pool is None:
        _agree(client, carried, opened, "connections by the server's kernel", under_way)
    elif opened > USERS + FEW:
        raise BrokenError(f"{client} opened {opened:,} connections instead of keeping {USERS}")
    # a client of ours stops for nothing that is under way
    slack = under_way if client in FOREIGN else account.limited
    _agree(client, carried, requests, "requests by the server", slack)
    return carried


def _check(client: str, carried: Carried, limited: int, *, foreign: bool) -> None:
    """BrokenError for a failure that is a fault, and where nothing was done."""
    if carried.failed > limited and not foreign:
        raise BrokenError(
            f"{client}: {carried.failed - limited:,} attempts failed, {carried.exchanges:,} did not"
        )
    if not carried.exchanges:
        raise BrokenError(f"{client}: not one exchange, and {carried.failed:,} attempts failed")


def _agree(client: str, carried: Carried, count: int, what: str, slack: int) -> None:
    """BrokenError unless the other side counts as many, but for what was under way at the end."""
    if abs(count - carried.exchanges) > slack:
        raise BrokenError(f"{client} counts {carried.exchanges:,}; {count:,} {what}")
