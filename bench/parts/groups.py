"""The groups of peers.py: what is measured against what, and the goal of each."""

import functools
from dataclasses import dataclass, replace

from bench.parts.counters import Counters
from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.figures import Row, at_least, at_most, missing
from bench.parts.loads import MANY, USERS, Carried, carry, carry_in, closed, hosts, scenario
from bench.parts.servers import SERVERS
from bench.parts.tools import TOOLS
from bench.parts.turns import BUSY_PERCENT, Tally, Versus, in_turn, judged, say
from twbench.lab.lab import Lab
from twbench.model.scenario import Scenario
from twbench.run.planning import lab_plan

ENGINES = ("uring", "streams")
CONTESTANTS = (
    *ENGINES,
    *("bare uring", "bare uvloop"),
    *TOOLS,
    *("Locust", "aiohttp"),
)
FOREIGN = frozenset({*TOOLS, "Locust", "aiohttp"})
"""Whose failures are a figure; one of ours stops everything."""
RATES = (
    Versus(ours="uring", theirs="wrk", least=1.35),
    Versus(ours="uring", theirs="ab", least=1.35),
    Versus(ours="uring", theirs="hey", least=3.0),
    Versus(ours="uring", theirs="h2load"),
    Versus(ours="uring", theirs="Locust"),
    Versus(ours="uring", theirs="C epoll", least=1.05),
    Versus(ours="uring", theirs="bare uring", least=0.93),
    Versus(ours="streams", theirs="bare uvloop", least=0.85),
    Versus(ours="streams", theirs="aiohttp", least=3.0),
)
COSTS = (
    Versus(ours="uring", theirs="C epoll", most=0.95),
    Versus(ours="uring", theirs="bare uring"),
    Versus(ours="uring", theirs="streams"),
)
ENDINGS = ("client-fin", "client-rst", "client-half-close")
ENDING_LEAST, KEEP_ALIVE_LEAST, SERVER_LEAST, CROWD_MOST = 0.85, 1.0, 1.0, 1.2
OPEN_SHARE, MOST_OFF_PERCENT = 0.8, {"uring": 0.5, "streams": 1.0}
MOST_TAIL = 2.0
CROWD_SHARE = 0.9
"""With less of the crowd there, a ratio says nothing."""
CROWD_BUCKETS = 1 << 20
CROWD_SOURCES = 10
"""With eight ports of the server 80 pairs: 500,000 TIME_WAITs are 6,250 a pair, far from 32,256."""
FILL_WITHIN_S = 45.0
"""The first TIME_WAITs end after 60 s."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How much is measured."""

    seconds: int
    rounds: int
    server: str
    engine: str
    """Of twbench's fleet, in all groups but the contest, which has every engine."""
    crowd: int
    """TIME_WAITs."""


Group = tuple[str, list[Row]]


def _rate(carried: Carried) -> float:
    return carried.rate_per_s


def _client_cost(carried: Carried) -> float:
    return carried.client_cpu_us


def _server_cost(carried: Carried) -> float:
    return carried.server_cpu_us


def _full_core(carried: Carried) -> float:
    return 1e6 / carried.server_cpu_us


def _client_busy(carried: Carried) -> float:
    return carried.client_busy_percent


def _server_busy(carried: Carried) -> float:
    return carried.server_busy_percent


@functools.cache
def bundled() -> str:
    """Return the fastest engine that twbench's server has here."""
    try:
        carry("bare uvloop", scenario(closed(0.1), server="uring"), server="uring")
    except (UnavailableError, BrokenError) as error:
        say(f"twbench's server is streams: {error}")
        return "streams"
    return "uring"


def contest(settings: Settings) -> tuple[Tally, Group]:
    """Compare all clients: the server closes first, a connection per request."""
    server = settings.server

    def one(name: str) -> Carried:
        engine = name if name in ENGINES else ""
        task = scenario(closed(settings.seconds), client=engine, server=server)
        return carry(name, task, server=server, may_fail=name in FOREIGN)

    tally = in_turn("contest", CONTESTANTS, settings.rounds, one)
    busy = [
        at_least(BUSY_PERCENT, row)
        for row in tally.rows(_client_busy, "client's core, {}", "% busy")
    ]
    failed = tally.rows(lambda c: c.failed, "failed, {}", "attempts")
    rows = [
        *tally.rows(_rate, "{}", "connections/s"),
        *tally.absences(),
        *(judged(tally, goal, _rate, "rate, {}", busy=_client_busy) for goal in RATES),
        *tally.rows(_client_cost, "client CPU, {}", "µs/connection", digits=1),
        *(judged(tally, goal, _client_cost, "client CPU, {}") for goal in COSTS),
        *busy,
        *tally.rows(_server_busy, "server's core, {}", "% busy"),
        *tally.rows(lambda c: c.server_first_percent, "server first, {}", "% of closes"),
        *(row for row in failed if any(row.values)),
    ]
    return tally, (f"Closed loop, {USERS} users, a connection per request, {server}", rows)


def endings(settings: Settings) -> Group:
    """Compare the client's ways to end with the server closing first."""
    ours, server = settings.engine, bundled()

    def one(kind: str) -> Carried:
        task = scenario(
            closed(settings.seconds),
            client=ours,
            server=server,
            ending=kind,
            lab=hosts(ports=MANY),
        )
        return carry(ours, task, server=server)

    tally = in_turn("endings", ("server-fin", *ENDINGS), settings.rounds, one)
    goals = [Versus(ours=kind, theirs="server-fin", least=ENDING_LEAST) for kind in ENDINGS]
    rows = [
        *tally.rows(_rate, "{}", "connections/s"),
        *tally.absences(),
        *(judged(tally, goal, _rate, "rate, {}", busy=_client_busy) for goal in goals),
        *tally.rows(_client_cost, "client CPU, {}", "µs/connection", digits=1),
        *tally.rows(_client_busy, "client's core, {}", "% busy"),
    ]
    return f"Endings, {ours}, twbench's server ({server})", rows


def keep_alive(settings: Settings) -> Group:
    """Compare requests per second on connections that stay."""
    ours, server = settings.engine, settings.server

    def one(name: str) -> Carried:
        engine = name if name in ENGINES else ""
        task = scenario(closed(settings.seconds), client=engine, server=server, pool=True)
        return carry(name, task, server=server, may_fail=name in FOREIGN)

    tally = in_turn("keep-alive", (ours, "wrk"), settings.rounds, one)
    goal = Versus(ours=ours, theirs="wrk", least=KEEP_ALIVE_LEAST)
    rows = [
        *tally.rows(_rate, "{}", "requests/s"),
        *tally.absences(),
        judged(tally, goal, _rate, "rate, {}", busy=_client_busy),
        *tally.rows(_client_cost, "client CPU, {}", "µs/request", digits=1),
        *tally.rows(_client_busy, "client's core, {}", "% busy"),
        *tally.rows(_server_busy, "server's core, {}", "% busy"),
    ]
    return f"Keep-alive, {USERS} connections, {server}", rows


def servers(settings: Settings) -> list[Group]:
    """Compare the servers under the same client, whose core is to be no limit.

    Where it is all the same, what remains is the server's pace: connections per second of its CPU.
    """
    groups = []
    for client in ("wrk", "C epoll"):

        def one(server: str, client: str = client) -> Carried:
            task = scenario(closed(settings.seconds), server=server)
            return carry(client, task, server=server, may_fail=True)

        tally = in_turn(f"servers under {client}", SERVERS, settings.rounds, one)
        goal = Versus(ours="uring", theirs="nginx", least=SERVER_LEAST)
        costs = [Versus(ours="uring", theirs=other) for other in ("nginx", "streams")]
        rows = [
            *tally.rows(_rate, "{}", "connections/s"),
            *tally.absences(),
            judged(tally, goal, _rate, "rate, {}", busy=_server_busy),
            *tally.rows(_full_core, "{}, at a full core's pace", "connections/s"),
            judged(tally, goal, _full_core, "full core, {}"),
            *tally.rows(_server_cost, "server CPU, {}", "µs/connection", digits=1),
            *(judged(tally, each, _server_cost, "server CPU, {}") for each in costs),
            *tally.rows(_server_busy, "server's core, {}", "% busy"),
            *tally.rows(_client_busy, "client's core, {}", "% busy"),
        ]
        groups.append((f"Servers under {client}", rows))
    return groups


def open_loop(settings: Settings, before: Tally) -> Group:
    """Ask each engine for a share of what it reached in the contest, at due times."""
    server, rows = settings.server, []
    for engine in ENGINES:
        name = f"{engine} at {OPEN_SHARE:.0%}"
        if reason := before.why_not(engine):
            rows.append(missing(name, reason))
            continue
        highest = before.row(engine, _rate, "", "").median
        asked = OPEN_SHARE * highest
        load = {"mode": "open", "rate_per_s": asked, "duration_s": settings.seconds}
        task = scenario(load, client=engine, server=server)

        def one(engine: str, task: Scenario = task) -> Carried:
            return carry(engine, task, server=server, may_fail=True)

        tally = in_turn(f"open loop, {OPEN_SHARE:.0%}", (engine,), settings.rounds, one)
        closed_ms = before.row(engine, _tail, "", "").median
        reached, tails = (tally.row(engine, figure, "", "") for figure in (_rate, _tail))
        off = tuple(100 * abs(rate_per_s / asked - 1) for rate_per_s in reached.values)
        longer = tuple(tail_ms / closed_ms for tail_ms in tails.values)
        off_row = Row(name=f"{name}: off", unit="%", values=off, digits=2)
        longer_row = Row(name=f"{name}: p99, open / closed", unit="", values=longer, digits=2)
        rows += [
            replace(reached, name=f"{name}: asked {asked:,.0f}, achieved", unit="/s"),
            at_most(MOST_OFF_PERCENT[engine], off_row),
            replace(tails, name=f"{name}: p99 from intended start", unit="ms", digits=2),
            at_most(MOST_TAIL, longer_row),
            tally.row(engine, _client_busy, f"{name}: client's core", "% busy"),
            tally.row(engine, lambda c: c.failed, f"{name}: failed", "attempts"),
        ]
    return f"Open loop, share of each engine's maximum above, {server}", rows


def crowd(settings: Settings) -> Group:
    """Compare the cost of a connection beside many TIME_WAITs with that on fresh hosts.

    The client closes first. Both have the same tables; the crowd is filled once and lasts for all
    rounds, since a TIME_WAIT lasts 60 s.
    """
    ours, server, wanted = settings.engine, bundled(), settings.crowd
    lab = hosts(ports=MANY, addresses=CROWD_SOURCES, buckets=CROWD_BUCKETS)
    load = {"concurrency": USERS, "duration_s": FILL_WITHIN_S, "requests": wanted}
    heading = f"A connection beside {wanted:,} TIME_WAITs, {ours}, twbench's server ({server})"
    tally, waiting, filling = Tally(), list[int](), list[Carried]()
    try:
        fill, task = (
            scenario(each, client=ours, server=server, ending="client-fin", lab=lab)
            for each in (load, closed(1))
        )
        with (
            Lab(lab_plan(fill)) as crowded,
            Counters(crowded, crowded.plan.clients[0].stack) as counters,
        ):

            def one(where: str) -> Carried:
                if where == "fresh":
                    return carry(ours, task, server=server)
                waiting.append(counters.read().waiting)
                return carry_in(crowded, ours, task, server=server)

            say(f"crowd: filling {wanted:,} TIME_WAITs")
            filling.append(carry_in(crowded, ours, fill, server=server))
            tally = in_turn("crowd", ("crowded", "fresh"), settings.rounds, one)
    except (UnavailableError, BrokenError) as error:
        tally.leave_out(ours, error)
    if tally.absent:
        return heading, tally.absences()
    (filled,) = filling
    goal = Versus(ours="crowded", theirs="fresh", most=CROWD_MOST)
    held = Row(name="TIME_WAITs of the crowd's client", unit="", values=tuple(waiting))
    enough = held.median >= CROWD_SHARE * wanted
    return heading, [
        Row(name="filled at", unit="connections/s", values=(filled.rate_per_s,)),
        replace(held, goal="" if enough else "too few: what follows is void"),
        *tally.rows(_client_cost, "client CPU, {}", "µs/connection", digits=1),
        judged(tally, goal if enough else replace(goal, most=None), _client_cost, "client CPU, {}"),
        *tally.rows(_rate, "{}", "connections/s"),
        *tally.rows(_client_busy, "client's core, {}", "% busy"),
    ]


def _tail(carried: Carried) -> float:
    return carried.p99_ms or 0.0
