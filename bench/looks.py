"""What it costs to watch many sockets in TIME_WAIT: ticks and looks beside ss, psutil and /proc.

python bench/looks.py [--sockets N] [--rounds N] [--json] [--out DIR]

Makes 1,000, 10,000 and so on up to N sockets in TIME_WAIT, each in a network namespace of its own,
as an ordinary user, with a table of connections as large as the lab makes it, and reads them by
each method in turn; N sockets once more in the machine's shared table. Times are wall time of the
whole reading; for the tick, CPU time: after other work, as in a run, with cold caches; again at
once; and what the kernel alone takes to print its files. `drain` is a C program that asks for the
same dump and throws it away (drain.c, compiled by cc). The goals come last, by the medians and by
the fastest, which a busy machine disturbs least. Needs unshare, ip and ss (util-linux, iproute2).
"""

import argparse
import json
import os
import platform
import shutil
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
from twbench.lab.plan import ehash_entries_for  # noqa: E402

SYSCTL = Path("/proc/sys/net/ipv4")
PORT = 8080
IP_BIND_ADDRESS_NO_PORT = 24
PER_ADDRESS = 12_500
"""Under half of the default port range: beyond it, connects become expensive."""
SIZES = (1_000, 10_000, 100_000)
TABLES = ("own", "shared")
READ_WITHIN_S = 50
"""After the first was made: TIME_WAIT lasts for 60 s."""
DRAIN = ROOT / "build" / "drain"
LOOK, COUNTED, DRAINED, TICK = "look", "look + summary", "drain (C)", "tick"
FASTER_THAN = {"ss -tan": 8, "psutil": 40}
"""Goals: how many times as fast as these a look should be, at the least."""
TICK_FILES = ("sockstat", "sockstat6", "snmp", "netstat")
TIMES_DRAIN = 1.3
"""Goal: how much longer than merely draining the dump a look should take, at most."""
TICK_MS = 0.1
"""Goal: the CPU time of a tick, at most."""
MET = {True: "met", False: "NOT met"}


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sockets", type=int, default=200_000, help="of the largest table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--out", type=Path, help="a folder to write looks.json to")
    parser.add_argument("--inside", choices=TABLES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sockets, rounds = arguments.sockets, arguments.rounds
    if arguments.inside:
        print(json.dumps(measure(arguments.inside, sockets, rounds)))
        return 0
    compile_drain()
    sizes = (*(size for size in SIZES if size < sockets), sockets)
    rows: list[dict[str, Any]] = []
    for table, size in (*(("own", size) for size in sizes), ("shared", sockets)):
        print(f"making {size:,} sockets in TIME_WAIT, {table} table", file=sys.stderr, flush=True)
        rows += outside(table, size, rounds)
    found = {"machine": machine(), "rows": rows, "goals": goals(rows, sockets)}
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "looks.json").write_text(json.dumps(found, indent=2) + "\n")
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)
    return 0


def compile_drain() -> None:
    """Make build/drain, where there is a C compiler; without one its rows are left out."""
    DRAIN.unlink(missing_ok=True)
    if not shutil.which("cc"):
        print("no cc: without drain.c, one goal cannot be told", file=sys.stderr)
        return
    DRAIN.parent.mkdir(exist_ok=True)
    source = Path(__file__).with_name("drain.c")
    subprocess.run(["cc", "-O2", "-Wall", "-o", str(DRAIN), str(source)], check=True)


def outside(table: str, sockets: int, rounds: int) -> list[dict[str, Any]]:
    """Return the rows that this script finds in a fresh namespace with that table."""
    inside = [sys.executable, __file__, f"--sockets={sockets}", f"--rounds={rounds}"]
    entries = ehash_entries_for(sockets) if table == "own" else 0
    script = f'echo {entries} > {SYSCTL}/tcp_child_ehash_entries && exec unshare --net "$@"'
    # The table's size is taken from the namespace that makes the new one.
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*command, *inside, f"--inside={table}"], stdout=subprocess.PIPE, text=True, check=True
    )
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


def measure(table: str, sockets: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each method, all read in turn, while TIME_WAIT lasts."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # On loopback the default (2) reuses a port in TIME_WAIT after a second.
    set_sysctl("tcp_tw_reuse", 0)
    # A table of one's own also brings a limit of half its buckets.
    set_sysctl("tcp_max_tw_buckets", 2 * sockets)
    started_s = time.monotonic()
    fill(sockets)
    with TickReader() as ticks, LookReader() as looks:
        before = ticks.tick().sockstat["tw"]
        # A first look is never split in halves; of the many that follow, it is no example.
        looks.look()
        wall, cpu = time.perf_counter_ns, time.thread_time_ns
        files = [os.open(f"/proc/net/{name}", os.O_RDONLY) for name in TICK_FILES]
        methods: dict[str, Callable[[], tuple[int, float]]] = {
            TICK: lambda: timed(lambda: ticks.tick().sockstat["tw"], cpu),
            "tick, again": lambda: timed(lambda: ticks.tick().sockstat["tw"], cpu),
            "tick, its reads": lambda: (before, timed(lambda: read_all(files), cpu)[1]),
            LOOK: lambda: timed(lambda: looks.look().count, wall),
            COUNTED: lambda: timed(lambda: look_and_count(looks), wall),
            DRAINED: drained,
            "ss -tan": lambda: timed(rows_of_ss, wall),
            "/proc/net/tcp": lambda: timed(rows_of_proc, wall),
            "psutil": lambda: timed(lambda: len(psutil.net_connections("tcp")), wall),
        }
        if not DRAIN.exists():
            del methods[DRAINED]
        times: dict[str, list[float]] = {name: [] for name in methods}
        for number in range(rounds):
            for name, method in methods.items():
                rows, took_ms = method()
                times[name].append(took_ms)
                if rows < 0.99 * before:
                    raise SystemExit(f"{name} saw {rows:,} of {before:,}: TIME_WAIT ran out")
            each_s = (time.monotonic() - started_s) / (number + 1)
            if time.monotonic() - started_s + each_s > READ_WITHIN_S:
                break
    buckets = abs(int((SYSCTL / "tcp_ehash_entries").read_text()))
    return [
        {
            "method": name,
            "sockets": sockets,
            "table": table,
            "table_buckets": buckets,
            "rounds": len(all_),
            "median_ms": round(statistics.median(all_), 4),
            "min_ms": round(min(all_), 4),
        }
        for name, all_ in times.items()
    ]


def timed(method: Callable[[], int], clock_ns: Callable[[], int]) -> tuple[int, float]:
    """Return the rows that a method sees, and the milliseconds it takes."""
    started_ns = clock_ns()
    rows = method()
    return rows, (clock_ns() - started_ns) / 1e6


def drained() -> tuple[int, float]:
    """Return the rows and the milliseconds of a dump by drain.c, by its own clock; its second."""
    done = subprocess.run([str(DRAIN), "2"], stdout=subprocess.PIPE, check=True, text=True)
    rows, took_ms = done.stdout.split()[2:]
    return int(rows), float(took_ms)


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
    look = looks.look()
    summarise(*look.parts, servers={PORT}, port_range=(32768, 60999))
    return look.count


def read_all(files: list[int]) -> int:
    """Let the kernel print these files, and return their bytes: its part of a tick."""
    return sum(len(os.pread(fd, 65536, 0)) for fd in files)


def rows_of_ss() -> int:
    """Return the rows that `ss -tan` prints."""
    return subprocess.run(["ss", "-tanH"], stdout=subprocess.PIPE, check=True).stdout.count(b"\n")


def rows_of_proc() -> int:
    """Return the rows of /proc/net/tcp, unparsed."""
    with open("/proc/net/tcp", "rb") as table:  # noqa: PTH123 - counts lines as they come
        return sum(1 for _ in table) - 1


def machine() -> dict[str, str | int]:
    """Return what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "kernel": platform.release(),
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }


def goals(rows: list[dict[str, Any]], sockets: int) -> list[dict[str, Any]]:
    """Return each goal at the largest size, in a table of its own, and whether it is met."""
    largest = {r["method"]: r for r in rows if (r["table"], r["sockets"]) == ("own", sockets)}
    found = []
    for by in ("median_ms", "min_ms"):
        ms = {name: row[by] for name, row in largest.items()}
        told = [
            *(
                (f"{what} at least {least}x as fast as {name}", ms[name] / ms[what], least, 1)
                for what in (LOOK, COUNTED)
                for name, least in FASTER_THAN.items()
            ),
            *(
                (
                    f"{what} at most {TIMES_DRAIN}x of {DRAINED}",
                    ms[what] / ms[DRAINED],
                    TIMES_DRAIN,
                    -1,
                )
                for what in (LOOK, COUNTED)
                if DRAINED in ms
            ),
            (f"tick at most {TICK_MS} ms of CPU time", ms[TICK], TICK_MS, -1),
        ]
        found += [
            {"goal": text, "by": by, "value": round(value, 3), "met": sign * (value - bound) >= 0}
            for text, value, bound, sign in told
        ]
    return found


def show(found: dict[str, Any]) -> None:
    """Print the rows and the goals."""
    print(*(f"{name}: {value}" for name, value in found["machine"].items()), sep="\n")
    print(f"\n{'method':<16}{'sockets':>9}  {'table':<7}{'rounds':>7}{'ms':>11}{'fastest':>11}")
    for r in found["rows"]:
        print(
            f"{r['method']:<16}{r['sockets']:>9,}  {r['table']:<7}{r['rounds']:>7}"
            f"{r['median_ms']:>11.3f}{r['min_ms']:>11.3f}"
        )
    print(f"\n{'goal, largest table of its own':<46}{'by':>10}{'value':>9}")
    for g in found["goals"]:
        print(f"{g['goal']:<46}{g['by']:>10}{g['value']:>9.3f}  {MET[g['met']]}")


if __name__ == "__main__":
    sys.exit(main())
