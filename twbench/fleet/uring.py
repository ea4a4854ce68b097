"""The engine `uring`: connections as prepared chains of io_uring operations, no task for any.

The course of a load is the one of `streams`, told in calls instead of coroutines: what takes time
stands on the pump's agenda, and what depends on a connection goes on when its slot is `answered`.
"""

import itertools
import resource
import time
from collections import deque
from collections.abc import Mapping
from functools import partial

from twbench.fleet import part
from twbench.fleet.answers import HeadReader
from twbench.fleet.ledger import Ledger
from twbench.fleet.lives import (
    BY_ROAD,
    PIECE_BYTES,
    STEP_BITS,
    lives_of,
    needed,
    option_values,
)
from twbench.fleet.pacing import Profile, arrivals
from twbench.fleet.slot import STEPS, Attempt, Road, Slot
from twbench.model.outcomes import Phase
from twbench.model.plans import Endpoint, FleetPlan
from twbench.uring.cqe import Completion
from twbench.uring.memory import Memory
from twbench.uring.probe import probe
from twbench.uring.pump import Pump
from twbench.uring.ring import Ring
from twbench.uring.structs import sockaddr

_MS_NS = 1_000_000
_REST_BYTES = 1 << 18
_STEP_MASK = (1 << STEP_BITS) - 1
_SPARE_SLOTS = 64
_SPARE_DESCRIPTORS = 64
_QUEUE, _COMPLETIONS = 4096, 16_384


def why_not(plan: FleetPlan) -> str | None:
    """Return why this machine cannot carry a plan out by io_uring, in a sentence; None: it can."""
    return probe().why_not(needed(plan))


class Uring:
    """Offers one worker's part of the load and sees every connection to its end."""

    def __init__(self, plan: FleetPlan, ledger: Ledger) -> None:
        """Make the ring and its memory; nothing is opened yet. Raises RingRefusedError, OSError."""
        scenario, client = plan.scenario, plan.scenario.client
        self.ledger = ledger
        self.heads = HeadReader()
        self.ending = scenario.ending.kind
        self.half_closes = self.ending == "client-half-close"
        self.hold_ns = round(scenario.ending.hold_s * part.SECOND_NS)
        self.request_timeout_ns = round(client.request_timeout_s * part.SECOND_NS)
        self.connect_timeout_ns = round(client.connect_timeout_s * part.SECOND_NS)
        self.idle_ns = part.idle_expiry_ns(plan)
        self._plan = plan
        self._load = scenario.load
        self._client = client
        self._profile = Profile.of(scenario.load)
        self._varies = self._profile.varies
        self._users = part.own_share(plan, round(self._profile.highest))
        self._most = part.own_share(plan, scenario.load.max_in_flight)
        self._pool_size = max(1, part.own_share(plan, client.pool.size)) if client.pool else 0
        self._limit = client.pool.requests_per_connection if client.pool else 1
        self._gap_ns = round(client.pool.idle_gap_ms * _MS_NS) if client.pool else 0
        self._quota = part.quota(plan)
        self._offering, self._more, self._cut, self._draining = True, True, False, False
        self._end_ns = part.NEVER_NS
        self._active = self._backing_off = self._in_use = 0
        self._waiting: deque[Attempt] = deque()
        self._held: list[tuple[Attempt, Road]] = []
        self._closing = False
        self._idle: dict[Endpoint, dict[Slot, None]] = {to: {} for to in plan.destinations}
        count = self._count_slots()
        self.ring = Ring(entries=_QUEUE, completions=_COMPLETIONS)
        try:
            self.ring.register_files(count)
            self._fill_memory(count)
        except BaseException:
            self.ring.close()
            raise
        self._free = self.slots[::-1]
        self._pump = Pump(self.ring, self._complete)

    def _count_slots(self) -> int:
        """Return how many connections there can be at a time, within RLIMIT_NOFILE."""
        at_once = self._most if self._load.mode == "open" else self._users
        wanted = min(at_once, self._pool_size or at_once) + self._pool_size + _SPARE_SLOTS
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(1, min(wanted, limit - _SPARE_DESCRIPTORS))

    def _fill_memory(self, count: int) -> None:
        """Place what chains point to, and make the slots with their buffers."""
        plan = self._plan
        values = option_values(plan)
        constants = 1024 * (len(plan.destinations) + len(plan.sources) + len(values))
        self.memory = Memory(constants + _REST_BYTES + 2 * PIECE_BYTES * count)
        self.lives = lives_of(plan, {name: self.memory.place(v) for name, v in values.items()})
        roads = self._make_roads()
        self._roads = itertools.cycle([roads[route] for route in part.routes(plan)])
        self.rest_at, self.rest_bytes = self.memory.reserve(_REST_BYTES), _REST_BYTES
        self.slots = [
            Slot(self, number, self.memory.reserve(2 * PIECE_BYTES)) for number in range(count)
        ]

    def _make_roads(self) -> Mapping[part.Route, Road]:
        plan, place = self._plan, self.memory.place
        sources = {source: place(sockaddr(source, 0)) for source in plan.sources}
        roads = {}
        for to in plan.destinations:
            to_at = place(sockaddr(*to))
            requests = [
                {"request": place(request), "request_bytes": len(request)}
                for request in part.requests(to, announce=part.announces(plan))
            ]
            for source, source_at in sources.items():
                ends = {"to": to_at, "source": source_at}
                values = {}
                for name in BY_ROAD:
                    places = self.lives.chains[name].places
                    holes = ends | requests[name.endswith("last")]
                    values[name] = {hole: at for hole, at in holes.items() if hole in places}
                writes = {n: self.lives.chains[n].writes(**values[n]) for n in BY_ROAD}
                roads[source, to] = Road(destination=to, values=values, writes=writes)
        return roads

    # the course of a load

    async def run(self, start_ns: int) -> None:
        """Offer the load from `start_ns` (CLOCK_MONOTONIC) until it is over or `stop` is called."""
        with self.ring:
            self._pump.at(start_ns, partial(self._start, start_ns))
            await self._pump.run()

    def stop(self) -> None:
        """Offer nothing more; what is under way may finish."""
        self._pump.at(0, self._end)
        self._pump.wake()

    def _start(self, start_ns: int) -> None:
        self._end_ns = start_ns + round(self._load.total_s * part.SECOND_NS)
        self._pump.at(self._end_ns, self._end)
        self._sweep()
        if self._load.mode == "open":
            self._start_ns = start_ns
            self._arrivals = arrivals(
                self._load, worker=self._plan.worker, workers=self._plan.workers
            )
            self._await_arrival()
            return
        self._start_ns = time.monotonic_ns()
        self._end_ns += self._start_ns - start_ns
        self._more = self._users > 0
        for user in range(self._users):
            self._go_on(Attempt(user=user))
        self._end_if_done()

    def _end(self) -> None:
        """Offer nothing more, and cut off after a while what is not finished then."""
        if self._offering:
            self._offering = False
            grace_ns = min(self.request_timeout_ns, part.GRACE_NS)
            self._pump.at(self._pump.now_ns + grace_ns, self._cut_off)
            self._end_if_done()

    def _cut_off(self) -> None:
        if self._draining:
            return
        self._cut = True
        self._active -= self._backing_off
        self._active -= len(self._waiting)
        for _ in self._waiting:
            self.ledger.refuse(Phase.CONNECT, "CANCELLED")
        self._waiting.clear()
        for slot in self.slots:
            if not slot.over and slot.awaiting:
                slot.cut_off()
        self._end_if_done()

    def _end_if_done(self) -> None:
        """When nothing is under way and nothing more to come, close what lies idle."""
        if self._active or self._draining or (self._offering and self._more):
            return
        self._draining = self._cut = True
        self._offering = False
        for idle in self._idle.values():
            for slot in tuple(idle):
                slot.leave()
        self._pump.at(self._pump.now_ns + self.hold_ns + part.DRAIN_NS, self._pump.stop)
        if len(self._free) == len(self.slots):
            self._pump.stop()

    def _sweep(self) -> None:
        """Expire what has passed its deadline."""
        now_ns = self._pump.now_ns
        for slot in self.slots:
            if slot.deadline_ns <= now_ns:
                slot.expire()
        self._pump.at(now_ns + part.sweep_every_ns(self.idle_ns), self._sweep)

    # who makes requests

    def _go_on(self, user: Attempt) -> None:
        """Make a user's next request, while the load has room for this user."""
        now_ns = self._pump.now_ns
        if not self._offering or now_ns >= self._end_ns:
            self._dismiss()
        elif self._varies and (user.user or 0) >= self._users_now(now_ns):
            self._pump.at(now_ns + part.RAMP_NS, partial(self._go_on, user))
        elif next(self._quota, part.SPENT) is part.SPENT:
            self._dismiss()
        else:
            user.tries = 0
            self._active += 1
            self._attempt(user)

    def _users_now(self, now_ns: int) -> int:
        level = self._profile.level((now_ns - self._start_ns) / part.SECOND_NS)
        return part.own_share(self._plan, round(level))

    def _dismiss(self) -> None:
        """Let a user go."""
        self._users -= 1
        self._more = self._users > 0
        self._end_if_done()

    def _await_arrival(self) -> None:
        """Put the next arrival of an open load on the agenda, if there is one."""
        due_s = next(self._arrivals, None)
        if due_s is None:
            self._more = False
            self._end_if_done()
            return
        due_ns = self._start_ns + round(due_s * part.SECOND_NS)
        self._pump.at(due_ns, partial(self._arrive, due_ns))

    def _arrive(self, due_ns: int) -> None:
        if not self._offering:
            return
        if next(self._quota, part.SPENT) is part.SPENT:
            self._more = False
            self._end_if_done()
            return
        now_ns = self._pump.now_ns
        late = now_ns > self._end_ns + part.LATE_NS
        if late or self._active >= self._most:
            self.ledger.report.attempted += 1
            self.ledger.refuse(Phase.CONNECT, "LATE" if late else "LIMIT")
        else:
            self._active += 1
            self._attempt(Attempt(intended_ns=due_ns))
        self._await_arrival()

    # one request

    def _attempt(self, attempt: Attempt) -> None:
        self.ledger.report.attempted += 1
        if not self._pool_size:
            self._open(attempt, next(self._roads))
        elif self._in_use < self._pool_size:
            self._in_use += 1
            self._use_pool(attempt)
        else:
            self._waiting.append(attempt)

    def _use_pool(self, attempt: Attempt) -> None:
        """Use an idle connection to the destination, the latest first, or open one."""
        road = next(self._roads)
        idle = self._idle[road.destination]
        while idle:
            slot, _ = idle.popitem()
            if not slot.usable:
                continue
            if slot.deadline_ns > self._pump.now_ns:
                slot.exchange(attempt, road, last=slot.exchanges + 1 == self._limit)
                return
            slot.leave()
        if len(self.slots) - len(self._free) >= self._pool_size:
            self._make_room()
        self._open(attempt, road)

    def _make_room(self) -> None:
        """Where the pool is full of idle connections to other destinations, close one."""
        for idle in self._idle.values():
            for oldest in tuple(idle):
                del idle[oldest]
                if oldest.usable:
                    oldest.leave()
                    return

    def _open(self, attempt: Attempt, road: Road) -> None:
        """Open a connection, once those that have just ended have given their ports back."""
        if self._closing:
            self._held.append((attempt, road))
        else:
            self._dial(attempt, road)

    def _dial(self, attempt: Attempt, road: Road) -> None:
        if self._free:
            self.ledger.report.connects += 1
            self._free.pop().begin(attempt, road, last=self._limit == 1)
        else:
            # the ring's file table is bounded as descriptors are
            self._refuse(attempt, "EMFILE", dialled=True)

    def _refuse(self, attempt: Attempt, error: str, *, dialled: bool = False) -> None:
        self.ledger.report.connects += dialled
        self.ledger.refuse(Phase.CONNECT, error, dialled=dialled)
        self._over(attempt, ok=None)

    def _closed(self) -> None:
        """Open what waited for ports."""
        self._closing = False
        held, self._held = self._held, []
        for attempt, road in held:
            if self._cut:
                self._refuse(attempt, "CANCELLED")
            else:
                self._dial(attempt, road)

    def answered(self, slot: Slot, *, ok: bool | None) -> None:
        """Go on after an exchange; see `RingOwner`."""
        attempt, slot.attempt = slot.attempt, None
        if slot.over:
            self._free.append(slot)
            if not self._closing:
                self._closing = True
                self._pump.after_turn(self._closed)
            if self._pool_size:
                self._idle[slot.destination].pop(slot, None)
        elif slot.usable:
            self._idle[slot.destination][slot] = None
        if attempt is not None:
            self._over(attempt, ok=ok)
        if self._draining and len(self._free) == len(self.slots):
            self._pump.stop()

    def _over(self, attempt: Attempt, *, ok: bool | None) -> None:
        """Repeat a failed attempt, or go on to what comes next."""
        if self._pool_size:
            if self._waiting:
                self._use_pool(self._waiting.popleft())
            else:
                self._in_use -= 1
        if not ok and attempt.tries < self._client.retries and self._offering:
            self._back_off(attempt)
            return
        self._active -= 1
        if attempt.user is not None:
            if ok is None:
                self._pause(attempt, attempt.pause_ns)
                attempt.pause_ns = min(2 * attempt.pause_ns, part.LONGEST_PAUSE_NS)
            else:
                attempt.pause_ns = part.SHORTEST_PAUSE_NS
                if self._gap_ns:
                    self._pause(attempt, self._gap_ns)
                else:
                    self._go_on(attempt)
        if not self._active:
            self._end_if_done()

    def _back_off(self, attempt: Attempt) -> None:
        pause_ns = round(self._client.retry_backoff_ms * _MS_NS) << attempt.tries
        attempt.tries += 1
        self._backing_off += 1
        self._pump.at(self._pump.now_ns + pause_ns, partial(self._retry, attempt))

    def _retry(self, attempt: Attempt) -> None:
        if self._cut:
            return
        self._backing_off -= 1
        self.ledger.report.retried += 1
        self._attempt(attempt)

    def _pause(self, user: Attempt, pause_ns: int) -> None:
        self._pump.at(self._pump.now_ns + pause_ns, partial(self._go_on, user))

    def _complete(self, found: list[Completion]) -> None:
        slots, steps = self.slots, STEPS
        for token, result, _ in found:
            steps[token & _STEP_MASK](slots[token >> STEP_BITS], result)
