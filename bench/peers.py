"""twbench's engines and servers beside those of others.

python bench/peers.py [--seconds S] [--rounds N] [--server nginx|streams|uring] [--only GROUP]
    [--quick] [--out FOLDER]

Every load runs on hosts made for it, as an ordinary user, its client on one core and its server on
another; contestants take turns. bench/README.md says how to read the figures. A missed goal is a
figure; the exit status is 1 where something broke.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.parts import groups  # noqa: E402 - only now can it be found
from bench.parts.figures import table  # noqa: E402
from bench.parts.groups import ENGINES, Group, Settings  # noqa: E402
from bench.parts.loads import USERS  # noqa: E402
from bench.parts.machine import describe  # noqa: E402
from bench.parts.servers import SERVERS  # noqa: E402
from bench.parts.turns import BROKEN, medians  # noqa: E402
from twbench.model.errors import TwbenchError  # noqa: E402

GROUPS = ("endings", "keep-alive", "servers", "open loop", "crowd")
QUICK = {"seconds": 1, "rounds": 1, "crowd": 20_000}


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = parse()
    try:
        found = measure(arguments)
    except PackageNotFoundError as missing:
        print(f"{missing.name} is not installed: run `make setup`", file=sys.stderr)
        return 2
    except TwbenchError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    print(found.pop("table"))
    if arguments.out:
        text = json.dumps(found, indent=2)
        (arguments.out / "peers.json").write_text(text + "\n", encoding="utf-8")
    broken = any(
        row["goal"].startswith(BROKEN) for rows in found["groups"].values() for row in rows
    )
    return 1 if broken else 0


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=int, default=2, help="of each load: whole ones, 3 at most"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", choices=SERVERS, default="nginx", help="that clients meet")
    parser.add_argument("--engine", choices=ENGINES, default="uring", help="of twbench's fleet")
    parser.add_argument("--crowd", type=int, default=500_000, help="TIME_WAITs to work beside")
    parser.add_argument("--only", choices=GROUPS, help="the contest and this group")
    parser.add_argument("--quick", action="store_true", help="does it work at all?")
    parser.add_argument("--out", type=Path, help="write the figures to peers.json in this folder")
    parser.set_defaults(**QUICK if "--quick" in sys.argv else {})
    arguments = parser.parse_args()
    if not 1 <= arguments.seconds <= 3 or arguments.rounds < 1 or arguments.crowd < 1:
        parser.error("--seconds is 1 to 3, --rounds and --crowd at least 1")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return machine, settings, every group of rows, the bars of the picture, and the table."""
    settings = Settings(
        seconds=arguments.seconds,
        rounds=arguments.rounds,
        server=arguments.server,
        engine=arguments.engine,
        crowd=arguments.crowd,
    )
    machine = describe()
    tally, first = groups.contest(settings)
    rest: dict[str, Callable[[], list[Group]]] = {
        "endings": lambda: [groups.endings(settings)],
        "keep-alive": lambda: [groups.keep_alive(settings)],
        "servers": lambda: groups.servers(settings),
        "open loop": lambda: [groups.open_loop(settings, tally)],
        "crowd": lambda: [groups.crowd(settings)],
    }
    wanted = (arguments.only,) if arguments.only else GROUPS
    found: list[Group] = [first, *(group for name in wanted for group in rest[name]())]
    asked = {"users": USERS, **asdict(settings)}
    head = [f"{name}: {value}" for name, value in {**machine, **asked}.items()]
    return {
        "machine": machine,
        "settings": asked,
        "groups": {heading: [row.as_json() for row in rows] for heading, rows in found},
        "bars": medians(
            tally, {"rate_per_s": lambda c: c.rate_per_s, "cpu_us": lambda c: c.client_cpu_us}
        ),
        "table": "\n".join([*head, "", table(found)]),
    }


if __name__ == "__main__":
    sys.exit(main())
