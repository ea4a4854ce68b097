"""All measurements in turn, and a folder with what they found: JSON, tables and pictures.

python bench/run.py [--quick] [--out FOLDER]      (make bench)

Writes results/bench-<processor>-<kernel>/: peers.json, looks.json, rates.json, crawl.json,
table.txt, peers.svg and looks.svg. Twelve minutes; with --quick, one short round that shows whether
all of it works, in build/bench-quick/. The folder takes its name at the end; what is done before a
Ctrl-C stays in the one beside it, ….unfinished.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.parts.machine import here  # noqa: E402 - only now can it be found
from bench.parts.picture import Panel, Series, bars, lines  # noqa: E402
from bench.parts.turns import BUSY_PERCENT, INTERRUPTED  # noqa: E402

ORDER = ("peers", "looks", "rates", "crawl")
QUICK = {
    "peers": ("--quick",),
    "looks": ("--sockets=5000", "--rounds=1"),
    "rates": ("--quick",),
    "crawl": ("--quick",),
}
SHOWN = {"uring": "twbench uring", "streams": "twbench streams"}
OURS = frozenset(SHOWN.values())
_WAIT_S = 10.0


def main() -> int:
    """Measure everything and write the folder; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="a folder to make anew")
    parser.add_argument("--quick", action="store_true", help="does it work at all?")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    usual = ROOT / ("build/bench-quick" if arguments.quick else f"results/bench-{here()}")
    out: Path = (arguments.out or usual).absolute()
    if out.exists() and not (out / "table.txt").exists():
        parser.error(f"{out} is there already, and none of ours")
    fresh = out.with_name(f"{out.name}.unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    started_s = time.monotonic()
    worst, texts = 0, []
    for name in ORDER:
        status, text = measure(name, fresh, QUICK[name] if arguments.quick else ())
        worst = max(worst, status)
        texts.append(text.strip())
        (fresh / "table.txt").write_text("\n\n\n".join(texts) + "\n", encoding="utf-8")
        if status == INTERRUPTED:
            break
    print("\n\n\n".join(texts))
    draw(fresh)
    if worst == INTERRUPTED:
        out = fresh
    else:
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)
    spent = f"{(time.monotonic() - started_s) / 60:.1f} minutes"
    print(f"{spent}; written to {out}", file=sys.stderr)
    return worst


def measure(name: str, folder: Path, options: tuple[str, ...]) -> tuple[int, str]:
    """Run one script, which writes its JSON; return its exit status and its tables.

    Ctrl-C ends it in order.
    """
    print(f"== {name}", file=sys.stderr, flush=True)
    argv = [sys.executable, str(ROOT / f"bench/{name}.py"), "--out", str(folder), *options]
    # in a session of its own, so that a Ctrl-C comes to it once, from here
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as script:
        try:
            said, _ = script.communicate()
        except KeyboardInterrupt:
            script.send_signal(signal.SIGINT)
            try:
                said, _ = script.communicate(timeout=_WAIT_S)
            except subprocess.TimeoutExpired:
                script.kill()
                said = ""
            return INTERRUPTED, said
    return script.returncode, said


def draw(folder: Path) -> None:
    """Draw what the JSON files say."""
    pictures = {"peers": peers_picture, "looks": looks_picture}
    for name, picture in pictures.items():
        found = read(folder / f"{name}.json")
        if found and found["bars" if name == "peers" else "rows"]:
            (folder / f"{name}.svg").write_text(picture(found), encoding="utf-8")


def read(path: Path) -> dict[str, Any] | None:
    """Return a script's JSON; None if it has not been run."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def peers_picture(peers: dict[str, Any]) -> str:
    """Draw the contest of clients. Pure."""
    head = peers["head"]
    names = {it["name"]: SHOWN.get(it["name"], it["name"]) for it in peers["bars"]}
    rates = {names[it["name"]]: it["rate_per_s"] for it in peers["bars"]}
    costs = {names[it["name"]]: it["cpu_us"] for it in peers["bars"]}
    held = frozenset(names[it["name"]] for it in peers["bars"] if it["busy_percent"] < BUSY_PERCENT)
    return bars(
        "New connections on one core, a request each; the server closes first",
        f"{head['users']} users, {head['server']}, medians of {head['rounds']} rounds;"
        f" {head['processor']}, Linux {head['kernel']}",
        [
            Panel(
                heading="connections per second: more is better",
                values=rates,
                most_first=True,
                held=held,
                why="server-bound",
            ),
            Panel(
                heading="client CPU per connection, µs: less is better",
                values=costs,
                most_first=False,
                digits=1,
            ),
        ],
        ours=OURS,
    )


def looks_picture(looks: dict[str, Any]) -> str:
    """Draw the cost of a look against the number of sockets, in tables of their own. Pure."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in looks["rows"]:
        if not row["method"].startswith("tick"):
            points.setdefault(row["method"], []).append((row["sockets"], row["median_ms"]))
    series = [
        Series(name=name, points=tuple(sorted(each)), ours=name.startswith("look"))
        for name, each in points.items()
    ]
    machine = looks["head"]
    note = f"Medians; {machine['processor']}, Linux {machine['kernel']}."
    return lines(
        "What it costs to look at all sockets",
        note,
        series,
        across="sockets in TIME_WAIT",
        up="milliseconds",
    )


if __name__ == "__main__":
    sys.exit(main())
