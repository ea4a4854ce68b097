"""What a crawler visits next, and when: sites by popularity, politeness, retries. Pure.

Time is an argument, in nanoseconds of any clock that does not jump.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from twbench.fleet.part import NEVER_NS, SECOND_NS
from twbench.model.plans import FleetPlan, share
from twbench.model.sites import Sites

_MS_NS = SECOND_NS // 1000
_HEAVIEST = 1 << 32
"""Popularities as whole numbers, so that what is added and taken away leaves nothing behind."""

Choose = Callable[[int], int]
"""Returns a number from 0 up to the one given, which is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manners:
    """What a crawler asks of itself, in one worker."""

    site_delay_ns: int = 0
    """From the start of a visit to a site to the next."""
    retries: int = 0
    backoff_ns: int = 0
    """The first pause before a retry; it doubles."""
    quota: int | None = None
    """Pages to visit, retries not counted; None: no limit."""


class Target(NamedTuple):
    """A page of a site, and the number of failed attempts at it before."""

    site: int
    page: int
    attempt: int = 0


class Frontier:
    """Hands out targets, and hears what became of each; the end of time is the caller's.

    A target is one of the sites that may be visited now, by their popularity; of a site, first what
    is to be tried again, then a page that the latest pages linked to, then any.
    """

    def __init__(
        self,
        manners: Manners,
        *,
        weights: Iterable[int],
        at_once: Iterable[int | None],
        links: Callable[[int, int], Iterable[int]] = lambda _site, _page: (),
        pages: int = 1,
        choose: Choose,
    ) -> None:
        """Take for each site its popularity and how many visits at once it bears (None: any).

        `links` returns the links on a page, given its site and number; `choose` makes each choice.
        """
        self._manners = manners
        self._weights = tuple(weights)
        self._at_once = tuple(NEVER_NS if bound is None else bound for bound in at_once)
        self._links = links
        self._pages = pages
        self._choose = choose
        self._left = NEVER_NS if manners.quota is None else manners.quota
        sites = len(self._weights)
        self._busy = [0] * sites
        self._next_ns = [-NEVER_NS] * sites
        self._free = _Lottery(sites)
        self._found: list[deque[int]] = [deque() for _ in range(sites)]
        self._again: list[list[tuple[int, int, Target]]] = [[] for _ in range(sites)]
        self._order = itertools.count()
        self._owed: dict[int, None] = {}
        """Sites that may be visited now and have a retry due."""
        self._wakes: list[tuple[int, int]] = []
        """When to look at a site again: its delay is over, or a retry is due."""
        self._under_way = self._retries_due = 0
        self._plain = (
            not manners.site_delay_ns and not manners.retries and set(self._at_once) == {NEVER_NS}
        )
        """Whether every site may be visited at any time."""
        for site in range(sites):
            self._settle(site, 0)

    def take(self, now_ns: int) -> Target | int | None:
        """Return what to visit now, or until when there is nothing, or None: that was all.

        Before the time returned, an answer to a visit under way can bring something.
        """
        if self._plain and self._left:
            self._left -= 1
            self._under_way += 1
            site = self._free.find(self._choose(self._free.total))
            return Target(site, self._page_of(site))
        while self._wakes and self._wakes[0][0] <= now_ns:
            self._settle(heapq.heappop(self._wakes)[1], now_ns)
        if self._owed:
            site = next(iter(self._owed))
            target = heapq.heappop(self._again[site])[2]
            self._retries_due -= 1
        elif self._left and self._free.total:
            site = self._free.find(self._choose(self._free.total))
            target = Target(site, self._page_of(site))
            self._left -= 1
        elif self.is_over:
            return None
        else:
            return self._wakes[0][0] if self._wakes else NEVER_NS
        self._under_way += 1
        self._busy[site] += 1
        if delay_ns := self._manners.site_delay_ns:
            self._next_ns[site] = now_ns + delay_ns
            heapq.heappush(self._wakes, (now_ns + delay_ns, site))
        self._settle(site, now_ns)
        return target

    def done(self, target: Target, *, ok: bool, now_ns: int) -> None:
        """Hear that a visit is over; one that went wrong is tried again, after a pause."""
        self._under_way -= 1
        if self._plain:
            if ok and not self._found[target.site]:
                self._found[target.site].extend(self._links(target.site, target.page))
            return
        site, manners = target.site, self._manners
        self._busy[site] -= 1
        if ok:
            if not self._found[site]:
                self._found[site].extend(self._links(site, target.page))
        elif target.attempt < manners.retries:
            due_ns = now_ns + (manners.backoff_ns << target.attempt)
            again = Target(site, target.page, target.attempt + 1)
            heapq.heappush(self._again[site], (due_ns, next(self._order), again))
            heapq.heappush(self._wakes, (due_ns, site))
            self._retries_due += 1
        self._settle(site, now_ns)

    @property
    def is_over(self) -> bool:
        """Return whether there is nothing left to visit, now or later."""
        if not any(self._at_once):
            return True
        may_return = self._under_way and self._manners.retries
        return not (self._left or self._retries_due or may_return)

    def _page_of(self, site: int) -> int:
        if found := self._found[site]:
            return found.popleft()
        return self._choose(self._pages) if self._pages > 1 else 0

    def _settle(self, site: int, now_ns: int) -> None:
        """Bring what is known of a site to this moment."""
        free = self._busy[site] < self._at_once[site] and self._next_ns[site] <= now_ns
        self._free.set(site, self._weights[site] if free else 0)
        again = self._again[site]
        if free and again and again[0][0] <= now_ns:
            self._owed[site] = None
        else:
            self._owed.pop(site, None)


class _Lottery:
    """Weights that change, and a draw by weight, both in logarithmic time (a Fenwick tree)."""

    def __init__(self, size: int) -> None:
        """Begin with all weights 0."""
        self.total = 0
        self._weights = [0] * size
        self._sums = [0] * (size + 1)
        self._top = 1 << (size.bit_length() - 1)

    def set(self, at: int, weight: int) -> None:
        """Change a weight."""
        change = weight - self._weights[at]
        if not change:
            return
        self._weights[at] = weight
        self.total += change
        at += 1
        while at < len(self._sums):
            self._sums[at] += change
            at += at & -at

    def find(self, point: int) -> int:
        """Return the first whose weight, with all before it, is above `point` (below `total`)."""
        at, step = 0, self._top
        while step:
            beyond = at + step
            if beyond < len(self._sums) and self._sums[beyond] <= point:
                at = beyond
                point -= self._sums[beyond]
            step >>= 1
        return at


def frontier_of(plan: FleetPlan) -> Frontier:
    """Return the frontier of one worker: of the scenario's sites, or of the destinations in turn.

    Workers share what a site bears, and with it its visits. Where a delay is asked for, each site
    belongs to one worker alone. A worker's part of the quota is its sites' part of the popularity,
    so that all of it is carried out, and Zipf's law holds for all workers together.
    """
    scenario, web = plan.scenario, plan.scenario.web
    crawl, total = scenario.client.crawl, scenario.load.requests
    sites = web.sites if web else len(plan.destinations)
    alone = crawl.site_delay_ms > 0
    at_once = [
        [_at_once(crawl.per_site, turn, plan.workers, alone=alone) for turn in _turns(site, plan)]
        for site in range(sites)
    ]
    popularity = [1] * sites
    if web:
        popularity = [max(1, round(weight * _HEAVIEST)) for weight in sites_of(plan).weights()]
    weights = [
        [weight * (1 if bound is None else bound) for bound in of_site]
        for weight, of_site in zip(popularity, at_once, strict=True)
    ]
    of_workers = [sum(of_worker) for of_worker in zip(*weights, strict=True)]
    manners = Manners(
        site_delay_ns=round(crawl.site_delay_ms * _MS_NS),
        retries=scenario.client.retries,
        backoff_ns=round(scenario.client.retry_backoff_ms * _MS_NS),
        quota=None if total is None else apportion(total, of_workers)[plan.worker],
    )
    own_at_once = [of_site[plan.worker] for of_site in at_once]
    if web is None:
        turn = itertools.count(plan.worker)
        return Frontier(
            manners,
            weights=popularity,
            at_once=own_at_once,
            choose=lambda below: next(turn) % below,
        )
    web_pages = sites_of(plan)
    chance = random.Random(f"{scenario.load.seed}/{plan.worker}").random

    def links(site: int, number: int) -> Iterable[int]:
        to = web_pages.page(site, number).redirects_to
        return web_pages.page(site, number if to is None else to).links

    return Frontier(
        manners,
        weights=[of_site[plan.worker] for of_site in weights],
        at_once=own_at_once,
        links=links,
        pages=web.pages,
        choose=lambda below: int(chance() * below),
    )


def _turns(site: int, plan: FleetPlan) -> Iterator[int]:
    """Give each worker's place in the queue for a site.

    It goes round from site to site, so that no worker gets all the small shares.
    """
    return ((worker + site) % plan.workers for worker in range(plan.workers))


def _at_once(per_site: int | None, turn: int, workers: int, *, alone: bool) -> int | None:
    """Return how many visits at once a site bears from the worker whose turn this is."""
    if alone:
        return 0 if turn else per_site
    return None if per_site is None else share(per_site, turn, workers)


def apportion(total: int, weights: Iterable[int]) -> list[int]:
    """Return the parts of a total by weight, each to less than one; they add up."""
    sums = list(itertools.accumulate(weights, initial=0))
    cuts = [total * below // sums[-1] for below in sums]
    return [high - low for low, high in itertools.pairwise(cuts)]


def sites_of(plan: FleetPlan) -> Sites:
    """Return the sites that the server plays; the scenario has them."""
    scenario = plan.scenario
    assert scenario.web is not None  # noqa: S101 - the caller has looked
    return Sites(scenario.web, median_bytes=scenario.server.response_bytes, seed=scenario.load.seed)


def addresses_of(plan: FleetPlan) -> list[str]:
    """Return for each site the URL that its pages' numbers complete."""
    ends = plan.destinations
    if plan.scenario.web is None:
        return [f"http://{f'[{host}]' if ':' in host else host}:{port}/" for host, port in ends]
    names = sites_of(plan).names
    return [f"http://{name}:{ends[site % len(ends)][1]}/" for site, name in enumerate(names)]
