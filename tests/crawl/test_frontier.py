"""What is visited next and when, played through in a time of its own."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.crawl.frontier import (
    Frontier,
    Manners,
    Target,
    addresses_of,
    apportion,
    frontier_of,
    sites_of,
)
from twbench.model.plans import FleetPlan

Plan = Callable[..., FleetPlan]
MS = 1_000_000


def chooser(seed: int) -> Callable[[int], int]:
    return random.Random(seed).randrange


@dataclass
class Course:
    """A crawl as it went: (when, what) for each start and end."""

    starts: list[tuple[int, Target]] = field(default_factory=list)
    most_at_once: Counter[int] = field(default_factory=Counter)
    over_ns: int | None = None
    """When the frontier said that it was over; None: time ran out."""

    def fresh(self) -> list[Target]:
        return [target for _, target in self.starts if not target.attempt]


def play(
    frontier: Frontier,
    *,
    users: int = 4,
    takes_ns: Iterator[int] | None = None,
    ok: Callable[[Target], bool] = lambda _: True,
    until_ns: int = 1000 * MS,
) -> Course:
    """Let users crawl in a time of its own, as `Pages` lets them."""
    course, busy = Course(), Counter[int]()
    takes_ns = takes_ns or itertools.repeat(MS)
    ends: list[tuple[int, int, Target]] = []
    order = itertools.count()
    now_ns = 0
    while now_ns < until_ns:
        taken = frontier.take(now_ns) if len(ends) < users else until_ns
        if isinstance(taken, Target):
            course.starts.append((now_ns, taken))
            busy[taken.site] += 1
            most = course.most_at_once
            most[taken.site] = max(most[taken.site], busy[taken.site])
            heapq.heappush(ends, (now_ns + next(takes_ns), next(order), taken))
            continue
        if taken is None:
            if not ends:
                course.over_ns = now_ns
                return course
            taken = until_ns
        assert taken > now_ns, "who is told to wait is told until when"
        now_ns = min(taken, ends[0][0]) if ends else taken
        while ends and ends[0][0] <= now_ns:
            _, _, target = heapq.heappop(ends)
            busy[target.site] -= 1
            frontier.done(target, ok=ok(target), now_ns=now_ns)
    return course


manners = st.builds(
    Manners,
    site_delay_ns=st.sampled_from([0, 0, 5 * MS, 40 * MS]),
    retries=st.integers(0, 3),
    backoff_ns=st.sampled_from([0, MS, 10 * MS]),
    quota=st.none() | st.integers(0, 60),
)


@given(
    manners,
    st.lists(st.tuples(st.integers(1, 9), st.none() | st.integers(0, 3)), min_size=1, max_size=6),
    st.integers(1, 8),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_crawl_keeps_its_manners_whatever_happens(
    asked: Manners,
    sites: list[tuple[int, int | None]],
    users: int,
    failing: float,
    seed: int,
) -> None:
    chance = random.Random(seed)
    frontier = Frontier(
        asked,
        weights=[weight for weight, _ in sites],
        at_once=[bound for _, bound in sites],
        choose=chooser(seed),
    )
    course = play(
        frontier,
        users=users,
        takes_ns=(chance.randrange(1, 20 * MS) for _ in itertools.count()),
        ok=lambda _: chance.random() >= failing,
        until_ns=300 * MS,
    )
    last_ns: dict[int, int] = {}
    for at_ns, target in course.starts:
        if target.site in last_ns:
            assert at_ns - last_ns[target.site] >= asked.site_delay_ns
        last_ns[target.site] = at_ns
        assert target.attempt <= asked.retries
    for site, (_, bound) in enumerate(sites):
        assert course.most_at_once[site] <= (users if bound is None else bound)
    if asked.quota is not None:
        assert len(course.fresh()) <= asked.quota
        if course.over_ns is not None and any(bound != 0 for _, bound in sites):
            assert len(course.fresh()) == asked.quota
    by_attempt = Counter(target.attempt for _, target in course.starts)
    assert all(by_attempt[n + 1] <= by_attempt[n] for n in range(asked.retries))


def test_popularity_is_that_of_the_weights() -> None:
    frontier = Frontier(Manners(), weights=[60, 30, 10], at_once=[None] * 3, choose=chooser(1))
    course = play(frontier, until_ns=3000 * MS)
    visits = Counter(target.site for _, target in course.starts)
    shares = [visits[site] / len(course.starts) for site in range(3)]
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_site_that_rests_blocks_no_other() -> None:
    asked = Manners(site_delay_ns=100 * MS)
    frontier = Frontier(asked, weights=[1000, 1], at_once=[None] * 2, choose=chooser(1))
    taken = [frontier.take(0), frontier.take(0)]
    assert {each.site for each in taken if isinstance(each, Target)} == {0, 1}
    assert frontier.take(0) == 100 * MS
    assert isinstance(frontier.take(100 * MS), Target)


def test_busy_site_is_free_again_when_a_visit_is_done() -> None:
    frontier = Frontier(Manners(), weights=[1], at_once=[1], choose=chooser(1))
    target = frontier.take(0)
    assert isinstance(target, Target)
    assert isinstance(frontier.take(1), int), "nobody knows until when"
    frontier.done(target, ok=True, now_ns=2)
    assert frontier.take(2) == target


def test_failed_page_is_tried_again_after_pauses_that_double() -> None:
    asked = Manners(retries=3, backoff_ns=10 * MS, quota=1)
    frontier = Frontier(asked, weights=[1], at_once=[None], choose=chooser(1))
    course = play(frontier, takes_ns=itertools.repeat(1), ok=lambda _: False)
    starts = [(at_ns, target.attempt) for at_ns, target in course.starts]
    assert starts == [(0, 0), (10 * MS + 1, 1), (30 * MS + 2, 2), (70 * MS + 3, 3)]
    assert course.over_ns == 70 * MS + 4


def test_other_pages_are_visited_while_a_retry_waits_and_it_comes_first_when_due() -> None:
    asked = Manners(retries=1, backoff_ns=5 * MS, quota=100)
    frontier = Frontier(asked, weights=[1], at_once=[1], pages=1000, choose=chooser(1))
    failed: list[Target] = []

    def ok(target: Target) -> bool:
        if not failed:
            failed.append(target)
            return False
        return True

    course = play(frontier, users=1, ok=ok)
    again = [n for n, (_, target) in enumerate(course.starts) if target.attempt]
    assert again == [6], "five others of a millisecond each began before"
    assert course.starts[6][1].page == failed[0].page


def test_next_pages_are_those_that_the_last_linked_to() -> None:
    frontier = Frontier(
        Manners(),
        weights=[1],
        at_once=[1],
        links=lambda _site, page: (page + 1, page + 2),
        pages=10**6,
        choose=lambda below: below // 2,
    )
    course = play(frontier, users=1, until_ns=5 * MS)
    first = 10**6 // 2
    pages = [target.page for _, target in course.starts]
    assert pages == [first, first + 1, first + 2, first + 3, first + 4]


@pytest.mark.parametrize("quota", [0, 1, 7])
def test_quota_is_the_number_of_pages(quota: int) -> None:
    frontier = Frontier(Manners(quota=quota), weights=[1], at_once=[None], choose=chooser(1))
    course = play(frontier)
    assert len(course.starts) == quota
    assert course.over_ns is not None


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 1))
def test_workers_share_what_a_site_bears(
    plan: Plan, workers: int, per_site: int, delay: int
) -> None:
    crawl = {"per_site": per_site, "site_delay_ms": delay}
    borne: Counter[int] = Counter()
    of: dict[int, set[int]] = {site: set() for site in range(8)}
    for worker in range(workers):
        one = plan(client={"crawl": crawl}, web={"sites": 8}, worker=worker, workers=workers)
        course = play(frontier_of(one), users=100, until_ns=5 * MS, takes_ns=itertools.repeat(MS))
        borne.update(course.most_at_once)
        for _, target in course.starts:
            of[target.site].add(worker)
    assert all(borne[site] <= per_site for site in range(8))
    if delay:
        assert all(len(owners) <= 1 for owners in of.values()), "only one can keep a delay"


@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**12), min_size=1, max_size=9))
def test_parts_by_weight_add_up_and_are_exact_to_one(total: int, weights: list[int]) -> None:
    weights[0] += 1
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)


@pytest.mark.parametrize(
    "crawl", [{}, {"site_delay_ms": 1}, {"per_site": 1}, {"per_site": 3}, {"per_site": 9}], ids=str
)
@pytest.mark.parametrize(("sites", "workers"), [(1, 2), (3, 2), (5, 4)])
@pytest.mark.parametrize("retries", [0, 2])
def test_workers_visit_as_many_pages_as_asked_all_together(
    plan: Plan, crawl: dict[str, int], sites: int, workers: int, retries: int
) -> None:
    visits = 0
    for worker in range(workers):
        one = plan(
            load={"requests": 101},
            client={"crawl": crawl, "retries": retries},
            web={"sites": sites},
            worker=worker,
            workers=workers,
        )
        course = play(frontier_of(one), until_ns=10**6 * MS)
        assert course.over_ns is not None
        visits += len(course.fresh())
    assert visits == 101


@pytest.mark.parametrize("crawl", [{"site_delay_ms": 1}, {"per_site": 1}, {"per_site": 3}], ids=str)
def test_popularity_is_zipfs_however_the_workers_share_the_sites(
    plan: Plan, crawl: dict[str, int]
) -> None:
    visits: Counter[int] = Counter()
    for worker in range(2):
        one = plan(
            load={"requests": 4000},
            client={"crawl": crawl},
            web={"sites": 5, "popularity": 1},
            worker=worker,
            workers=2,
        )
        # a user alone finds every site free
        course = play(
            frontier_of(one), users=1, takes_ns=itertools.repeat(2 * MS), until_ns=10**6 * MS
        )
        visits.update(target.site for target in course.fresh())
    weight = sum(1 / n for n in range(1, 6))
    shares = [visits[site] / 4000 for site in range(5)]
    assert shares == pytest.approx([1 / n / weight for n in range(1, 6)], abs=0.03)


def test_sites_are_visited_by_zipfs_law_and_their_pages_follow_from_links(plan: Plan) -> None:
    one = plan(web={"sites": 5, "popularity": 1, "pages": 50})
    course = play(frontier_of(one), users=3, until_ns=2000 * MS)
    visits = Counter(target.site for _, target in course.starts)
    weight = sum(1 / n for n in range(1, 6))
    shares = [visits[site] / len(course.starts) for site in range(5)]
    assert shares == pytest.approx([1 / n / weight for n in range(1, 6)], abs=0.03)
    assert {target.page for _, target in course.starts} <= set(range(50))


def test_workers_crawl_apart_and_each_the_same_way_again(plan: Plan) -> None:
    def starts(worker: int) -> list[tuple[int, Target]]:
        one = plan(web={"sites": 20}, worker=worker, workers=2)
        return play(frontier_of(one), until_ns=20 * MS).starts

    assert starts(0) == starts(0) != starts(1)


def test_without_a_web_the_destinations_are_visited_in_turn(plan: Plan) -> None:
    course = play(frontier_of(plan(load={"requests": 6})), users=1)
    assert [target for _, target in course.starts] == [Target(0, 0), Target(1, 0)] * 3


def test_addresses_are_those_of_the_sites_or_of_the_destinations(plan: Plan) -> None:
    ends = (("10.0.0.1", 8080), ("10.0.0.1", 81))
    assert addresses_of(plan(*ends)) == ["http://10.0.0.1:8080/", "http://10.0.0.1:81/"]
    assert addresses_of(plan(*ends, web={"sites": 3})) == [
        "http://site-1.test:8080/",
        "http://site-2.test:81/",
        "http://site-3.test:8080/",
    ]
    six = plan(("fd00::1", 80), lab={"family": "ipv6"})
    assert addresses_of(six) == ["http://[fd00::1]:80/"]


def test_links_of_a_redirecting_page_are_those_of_the_page_behind_it(plan: Plan) -> None:
    one = plan(web={"sites": 1, "pages": 40, "redirects": 0.5, "links": 3})
    sites = sites_of(one)
    course = play(frontier_of(one), users=1, until_ns=60 * MS)
    pages = [target.page for _, target in course.starts]
    assert any(sites.page(0, page).redirects_to is not None for page in pages[:-3:3])
    for at in range(0, len(pages) - 3, 3):
        to = sites.page(0, pages[at]).redirects_to
        behind = pages[at] if to is None else to
        assert tuple(pages[at + 1 : at + 4]) == sites.page(0, behind).links
