"""The groups of peers.py: what is measured against what, and the goal of each."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.parts.counters import Counters
from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.figures import VOID, Row, at_most, missing
from bench.parts.loads import MANY, USERS, Carried, carry, carry_in, closed, hosts, scenario
from bench.parts.tools import TOOLS
from bench.parts.turns import Tally, Versus, failing, in_turn, judged, say
from twbench.lab.lab import Lab
from twbench.run.planning import lab_plan

ENGINES = ("uring", "streams")
CONTESTANTS = (
    *ENGINES,
    *("bare uring", "bare uvloop"),
    *TOOLS,
    *("Locust", "aiohttp"),
)
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
SHORT_S = 1
"""Of each load of ours against ours: their costs hardly vary."""
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
    except UnavailableError as error:
        say(f"twbench's server is streams: {error}")
        return "streams"
    return "uring"


def contest(settings: Settings) -> tuple[Tally, Group]:
    """Compare all clients: the server closes first, a connection per request."""
    server = settings.server

    def one(name: str) -> Carried:
        engine = name if name in ENGINES else ""
        task = scenario(closed(settings.seconds), client=engine, server=server)
        return carry(name, task, server=server)

    tally = in_turn("contest", CONTESTANTS, settings.rounds, one)
    rows = [
        *tally.rows(_rate, "{}", "connections/s"),
        *tally.troubles(),
        *(judged(tally, goal, _rate, "rate, {}", busy=_client_busy) for goal in RATES),
        *tally.rows(_client_cost, "client CPU, {}", "µs/connection", digits=1),
        *(judged(tally, goal, _client_cost, "client CPU, {}") for goal in COSTS),
        *tally.rows(_client_busy, "client's core, {}", "% busy"),
        *tally.rows(_server_busy, "server's core, {}", "% busy"),
        *tally.rows(lambda c: c.server_first_percent, "server first, {}", "% of closes"),
    ]
    return tally, (f"Closed loop, {USERS} users, a connection per request, {server}", rows)


def endings(settings: Settings) -> Group:
    """Compare the client's ways to end with the server closing first."""
    ours, server = settings.engine, bundled()

    def one(kind: str) -> Carried:
        task = scenario(
            closed(SHORT_S),
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
        *tally.troubles(),
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
        return carry(name, task, server=server)

    tally = in_turn("keep-alive", (ours, "wrk"), settings.rounds, one)
    goal = Versus(ours=ours, theirs="wrk", least=KEEP_ALIVE_LEAST)
    rows = [
        *tally.rows(_rate, "{}", "requests/s"),
        *tally.troubles(),
        judged(tally, goal, _rate, "rate, {}", busy=_client_busy),
        *tally.rows(_client_cost, "client CPU, {}", "µs/request", digits=1),
        *tally.rows(_client_busy, "client's core, {}", "% busy"),
        *tally.rows(_server_busy, "server's core, {}", "% busy"),
    ]
    return f"Keep-alive, {USERS} connections, {server}", rows


def servers(settings: Settings) -> Group:
    """Compare the servers under the fastest client, whose core is to be no limit.

    Where it is all the same, what remains is the server's pace: connections per second of its CPU.
    """

    def one(server: str) -> Carried:
        return carry("C epoll", scenario(closed(settings.seconds), server=server), server=server)

    tally = in_turn("servers", ("uring", "nginx"), settings.rounds, one)
    goal = Versus(ours="uring", theirs="nginx", least=SERVER_LEAST)
    figure = replace(goal, least=None)
    return "Servers under C epoll", [
        *tally.rows(_rate, "{}", "connections/s"),
        *tally.troubles(),
        judged(tally, goal, _rate, "rate, {}", busy=_server_busy),
        *tally.rows(_full_core, "{}, at a full core's pace", "connections/s"),
        judged(tally, figure, _full_core, "full core, {}"),
        *tally.rows(_server_cost, "server CPU, {}", "µs/connection", digits=1),
        judged(tally, figure, _server_cost, "server CPU, {}"),
        *tally.rows(_server_busy, "server's core, {}", "% busy"),
        *tally.rows(_client_busy, "client's core, {}", "% busy"),
    ]


def open_loop(settings: Settings) -> Group:
    """Ask the engine for a share of what it has just reached in a closed loop, at due times."""
    engine, server, closed_loads = settings.engine, settings.server, list[Carried]()
    heading = f"Open loop, {engine}, {OPEN_SHARE:.0%} of the closed loop just before, {server}"

    def one(engine: str) -> Carried:
        before, after = closed(settings.seconds), {"mode": "open", "duration_s": settings.seconds}
        reached = carry(engine, scenario(before, client=engine, server=server), server=server)
        after["rate_per_s"] = OPEN_SHARE * reached.rate_per_s
        opened = carry(engine, scenario(after, client=engine, server=server), server=server)
        closed_loads.append(reached)
        return opened

    tally = in_turn("open loop", (engine,), settings.rounds, one)
    if tally.absent:
        return heading, tally.troubles()
    pairs = list(zip(tally.carried[engine], closed_loads, strict=True))
    asked = tuple(OPEN_SHARE * before.rate_per_s for _, before in pairs)
    off = tuple(
        100 * abs(opened.rate_per_s / wanted - 1)
        for (opened, _), wanted in zip(pairs, asked, strict=True)
    )
    void = [number for number, (opened, _) in enumerate(pairs) if failing(opened)]
    off_row = Row(name="off", unit="%", values=off, digits=2)
    return heading, [
        Row(name="asked", unit="connections/s", values=asked),
        tally.row(engine, _rate, "achieved", "connections/s"),
        *tally.troubles(),
        at_most(MOST_OFF_PERCENT[engine], off_row, void=void),
        *_tails(pairs, void),
        tally.row(engine, _client_busy, "client's core", "% busy"),
    ]


def _tails(pairs: Sequence[tuple[Carried, Carried]], void: Sequence[int]) -> list[Row]:
    """Return the p99 of open loads, and how it compares to that of the closed ones."""
    tails = [
        (opened.p99_ms, before.p99_ms)
        for opened, before in pairs
        if opened.p99_ms and before.p99_ms
    ]
    if len(tails) < len(pairs):
        return [replace(missing("p99 from intended start", "not told"), verdict=VOID)]
    longer = tuple(opened_ms / before_ms for opened_ms, before_ms in tails)
    opened = tuple(opened_ms for opened_ms, _ in tails)
    row = Row(name="p99, open / closed", unit="", values=longer, digits=2)
    return [
        Row(name="p99 from intended start", unit="ms", values=opened, digits=2),
        at_most(MOST_TAIL, row, void=void),
    ]


def crowd(settings: Settings) -> Group:
    """Compare the cost of a connection beside many TIME_WAITs with that on fresh hosts.

    The client closes first. Both have the same tables; the crowd is filled once and lasts for all
    rounds, since a TIME_WAIT lasts 60 s.
    """
    ours, server, wanted = settings.engine, bundled(), settings.crowd
    lab = hosts(ports=MANY, addresses=CROWD_SOURCES, buckets=CROWD_BUCKETS)
    load = {"concurrency": USERS, "duration_s": FILL_WITHIN_S, "requests": wanted}
    heading = f"A connection beside {wanted:,} TIME_WAITs, {ours}, twbench's server ({server})"
    tally, held, filling = Tally(), list[int](), list[Carried]()
    try:
        fill, task = (
            scenario(each, client=ours, server=server, ending="client-fin", lab=lab)
            for each in (load, closed(SHORT_S))
        )
        with (
            Lab(lab_plan(fill)) as crowded,
            Counters(crowded, crowded.plan.clients[0].stack) as counters,
        ):

            def one(where: str) -> Carried:
                if where == "fresh":
                    return carry(ours, task, server=server)
                before = counters.read().waiting
                carried = carry_in(crowded, ours, task, server=server)
                held.append(min(before, counters.read().waiting))
                return carried

            say(f"crowd: filling {wanted:,} TIME_WAITs")
            filling.append(carry_in(crowded, ours, fill, server=server))
            tally = in_turn("crowd", ("crowded", "fresh"), settings.rounds, one)
    except (UnavailableError, BrokenError) as error:
        tally.leave_out(ours, error)
    if tally.absent:
        return heading, tally.troubles()
    (filled,) = filling
    goal = Versus(ours="crowded", theirs="fresh", most=CROWD_MOST)
    enough = min(held) >= CROWD_SHARE * wanted
    row = judged(tally, goal, _client_cost, "client CPU, {}")
    return heading, [
        Row(name="filled at", unit="connections/s", values=(filled.rate_per_s,)),
        Row(name="TIME_WAITs of the crowd's client, least", unit="", values=tuple(held)),
        *tally.troubles(),
        *tally.rows(_client_cost, "client CPU, {}", "µs/connection", digits=1),
        row if enough else replace(row, verdict=VOID),
        *tally.rows(_rate, "{}", "connections/s"),
        *tally.rows(_client_busy, "client's core, {}", "% busy"),
    ]
