"""What it costs to watch many sockets in TIME_WAIT: ticks and looks beside ss, psutil and /proc.

python bench/looks.py [--sockets N] [--rounds N] [--out FOLDER]

Makes 1,000, 10,000 and so on up to N sockets in TIME_WAIT, each in a network namespace of its own,
as an ordinary user, with a table of connections as large as the lab makes it, and reads them by
each method in turn. Times are wall time of the whole reading; for the tick, CPU time after other
work, as in a run, with cold caches; and what the kernel alone takes to print its files. `look` is
what users get: two halves side by side where a core is idle. `drain` is a C program that asks for
the same dump and throws it away (drain.c): one thread, and so is what stands beside it. Needs
unshare, ip and ss (util-linux, iproute2).
"""

import argparse
import contextlib
import json
import os
import random
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

from bench.parts.builds import compiled  # noqa: E402
from bench.parts.errors import BrokenError, UnavailableError  # noqa: E402
from bench.parts.figures import Row, at_least, at_most, missing, ratio, table  # noqa: E402
from bench.parts.machine import describe  # noqa: E402
from bench.parts.turns import INTERRUPTED, say  # noqa: E402
from twbench.kernel.readers import LookReader, TickReader  # noqa: E402
from twbench.kernel.summary import summarise  # noqa: E402
from twbench.lab.plan import ehash_entries_for  # noqa: E402

SYSCTL = Path("/proc/sys/net/ipv4")
PORT = 8080
IP_BIND_ADDRESS_NO_PORT = 24
PER_ADDRESS = 12_500
"""Under half of the default port range: beyond it, connects become expensive."""
SIZES = (1_000, 10_000, 100_000)
READ_WITHIN_S = 50
"""After the first was made: TIME_WAIT lasts for 60 s."""
LOOK, ALONE, COUNTED, DRAINED, TICK = (
    *("look", "look, one thread", "look + summary"),
    *("drain (C)", "tick"),
)
FASTER_THAN = {"ss -tan": 8, "psutil": 40}
"""Goals: how many times as fast as these a look should be, at the least."""
TIMES_DRAIN = 1.3
"""Goal: how much longer than merely draining the dump a look by one thread should take, at most."""
TICK_MS = 0.1
"""Goal: the CPU time of a tick, at most."""
TICK_FILES = ("sockstat", "sockstat6", "snmp", "netstat")
NEEDED = {"unshare": "util-linux", "ip": "iproute2", "ss": "iproute2"}

Times = dict[str, list[float]]
"""The milliseconds of every round, by method."""


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sockets", type=int, default=200_000, help="of the largest table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a folder to write looks.json to")
    parser.add_argument("--drain", help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measure(arguments.sockets, arguments.rounds, arguments.drain)))
        return 0
    for program, package in NEEDED.items():
        if not shutil.which(program):
            print(f"{program} is not installed (Debian: apt install {package})", file=sys.stderr)
            return 2
    head = describe() | {"rounds": arguments.rounds}
    times: dict[int, Times] = {}
    try:
        for size in (*(size for size in SIZES if size < arguments.sockets), arguments.sockets):
            say(f"looks: making {size:,} sockets in TIME_WAIT")
            times[size] = outside(size, arguments.rounds)
            write(arguments.out, head, times)
    except BrokenError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        print(*(f"{name}: {value}" for name, value in head.items()), sep="\n", end="\n\n")
        print(table(groups(times)))
    return 0


def write(folder: Path | None, head: dict[str, Any], times: dict[int, Times]) -> None:
    """Write what there is so far to looks.json."""
    if not folder:
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"method": name, "sockets": size, "median_ms": round(statistics.median(each), 4)}
        for size, methods in times.items()
        for name, each in methods.items()
    ]
    told = {heading: [row.as_json() for row in of] for heading, of in groups(times)}
    text = json.dumps({"head": head, "rows": rows, "groups": told}, indent=2)
    (folder / "looks.json").write_text(text + "\n", encoding="utf-8")


def groups(times: dict[int, Times]) -> list[tuple[str, list[Row]]]:
    """Return the rows of every size, and the goals at the largest. Pure."""
    found = [
        (
            f"{size:,} sockets in TIME_WAIT",
            [Row(name=n, unit="ms", values=tuple(ms), digits=3) for n, ms in methods.items()],
        )
        for size, methods in times.items()
    ]
    return [*found, (f"Goals, {max(times):,} sockets", goals(times[max(times)]))] if times else []


def goals(times: Times) -> list[Row]:
    """Return each goal, by the ratios of every round. Pure."""
    rows = {name: Row(name=name, unit="", values=tuple(ms)) for name, ms in times.items()}
    found = [
        at_least(least, ratio(f"{name} / {LOOK}", rows[name], rows[LOOK]))
        for name, least in FASTER_THAN.items()
    ]
    if DRAINED in rows:
        alone, counted = (
            ratio(f"{name} / {DRAINED}", rows[name], rows[DRAINED]) for name in (ALONE, COUNTED)
        )
        found += [at_most(TIMES_DRAIN, alone), counted]
    else:
        found.append(missing(f"{ALONE} / {DRAINED}", "there is no C compiler"))
    tick = Row(name=f"{TICK}, CPU time", unit="ms", values=rows[TICK].values, digits=3)
    return [*found, at_most(TICK_MS, tick)]


def outside(sockets: int, rounds: int) -> Times:
    """Return what this script finds in a fresh namespace. BrokenError where that is refused."""
    inside = [sys.executable, __file__, "--inside", f"--sockets={sockets}", f"--rounds={rounds}"]
    with contextlib.suppress(UnavailableError):
        inside.append(f"--drain={compiled('drain')}")
    entries = ehash_entries_for(sockets)
    script = f'echo {entries} > {SYSCTL}/tcp_child_ehash_entries && exec unshare --net "$@"'
    # The table's size is taken from the namespace that makes the new one.
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh"]
    done = subprocess.run([*command, *inside], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise BrokenError(f"{sockets:,} sockets: ended with {done.returncode}, see above")
    result: Times = json.loads(done.stdout)
    return result


def measure(sockets: int, rounds: int, drain: str | None) -> Times:
    """Return the times of each method, all read in turn, while TIME_WAIT lasts."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # On loopback the default (2) reuses a port in TIME_WAIT after a second.
    set_sysctl("tcp_tw_reuse", 0)
    # A table of one's own also brings a limit of half its buckets.
    set_sysctl("tcp_max_tw_buckets", 2 * sockets)
    started_s = time.monotonic()
    fill(sockets)
    with TickReader() as ticks, LookReader() as looks, LookReader(split_above=sys.maxsize) as alone:
        before = ticks.tick().sockstat["tw"]
        # A first look is never split in halves; of the many that follow, it is no example.
        looks.look()
        wall, cpu = time.perf_counter_ns, time.thread_time_ns
        files = [os.open(f"/proc/net/{name}", os.O_RDONLY) for name in TICK_FILES]
        methods: dict[str, Callable[[], tuple[int, float]]] = {
            TICK: lambda: timed(lambda: ticks.tick().sockstat["tw"], cpu),
            "tick, its reads": lambda: (before, timed(lambda: read_all(files), cpu)[1]),
            LOOK: lambda: timed(lambda: looks.look().count, wall),
            ALONE: lambda: timed(lambda: alone.look().count, wall),
            COUNTED: lambda: timed(lambda: look_and_count(alone), wall),
            "ss -tan": lambda: timed(rows_of_ss, wall),
            "/proc/net/tcp": lambda: timed(rows_of_proc, wall),
            "psutil": lambda: timed(lambda: len(psutil.net_connections("tcp")), wall),
        }
        if drain:
            methods[DRAINED] = lambda: drained(drain)
        times: Times = {name: [] for name in methods}
        for number in range(rounds):
            for name in random.Random(number).sample(list(methods), len(methods)):
                rows, took_ms = methods[name]()
                times[name].append(took_ms)
                if rows < 0.99 * before:
                    raise SystemExit(f"{name} saw {rows:,} of {before:,}: TIME_WAIT ran out")
            each_s = (time.monotonic() - started_s) / (number + 1)
            if time.monotonic() - started_s + each_s > READ_WITHIN_S:
                break
    return times


def timed(method: Callable[[], int], clock_ns: Callable[[], int]) -> tuple[int, float]:
    """Return the rows that a method sees, and the milliseconds it takes."""
    started_ns = clock_ns()
    rows = method()
    return rows, (clock_ns() - started_ns) / 1e6


def drained(drain: str) -> tuple[int, float]:
    """Return the rows and the milliseconds of a dump by drain.c, by its own clock; its second."""
    done = subprocess.run([drain, "2"], stdout=subprocess.PIPE, check=True, text=True)
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


if __name__ == "__main__":
    sys.exit(main())
