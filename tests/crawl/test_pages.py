"""Pages handed out to users in tasks and in threads, and what is booked of their visits."""

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from twbench.crawl.outcomes import PageError
from twbench.crawl.pages import Crawl, CrawlerError, Pages, Visit
from twbench.crawl.worker import carry
from twbench.fleet.ledger import Ledger
from twbench.model.outcomes import Phase
from twbench.model.plans import FleetPlan
from twbench.model.reports import FleetReport

Plan = Callable[..., FleetPlan]
Run = Callable[..., Awaitable[tuple[FleetReport, BaseException | None]]]
WITHIN_S = 60
"""Nothing here takes more than a few seconds, unless the machine is busy."""


async def crawl_by(
    crawl: Crawl, plan: FleetPlan, *, stop: asyncio.Future[bytes] | None = None
) -> tuple[FleetReport, BaseException | None]:
    """Let a crawler crawl to the load's end; return the books, which agree, and what it raised."""
    pages = Pages(plan, Ledger())
    stopped = stop or asyncio.get_running_loop().create_future()
    error = await asyncio.wait_for(carry(crawl, pages, time.monotonic_ns(), stopped), WITHIN_S)
    report = pages.report()
    assert report.attempted == report.ok + report.errors.total()
    return report, error


def in_tasks(visited: Callable[[Visit], Awaitable[None]]) -> Crawl:
    """Return a crawler whose users are tasks that do this within each visit."""

    async def crawl(pages: Pages) -> None:
        async def user() -> None:
            async for visit in pages:
                with visit:
                    await visited(visit)

        await pages.share(user)

    return crawl


def in_threads(visited: Callable[[Visit], None]) -> Crawl:
    """Return a crawler whose users are threads that do this within each visit."""

    async def crawl(pages: Pages) -> None:
        def user() -> None:
            for visit in pages:
                with visit:
                    visited(visit)

        await pages.share_threads(user)

    return crawl


def by_each(visited: Callable[[Visit], None]) -> dict[str, Crawl]:
    """Return a crawler in tasks and one in threads that do the same."""

    async def awaited(visit: Visit) -> None:
        visited(visit)
        await asyncio.sleep(0)

    return {"tasks": in_tasks(awaited), "threads": in_threads(visited)}


class Stop:
    """Ends a load once so many visits have begun, however long that takes."""

    def __init__(self, after: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[bytes] = self._loop.create_future()
        self._left = itertools.count(after - 1, -1)

    def count(self) -> None:
        if next(self._left) == 0:
            self._loop.call_soon_threadsafe(self.future.set_result, b"stop\n")


@pytest.fixture(params=["tasks", "threads"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return how the users run, in turn."""
    name: str = request.param
    return name


async def test_every_page_of_the_quota_is_visited_and_booked_once(kind: str, plan: Plan) -> None:
    urls: list[str] = []

    def visited(visit: Visit) -> None:
        urls.append(visit.url)
        visit.got(200, 100)

    report, error = await crawl_by(by_each(visited)[kind], plan(load={"requests": 200}))
    assert error is None
    assert (report.attempted, report.ok, report.received_bytes) == (200, 200, 20_000)
    assert sorted(set(urls)) == ["http://127.0.0.1:8080/", "http://127.0.0.1:8081/"]
    latencies = HdrHistogram.decode(report.histograms["request"])
    assert latencies.get_total_count() == 200


async def test_latency_is_from_the_start_of_the_visit_to_its_answer(kind: str, plan: Plan) -> None:
    def visited(visit: Visit) -> None:
        time.sleep(0.02)
        visit.got(200, 1)
        time.sleep(0.5)

    began_ns = time.monotonic_ns()
    report, _ = await crawl_by(by_each(visited)[kind], plan(load={"requests": 1}))
    latency_us = HdrHistogram.decode(report.histograms["request"]).get_max_value()
    in_all_us = (time.monotonic_ns() - began_ns) // 1000
    assert 20_000 <= latency_us <= in_all_us - 480_000


async def test_status_of_400_or_above_is_an_error_and_has_a_latency(kind: str, plan: Plan) -> None:
    report, _ = await crawl_by(
        by_each(lambda visit: visit.got(404, 9))[kind], plan(load={"requests": 3})
    )
    assert report.errors == {"read:STATUS:http_error": 3}
    assert HdrHistogram.decode(report.histograms["request"]).get_total_count() == 3


async def test_failure_is_booked_by_its_cause_and_ends_no_user(kind: str, plan: Plan) -> None:
    def visited(visit: Visit) -> None:
        if visit.url.endswith("8080/"):
            raise ConnectionResetError
        visit.got(200, 1)

    report, error = await crawl_by(by_each(visited)[kind], plan(load={"requests": 40}))
    assert error is None
    assert report.ok == 20
    assert report.errors == {"read:ECONNRESET:reset_by_peer": 20}


@pytest.mark.parametrize(
    ("client", "booked"),
    [({}, "closed_unanswered"), ({"pool": {"size": 4}}, "keepalive_race")],
    ids=str,
)
async def test_answer_that_lacks_is_a_race_where_a_connection_can_have_been_kept(
    client: dict[str, Any], booked: str, plan: Plan
) -> None:
    outcomes = itertools.cycle([True, False])

    def visited(visit: Visit) -> None:
        if not next(outcomes):
            raise PageError(Phase.READ, "EOF")
        visit.got(200, 1)

    one = plan(("127.0.0.1", 80), load={"concurrency": 1, "requests": 4}, client=client)
    report, _ = await crawl_by(by_each(visited)["tasks"], one)
    assert report.errors == {f"read:EOF:{booked}": 2}


async def test_answer_that_lacks_is_no_race_with_a_site_that_never_answered(plan: Plan) -> None:
    def visited(visit: Visit) -> None:
        if visit.url.endswith("8080/"):
            raise PageError(Phase.READ, "EOF")
        visit.got(200, 1)

    client = {"pool": {"size": 4}}
    report, _ = await crawl_by(by_each(visited)["tasks"], plan(load={"requests": 8}, client=client))
    assert report.errors == {"read:EOF:closed_unanswered": 4}


@pytest.mark.parametrize(
    ("reused", "booked"), [(True, "keepalive_race"), (False, "closed_unanswered")]
)
async def test_crawler_that_knows_whether_a_connection_had_served_is_believed(
    reused: bool,
    booked: str,
    plan: Plan,
) -> None:
    outcomes = itertools.cycle([True, False])

    def visited(visit: Visit) -> None:
        if not next(outcomes):
            raise PageError(Phase.READ, "EOF", reused=reused)
        visit.got(200, 1)

    one = plan(load={"concurrency": 1, "requests": 6}, client={"pool": {"size": 4}})
    report, _ = await crawl_by(by_each(visited)["tasks"], one)
    assert report.errors == {f"read:EOF:{booked}": 3}


async def test_failed_pages_are_tried_again_as_often_as_asked(kind: str, plan: Plan) -> None:
    def visited(_: Visit) -> None:
        raise TimeoutError

    report, _ = await crawl_by(
        by_each(visited)[kind],
        plan(load={"requests": 5}, client={"retries": 2, "retry_backoff_ms": 1}),
    )
    assert (report.attempted, report.retried) == (15, 10)


async def test_crawlers_own_mistake_after_the_answer_is_raised(kind: str, plan: Plan) -> None:
    def visited(visit: Visit) -> None:
        visit.got(200, 1)
        raise KeyError("title")

    report, error = await crawl_by(by_each(visited)[kind], plan())
    assert isinstance(error, KeyError)
    assert report.ok >= 1


async def test_visit_that_ends_without_an_answer_is_the_crawlers_mistake(
    kind: str, plan: Plan
) -> None:
    _, error = await crawl_by(by_each(lambda _: None)[kind], plan())
    assert isinstance(error, CrawlerError)
    assert "visit.got" in str(error)


async def test_pages_that_are_taken_and_not_visited_are_the_crawlers_mistake(plan: Plan) -> None:
    async def crawl(pages: Pages) -> None:
        async for _ in pages:
            pass

    _, error = await crawl_by(crawl, plan(load={"requests": 3}))
    assert isinstance(error, CrawlerError)
    assert "with visit:" in str(error)


@pytest.mark.parametrize("visits", [0, 5])
async def test_crawler_that_returns_while_there_are_pages_left_has_failed(
    visits: int, plan: Plan
) -> None:
    async def crawl(pages: Pages) -> None:
        handed_out = aiter(pages)
        for _ in range(visits):
            with await anext(handed_out) as visit:
                visit.got(200, 1)

    report, error = await crawl_by(crawl, plan())
    assert report.ok == visits
    assert isinstance(error, CrawlerError)
    assert "returned while there were pages left" in str(error)


async def test_visit_is_one_attempt(plan: Plan) -> None:
    async def crawl(pages: Pages) -> None:
        async for visit in pages:
            for _ in range(2):
                with visit:
                    visit.got(200, 1)

    _, error = await crawl_by(crawl, plan())
    assert isinstance(error, CrawlerError)


async def test_one_user_who_starts_tasks_has_no_more_under_way_than_the_load_says(
    plan: Plan,
) -> None:
    under_way, most = 0, 0

    async def fetch(visit: Visit) -> None:
        nonlocal under_way, most
        with visit:
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.001)
            under_way -= 1
            visit.got(200, 1)

    async def crawl(pages: Pages) -> None:
        async with asyncio.TaskGroup() as group:
            async for visit in pages:
                group.create_task(fetch(visit))

    report, error = await crawl_by(crawl, plan(load={"concurrency": 3, "requests": 30}))
    assert error is None
    assert (report.ok, most) == (30, 3)


async def test_users_are_as_many_as_this_workers_part_of_the_load(kind: str, plan: Plan) -> None:
    met = threading.Barrier(3, timeout=WITHIN_S)
    users: set[object] = set()

    def visited(visit: Visit) -> None:
        users.add(threading.current_thread() if kind == "threads" else asyncio.current_task())
        if kind == "threads":
            met.wait()
        visit.got(200, 1)

    one = plan(load={"concurrency": 7, "requests": 18}, worker=1, workers=2)
    report, _ = await crawl_by(by_each(visited)[kind], one)
    assert (report.ok, len(users)) == (9, 3)


async def test_site_is_left_alone_for_its_delay_while_users_wait(kind: str, plan: Plan) -> None:
    starts: list[tuple[int, str]] = []

    def visited(visit: Visit) -> None:
        starts.append((time.monotonic_ns(), visit.url))
        visit.got(200, 1)

    crawl = {"site_delay_ms": 20, "per_site": 1}
    report, _ = await crawl_by(
        by_each(visited)[kind], plan(load={"requests": 12}, client={"crawl": crawl})
    )
    assert report.ok == 12
    for port in (8080, 8081):
        at_ns = [at for at, url in starts if str(port) in url]
        assert len(at_ns) == 6
        assert at_ns[-1] - at_ns[0] >= 4 * 20_000_000


async def test_users_think_after_each_page(kind: str, plan: Plan) -> None:
    at_ns: list[int] = []

    def visited(visit: Visit) -> None:
        at_ns.append(time.monotonic_ns())
        visit.got(200, 1)

    load = {"concurrency": 1, "requests": 4}
    await crawl_by(by_each(visited)[kind], plan(load=load, client={"crawl": {"think_ms": 30}}))
    assert all(b - a >= 28_000_000 for a, b in itertools.pairwise(at_ns))


async def test_nobody_thinks_after_the_last_page(kind: str, plan: Plan) -> None:
    client = {"crawl": {"think_ms": 600_000}}
    crawl = by_each(lambda visit: visit.got(200, 1))[kind]
    report, error = await crawl_by(crawl, plan(load={"requests": 1}, client=client))
    assert error is None
    assert report.ok == 1


async def test_tasks_and_threads_wait_beside_each_other(plan: Plan) -> None:
    async def crawl(pages: Pages) -> None:
        async def user() -> None:
            async for visit in pages:
                with visit:
                    await asyncio.sleep(0.001)
                    visit.got(200, 1)

        def user_in_thread() -> None:
            for visit in pages:
                with visit:
                    time.sleep(0.001)
                    visit.got(200, 1)

        await asyncio.gather(pages.share(user), pages.share_threads(user_in_thread))

    one = plan(load={"requests": 400, "duration_s": 600}, client={"crawl": {"per_site": 1}})
    report, error = await crawl_by(crawl, one)
    assert error is None
    assert report.ok == 400


async def test_users_without_a_connection_pause_longer_and_longer(kind: str, plan: Plan) -> None:
    def visited(_: Visit) -> None:
        raise PageError(Phase.CONNECT, "ECONNREFUSED")

    load = {"concurrency": 1, "duration_s": 0.5}
    report, _ = await crawl_by(by_each(visited)[kind], plan(load=load))
    # after pauses of 10, 20, 40, 80, 160, 320 ms
    assert report.errors["connect:ECONNREFUSED:refused"] <= 7


async def test_load_ends_when_its_time_is_over(kind: str, plan: Plan) -> None:
    def visited(visit: Visit) -> None:
        time.sleep(0.001)
        visit.got(200, 1)

    began_s = time.monotonic()
    _, error = await crawl_by(by_each(visited)[kind], plan(load={"duration_s": 0.2}))
    assert error is None
    assert time.monotonic() - began_s >= 0.2


@pytest.mark.parametrize(
    ("crawl", "visits"), [({"think_ms": 600_000}, 6), ({"site_delay_ms": 600_000}, 2)], ids=str
)
async def test_stop_ends_the_load_for_those_who_wait(
    crawl: dict[str, Any], visits: int, kind: str, plan: Plan
) -> None:
    stop = Stop(after=visits)

    def visited(visit: Visit) -> None:
        stop.count()
        visit.got(200, 1)

    one = plan(load={"concurrency": 6, "duration_s": 600}, client={"crawl": crawl})
    report, error = await crawl_by(by_each(visited)[kind], one, stop=stop.future)
    assert error is None
    assert report.ok == visits


async def test_visits_under_way_at_the_end_may_finish(plan: Plan) -> None:
    stop = Stop(after=4)

    async def visited(visit: Visit) -> None:
        stop.count()
        await stop.future
        await asyncio.sleep(0.1)
        visit.got(200, 1)

    report, error = await crawl_by(
        in_tasks(visited), plan(load={"duration_s": 600}), stop=stop.future
    )
    assert error is None
    assert (report.attempted, report.ok) == (4, 4)


@pytest.mark.usefixtures("short_grace")
async def test_visits_that_hang_are_cut_off_and_booked_as_cancelled(kind: str, plan: Plan) -> None:
    hanging = threading.Event()
    stop = Stop(after=4)

    async def hang(_: Visit) -> None:
        stop.count()
        await asyncio.Event().wait()

    def hang_in_thread(_: Visit) -> None:
        stop.count()
        hanging.wait(WITHIN_S)

    crawl = in_tasks(hang) if kind == "tasks" else in_threads(hang_in_thread)
    report, error = await crawl_by(crawl, plan(load={"duration_s": 600}), stop=stop.future)
    hanging.set()
    assert error is None
    assert report.errors == {"read:CANCELLED:run_ended": 4}


async def test_tasks_that_a_crawler_leaves_behind_are_booked_too(plan: Plan) -> None:
    left: set[asyncio.Task[None]] = set()
    stop = Stop(after=4)

    async def fetch(visit: Visit) -> None:
        with visit:
            stop.count()
            await asyncio.Event().wait()

    async def crawl(pages: Pages) -> None:
        async for visit in pages:
            left.add(asyncio.create_task(fetch(visit)))
            await asyncio.sleep(0)

    report, error = await crawl_by(crawl, plan(load={"duration_s": 600}), stop=stop.future)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert error is None
    assert report.errors == {"read:CANCELLED:run_ended": 4}


async def test_first_users_failure_ends_the_others(plan: Plan) -> None:
    began = 0

    async def crawl(pages: Pages) -> None:
        async def user() -> None:
            nonlocal began
            began += 1
            if began == pages.concurrency:
                raise ValueError("the last of them")
            await asyncio.Event().wait()

        await pages.share(user)

    _, error = await crawl_by(crawl, plan(load={"duration_s": 600}))
    assert str(error) == "the last of them"


async def test_crawler_that_wants_to_end_the_process_has_failed(plan: Plan) -> None:
    async def crawl(_: Pages) -> None:
        raise SystemExit(3)

    _, error = await crawl_by(crawl, plan())
    assert isinstance(error, CrawlerError)


async def test_load_that_is_stopped_before_it_begins_has_no_visits(plan: Plan) -> None:
    stop: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    stop.set_result(b"")
    pages = Pages(plan(), Ledger())
    crawl = by_each(lambda visit: visit.got(200, 1))["tasks"]
    later_ns = time.monotonic_ns() + 600_000_000_000
    assert await asyncio.wait_for(carry(crawl, pages, later_ns, stop), WITHIN_S) is None
    assert pages.report().attempted == 0
