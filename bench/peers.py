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
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.parts import groups  # noqa: E402 - only now can it be found
from bench.parts.figures import missing, table  # noqa: E402
from bench.parts.groups import ENGINES, Group, Settings  # noqa: E402
from bench.parts.loads import USERS  # noqa: E402
from bench.parts.machine import describe  # noqa: E402
from bench.parts.servers import SERVERS  # noqa: E402
from bench.parts.turns import BROKEN, INTERRUPTED, Figure, medians  # noqa: E402
from twbench.model.errors import LabError, TwbenchError  # noqa: E402

GROUPS = ("contest", "endings", "keep-alive", "servers", "open loop", "crowd")
BARS: dict[str, Figure] = {
    "rate_per_s": lambda c: c.rate_per_s,
    "cpu_us": lambda c: c.client_cpu_us,
    "busy_percent": lambda c: c.client_busy_percent,
}
QUICK = {"seconds": 1, "rounds": 1, "crowd": 20_000}


def main() -> int:
    """Measure and print; return the exit status."""
    arguments = parse()
    found: list[Group] = []
    head: dict[str, Any] = {}
    try:
        head = describe() | {"users": USERS, **asdict(settings(arguments))}
        measure(arguments, head, found)
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
    parser.add_argument("--server", choices=SERVERS, default="nginx", help="that clients meet")
    parser.add_argument("--engine", choices=ENGINES, default="uring", help="of twbench's fleet")
    parser.add_argument("--crowd", type=int, default=500_000, help="TIME_WAITs to work beside")
    parser.add_argument("--only", choices=GROUPS, help="this group alone")
    parser.add_argument("--quick", action="store_true", help="does it work at all?")
    parser.add_argument("--out", type=Path, help="write the figures to peers.json in this folder")
    parser.set_defaults(**QUICK if "--quick" in sys.argv else {})
    arguments = parser.parse_args()
    if not 1 <= arguments.seconds <= 3 or arguments.rounds < 1 or arguments.crowd < 1:
        parser.error("--seconds is 1 to 3, --rounds and --crowd at least 1")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    return arguments


def settings(arguments: argparse.Namespace) -> Settings:
    """Return what was asked for."""
    return Settings(**{each.name: getattr(arguments, each.name) for each in fields(Settings)})


def measure(arguments: argparse.Namespace, head: dict[str, Any], found: list[Group]) -> None:
    """Add every group to `found`, and write them all each time that another one ends.

    A lab that cannot be made breaks its group alone.
    """
    bars: list[dict[str, object]] = []

    def contest() -> Group:
        tally, group = groups.contest(asked)
        bars.extend(medians(tally, BARS))
        return group

    asked = settings(arguments)
    each: dict[str, Callable[[], Group]] = {
        "contest": contest,
        "endings": lambda: groups.endings(asked),
        "keep-alive": lambda: groups.keep_alive(asked),
        "servers": lambda: groups.servers(asked),
        "open loop": lambda: groups.open_loop(asked),
        "crowd": lambda: groups.crowd(asked),
    }
    for name in (arguments.only,) if arguments.only else GROUPS:
        try:
            found.append(each[name]())
        except LabError as error:
            found.append((name, [missing(name, f"{BROKEN}{error.what}")]))
        if arguments.out:
            told = {heading: [row.as_json() for row in rows] for heading, rows in found}
            text = json.dumps({"head": head, "groups": told, "bars": bars}, indent=2)
            (arguments.out / "peers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
