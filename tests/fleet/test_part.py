"""What falls to one worker: routes in turn, requests as bytes, its share of every bound."""

from collections import Counter
from collections.abc import Callable

import pytest

from twbench.fleet import part
from twbench.model.plans import FleetPlan

Plan = Callable[..., FleetPlan]

DESTINATIONS = (("127.0.0.1", 80), ("127.0.0.1", 81))
SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


@pytest.mark.parametrize("total", [0, 1, 7, 100])
def test_shares_of_all_workers_add_up(total: int, plan: Plan) -> None:
    plans = [plan(*DESTINATIONS, worker=worker, workers=3) for worker in range(3)]
    shares = [part.own_share(each, total) for each in plans]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_routes_are_every_pair_once_and_workers_start_apart(plan: Plan) -> None:
    every = [
        part.routes(plan(*DESTINATIONS, sources=SOURCES, worker=worker, workers=7))
        for worker in range(7)
    ]
    pairs = Counter((source, to) for to in DESTINATIONS for source in SOURCES)
    assert all(Counter(routes) == pairs for routes in every)
    assert len({routes[0] for routes in every}) == 6
    assert every[6] == every[0]
    # a source's next turn comes after all the others
    assert [source for source, _ in every[0]] == [*SOURCES, *SOURCES]


@pytest.mark.parametrize(
    ("address", "host"), [("127.0.0.1", b"127.0.0.1:80"), ("2001:2::1", b"[2001:2::1]:80")]
)
def test_last_request_announces_the_end_where_it_should(address: str, host: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nUser-Agent: twbench\r\n"
    announced = head + b"Connection: close\r\n\r\n"
    assert part.requests((address, 80), announce=True) == (head + b"\r\n", announced)
    assert part.requests((address, 80), announce=False) == (head + b"\r\n", head + b"\r\n")


@pytest.mark.parametrize(
    ("ending", "announced"), [("client-fin", True), ("server-fin", True), ("server-idle", False)]
)
def test_end_is_announced_unless_the_server_waits_for_idleness(
    ending: str, announced: bool, plan: Plan
) -> None:
    assert part.announces(plan(*DESTINATIONS, ending=ending)) is announced


def test_quota_is_the_workers_share_of_the_requests(plan: Plan) -> None:
    load = {"concurrency": 1, "duration_s": 5, "requests": 5}
    quotas = [
        list(part.quota(plan(*DESTINATIONS, load=load, worker=worker, workers=2)))
        for worker in range(2)
    ]
    assert [len(quota) for quota in quotas] == [3, 2]
    assert part.SPENT not in quotas[0]


def test_load_without_a_number_of_requests_has_no_end(plan: Plan) -> None:
    quota = part.quota(plan(*DESTINATIONS, load={"concurrency": 1, "duration_s": 5}))
    assert all(next(quota, part.SPENT) is not part.SPENT for _ in range(10_000))
