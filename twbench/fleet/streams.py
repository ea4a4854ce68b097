"""The engine `streams`: asyncio Protocols on uvloop, or on asyncio's own loop without it."""

import asyncio
import itertools
import socket
import time
from collections import defaultdict
from typing import Any

from twbench.fleet import part
from twbench.fleet.alarm import Alarm
from twbench.fleet.answers import HeadReader
from twbench.fleet.connection import Connection
from twbench.fleet.ledger import Ledger
from twbench.fleet.pacing import Profile, arrivals
from twbench.fleet.sockets import ConnectFailedError, Dialer
from twbench.model.outcomes import Phase, errno_name
from twbench.model.plans import Endpoint, FleetPlan

_DRAINED_POLL_S = 0.01
_NAP_NS = 250_000


class Streams:
    """Offers one worker's part of the load and sees every connection to its end."""

    def __init__(self, plan: FleetPlan, ledger: Ledger) -> None:
        """Prepare requests, routes and pool; nothing is opened yet."""
        scenario, client = plan.scenario, plan.scenario.client
        self.ledger = ledger
        self.heads = HeadReader()
        self.loop = asyncio.get_running_loop()
        self.ending = scenario.ending.kind
        self.half_closes = self.ending == "client-half-close"
        self.hold_ns = round(scenario.ending.hold_s * part.SECOND_NS)
        self.request_timeout_ns = round(client.request_timeout_s * part.SECOND_NS)
        self._connect_timeout_ns = round(client.connect_timeout_s * part.SECOND_NS)
        self.idle_ns = part.idle_expiry_ns(plan)
        self._plan = plan
        self._load = scenario.load
        self._client = client
        self._routes = itertools.cycle(part.routes(plan))
        self._requests = {
            destination: part.requests(destination, announce=part.announces(plan))
            for destination in plan.destinations
        }
        self._dialer = _dialer(plan)
        self._quota = part.quota(plan)
        self._offering = True
        self._stopped = asyncio.Event()
        self._alarm = Alarm()
        self._live: set[Connection] = set()
        self._connecting: dict[asyncio.Task[object], int] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._idle: dict[Endpoint, list[Connection]] = defaultdict(list)
        self._pool_size = max(1, part.own_share(plan, client.pool.size)) if client.pool else 0
        self._room = asyncio.Semaphore(self._pool_size)
        self._attempt = self._attempt_pooled if client.pool else self._attempt_fresh
        self._request = self._retry if client.retries else self._attempt

    # the course of a load

    async def run(self, start_ns: int) -> None:
        """Offer the load from `start_ns` (CLOCK_MONOTONIC) until it is over or `stop` is called."""
        reaper = asyncio.create_task(self._reap())
        with self._alarm:
            await self._alarm.until(start_ns)
            tasks = await (self._arrive(start_ns) if self._load.mode == "open" else self._users())
            end_ns = start_ns + round(self._load.total_s * part.SECOND_NS)
            await self._finish(tasks, end_ns)
        await self._drain()
        reaper.cancel()

    def stop(self) -> None:
        """Offer nothing more; what is under way may finish."""
        self._offering = False
        self._stopped.set()
        self._alarm.ring()

    async def _users(self) -> set[asyncio.Task[None]]:
        """Start the users of a closed load."""
        profile = Profile.of(self._load)
        start_ns = time.monotonic_ns()
        users = range(part.own_share(self._plan, round(profile.highest)))
        return {asyncio.create_task(self._user(user, profile, start_ns)) for user in users}

    async def _user(self, user: int, profile: Profile, start_ns: int) -> None:
        """Make one request after another while the load has room for this user."""
        end_ns = start_ns + round(profile.duration_s * part.SECOND_NS)
        gap_s = self._client.pool.idle_gap_ms / 1000 if self._client.pool else 0.0
        pause_ns = part.SHORTEST_PAUSE_NS
        varies = profile.varies
        while self._offering and (now_ns := time.monotonic_ns()) < end_ns:
            if varies and user >= part.own_share(
                self._plan, round(profile.level((now_ns - start_ns) / part.SECOND_NS))
            ):
                await asyncio.sleep(part.RAMP_NS / part.SECOND_NS)
            elif next(self._quota, part.SPENT) is part.SPENT:
                return
            elif await self._request(0) is None:
                await asyncio.sleep(pause_ns / part.SECOND_NS)
                pause_ns = min(2 * pause_ns, part.LONGEST_PAUSE_NS)
            else:
                pause_ns = part.SHORTEST_PAUSE_NS
                if gap_s:
                    await asyncio.sleep(gap_s)

    async def _arrive(self, start_ns: int) -> set[asyncio.Task[None]]:
        """Start a task for each arrival of an open load, when it is due.

        At most one wake-up in `_NAP_NS` serves all that has become due: at high rates that is
        cheaper than a timer for each. What is due and not started by the load's end is booked too.
        """
        tasks: set[asyncio.Task[None]] = set()
        most = part.own_share(self._plan, self._load.max_in_flight)
        end_ns = start_ns + round(self._load.total_s * part.SECOND_NS)
        now_ns = 0
        for due_s in arrivals(self._load, worker=self._plan.worker, workers=self._plan.workers):
            due_ns = start_ns + round(due_s * part.SECOND_NS)
            if due_ns > now_ns:
                await self._alarm.until(max(due_ns, now_ns + _NAP_NS))
                now_ns = time.monotonic_ns()
            if not self._offering or next(self._quota, part.SPENT) is part.SPENT:
                break
            late = now_ns > end_ns + part.LATE_NS
            if late or len(tasks) >= most:
                self.ledger.report.attempted += 1
                self.ledger.refuse(Phase.CONNECT, "LATE" if late else "LIMIT")
                continue
            task = asyncio.create_task(self._arrival(due_ns))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        return tasks

    async def _arrival(self, due_ns: int) -> None:
        await self._request(due_ns)

    async def _finish(self, tasks: set[asyncio.Task[None]], end_ns: int) -> None:
        """Let what is under way finish for a while after the load's end; cut off the rest."""
        stopped = asyncio.create_task(self._stopped.wait())
        under_way = tuple(tasks)
        everything = asyncio.gather(*under_way, return_exceptions=True)
        either: set[asyncio.Future[Any]] = {stopped, everything}
        left_s = max(0.0, (end_ns - time.monotonic_ns()) / part.SECOND_NS)
        await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        self._offering = False
        await asyncio.wait(
            {everything},
            timeout=min(self._client.request_timeout_s, part.GRACE_NS / part.SECOND_NS),
        )
        for connection in [c for c in self._live if c.awaiting]:
            connection.cut_off()
        for task in under_way:
            task.cancel()
        for ended in await everything:
            if isinstance(ended, Exception):
                raise ended

    async def _drain(self) -> None:
        """Close what lies idle and wait until every connection is over."""
        for connection in [c for c in self._live if c.usable]:
            connection.leave()
        limit_ns = time.monotonic_ns() + self.hold_ns + part.DRAIN_NS
        while self._live and time.monotonic_ns() < limit_ns:  # noqa: ASYNC110 - no event, which every connection would pay for
            await asyncio.sleep(_DRAINED_POLL_S)

    async def _reap(self) -> None:
        """Expire what has passed its deadline."""
        every_s = part.sweep_every_ns(self.idle_ns) / part.SECOND_NS
        while True:
            await asyncio.sleep(every_s)
            now_ns = time.monotonic_ns()
            for connection in [c for c in self._live if c.deadline_ns <= now_ns]:
                connection.expire()
            for task in [t for t, deadline in self._connecting.items() if deadline <= now_ns]:
                self._late.add(task)
                task.cancel()

    # one request

    async def _retry(self, intended_ns: int) -> bool | None:
        """Make an attempt, and further ones where it fails; None where it got no connection."""
        ok = await self._attempt(intended_ns)
        for retry in range(self._client.retries):
            if ok or not self._offering:
                break
            await asyncio.sleep(self._client.retry_backoff_ms / 1000 * 2**retry)
            self.ledger.report.retried += 1
            ok = await self._attempt(intended_ns)
        return ok

    async def _attempt_fresh(self, intended_ns: int) -> bool | None:
        """Open a connection for one request."""
        self.ledger.report.attempted += 1
        connection = await self._open(*next(self._routes), intended_ns, last=True)
        return None if connection is None else await connection.outcome

    async def _attempt_pooled(self, intended_ns: int) -> bool | None:
        """Use a connection of the pool, as soon as it has room."""
        self.ledger.report.attempted += 1
        try:
            await self._room.acquire()
        except asyncio.CancelledError:
            self.ledger.refuse(Phase.CONNECT, "CANCELLED")
            raise
        try:
            return await self._use_pool(*next(self._routes), intended_ns)
        finally:
            self._room.release()

    async def _use_pool(self, source: str, destination: Endpoint, intended_ns: int) -> bool | None:
        """Use an idle connection to the destination, the latest first, or open one."""
        limit = self._client.pool.requests_per_connection if self._client.pool else None
        idle = self._idle[destination]
        connection: Connection | None = None
        while idle and connection is None:
            latest = idle.pop()
            if latest.deadline_ns <= time.monotonic_ns():
                latest.leave()
            elif latest.usable:
                connection = latest
        if connection is not None:
            last = connection.exchanges + 1 == limit
            request = self._requests[destination][last]
            connection.exchange(request, intended_ns=intended_ns, last=last)
        else:
            self._make_room()
            connection = await self._open(source, destination, intended_ns, last=limit == 1)
            if connection is None:
                return None
        ok = await connection.outcome
        if connection.usable:
            idle.append(connection)
        return ok

    def _make_room(self) -> None:
        """Where the pool is full of idle connections to other destinations, close one."""
        if len(self._live) >= self._pool_size:
            for idle in self._idle.values():
                if idle:
                    idle.pop(0).leave()
                    return

    async def _open(
        self, source: str, destination: Endpoint, intended_ns: int, *, last: bool
    ) -> Connection | None:
        """Open a connection that sends a first request; None, and booked, where it fails."""
        loop = self.loop
        request = self._requests[destination][last]
        connection = Connection(self, request, intended_ns=intended_ns, last=last)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine always runs in a task
        self.ledger.report.connects += 1
        self._connecting[task] = connection.began_ns + self._connect_timeout_ns
        try:
            if self._dialer is None:
                await loop.create_connection(lambda: connection, *destination)
            else:
                sock = await self._dialer.dial(source, destination)
                await loop.create_connection(lambda: connection, sock=sock)
        except ConnectFailedError as error:
            self.ledger.refuse(error.phase, error.error, dialled=True)
        except OSError as error:
            self.ledger.refuse(Phase.CONNECT, errno_name(error.errno), dialled=True)
        except asyncio.CancelledError:
            late = task in self._late
            # an answer may have come in the very moment of the cancellation
            if connection.awaiting:
                self.ledger.refuse(Phase.CONNECT, "TIMEOUT" if late else "CANCELLED")
            if not late:
                raise
            self._late.discard(task)
            task.uncancel()
        else:
            if not connection.over:
                self._live.add(connection)
            return connection
        finally:
            del self._connecting[task]
        return None

    def ended(self, connection: Connection) -> None:
        """Hear from a connection that it is over."""
        self._live.discard(connection)


def _dialer(plan: FleetPlan) -> Dialer | None:
    """Return what makes sockets by hand, or None where the loop's own connect will do."""
    options, bind = part.socket_options(plan), part.binds_first(plan)
    if not options and not bind:
        return None
    family = socket.AF_INET if plan.scenario.lab.family == "ipv4" else socket.AF_INET6
    return Dialer(family=family, options=options, bind=bind)
