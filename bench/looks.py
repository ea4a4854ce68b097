"""What it costs to watch many sockets in TIME_WAIT: ticks and looks beside ss, psutil and /proc.

python bench/looks.py [--sockets N] [--rounds N] [--json]

Makes N sockets in TIME_WAIT in a network namespace of its own, as an ordinary user, once in the
machine's shared table of connections and once in a table of the namespace's own (sized by
tcp_child_ehash_entries), and reads them by each method in turn. Times are wall time of the whole
reading; for the tick, CPU time. The goals come last, by the medians and by the fastest, which a
busy machine disturbs least. Needs unshare, ip and ss (util-linux and iproute2).
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402 - only now can twbench be found without being installed

from twbench.kernel.readers import LookReader, TickReader  # noqa: E402
from twbench.kernel.summary import summarise  # noqa: E402

SYSCTL = Path("/proc/sys/net/ipv4")
PORT = 8080
IP_BIND_ADDRESS_NO_PORT = 24
PER_ADDRESS = 12_500
"""Under half of the default port range: beyond it, connects become expensive."""
OWN_TABLE = 131_072
"""Buckets: about one a socket at the default size, as in the shared table of a large machine."""
TABLES = ("shared", "own")
FASTER_THAN = {"ss -tan": 5, "psutil": 30}
"""Goals: how many times as fast as these a look with its summary should be, at the least."""
TICK_MS = 0.5
"""Goal: the CPU time of a tick, at most."""
GOALS = (
    *(f"look + summary at least {least}x as fast as {name}" for name, least in FASTER_THAN.items()),
    f"tick at most {TICK_MS} ms of CPU time",
)
MET = {True: "met", False: "NOT met"}


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sockets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--inside", choices=TABLES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.sockets, arguments.rounds)))
        return 0
    found = {
        table: outside(table, arguments.sockets, arguments.rounds, verbose=not arguments.json)
        for table in TABLES
    }
    if arguments.json:
        print(json.dumps({"kernel": platform.release(), "tables": found}, indent=2))
    else:
        for table, figures in found.items():
            show(table, figures)
    return 0


def outside(table: str, sockets: int, rounds: int, *, verbose: bool) -> dict[str, Any]:
    """Return what this script finds in a fresh namespace with that table."""
    if verbose:
        print(f"making {sockets:,} sockets in TIME_WAIT, {table} table …", flush=True)
    inside = [sys.executable, __file__, f"--sockets={sockets}", f"--rounds={rounds}"]
    entries = OWN_TABLE if table == "own" else 0
    script = f'echo {entries} > {SYSCTL}/tcp_child_ehash_entries && exec unshare --net "$@"'
    # The table's size is taken from the namespace that makes the new one.
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*command, *inside, f"--inside={table}"], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(sockets: int, rounds: int) -> dict[str, Any]:
    """Return the medians of each method, all read in turn, in milliseconds."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # On loopback the default (2) reuses a port in TIME_WAIT after a second.
    set_sysctl("tcp_tw_reuse", 0)
    # A table of one's own also brings a limit of half its buckets.
    set_sysctl("tcp_max_tw_buckets", 2 * sockets)
    started_s = time.monotonic()
    fill(sockets)
    filled_s = time.monotonic() - started_s
    with TickReader() as ticks, LookReader() as looks:
        before = ticks.tick().sockstat["tw"]
        # A first look is never split in halves; of the many that follow, it is no example.
        looks.look()
        methods: dict[str, Callable[[], int]] = {
            "tick": lambda: ticks.tick().sockstat["tw"],
            "look": lambda: len(looks.look().sockets),
            "look + summary": lambda: look_and_count(looks),
            "ss -tan": rows_of_ss,
            "/proc/net/tcp": rows_of_proc,
            "psutil": lambda: len(psutil.net_connections("tcp")),
        }
        clocks = dict.fromkeys(methods, time.perf_counter_ns) | {"tick": time.thread_time_ns}
        times: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(rounds):
            for name, method in methods.items():
                started_ns = clocks[name]()
                rows = method()
                times[name].append((clocks[name]() - started_ns) / 1e6)
                if rows < 0.99 * before:
                    raise SystemExit(f"{name} saw {rows:,} of {before:,}: TIME_WAIT ran out")
        after = ticks.tick().sockstat["tw"]
    return {
        "time_wait": {"before": before, "after": after},
        "table_buckets": abs(int((SYSCTL / "tcp_ehash_entries").read_text())),
        "filled_s": round(filled_s, 2),
        "rounds": rounds,
        "median_ms": {name: round(statistics.median(all_), 4) for name, all_ in times.items()},
        "min_ms": {name: round(min(all_), 4) for name, all_ in times.items()},
    }


def fill(sockets: int) -> None:
    """Open and close connections, client first, until that many clients are in TIME_WAIT."""
    with socket.create_server(("127.0.0.1", PORT), backlog=16) as listener:
        for number in range(sockets):
            client = socket.socket()
            client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            client.bind((f"127.0.1.{number // PER_ADDRESS + 1}", 0))
            client.connect(("127.0.0.1", PORT))
            server, _ = listener.accept()
            client.close()
            server.close()


def set_sysctl(name: str, value: int) -> None:
    """Write one setting of this namespace."""
    fd = os.open(SYSCTL / name, os.O_WRONLY)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def look_and_count(looks: LookReader) -> int:
    """Look, count by state, side, port and timer, and return the rows."""
    sockets = looks.look().sockets
    summarise(sockets, servers={PORT}, port_range=(32768, 60999))
    return len(sockets)


def rows_of_ss() -> int:
    """Return the rows that `ss -tan` prints."""
    return subprocess.run(["ss", "-tanH"], stdout=subprocess.PIPE, check=True).stdout.count(b"\n")


def rows_of_proc() -> int:
    """Return the rows of /proc/net/tcp, unparsed."""
    with open("/proc/net/tcp", "rb") as table:  # noqa: PTH123 - counts lines as they come
        return sum(1 for _ in table) - 1


def show(table: str, figures: dict[str, Any]) -> None:
    """Print one table of figures."""
    held, buckets = figures["time_wait"], figures["table_buckets"]
    print(
        f"\n{held['before']:,} sockets in TIME_WAIT ({held['after']:,} at the end), made in "
        f"{figures['filled_s']} s; {table} table of {buckets:,} buckets; "
        f"Linux {platform.release()}; median of {figures['rounds']}"
    )
    medians, fastest = figures["median_ms"], figures["min_ms"]
    look = medians["look + summary"]
    print(f"{'method':<16}{'ms':>10}{'fastest':>10}{'to look + summary':>19}")
    for name, median in medians.items():
        print(f"{name:<16}{median:>10.2f}{fastest[name]:>10.2f}{median / look:>18.3g}x")
    print(f"{'goal':<46}{'by medians':>18}{'by fastest':>18}")
    for goal, by_medians, by_fastest in zip(GOALS, goals(medians), goals(fastest), strict=True):
        print(f"{goal:<46}{by_medians:>18}{by_fastest:>18}")


def goals(times_ms: dict[str, float]) -> list[str]:
    """Return, of each of GOALS, the figure and whether it is met."""
    ratios = {name: times_ms[name] / times_ms["look + summary"] for name in FASTER_THAN}
    return [
        *(f"{ratio:.1f}x {MET[ratio >= FASTER_THAN[name]]}" for name, ratio in ratios.items()),
        f"{times_ms['tick']:.2f} ms {MET[times_ms['tick'] <= TICK_MS]}",
    ]


if __name__ == "__main__":
    sys.exit(main())
