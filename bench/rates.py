"""What the fleet reaches, and what its accounting costs.

python bench/rates.py [--seconds S] [--rounds N] [--memory-seconds S] [--json]

Four measurements in one go, as an ordinary user, each load on hosts made for it, its client on one
core and twbench's server on another; bench/README.md says how to read them.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - third-party, sorted after the path is set

from bench.parts.figures import Row, at_least, at_most, slope, table  # noqa: E402
from bench.parts.loads import USERS, Carried, carry, closed, scenario  # noqa: E402
from twbench.model.errors import TwbenchError  # noqa: E402
from twbench.run.course import run_scenario  # noqa: E402

CONTESTANTS = ("bare uvloop", "streams", "aiohttp")
PEERS = {"bare uvloop": 0.85, "aiohttp": 3.0}
"""What `streams` is measured against, and which ratio of rates it is to reach."""
SHARES_PERCENT = (20, 40, 60, 80)
MOST_OFF_PERCENT, MOST_LOST_PERCENT = 1.0, 2.0
WARM_UP = 1 / 3
"""The part of the memory measurement in which buffers and arenas still find their sizes."""
GRAIN_KIB = 128
"""So much free memory malloc keeps for itself (mallopt(3), M_TRIM_THRESHOLD)."""
BUSY_PERCENT = 90.0
"""Under this the client's core was not the limit: the server was, or another program."""
UNSAMPLED = {"ticks_per_s": 0.1, "looks_per_s": 0}
MEMORY_LOADS: dict[str, dict[str, Any]] = {
    "keep-alive": {"client": {"pool": {"size": USERS}}},
    "a connection per request": {},
}

Group = tuple[str, list[Row]]


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = parse()
    try:
        measured_on = machine()
        groups = measure(arguments)
    except PackageNotFoundError as missing:
        print(f"{missing.name} is not installed: run `make setup`", file=sys.stderr)
        return 2
    except TwbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        rows = {heading: [row.as_json() for row in rows] for heading, rows in groups}
        head = {"machine": measured_on, "settings": settings(arguments)}
        print(json.dumps(head | {"groups": rows}, indent=2))
    else:
        head = measured_on | settings(arguments)
        print(*(f"{name}: {value}" for name, value in head.items()), sep="\n", end="\n\n")
        print(table(groups))
    return 0


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-seconds", type=float, default=30.0, help="of each memory run")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if arguments.seconds < 1 or arguments.rounds < 1 or arguments.memory_seconds < 6:
        parser.error("at least --seconds 1, --rounds 1 and --memory-seconds 6")
    return arguments


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for, by name."""
    return {
        "users": USERS,
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
        "memory_seconds": arguments.memory_seconds,
    }


def measure(arguments: argparse.Namespace) -> list[Group]:
    """Return every group of rows, measured one after the other."""
    seconds, rounds = arguments.seconds, arguments.rounds
    closed_loop = contest(seconds, rounds)
    highest = next(row.median for row in closed_loop if row.name == "streams")
    return [
        (f"Closed loop, {USERS} users, a connection per request", closed_loop),
        ("Open loop, streams, shares of its own maximum above", pace(highest, seconds, rounds)),
        ("The sampler, whole runs, free on all cores", sample(seconds, rounds)),
        ("Memory of a fleet worker", remember(arguments.memory_seconds)),
    ]


def contest(seconds: float, rounds: int) -> list[Row]:
    """Run the three clients in turn; each round begins with another one."""
    task = scenario("rates", closed(seconds))
    carried: dict[str, list[Carried]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds):
        turn = number % len(CONTESTANTS)
        for name in (*CONTESTANTS[turn:], *CONTESTANTS[:turn]):
            say(f"closed loop, round {number + 1} of {rounds}: {name}")
            carried[name].append(carry(name, task))
    rates = figures(carried, lambda c: c.rate_per_s, "{}", "connections/s")
    costs = figures(carried, lambda c: c.client_cpu_us, "client CPU, {}", "µs/connection", digits=1)
    busy = figures(carried, lambda c: c.client_busy_percent, "client's core, {}", "% busy")
    served = figures(carried, lambda c: c.server_busy_percent, "server's core, {}", "% busy")
    first = figures(carried, lambda c: c.server_first_percent, "server first, {}", "% of closes")
    full = {name: at_least(BUSY_PERCENT, row) for name, row in busy.items()}
    return [
        *rates.values(),
        *(
            at_least(
                goal,
                ratio(f"streams / {peer}", rates["streams"], rates[peer]),
                void=not (full["streams"].met and full[peer].met),
            )
            for peer, goal in PEERS.items()
        ),
        *costs.values(),
        *(ratio(f"client CPU, {peer} / streams", costs[peer], costs["streams"]) for peer in PEERS),
        *full.values(),
        *served.values(),
        *first.values(),
    ]


def figures(
    carried: dict[str, list[Carried]],
    figure: Callable[[Carried], float],
    name: str,
    unit: str,
    *,
    digits: int = 0,
) -> dict[str, Row]:
    """Return a row of one figure for each client."""
    return {
        client: Row(
            name=name.format(client), unit=unit, values=tuple(map(figure, each)), digits=digits
        )
        for client, each in carried.items()
    }


def pace(highest_per_s: float, seconds: float, rounds: int) -> list[Row]:
    """Ask `streams` for shares of its maximum, in turn."""
    asked = {share: highest_per_s * share / 100 for share in SHARES_PERCENT}
    carried: dict[int, list[Carried]] = {share: [] for share in SHARES_PERCENT}
    for number in range(rounds):
        for share, rate_per_s in asked.items():
            say(f"open loop, round {number + 1} of {rounds}: {share}%")
            load = {"mode": "open", "rate_per_s": rate_per_s, "duration_s": seconds}
            carried[share].append(carry("streams", scenario("pace", load), may_fail=True))
    rows = []
    for share, each in carried.items():
        reached = tuple(c.rate_per_s for c in each)
        off = tuple(100 * abs(rate / asked[share] - 1) for rate in reached)
        tail = tuple(c.p99_from_intended_ms for c in each if c.p99_from_intended_ms is not None)
        busy = tuple(c.client_busy_percent for c in each)
        name = f"{share}%: asked {asked[share]:,.0f}, achieved"
        rows += [
            Row(name=name, unit="/s", values=reached),
            at_most(MOST_OFF_PERCENT, Row(name=f"{share}%: off", unit="%", values=off, digits=2)),
            Row(name=f"{share}%: p99 from intended start", unit="ms", values=tail, digits=2),
            Row(name=f"{share}%: client's core", unit="% busy", values=busy),
            Row(name=f"{share}%: failed", unit="attempts", values=tuple(c.failed for c in each)),
        ]
    return rows


def sample(seconds: float, rounds: int) -> list[Row]:
    """Make whole runs with the sampler at its usual pace and almost without it, in turn."""
    rates: dict[str, list[float]] = {"sampled": [], "unsampled": []}
    for number in range(rounds):
        for name, tables in (("sampled", {}), ("unsampled", {"sampling": UNSAMPLED})):
            say(f"sampler, round {number + 1} of {rounds}: {name}")
            task = scenario(name, closed(seconds), **tables)
            with tempfile.TemporaryDirectory() as results:
                result = run_scenario(task, results_dir=Path(results))
            if result.interrupted:
                raise KeyboardInterrupt
            summary = result.summary
            if summary["outcomes"]["errors"]:
                raise SystemExit(f"{name}: {summary['outcomes']['errors']}")
            rates[name].append(summary["rates"]["connections_per_s"])
    rows = [Row(name=n, unit="connections/s", values=tuple(v)) for n, v in rates.items()]
    shares = ratio("", *rows).values
    lost = tuple(100 * (1 - share) for share in shares)
    row = Row(name="lost to the sampler", unit="%", values=lost, digits=2)
    # To gain as much as may be lost shows only how much these rates vary.
    return [*rows, at_most(MOST_LOST_PERCENT, row, void=row.median < -MOST_LOST_PERCENT)]


def remember(seconds: float) -> list[Row]:
    """Watch the resident memory of a worker while it goes through many requests."""
    rows = []
    for name, tables in MEMORY_LOADS.items():
        say(f"memory: {name}, {seconds:g} s")
        carried = carry("watched streams", scenario("memory", closed(seconds), **tables))
        samples = [json.loads(line) for line in carried.errors]
        times_ns, counts = zip(*carried.history, strict=True)
        from_ns = samples[0]["t_ns"] + WARM_UP * seconds * 1e9
        warm = [s for s in samples if from_ns <= s["t_ns"] <= times_ns[-1]]
        requests = np.interp([s["t_ns"] for s in warm], times_ns, counts)
        resident_kib = [s["rss_kib"] for s in warm]
        growth = slope((requests / 100_000).tolist(), resident_kib, grain=GRAIN_KIB)
        goal = f"<= {growth.noise_per_x:.1f}, the noise"
        rows += [
            Row(name=f"{name}: requests", unit="", values=(carried.exchanges,)),
            Row(name=f"{name}: resident", unit="MiB", values=(resident_kib[-1] / 1024,), digits=1),
            Row(
                name=f"{name}: slope",
                unit="KiB/100,000",
                values=(growth.per_x,),
                digits=1,
                goal=goal,
                met=not growth.beyond_noise,
            ),
        ]
    return rows


def ratio(name: str, above: Row, below: Row) -> Row:
    """Return the ratio of two rows, round by round."""
    values = tuple(a / b for a, b in zip(above.values, below.values, strict=True))
    return Row(name=name, unit="", values=values, digits=2)


def machine() -> dict[str, str]:
    """Return what the figures were measured on, and how busy that was with other things."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = (f"{name} {version(name)}" for name in ("uvloop", "aiohttp", "httptools", "numpy"))
    return {
        "kernel": platform.release(),
        "processor": models[0] if models else platform.machine(),
        "cores": f"{os.cpu_count()}, of which usable {len(os.sched_getaffinity(0))}",
        "python": f"{platform.python_version()}, {', '.join(versions)}",
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }


def say(what: str) -> None:
    """Tell on standard error how far it is."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
