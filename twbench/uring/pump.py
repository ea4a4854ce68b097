"""A ring and an agenda inside an asyncio loop.

While completions come, the program waits for them in io_uring_enter and gives the loop a turn every
few milliseconds: a wake-up through an event loop costs more than a connection's bookkeeping. When
none come, it is the loop that waits, on the ring's eventfd, so a quiet ring costs nothing.
"""

import asyncio
import heapq
import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress

from twbench.uring.cqe import Completion
from twbench.uring.memory import Memory
from twbench.uring.operations import TimeoutFlag, timeout
from twbench.uring.ring import Ring
from twbench.uring.structs import timespec

_BURST_NS = 4_000_000
_PATIENCE_NS = 200_000
_TIMER = 0xFFFF_FFFF_FFFF_FFFE
_TIMESPEC_BYTES = 16
_NEVER_NS = 1 << 62


class Pump:
    """Hands completions over in batches, and makes each call of the agenda when it is due.

    All times are CLOCK_MONOTONIC in nanoseconds. What the callbacks push is submitted with the
    next turn of the ring.
    """

    def __init__(self, ring: Ring, complete: Callable[[list[Completion]], None]) -> None:
        """Take a ring, which stays the caller's, and what is to hear of its completions.

        The token 2^64 - 2 is the pump's own.
        """
        self.now_ns = time.monotonic_ns()
        """When the batch under way was fetched."""
        self._ring = ring
        self._complete = complete
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._over = False
        self._heard = asyncio.Event()
        self._timers: list[int] = []
        self._after: list[Callable[[], None]] = []
        self._memory = Memory(_TIMESPEC_BYTES)
        self._timespec_at = self._memory.reserve(_TIMESPEC_BYTES)

    def at(self, due_ns: int, call: Callable[[], None]) -> None:
        """Make this call once it is due; of two due at the same time, the earlier asked for."""
        heapq.heappush(self._agenda, (due_ns, next(self._order), call))

    def after_turn(self, call: Callable[[], None]) -> None:
        """Make this call after the next turn of the ring, which waits for nothing.

        By then what was pushed has been begun, and the files that were closed are closed: the
        kernel does that at the end of io_uring_enter.
        """
        self._after.append(call)

    def wake(self) -> None:
        """Look at the agenda and the ring now."""
        self._heard.set()

    def stop(self) -> None:
        """Let `run` return."""
        self._over = True
        self.wake()

    async def run(self) -> None:
        """Go on until `stop` is called; what was pushed by then is submitted."""
        loop = asyncio.get_running_loop()
        eventfd = self._ring.notify()
        loop.add_reader(eventfd, self._hear, eventfd)
        try:
            while not self._over:
                self._ring.mute(muted=True)
                if self._burst():
                    await asyncio.sleep(0)
                else:
                    self._ring.mute(muted=False)
                    await self._rest()
            self._ring.submit()
        finally:
            loop.remove_reader(eventfd)

    def _hear(self, eventfd: int) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(eventfd)
        self._heard.set()

    def _burst(self) -> bool:
        """Turn the ring for a while; return False as soon as nothing comes."""
        glance, agenda = self._ring.glance, self._agenda
        until_ns = time.monotonic_ns() + _BURST_NS
        while True:
            self._keep_agenda()
            if self._over or self.now_ns >= until_ns:
                return True
            if self._after:
                found = self._pass_turn()
                if found:
                    self.take(found)
                continue
            wait_ns = min(_PATIENCE_NS, agenda[0][0] - self.now_ns) if agenda else _PATIENCE_NS
            if found := glance(wait=1, timeout_ns=wait_ns):
                self.take(found)
            elif wait_ns == _PATIENCE_NS:
                return False

    def _pass_turn(self) -> list[Completion]:
        """Turn the ring without waiting, and make the calls that asked for that."""
        found = self._ring.glance()
        calls, self._after = self._after, []
        for call in calls:
            call()
        return found

    async def _rest(self) -> None:
        """Let the loop wait until something completes or becomes due."""
        self._heard.clear()
        due_ns = self._agenda[0][0] if self._agenda else _NEVER_NS
        if due_ns < (self._timers[0] if self._timers else _NEVER_NS):
            heapq.heappush(self._timers, due_ns)
            self._memory.view(self._timespec_at, _TIMESPEC_BYTES)[:] = timespec(due_ns)
            timer = timeout(addr=self._timespec_at, how=TimeoutFlag.ABS, user_data=_TIMER)
            self._ring.push(timer.pack())
        if found := self._ring.turn():
            self.take(found)
        else:
            await self._heard.wait()

    def _keep_agenda(self) -> None:
        self.now_ns = now_ns = time.monotonic_ns()
        agenda = self._agenda
        while agenda and agenda[0][0] <= now_ns:
            heapq.heappop(agenda)[2]()

    def take(self, found: list[Completion]) -> None:
        """Hand completions over: those of a turn, or such as were fetched past the pump."""
        self.now_ns = time.monotonic_ns()
        if self._timers:
            others = [each for each in found if each[0] != _TIMER]
            for _ in range(len(found) - len(others)):
                heapq.heappop(self._timers)
            found = others
        self._complete(found)
