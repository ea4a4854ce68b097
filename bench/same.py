"""Does a comparison tell apart what is the same? Two identical contestants, again and again.

python bench/same.py [--times N] [--repeats N] [--seconds S] [--out FOLDER]

Every figure that is judged counts: a difference shown in any of them is a false one. The exit
status is 1 where more than one comparison in twenty shows one.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

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
    told = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, arguments.times + 1):
            contest = contest_of(arguments, number, Path(folder))
            document = compare_scenarios(contest, results_dir=Path(folder)).document
            shown = {
                figure: pair["change"]
                for figure, pairs in document["differences"].items()
                for pair in pairs
                if pair["shown"]
            }
            changes = {
                figure: pair["change"]
                for figure, pairs in document["differences"].items()
                for pair in pairs
            }
            sound = all(row["sound"] == arguments.repeats for row in document["contestants"])
            told.append({"shown": shown, "changes": changes, "sound": sound})
            apart = ", ".join(f"{figure} {change:+.1%}" for figure, change in changes.items())
            print(f"{number}: {'SHOWN: ' + ', '.join(shown) if shown else 'none shown'}; {apart}")
    false = sum(bool(each["shown"]) for each in told)
    print(f"{false} of {arguments.times} comparisons of the same show a difference")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"head": describe(), "false": false, "comparisons": told}, indent=2)
        (arguments.out / "same.json").write_text(text + "\n", encoding="utf-8")
    return int(false > MOST * arguments.times)


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
