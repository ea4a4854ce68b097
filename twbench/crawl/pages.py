"""Pages to visit, for crawlers in tasks and in threads: each visit is timed and booked."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from twbench.crawl.frontier import addresses_of, frontier_of
from twbench.crawl.outcomes import classify, keeps
from twbench.crawl.visit import CrawlerError, Rest, Visit
from twbench.fleet import part
from twbench.fleet.alarm import Alarm
from twbench.fleet.ledger import Ledger
from twbench.fleet.part import NEVER_NS, SECOND_NS, own_share
from twbench.model.outcomes import Phase
from twbench.model.plans import FleetPlan
from twbench.model.reports import FleetReport

__all__ = ["Crawl", "CrawlerError", "Pages", "Visit"]

_FAILURE = 400


class Pages:
    """The pages that one worker visits; `async for` and `for` hand them out until the load ends.

    Each loop is a user: it is handed a page when a site may be visited, and pauses after each as
    the scenario says. All loops together have `concurrency` visits under way at the most.
    """

    def __init__(self, plan: FleetPlan, ledger: Ledger) -> None:
        """Prepare a worker's part of a crawl; the clock starts with `start`."""
        client, load = plan.scenario.client, plan.scenario.load
        self.concurrency = own_share(plan, load.concurrency or 0)
        """Users of this worker."""
        self._ledger = ledger
        self._frontier = frontier_of(plan)
        self._addresses = addresses_of(plan)
        self._keeps = keeps(client)
        self._answered: set[int] = set()
        """Sites that have answered this worker: to them there can be a kept connection."""
        self._think_ns = round(client.crawl.think_ms * SECOND_NS / 1000)
        self._total_ns = round(load.total_s * SECOND_NS)
        self._end_ns = NEVER_NS
        self.grace_s = min(client.request_timeout_s, part.GRACE_NS / SECOND_NS)
        """How long a visit under way at the load's end has to finish."""
        self._under_way: set[Visit] = set()
        self._lock = threading.Lock()
        # of those who find nothing to visit, one waits for a change, and the others for that one
        self._changed = threading.Condition(self._lock)
        self._first_thread = threading.Lock()
        self._first_task = asyncio.Lock()
        self._task_waits = self._thread_waits = False
        self._stopped = threading.Event()
        self._resting: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: Alarm | None = None

    # for crawlers

    async def __aiter__(self) -> AsyncIterator[Visit]:
        """Hand out visits to one user, a task."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._alarm = Alarm()
        rest = Rest(self._think_ns)
        while True:
            if self._first_task.locked():
                visit = await self._next()
            else:
                with self._lock:
                    taken = self._take()
                # most often there is a page at once
                visit = await self._next() if isinstance(taken, int) else taken
            if visit is None:
                return
            yield visit
            if (self._think_ns or visit.failed_in is not None) and not self._frontier.is_over:
                await self._rest(rest.after(visit))

    def __iter__(self) -> Iterator[Visit]:
        """Hand out visits to one user, a thread."""
        rest = Rest(self._think_ns)
        while (visit := self._next_in_thread()) is not None:
            yield visit
            rest_ns = rest.after(visit)
            if rest_ns and not self._frontier.is_over:
                self._stopped.wait(rest_ns / SECOND_NS)

    async def share(self, user: Callable[[], Awaitable[None]]) -> None:
        """Run `concurrency` users as tasks, to their end; raise what the first of them raises."""

        async def run() -> None:
            await user()

        tasks = {asyncio.create_task(run()) for _ in range(self.concurrency)}
        try:
            for ended in asyncio.as_completed(tasks):
                await ended
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def share_threads(self, user: Callable[[], None]) -> None:
        """Run `concurrency` users in threads, to their end; raise what the first of them raises.

        A thread cannot be cut off: when this is cancelled, those that hang are left behind.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Queue[BaseException | None] = asyncio.Queue()

        def run() -> None:
            error: BaseException | None = None
            try:
                user()
            except BaseException as raised:  # noqa: BLE001 - it is raised where it is awaited
                error = raised
            # the loop may be gone, and nobody wants to know any more
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.put_nowait, error)

        for _ in range(self.concurrency):
            threading.Thread(target=run, daemon=True).start()
        for _ in range(self.concurrency):
            if (error := await ended.get()) is not None:
                raise error

    # for their visits

    def end(self, visit: Visit, error: BaseException | None) -> None:
        """Book what has become of an attempt, and let the frontier go on from there."""
        now_ns = visit.got_ns or time.monotonic_ns()
        with self._lock:
            if visit not in self._under_way:
                return
            self._under_way.remove(visit)
            self._frontier.done(visit.target, ok=self._book(visit, error, now_ns), now_ns=now_ns)
            if self._task_waits or self._thread_waits:
                self._tell()

    def _book(self, visit: Visit, error: BaseException | None, now_ns: int) -> bool:
        ledger = self._ledger
        report = ledger.report
        report.attempted += 1
        if visit.target.attempt:
            report.retried += 1
        if visit.got_ns:
            self._answered.add(visit.target.site)
            ledger.request_ns.append(visit.got_ns - visit.began_ns)
            report.received_bytes += visit.body_bytes
            if visit.status < _FAILURE:
                report.ok += 1
                return True
            phase, name = Phase.READ, "STATUS"
        elif isinstance(error, Exception):
            phase, name = classify(error)
        else:
            phase, name = Phase.READ, "CANCELLED"
        # an engine of ours knows; of a library it can only be supposed
        reused: bool | None = getattr(error, "reused", None)
        if reused is None:
            reused = self._keeps and visit.target.site in self._answered
        ledger.error(phase, name, reused=reused, now_ns=now_ns)
        visit.failed_in = phase
        return False

    # for the worker

    def start(self, start_ns: int) -> None:
        """Let the load begin at `start_ns` (CLOCK_MONOTONIC): its end follows from that."""
        self._end_ns = start_ns + self._total_ns

    @property
    def end_ns(self) -> int:
        """Return when the load ends by itself, CLOCK_MONOTONIC."""
        return self._end_ns

    @property
    def are_left(self) -> bool:
        """Return whether there would be pages still, now or later."""
        in_time = time.monotonic_ns() < self._end_ns
        return in_time and self.concurrency > 0 and not self._frontier.is_over

    def stop(self) -> None:
        """Hand out nothing more, and let nobody wait for it; from the loop's thread."""
        with self._lock:
            self._end_ns = 0
            self._tell()
            self._changed.notify_all()
        self._stopped.set()
        for resting in self._resting:
            _wake(resting)

    def cut_off(self) -> int:
        """Book what is under way as cancelled; return how many pages were taken, not visited."""
        with self._lock:
            for visit in self._under_way:
                if visit.began_ns:
                    self._book(visit, None, time.monotonic_ns())
            left = sum(not visit.began_ns for visit in self._under_way)
            self._under_way.clear()
        if self._alarm is not None:
            with self._alarm:
                self._alarm = None
        return left

    def report(self) -> FleetReport:
        """Close the tick of the books."""
        with self._lock:
            return self._ledger.take(time.monotonic_ns(), cpu_ns=time.process_time_ns())

    # how users wait

    def _take(self) -> Visit | int | None:
        """Return a visit, or until when to wait for one, or None: that was all."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._end_ns or not self.concurrency:
            return None
        if len(self._under_way) >= self.concurrency:
            return self._end_ns
        taken = self._frontier.take(now_ns)
        if taken is None:
            return None
        if isinstance(taken, int):
            return min(taken, self._end_ns)
        site, page, _ = taken
        address = self._addresses[site]
        visit = Visit(self, taken, f"{address}{page}" if page else address)
        self._under_way.add(visit)
        return visit

    async def _next(self) -> Visit | None:
        assert self._alarm is not None  # noqa: S101 - __aiter__ has made it
        async with self._first_task:
            while True:
                with self._lock:
                    taken = self._take()
                    self._task_waits = isinstance(taken, int)
                if not isinstance(taken, int):
                    return taken
                await self._alarm.until(taken)

    def _next_in_thread(self) -> Visit | None:
        with self._first_thread, self._lock:
            while isinstance(taken := self._take(), int):
                left_s = (taken - time.monotonic_ns()) / SECOND_NS
                self._thread_waits = True
                self._changed.wait(min(max(left_s, 0), threading.TIMEOUT_MAX))
                self._thread_waits = False
            return taken

    def _tell(self) -> None:
        """Wake who waits for a change."""
        self._changed.notify()
        if self._task_waits and self._loop is not None and self._alarm is not None:
            self._task_waits = False
            self._loop.call_soon_threadsafe(self._alarm.ring)

    async def _rest(self, rest_ns: int) -> None:
        if not rest_ns or self._stopped.is_set():
            return
        resting = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(rest_ns / SECOND_NS, _wake, resting)
        self._resting.add(resting)
        try:
            await resting
        finally:
            self._resting.discard(resting)
            timer.cancel()


def _wake(resting: asyncio.Future[None]) -> None:
    if not resting.done():
        resting.set_result(None)


Crawl = Callable[[Pages], Awaitable[None]]
"""A crawler: it visits the pages that it is handed until there are no more."""
