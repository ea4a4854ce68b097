"""The task that reads several kernels at the pace of a schedule.

Ticks are read on the event loop: they take well under a millisecond. Looks can take tens of
milliseconds, nearly all of it in the kernel, so a thread of their own takes them, one at a time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from twbench.kernel.readers import Looks, Ticks
from twbench.kernel.summary import Endpoint, summarise
from twbench.sampler.peak import Peak
from twbench.sampler.samples import Moment, Sample, look_sample, tick_sample
from twbench.sampler.schedule import Schedule

_S = 1_000_000_000
_SHORTEST_SLEEP_S = 0.001
"""uvloop's timers count whole milliseconds: less would return at once."""

_PEAK_AFTER_S = 1.0

PORTS = (0, 65535)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """One kernel's network namespace: its name, its readers, and what its server's ends are.

    `servers`: ports, or pairs of address and port; None means whatever is listened on.
    `port_range`: the ephemeral ports, inclusive, whose use is counted.
    """

    name: str
    ticks: Ticks
    looks: Looks
    servers: frozenset[int | Endpoint] | None = None
    port_range: tuple[int, int] = PORTS


class Sampler:
    """Reads stacks on schedule while `run()` runs, and at once whenever asked.

    Every record goes to `emit`, on the thread of the event loop. Besides the scheduled looks one is
    taken of a stack whose TIME_WAIT count rose and then stayed for a second, by the rule of `Peak`.
    A context manager: it owns the looking thread, not the readers. OSError and CodecError of the
    readers end `run()`.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        emit: Callable[[Sample], None],
        *,
        ticks_per_s: float = 10,
        looks_per_s: float = 1,
        now_ns: Callable[[], int] = time.monotonic_ns,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """Take the first tick, from which the counters' rises are told; a rate of 0 is never."""
        self._stacks = tuple(stacks)
        self._emit = emit
        self._ticks_per_s = ticks_per_s
        self._looks_per_s = looks_per_s
        self._now_ns = now_ns
        self._cpu_ns = cpu_ns
        self._base = {stack.name: stack.ticks.tick().counters for stack in self._stacks}
        patience = max(1, round(ticks_per_s * _PEAK_AFTER_S))
        self._peaks = {stack.name: Peak(patience=patience) for stack in self._stacks}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="twbench-look")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for a look under way and end the looking thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def run(self) -> None:
        """Tick and look on schedule until cancelled."""
        start_ns = self._now_ns()
        async with asyncio.TaskGroup() as tasks:

            async def tick(due_ns: int, missed: int) -> None:
                for stack in self._ticked(due_ns, missed):
                    tasks.create_task(self._look(stack, "peak"))

            async def look(due_ns: int, missed: int) -> None:
                for stack in self._stacks:
                    await self._look(stack, "scheduled", due_ns=due_ns, missed=missed)

            for rate_per_s, work in ((self._ticks_per_s, tick), (self._looks_per_s, look)):
                if rate_per_s > 0:
                    schedule = Schedule(start_ns=start_ns, rate_per_s=rate_per_s)
                    tasks.create_task(self._keep(schedule, work))

    def tick_now(self) -> None:
        """Read the counters of every stack at once."""
        for stack in self._stacks:
            self._tick(stack, due_ns=None, missed=0)

    async def look_now(self, label: str) -> None:
        """Look at every stack at once; returns when the records are out."""
        for stack in self._stacks:
            await self._look(stack, label)

    async def _keep(self, schedule: Schedule, work: Callable[[int, int], Awaitable[None]]) -> None:
        """Do the work at every due time of the schedule that can be kept."""
        index = -1
        while True:
            slot = schedule.after(index, self._now_ns())
            while (left_ns := slot.due_ns - self._now_ns()) > 0:  # noqa: ASYNC110 - a timer may be early
                await asyncio.sleep(max(left_ns / _S, _SHORTEST_SLEEP_S))
            await work(slot.due_ns, slot.missed)
            index = slot.index

    def _ticked(self, due_ns: int, missed: int) -> list[Stack]:
        """Read the counters of every stack; return those whose TIME_WAIT is at its peak now."""
        at_peak = []
        for stack in self._stacks:
            waiting = self._tick(stack, due_ns=due_ns, missed=missed)
            self._peaks[stack.name], now = self._peaks[stack.name].step(waiting)
            if now:
                at_peak.append(stack)
        return at_peak

    def _tick(self, stack: Stack, *, due_ns: int | None, missed: int) -> int:
        """Read and hand out the counters of one stack; return its TIME_WAIT count."""
        t_ns, cpu_ns = self._now_ns(), self._cpu_ns()
        tick = stack.ticks.tick()
        moment = Moment(
            t_ns=t_ns,
            lateness_ns=0 if due_ns is None else t_ns - due_ns,
            cost_ns=self._cpu_ns() - cpu_ns,
            missed=missed,
        )
        self._emit(tick_sample(stack.name, moment, tick, self._base[stack.name]))
        return tick.sockstat["tw"]

    async def _look(
        self, stack: Stack, label: str, *, due_ns: int | None = None, missed: int = 0
    ) -> None:
        """Look at one stack on the looking thread and hand out the record."""

        def work() -> Sample:
            t_ns = self._now_ns()
            look = stack.looks.look()
            cpu_ns = self._cpu_ns()
            summary = summarise(*look.parts, servers=stack.servers, port_range=stack.port_range)
            moment = Moment(
                t_ns=t_ns,
                lateness_ns=0 if due_ns is None else t_ns - due_ns,
                cost_ns=look.cost_ns + self._cpu_ns() - cpu_ns,
                missed=missed,
            )
            return look_sample(stack.name, label, moment, look, summary)

        self._emit(await asyncio.get_running_loop().run_in_executor(self._thread, work))
