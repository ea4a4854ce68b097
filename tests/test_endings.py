"""Every ending of the table, put to the kernel: who holds TIME_WAIT, and who sent RST.

Fleet and server run as the real processes on two hosts of a lab of their own; what the row of the
table says is compared with both kernels' counters and with both applications' books.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from twbench.kernel.procnet import parse_counters
from twbench.lab.lab import Lab
from twbench.model.endings import ENDINGS, Departure, Ending
from twbench.model.plans import FleetPlan, ServerPlan
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.scenario import Scenario
from twbench.model.states import Side
from twbench.run.children import Child, Message
from twbench.run.planning import fleet_plans, lab_plan, server_plan

pytestmark = pytest.mark.namespaces

REQUESTS = 12
PER_CONNECTION = 3
KEPT = {"size": 1, "requests_per_connection": PER_CONNECTION}
FLEET, SERVER = "twbench.fleet.worker", "twbench.server.worker"
NAMES = [ending.name for ending in ENDINGS.values() if not ending.needs_wire]


@dataclass(kw_only=True)
class Outcome:
    """What a run left: both books, and how far each host's counters rose."""

    fleet: FleetReport = field(default_factory=FleetReport)
    server: ServerReport = field(default_factory=ServerReport)
    loops: tuple[str, str] = ("", "")
    counters: dict[Side, dict[str, int]] = field(default_factory=dict)


def counters(lab: Lab) -> dict[Side, dict[str, int]]:
    """Return each host's TCP counters."""
    found = {}
    for side in Side:
        texts = []
        for path in ("/proc/net/snmp", "/proc/net/netstat"):
            with os.fdopen(lab.open(side.value, path), "rb") as file:
                texts.append(file.read())
        found[side] = parse_counters(*texts)
    return found


def scenario_of(
    ending: str, *, family: str = "ipv4", pool: Mapping[str, int] | None = None
) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "ending",
            "ending": {"kind": ending, "hold_s": 5},
            "lab": {"family": family},
            "server": {"keepalive_timeout_s": 0.1 if ending == "server-idle" else 75},
            # with one user each connection of a pool carries its full number of requests
            "load": {"concurrency": 1 if pool else 4, "duration_s": 20, "requests": REQUESTS},
            "client": {"pool": pool},
        }
    )


async def carry_out(
    lab: Lab, server: ServerPlan, fleet: FleetPlan, modules: Mapping[Side, str]
) -> Outcome:
    """Run both processes to their end, and wait until the server has seen every connection's."""
    outcome = Outcome()

    def hear(child: Child, message: Message) -> None:
        if child.host == Side.CLIENT:
            outcome.fleet.add(FleetReport.from_json(message))
        else:
            outcome.server.add(ServerReport.from_json(message))

    serving, driving = Child("server", Side.SERVER, hear), Child("fleet", Side.CLIENT, hear)
    try:
        before = counters(lab)
        ready = await asyncio.gather(
            serving.start(lab, modules[Side.SERVER], server.as_line()),
            driving.start(lab, modules[Side.CLIENT], fleet.as_line()),
        )
        outcome.loops = (ready[0]["loop"], ready[1]["loop"])
        await driving.say(b"start %d\n" % time.monotonic_ns())
        assert await asyncio.wait_for(driving.ended, 30) == 0, driving.complaint
        async with asyncio.timeout(10):
            while outcome.server.departures.total() < outcome.fleet.established:  # noqa: ASYNC110 - told in ticks
                await asyncio.sleep(0.02)
        after = counters(lab)
        await serving.say(b"stop\n")
        assert await asyncio.wait_for(serving.ended, 10) == 0, serving.complaint
    finally:
        for child in (driving, serving):
            await child.finish(within_s=0)
    outcome.counters = {
        side: {name: value - before[side][name] for name, value in after[side].items()}
        for side in Side
    }
    return outcome


def run(scenario: Scenario, modules: Mapping[Side, str] | None = None) -> Outcome:
    plan = lab_plan(scenario)
    ((_, fleet),) = fleet_plans(scenario, plan)
    chosen = modules or {Side.CLIENT: FLEET, Side.SERVER: SERVER}
    with Lab(plan) as lab:
        return asyncio.run(carry_out(lab, server_plan(scenario, plan), fleet, chosen))


def check(outcome: Outcome, ending: Ending, connections: int) -> None:
    """Compare everything that was counted with the ending's row."""
    client, server = outcome.counters[Side.CLIENT], outcome.counters[Side.SERVER]
    opens = {
        "client ActiveOpens": client["TcpActiveOpens"],
        "client PassiveOpens": client["TcpPassiveOpens"],
        "server ActiveOpens": server["TcpActiveOpens"],
        "server PassiveOpens": server["TcpPassiveOpens"],
        "fleet": outcome.fleet.established,
        "server": outcome.server.accepted,
    }
    assert opens == {
        "client ActiveOpens": connections,
        "client PassiveOpens": 0,
        "server ActiveOpens": 0,
        "server PassiveOpens": connections,
        "fleet": connections,
        "server": connections,
    }
    for side in Side:
        entries = connections if side in ending.time_wait else 0
        resets = connections if side in ending.resets else 0
        counted = outcome.counters[side]
        assert (counted["TcpExtTW"], counted["TcpOutRsts"]) == (entries, resets), side
    assert outcome.fleet.departures == {ending.client.value: connections}
    assert outcome.server.departures == {ending.server.value: connections}
    assert outcome.fleet.closed_early == outcome.server.closed_early == 0
    seen = outcome.fleet.errors + outcome.fleet.connection_errors
    assert set(seen) <= ending.may_see
    assert outcome.fleet.attempted == REQUESTS
    assert outcome.fleet.ok == (REQUESTS if ending.answered else 0)
    assert outcome.server.requests == outcome.fleet.ok


@pytest.mark.parametrize("name", NAMES)
def test_connection_per_request_leaves_what_its_ending_says(name: str) -> None:
    check(run(scenario_of(name)), ENDINGS[name], REQUESTS)


@pytest.mark.parametrize("name", NAMES)
def test_kept_connection_leaves_what_its_ending_says(name: str) -> None:
    ending = ENDINGS[name]
    # a request that is not answered ends its connection, so each opens one
    connections = REQUESTS // PER_CONNECTION if ending.answered else REQUESTS
    check(run(scenario_of(name, pool=KEPT)), ending, connections)


@pytest.mark.parametrize("name", ["client-fin", "server-rst"])
def test_ending_is_the_same_over_ipv6(name: str) -> None:
    check(run(scenario_of(name, family="ipv6")), ENDINGS[name], REQUESTS)


@pytest.mark.parametrize("name", ["server-fin", "client-rst", "client-half-close"])
def test_ending_is_the_same_on_asyncios_own_loop(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {}
    for side, module in ((Side.CLIENT, FLEET), (Side.SERVER, SERVER)):
        # an entry of None is how the import system itself says that a module is not to be had
        source = f"import sys\nsys.modules['uvloop'] = None\nfrom {module} import main\nmain()\n"
        (tmp_path / f"without_uvloop_{side}.py").write_text(source)
        modules[side] = f"without_uvloop_{side}"
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    outcome = run(scenario_of(name), modules)
    assert outcome.loops == ("asyncio", "asyncio")
    check(outcome, ENDINGS[name], REQUESTS)


def test_every_departure_is_met_by_some_ending() -> None:
    met = {ENDINGS[name].departure(side) for name in NAMES for side in Side}
    assert met == set(Departure)
