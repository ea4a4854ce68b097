"""What it costs a crawler to crawl through twbench, beside its library in a bare loop.

python bench/crawl.py [--seconds S] [--rounds N] [--server streams|uring] [--only ENGINE]
    [--quick] [--out FOLDER]

Every load runs on hosts made for it, as an ordinary user, its client on one core and twbench's
server on another; contestants take turns. bench/README.md says how to read the figures. A missed
goal is a figure; the exit status is 1 where something broke.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.parts import groups  # noqa: E402 - only now can it be found
from bench.parts.figures import missing, table  # noqa: E402
from bench.parts.groups import Group  # noqa: E402
from bench.parts.loads import USERS, Carried, carry, closed, scenario  # noqa: E402
from bench.parts.machine import describe  # noqa: E402
from bench.parts.turns import BROKEN, INTERRUPTED, Figure, Versus, in_turn, judged  # noqa: E402
from twbench.model.errors import LabError, TwbenchError  # noqa: E402

LEAST = 0.95
"""Of the bare loop's rate."""
CRAWLERS: Mapping[str, Mapping[str, Any]] = {
    "streams": {"engine": "streams", "pool": {"size": USERS}},
    "aiohttp": {"engine": "aiohttp"},
    "aiohttp force_close": {"engine": "aiohttp", "aiohttp": {"force_close": True}},
    "httpx": {"engine": "httpx"},
    "requests": {"engine": "requests"},
    "urllib3": {"engine": "urllib3"},
}
"""By name, and `[client]` of each: the libraries' defaults."""
FIGURES: Mapping[str, Figure] = {
    "rate": lambda c: c.rate_per_s,
    "cost": lambda c: c.client_cpu_us,
    "busy": lambda c: c.client_busy_percent,
    "server": lambda c: c.server_busy_percent,
}
SERVERS = ("streams", "uring")
QUICK = {"seconds": 1, "rounds": 1}


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = parse()
    found: list[Group] = []
    head: dict[str, Any] = {}
    try:
        head = describe() | {"users": USERS}
        head |= {"seconds": arguments.seconds, "rounds": arguments.rounds}
        head["server"] = arguments.server or groups.bundled()
        for name in (arguments.only,) if arguments.only else CRAWLERS:
            try:
                found.append(measure(name, arguments, head["server"]))
            except LabError as error:
                found.append((name, [missing(name, f"{BROKEN}{error.what}")]))
            if arguments.out:
                write(arguments.out / "crawl.json", head, found)
    except PackageNotFoundError as error:
        print(f"{error.name} is not installed: run `make setup`", file=sys.stderr)
        return 2
    except TwbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if found:
            print(*(f"{name}: {value}" for name, value in head.items()), sep="\n", end="\n\n")
            print(table(found))
    broken = any(row.goal.startswith(BROKEN) for _, rows in found for row in rows)
    return 1 if broken else 0


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=int, default=2, help="of each load: whole ones, 3 at most"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", choices=SERVERS, help="unset: the fastest that there is")
    parser.add_argument("--only", choices=CRAWLERS, help="this crawler alone")
    parser.add_argument("--quick", action="store_true", help="does it work at all?")
    parser.add_argument("--out", type=Path, help="write the figures to crawl.json in this folder")
    parser.set_defaults(**QUICK if "--quick" in sys.argv else {})
    arguments = parser.parse_args()
    if not 1 <= arguments.seconds <= 3 or arguments.rounds < 1:
        parser.error("--seconds is 1 to 3, --rounds at least 1")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def measure(name: str, arguments: argparse.Namespace, server: str) -> Group:
    """Compare one crawler with its library in a bare loop, by turns."""
    task = scenario(closed(arguments.seconds), tables=CRAWLERS[name], server=server)
    clients = {"twbench": "crawl", "bare": "bare crawl"}

    def one(who: str) -> Carried:
        return carry(clients[who], task, server=server)

    tally = in_turn(name, tuple(clients), arguments.rounds, one)
    rate, cost, busy = (FIGURES[figure] for figure in ("rate", "cost", "busy"))
    figure = Versus(ours="twbench", theirs="bare")
    return name, [
        *tally.rows(rate, "{}", "pages/s"),
        *tally.troubles(),
        judged(tally, replace(figure, least=LEAST), rate, "rate, {}", busy=busy),
        *tally.rows(cost, "client CPU, {}", "µs/page", digits=1),
        judged(tally, figure, cost, "client CPU, {}"),
        *tally.rows(busy, "client's core, {}", "% busy"),
        *tally.rows(FIGURES["server"], "server's core, {}", "% busy"),
    ]


def write(path: Path, head: Mapping[str, Any], found: list[Group]) -> None:
    """Write what has been found so far."""
    told = {heading: [row.as_json() for row in rows] for heading, rows in found}
    path.write_text(json.dumps({"head": head, "groups": told}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
