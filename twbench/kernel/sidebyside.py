"""Two dumps at once: two sockets, two threads, and processors of its own for each."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from twbench.kernel.netlink import DiagSocket, Dump
from twbench.kernel.portfilter import Halves

_SINCE = (6, 9)
"""Before, dumps took turns at inet_diag_table_mutex ("inet_diag: allow concurrent operations")."""


def dumps_run_at_once(*, release: str, cpus: int, running: int) -> bool:
    """Tell whether a second dump would run beside the first, or only in its way.

    `running` are the tasks that run now or wait for a processor, the caller among them.
    """
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    return running < cpus and numbers >= _SINCE


def side_by_side_pays() -> bool:
    """Tell whether two dumps would run at once here and now: a processor must be idle."""
    running, _, _ = Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")
    return dumps_run_at_once(
        release=os.uname().release, cpus=len(os.sched_getaffinity(0)), running=int(running)
    )


class SideBySide:
    """Dumps one half of a table from each of two sockets; owns its threads, not the sockets."""

    def __init__(self, first: DiagSocket, second: DiagSocket) -> None:
        """Share out this thread's processors; the threads start with the first dump."""
        self._sockets = (first, second)
        self._owned = ExitStack()
        cpus = sorted(os.sched_getaffinity(0))
        # Left to itself the kernel often wakes both on one processor while another is idle: in
        # virtual machines that show no shared cache, a woken thread stays beside its waker.
        self._threads = [
            self._owned.enter_context(
                ThreadPoolExecutor(1, "twbench-half", os.sched_setaffinity, (0, share))
            )
            for share in (cpus[::2], cpus[1::2] or cpus)
        ]

    def close(self) -> None:
        """Wait for dumps under way and end the threads; a second call does nothing."""
        self._owned.close()

    def dump(self, *, states: int, halves: Halves) -> list[Dump]:
        """Read every socket whose state is in the mask. Raises what `DiagSocket.dump` raises."""
        under_way = [
            thread.submit(diag.dump, states=states, only=half)
            for thread, diag, half in zip(self._threads, self._sockets, halves, strict=True)
        ]
        return [dump.result() for dump in under_way]
