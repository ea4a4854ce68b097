"""What the sampler costs a run, and whether a fleet worker's memory grows.

python bench/rates.py [--seconds S] [--rounds N] [--memory-seconds S] [--memory-connections N]
    [--quick] [--out FOLDER]

As an ordinary user, each load on hosts made for it; bench/README.md says how to read the figures.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - third-party, sorted after the path is set

from bench.parts.errors import BrokenError, UnavailableError  # noqa: E402
from bench.parts.figures import (  # noqa: E402
    MET,
    MISSED,
    UNDECIDED,
    VOID,
    Row,
    at_most,
    missing,
    ratio,
    slope,
    table,
)
from bench.parts.groups import ENGINES, bundled  # noqa: E402
from bench.parts.loads import MANY, USERS, Carried, carry, closed, hosts, scenario  # noqa: E402
from bench.parts.machine import describe  # noqa: E402
from bench.parts.turns import say  # noqa: E402
from twbench.model.errors import TwbenchError  # noqa: E402
from twbench.run.course import run_scenario  # noqa: E402

MOST_LOST_PERCENT = 2.0
WARM_UP = 1 / 3
"""The part of the memory measurement in which buffers and arenas still find their sizes."""
GRAIN_KIB = 128
"""So much free memory malloc keeps for itself (mallopt(3), M_TRIM_THRESHOLD)."""
SAMPLING: dict[str, dict[str, float]] = {
    "sampled": {},
    "unsampled": {"ticks_per_s": 0.1, "looks_per_s": 0},
}
MOST_KIB = 1.0
"""Goal: the growth per 1,000 requests, at most."""
FOREVER_S = 3600.0
QUICK = {"seconds": 1.0, "rounds": 1, "memory_seconds": 6.0}

Group = tuple[str, list[Row]]


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = parse()
    try:
        measured_on = describe()
        groups = measure(arguments)
    except PackageNotFoundError as missing:
        print(f"{missing.name} is not installed: run `make setup`", file=sys.stderr)
        return 2
    except TwbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except (BrokenError, UnavailableError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    head = measured_on | settings(arguments)
    print(*(f"{name}: {value}" for name, value in head.items()), sep="\n", end="\n\n")
    print(table(groups))
    if arguments.out:
        rows = {heading: [row.as_json() for row in rows] for heading, rows in groups}
        found = {"machine": measured_on, "settings": settings(arguments), "groups": rows}
        text = json.dumps(found, indent=2)
        (arguments.out / "rates.json").write_text(text + "\n", encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run of the sampler")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-seconds", type=float, default=30.0, help="of each memory run")
    parser.add_argument(
        "--memory-connections", type=int, default=0, help="watch a worker make so many, too"
    )
    parser.add_argument("--quick", action="store_true", help="does it work at all?")
    parser.add_argument("--out", type=Path, help="write the figures to rates.json in this folder")
    parser.set_defaults(**QUICK if "--quick" in sys.argv else {})
    arguments = parser.parse_args()
    if arguments.seconds < 1 or arguments.rounds < 1 or arguments.memory_seconds < 6:
        parser.error("at least --seconds 1, --rounds 1 and --memory-seconds 6")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
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
    memory = remember(arguments.memory_seconds)
    if arguments.memory_connections:
        memory += remember_many(arguments.memory_connections)
    return [
        ("The sampler, whole runs, free on all cores", sample(arguments.seconds, arguments.rounds)),
        ("Memory of a fleet worker", memory),
    ]


def sample(seconds: float, rounds: int) -> list[Row]:
    """Make whole runs with the sampler at its usual pace and almost without it, in turn."""
    rates: dict[str, list[float]] = {name: [] for name in SAMPLING}
    for number in range(rounds):
        for name in list(rates)[:: 1 if number % 2 else -1]:
            say(f"sampler, round {number + 1} of {rounds}: {name}")
            task = scenario(closed(seconds), lab=hosts(ports=MANY), sampling=SAMPLING[name])
            with tempfile.TemporaryDirectory() as results:
                result = run_scenario(task, results_dir=Path(results))
            if result.interrupted:
                raise KeyboardInterrupt
            summary = result.summary
            if summary["outcomes"]["errors"]:
                raise BrokenError(f"{name}: {summary['outcomes']['errors']}")
            rates[name].append(summary["rates"]["connections_per_s"])
    rows = [Row(name=n, unit="connections/s", values=tuple(v)) for n, v in rates.items()]
    shares = ratio("", *rows).values
    lost = tuple(100 * (1 - share) for share in shares)
    row = at_most(
        MOST_LOST_PERCENT, Row(name="lost to the sampler", unit="%", values=lost, digits=2)
    )
    if row.verdict != VOID and max(lost) - min(lost) > MOST_LOST_PERCENT:
        row = replace(row, verdict=UNDECIDED)
    return [*rows, row]


def remember(seconds: float) -> list[Row]:
    """Watch the resident memory of a worker of each engine while it makes many connections."""
    rows, server = [], bundled()
    for engine in ENGINES:
        say(f"memory: {engine}, {seconds:g} s")
        try:
            task = scenario(closed(seconds), client=engine, server=server, lab=hosts(ports=MANY))
            rows += growth_of(engine, carry("watched", task, server=server))
        except UnavailableError as error:
            rows.append(missing(engine, str(error)))
    return rows


def remember_many(connections: int) -> list[Row]:
    """Watch a worker of the engine uring until it has made so many connections."""
    say(f"memory: {connections:,} connections")
    load = {"concurrency": USERS, "duration_s": FOREVER_S, "requests": connections}
    server = bundled()
    task = scenario(load, client="uring", server=server, lab=hosts(ports=MANY))
    return growth_of(f"uring, {connections:,} connections", carry("watched", task, server=server))


def growth_of(name: str, carried: Carried) -> list[Row]:
    """Return how much memory and how many descriptors a watched worker came to hold."""
    samples = readings(carried.errors)
    times_ns, counts = zip(*carried.history, strict=True)
    from_ns = times_ns[-1] - (1 - WARM_UP) * carried.elapsed_s * 1e9
    warm = [s for s in samples if from_ns <= s["t_ns"] <= times_ns[-1]]
    requests = np.interp([s["t_ns"] for s in warm], times_ns, counts)
    resident_kib = [s["rss_kib"] for s in warm]
    growth = slope((requests / 1000).tolist(), resident_kib, grain=GRAIN_KIB)
    told = MET if growth.per_x <= MOST_KIB else MISSED
    return [
        Row(name=f"{name}: requests", unit="", values=(carried.exchanges,)),
        Row(name=f"{name}: resident", unit="MiB", values=(resident_kib[-1] / 1024,), digits=1),
        Row(
            name=f"{name}: slope",
            unit="KiB/1,000 requests",
            values=(growth.per_x,),
            digits=2,
            goal=f"<= {MOST_KIB:g}, noise {growth.noise_per_x:.2f}",
            verdict=told if growth.noise_per_x <= MOST_KIB else VOID,
        ),
        Row(
            name=f"{name}: descriptors, most",
            unit="",
            values=(max(s["descriptors"] for s in warm),),
        ),
    ]


def readings(lines: Iterable[str]) -> list[dict[str, int]]:
    """Return what the watching thread wrote; a warning among it is shown and left out."""
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            say(line.rstrip())
    return found


if __name__ == "__main__":
    sys.exit(main())
