"""From a scenario to a lab's plan, to each process's plan, and to a forecast. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle
from types import MappingProxyType

from twbench.forecast import (
    CLIENT_TIME_WAIT,
    NO_TIME_WAIT,
    REUSED_TIME_WAIT,
    SERVER_TIME_WAIT,
    ClosedLoad,
    Forecast,
    Hold,
    OpenLoad,
    PortBudget,
    Scan,
    Stage,
    predict,
    predict_capacity,
)
from twbench.lab.plan import SHARED_STACK, LabPlan, Link
from twbench.model.endings import ENDINGS
from twbench.model.errors import Problem, ScenarioError
from twbench.model.plans import CarrierPlan, Endpoint, FleetPlan, ServerPlan
from twbench.model.scenario import LoadSpec, Scenario, WireSpec
from twbench.model.sites import DOMAIN, Sites
from twbench.model.states import TIME_WAIT_S, Side
from twbench.run.wiring import check_rules, own_rules

LAST_PORT = 65535
DEFAULT_PORT_RANGE = (32768, 60999)
"""`net.ipv4.ip_local_port_range` of a new namespace (inet_net_init)."""
_DEFAULT_REUSE = "2"
_FIN_BEFORE_CLOSE = frozenset({"client-half-close"})
"""Endings in which the client's FIN is sent by shutdown(), which asks no SO_LINGER.

In all others its close() with linger 0 resets, whoever was first (tcp_need_reset), and the
server's FIN_WAIT2 ends with it.
"""
PORT_RANGE = "net.ipv4.ip_local_port_range"
_RESERVED = "net.ipv4.ip_local_reserved_ports"
_FASTEST_PER_S = 30_000
"""More new connections a second than one fleet has ever made here; sizes socket tables only."""


def lab_plan(scenario: Scenario) -> LabPlan:
    """Return the lab that a scenario asks for.

    Raises:
        ScenarioError: a sysctl or a rule of the wire is none.
    """
    lab = scenario.lab
    check_rules(lab)
    unsized = LabPlan(
        link=Link(lab.link),
        family=4 if lab.family == "ipv4" else 6,
        client_hosts=lab.client.hosts,
        addresses_per_client=lab.client.addresses,
        server_addresses=lab.server.addresses,
        server_ports=lab.server.ports,
        client_sysctls={name: str(value) for name, value in lab.client.sysctl.items()},
        server_sysctls={name: str(value) for name, value in lab.server.sysctl.items()},
        ehash_entries=lab.ehash_entries,
    )
    most = round(_FASTEST_PER_S * min(scenario.load.total_s, TIME_WAIT_S))
    forecast = predict_scenario(scenario, {})
    peak = forecast.time_wait_peak
    expected = most if peak is None or scenario.load.mode == "closed" else round(peak)
    return replace(unsized, expected_sockets=min(expected, forecast.capacity))


def port_capacity(
    plan: LabPlan,
    stack: str,
    ports: tuple[int, int],
    sysctls: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Return how many connections the clients of a stack can hold towards one destination.

    `sysctls` are those read on that stack; those that the plan asks for count before them.
    """
    low, high = ports
    reserved = {**sysctls, **plan.sysctls_of(stack)}.get(_RESERVED, "")
    addresses = sum(len(host.addresses) for host in plan.clients if host.stack == stack)
    return (high - low + 1 - _reserved_within(reserved, low, high)) * addresses


def endpoints(plan: LabPlan) -> tuple[Endpoint, ...]:
    """Return every address and port that the server listens on."""
    return tuple((a, port) for a in plan.server.addresses for port in plan.server_ports)


SERVER_NAME = f"server.{DOMAIN}"
"""What a program under `twbench exec` knows the server by."""


def site_addresses(scenario: Scenario, plan: LabPlan) -> dict[str, str]:
    """Return the address of every name that the server has: `server.test`, and each site's.

    Site n lies at endpoint n modulo their number, and so at that one's port too.
    """
    at = [address for address, _ in endpoints(plan)]
    if scenario.web is None:
        return {SERVER_NAME: at[0]}
    names = Sites(scenario.web, median_bytes=0, seed=scenario.load.seed).names
    return {SERVER_NAME: at[0], **dict(zip(names, cycle(at), strict=False))}


def worker_module(scenario: Scenario) -> str:
    """Return the module that carries a fleet worker's part."""
    return "twbench.crawl.worker" if scenario.crawls else "twbench.fleet.worker"


def server_plan(scenario: Scenario, plan: LabPlan, *, foreign: bool = False) -> ServerPlan:
    """Return what every server process is told; of a `foreign` client nobody knows how much."""
    return ServerPlan(
        server=scenario.server,
        ending=scenario.ending,
        family=scenario.lab.family,
        endpoints=endpoints(plan),
        connections=0 if foreign or scenario.crawls else _connections(scenario),
        web=scenario.web,
        seed=scenario.load.seed,
    )


def _connections(scenario: Scenario) -> int:
    """Return how many connections the fleet has at once at the most."""
    load, pool = scenario.load, scenario.client.pool
    most = load.max_in_flight if load.mode == "open" else _users(load)
    return min(most, pool.size) if pool else most


def carrier_plan(scenario: Scenario, plan: LabPlan) -> CarrierPlan | None:
    """Return what the carrier of a wire is told; None where there is no wire."""
    if plan.middle is None:
        return None
    return CarrierPlan(
        wire=scenario.lab.wire or WireSpec(),
        ports=plan.wire_ports,
        own_rules=own_rules(scenario),
        hold_s=scenario.ending.hold_s,
    )


def fleet_plans(scenario: Scenario, plan: LabPlan) -> list[tuple[str, FleetPlan]]:
    """Return each worker's host and plan; neighbouring workers sit on different hosts."""
    workers = scenario.client.workers * len(plan.clients)
    return [
        (
            host.name,
            FleetPlan(
                scenario=scenario,
                worker=worker,
                workers=workers,
                sources=host.addresses,
                destinations=endpoints(plan),
            ),
        )
        for worker in range(workers)
        for host in [plan.clients[worker % len(plan.clients)]]
    ]


def port_range(scenario: Scenario, sysctls: Mapping[str, str]) -> tuple[int, int]:
    """Return the ephemeral ports of the clients, inclusive.

    `sysctls` are those read on the client's stack, or none before there is one. The socket option
    IP_LOCAL_PORT_RANGE narrows the sysctl's range, and each end of it that lies outside is ignored
    (inet_sk_get_local_port_range).

    Raises:
        ScenarioError: the sysctl that the scenario asks for is no range.
    """
    asked = _sysctl(scenario, sysctls, PORT_RANGE)
    low, high = DEFAULT_PORT_RANGE if asked is None else _range(asked)
    first, last = scenario.client.socket.IP_LOCAL_PORT_RANGE or (low, high)
    return first if low <= first <= high else low, last if low <= last <= high else high


def _range(text: str) -> tuple[int, int]:
    """Return the range that a sysctl's text names."""
    ends = [int(end) if end.isdecimal() else 0 for end in text.split()]
    if len(ends) != 2 or not 1 <= ends[0] <= ends[1] <= LAST_PORT:  # noqa: PLR2004 - low and high
        allowed = "allowed are two ports, low and high, as in '32768 60999'"
        raise _no_sysctl(PORT_RANGE, text, allowed)
    return ends[0], ends[1]


def _reserved_within(text: str, low: int, high: int) -> int:
    """Return how many ports of a range `ip_local_reserved_ports` keeps from connect().

    Raises:
        ScenarioError: the sysctl's text is no list of ports, or keeps all of them.
    """
    spans = [part.partition("-") for part in text.replace(",", " ").split()]
    ends = [(first, last if dash else first) for first, dash, last in spans]
    numbers = [number for pair in ends for number in pair]
    known = all(number.isdecimal() and int(number) <= LAST_PORT for number in numbers)
    if not known or any(int(first) > int(last) for first, last in ends):
        raise _no_sysctl(_RESERVED, text, "allowed are ports, as in '8080,9148-9160'")
    reserved = {port for first, last in ends for port in range(int(first), int(last) + 1)}
    kept = len(reserved.intersection(range(low, high + 1)))
    if kept == high - low + 1:
        raise _no_sysctl(_RESERVED, text, f"allowed is what leaves a port of {low}-{high}")
    return kept


def _no_sysctl(name: str, text: str, allowed: str) -> ScenarioError:
    problem = Problem(key=f"lab.client.sysctl.{name}", found=repr(text), allowed=allowed)
    return ScenarioError("scenario", [problem])


def _sysctl(scenario: Scenario, sysctls: Mapping[str, str], name: str) -> str | None:
    """Return a sysctl of the clients' stack: as asked for, else as read, else None."""
    lab = scenario.lab
    shared = lab.server.sysctl if lab.link == "loopback" else {}
    value = {**sysctls, **shared, **lab.client.sysctl}.get(name)
    return None if value is None else str(value)


def predict_scenario(
    scenario: Scenario,
    sysctls: Mapping[str, str],
    *,
    rate_per_s: float | None = None,
    foreign: bool = False,
) -> Forecast:
    """Return the forecast; a closed load needs the `rate_per_s` of new connections for most of it.

    An open load has a rate of its own, and `rate_per_s` says nothing of it. Of a client that is not
    ours, a crawler or a `foreign` program, nobody knows when it closes, or whether it is the first
    to: all that is foretold is how many ports there are.

    `sysctls` are those read on the client's stack, or none before there is one.
    """
    options = scenario.client.socket
    low, high = port_range(scenario, sysctls)
    destinations = scenario.lab.server.addresses * len(scenario.lab.server.ports)
    budget = PortBudget(
        range_low=low,
        range_high=high,
        reserved_ports=_reserved_within(_sysctl(scenario, sysctls, _RESERVED) or "", low, high),
        source_addresses=scenario.lab.client.hosts * scenario.lab.client.addresses,
        destinations=1 if _bound_early(scenario) else destinations,
        scan=Scan.WINDOW if options.IP_LOCAL_PORT_RANGE else Scan.PARITY,
    )
    if foreign or scenario.crawls:
        return predict_capacity(budget)
    hold = replace(_hold(scenario, sysctls), lifetime_s=_lifetime_s(scenario))
    return predict(budget, _load(scenario, rate_per_s), hold)


def _bound_early(scenario: Scenario) -> bool:
    """Return whether bind(0) takes a port for every destination at once.

    With several addresses the fleet binds anyway, by default with IP_BIND_ADDRESS_NO_PORT.
    """
    client = scenario.client
    several = scenario.lab.client.addresses > 1
    left_to_connect = client.socket.IP_BIND_ADDRESS_NO_PORT
    if left_to_connect is None:
        left_to_connect = several
    return (several or client.bind_before_connect) and not left_to_connect


def _lifetime_s(scenario: Scenario) -> float:
    """Return for how long a connection is used: the server's thinking, and its waiting."""
    server, kind = scenario.server, scenario.ending.kind
    thinking_s = server.delay_ms / 1000 if ENDINGS[kind].answered else 0.0
    waits = kind == "server-idle" and scenario.client.pool is None
    return _requests(scenario) * thinking_s + (server.keepalive_timeout_s if waits else 0.0)


def _requests(scenario: Scenario) -> int:
    """Return how many requests a connection carries at most."""
    pool, limit = scenario.client.pool, scenario.server.keepalive_requests
    return min(pool.requests_per_connection or limit, limit) if pool else 1


def _hold(scenario: Scenario, sysctls: Mapping[str, str]) -> Hold:
    if scenario.client.socket.SO_LINGER == 0 and scenario.ending.kind not in _FIN_BEFORE_CLOSE:
        return NO_TIME_WAIT
    waiting = ENDINGS[scenario.ending.kind].time_wait
    if Side.CLIENT not in waiting:
        return SERVER_TIME_WAIT if waiting else NO_TIME_WAIT
    reuse = _sysctl(scenario, sysctls, "net.ipv4.tcp_tw_reuse") or _DEFAULT_REUSE
    stamped = _sysctl(scenario, sysctls, "net.ipv4.tcp_timestamps") != "0"
    on_loopback = Link(scenario.lab.link) in SHARED_STACK
    wanted = reuse == "1" or (reuse == _DEFAULT_REUSE and on_loopback)
    # tcp_twsk_unique needs timestamps, and bind(0) never asks it
    reused = wanted and stamped and not _bound_early(scenario)
    return REUSED_TIME_WAIT if reused else CLIENT_TIME_WAIT


def _load(scenario: Scenario, rate_per_s: float | None) -> OpenLoad | ClosedLoad:
    """Return the load in new connections: with keep-alive they are fewer than the requests."""
    load, pool = scenario.load, scenario.client.pool
    if load.mode == "closed":
        users = min(_users(load), pool.size) if pool else _users(load)
        if not users:
            return OpenLoad.constant(rate_per_s=0, duration_s=load.total_s)
        return ClosedLoad(concurrency=users, duration_s=load.total_s, rate_per_s=rate_per_s)
    flow = _open_load(load, share=1 / _requests(scenario))
    return flow if load.requests is None else flow.at_most(load.requests / _requests(scenario))


def _users(load: LoadSpec) -> int:
    """Return the most users that a closed load has at a time."""
    return max(load.concurrency or 0, *(stage.concurrency or 0 for stage in load.stages), 0)


def _open_load(load: LoadSpec, *, share: float) -> OpenLoad:
    if not load.stages:
        rate = (load.rate_per_s or 0) * share
        return OpenLoad.constant(rate_per_s=rate, duration_s=load.total_s)
    rates = [load.rate_per_s or 0, *(stage.rate_per_s or 0 for stage in load.stages)]
    return OpenLoad(
        stages=tuple(
            Stage(
                duration_s=stage.duration_s,
                rate_start_per_s=low * share,
                rate_end_per_s=high * share,
            )
            for stage, low, high in zip(load.stages, rates, rates[1:], strict=False)
        )
    )
