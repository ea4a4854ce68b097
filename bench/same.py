"""Does a comparison tell apart what is the same? Two identical contestants, again and again.

python bench/same.py [--times N] [--repeats N] [--seconds S] [--out FOLDER]

Every figure that is judged counts: a difference shown in any of them is a false one. The exit
status is 1 where more than one comparison in twenty shows one, or one compared nothing.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.parts.machine import describe  # noqa: E402 - only now can it be found
from twbench.compare.runner import compare_scenarios  # noqa: E402
from twbench.model.contest import Contest, load_contest  # noqa: E402

MOST = 0.05
"""Of all comparisons, those that may show a difference."""
CONTEST = """\
name = "same"
[compare]
repeats = {repeats}
seed = {seed}
[web]
[load]
concurrency = 32
duration_s = {seconds}
[client]
engine = "aiohttp"
[[contestant]]
name = "one"
[[contestant]]
name = "other"
"""


def main() -> int:
    """Compare and count; return the exit status."""
    arguments = parse()
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, arguments.times + 1):
            contest = contest_of(arguments, number, Path(folder))
            told.append(judged(compare_scenarios(contest, results_dir=Path(folder)).document))
            print(f"{number}: {sentence(told[-1])}", flush=True)
            if arguments.out:
                write(arguments.out, told)
    false = sum(bool(each["shown"]) for each in told)
    print(f"{false} of {len(told)} comparisons of the same show a difference")
    return int(false > MOST * len(told) or not all(each["sound"] for each in told))


def judged(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a comparison shows, and what was measured for that."""
    pairs = {figure: found[0] for figure, found in document["differences"].items() if found}
    rows = document["contestants"]
    return {
        "shown": [figure for figure, pair in pairs.items() if pair["shown"]],
        "changes": {figure: pair["change"] for figure, pair in pairs.items()},
        "values": {
            row["name"]: {figure: row["figures"][figure]["values"] for figure in pairs}
            for row in rows
        },
        "sound": bool(pairs) and all(row["sound"] == document["repeats"] for row in rows),
    }


def sentence(told: Mapping[str, Any]) -> str:
    """Return the same in words."""
    if not told["sound"]:
        return "compared nothing: a run broke off, or does not balance"
    shown = f"SHOWN: {', '.join(told['shown'])}" if told["shown"] else "none shown"
    changes = (
        f"{figure} {'-' if change is None else format(change, '+.1%')}"
        for figure, change in told["changes"].items()
    )
    return f"{shown}; {', '.join(changes)}"


def write(folder: Path, told: Sequence[Mapping[str, Any]]) -> None:
    """Write what there is so far."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"head": describe(), "comparisons": told}, indent=2)
    (folder / "same.json").write_text(text + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load")
    parser.add_argument("--out", type=Path, help="write the figures to same.json in this folder")
    return parser.parse_args()


def contest_of(arguments: argparse.Namespace, seed: int, folder: Path) -> Contest:
    """Return a comparison of two contestants that differ in nothing but their names."""
    file = folder / "same.toml"
    text = CONTEST.format(repeats=arguments.repeats, seed=seed, seconds=arguments.seconds)
    file.write_text(text, encoding="utf-8")
    return load_contest(file)


if __name__ == "__main__":
    sys.exit(main())
