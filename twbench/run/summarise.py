"""From a run's books to what summary.json says. Pure."""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from twbench.audit import Account, StackAccount, audit
from twbench.lab.plan import LabPlan, Link
from twbench.model.endings import ENDINGS
from twbench.model.outcomes import kind_of_key
from twbench.model.reports import FleetReport, PacketFate, ServerReport, WireReport
from twbench.model.scenario import Scenario
from twbench.model.states import TIME_WAIT_S, Side
from twbench.run.books import Books, StackBooks, percentiles_ms
from twbench.run.hosts import STEADY_FROM_S, host_view, steady_time
from twbench.run.pages import Pages
from twbench.run.planning import port_range, predict_scenario
from twbench.run.wiring import carried, meddling_of

_SECOND_NS = 1_000_000_000
_ENOUGH = 100
"""Reports, of which there are ten a second, to measure a rate by."""
_COMPARE = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """What a run has to say besides figures."""

    warnings: tuple[str, ...] = ()
    """What the lab and the readers could not do or promise."""
    events: Sequence[Mapping[str, Any]] = ()
    """What happened on the way, as events.jsonl has it."""
    ended_early: str = ""
    """Why the run ended before its time, or nothing."""
    program: Mapping[str, Any] | None = None
    """What became of a program that ran in the fleet's place: `cpu_s` and others."""


def summarise_run(
    *,
    scenario: Scenario,
    plan: LabPlan,
    books: Books,
    start_ns: int,
    load_s: float,
    sysctls: Mapping[str, str],
    notes: Notes,
    foreign: bool = False,
) -> dict[str, Any]:
    """Return the content of summary.json but for `schema`, `run_id` and `environment`.

    Args:
        scenario: what was run.
        plan: its lab.
        books: all that was told.
        start_ns: when the load began, CLOCK_MONOTONIC.
        load_s: for how long it was offered.
        sysctls: of the clients' stack.
        notes: what there is to say besides.
        foreign: whether the client closes as it likes: a library, a crawler, any program.
    """
    fleet = books.fleet
    account = _account(scenario, plan, books, start_ns, foreign=foreign)
    pages = Pages.of(
        books, load_s=load_s, foreign=foreign, program=notes.program, stacks=account.stacks
    )
    meddling = meddling_of(books.wire, scenario)
    ports, steady = port_range(scenario, sysctls), steady_time(start_ns, load_s)
    latencies = {
        name: percentiles_ms(recorded)
        if scenario.load.mode == "open" or name != _INTENDED
        else None
        for name, recorded in books.latencies.items()
    }
    if latencies[_INTENDED] is None:
        # users who wait for answers start when they mean to
        latencies[_INTENDED] = latencies["request"]
    summary: dict[str, Any] = {
        "scenario": scenario.model_dump(mode="json", exclude_none=True),
        "foreign": foreign,
        "warnings": [*notes.warnings, *filter(None, [meddling])],
        "ended_early": notes.ended_early,
        "events": [dict(event) for event in notes.events],
        "load_s": round(load_s, 3),
        "outcomes": {
            "attempted": fleet.attempted,
            "ok": fleet.ok,
            "retried": fleet.retried,
            "silent_retries": pages.silent_retries,
            "reopened": books.server.reopened,
            "received_bytes": fleet.received_bytes,
            "not_accepted": books.server.not_accepted,
            "errors": dict(fleet.errors.most_common()),
            "first_error_s": {
                key: round((t_ns - start_ns) / _SECOND_NS, 4)
                for key, t_ns in fleet.first_error_ns.items()
            },
            "connection_errors": dict(fleet.connection_errors.most_common()),
            "departures": {
                "client": dict(fleet.departures),
                "server": dict(books.server.departures),
            },
        },
        "rates": pages.rates(),
        "latency_ms": latencies,
        "hosts": {host.name: host_view(host, plan, books, ports, steady) for host in plan.hosts},
        "forecast": _forecast(scenario, plan, books, start_ns, sysctls, pages),
        "audit": audit(account).as_json(),
    }
    if plan.middle:
        summary["wire"] = carried(books.wire)
    if notes.program is not None:
        summary["program"] = dict(notes.program)
    summary["thresholds"] = [
        check_threshold(summary, key, comparison) for key, comparison in scenario.comparisons()
    ]
    return summary


_INTENDED = "request_from_intended"


def _account(
    scenario: Scenario, plan: LabPlan, books: Books, start_ns: int, *, foreign: bool
) -> Account:
    stacks = []
    for name in plan.stacks:
        here = [host for host in plan.hosts if host.stack == name]
        fleet = FleetReport()
        for host in here:
            if host.side is Side.CLIENT:
                fleet.add(books.fleets[host.name])
        sides = frozenset(host.side for host in here)
        server = books.server if Side.SERVER in sides else ServerReport()
        account = _stack_account(name, sides, books.stacks[name], fleet, server, start_ns)
        stacks.append(_with_resets(account, books.wire))
    return Account(
        ending=ENDINGS[scenario.ending.kind],
        stacks=tuple(stacks),
        promised=plan.link is not Link.HOST and not meddling_of(books.wire, scenario),
        foreign=foreign,
    )


def _with_resets(account: StackAccount, wire: WireReport) -> StackAccount:
    """Add the RSTs that a wire saw; of several client hosts it does not tell whose they were."""
    told = {Side.CLIENT: wire.client, Side.SERVER: wire.server}
    from_here = sum(told[side][PacketFate.BARE_RESET] for side in account.sides)
    to_here = sum(told[side.other][PacketFate.BARE_RESET] for side in account.sides)
    return replace(account, bare_resets=from_here, bare_resets_met=to_here)


def _stack_account(
    name: str,
    sides: frozenset[Side],
    stack: StackBooks,
    fleet: FleetReport,
    server: ServerReport,
    start_ns: int,
) -> StackAccount:
    return StackAccount(
        name=name,
        sides=sides,
        counters=stack.last.counters if stack.last else {},
        history=tuple(
            ((t_ns - start_ns) / _SECOND_NS, entries) for t_ns, _, entries in stack.time_wait
        ),
        waiting=tuple(waiting for _, waiting, _ in stack.time_wait),
        time_wait_end=stack.time_wait[-1][1] if stack.time_wait else 0,
        accept_queue_end=sum(stack.look.accept_queue.values()) if stack.look else 0,
        fleet=fleet,
        server=server,
    )


def _forecast(
    scenario: Scenario,
    plan: LabPlan,
    books: Books,
    start_ns: int,
    sysctls: Mapping[str, str],
    pages: Pages,
) -> dict[str, Any]:
    """Put the prediction beside what was measured.

    A closed load has no rate before it is run, so its prediction takes the measured one. Where
    nobody knows which side closes first, both hosts' TIME_WAIT is what was measured.
    """
    foreign = pages.foreign
    closed = scenario.load.mode == "closed" and not foreign
    rate = pages.connections_per_s if closed else None
    predicted = asdict(predict_scenario(scenario, sysctls, rate_per_s=rate, foreign=foreign))
    waiting = frozenset(Side) if foreign else ENDINGS[scenario.ending.kind].time_wait
    exhausted = [
        (t_ns - start_ns) / _SECOND_NS
        for key, t_ns in books.fleet.first_error_ns.items()
        if kind_of_key(key).name == "ports_exhausted"
    ]
    exhausted_s = round(min(exhausted), 4) if exhausted else None
    holders = [host for host in plan.hosts if host.side in waiting]
    names = dict.fromkeys(host.stack for host in holders)
    series = [books.stacks[name].time_wait for name in names]
    ports_peak = max((stack.ports_peak for stack in books.stacks.values()), default=0)
    measured = {
        "time_wait_steady": _steady(series, start_ns, scenario.load.total_s),
        "time_wait_peak": sum(max((tw for _, tw, _ in one), default=0) for one in series),
        "exhausted_after_s": exhausted_s,
        "sustainable_rate_per_s": _sustained(books, exhausted_s, scenario.load.total_s, start_ns),
        "ports_in_use_peak_per_destination": ports_peak,
    }
    return {
        "from_measured_rate": closed,
        "predicted": {k: round(v, 4) if isinstance(v, float) else v for k, v in predicted.items()},
        "measured": measured,
    }


def _steady(series: list[list[tuple[int, int, int]]], start_ns: int, load_s: float) -> float | None:
    """Return the mean of sockstat `tw` from 60 s on to the load's end; None for a shorter one."""
    begin_ns = start_ns + round(STEADY_FROM_S * _SECOND_NS)
    end_ns = start_ns + round(load_s * _SECOND_NS)
    means = []
    for one in series:
        steady = [count for t_ns, count, _ in one if begin_ns <= t_ns <= end_ns]
        if not steady:
            return None
        means.append(sum(steady) / len(steady))
    return round(sum(means), 1) if means else 0.0


def _sustained(
    books: Books, exhausted_s: float | None, load_s: float, start_ns: int
) -> float | None:
    """Return new connections/s once ports are the limit: from 60 s after they first ran out.

    None where they never did, or the load ended before a minute could show it.
    """
    if exhausted_s is None or load_s < exhausted_s + 2 * TIME_WAIT_S:
        return None
    begin_ns = start_ns + round((exhausted_s + TIME_WAIT_S) * _SECOND_NS)
    end_ns = start_ns + round(load_s * _SECOND_NS)
    within = [(t, count) for t, count in books.established if begin_ns <= t <= end_ns]
    if len(within) < _ENOUGH:
        return None
    (first_ns, first), (last_ns, last) = within[0], within[-1]
    return round((last - first) * _SECOND_NS / (last_ns - first_ns), 2)


def check_threshold(summary: Mapping[str, Any], key: str, comparison: str) -> dict[str, Any]:
    """Return whether a figure of the summary fits a comparison such as `>= 100`.

    A count that never came up is 0; a figure that is not there, or no number, never fits.
    """
    value: Any = summary
    parent = ""
    for part in key.split("."):
        missing = 0 if parent in ("errors", "connection_errors", "counters") else None
        value = value.get(part, missing) if isinstance(value, Mapping) else None
        parent = part
    sign, number = re.findall(r"[<>=!]+|[^\s<>=!]+", comparison)
    figure = isinstance(value, int | float)
    return {
        "expression": f"{key} {comparison.strip()}",
        "value": value if figure else None,
        "ok": figure and bool(_COMPARE[sign](value, float(number))),
    }
