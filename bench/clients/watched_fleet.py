"""A fleet worker with one thread more, which tells on standard error how much it holds.

Twice a second: all garbage is collected, then `Rss` is read from smaps_rollup, because VmRSS may
be off by 32 pages a core (mm_counter, kept in percpu counters since Linux 6.2; proc(5)).
"""

import gc
import json
import sys
import threading
import time
from pathlib import Path

from twbench.fleet.worker import main

EVERY_S = 0.5


def watch() -> None:
    """Write {"t_ns", "rss_kib", "descriptors"} lines for as long as the process lives."""
    memory = Path("/proc/self/smaps_rollup")
    while True:
        time.sleep(EVERY_S)
        gc.collect()
        line = next(line for line in memory.read_text().splitlines() if line.startswith("Rss:"))
        sample = {
            "t_ns": time.monotonic_ns(),
            "rss_kib": int(line.split()[1]),
            "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        }
        print(json.dumps(sample), file=sys.stderr, flush=True)


if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    main()
