"""Both engines: what they offer, how their pools live, and how a load comes to its end."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from twbench.fleet.alarm import Alarm
from twbench.model.plans import Endpoint, FleetPlan
from twbench.model.reports import FleetReport
from twbench.server.http import Listener
from twbench.uring.pump import Pump

Handler = Callable[[socket.socket], Awaitable[None]]
Serve = Callable[[Handler], Endpoint]
Bundled = Callable[..., Awaitable[tuple[Endpoint, Listener]]]
Plan = Callable[..., FleetPlan]
Offer = Callable[..., Awaitable[FleetReport]]

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LATE = "connect:LATE:fleet_too_slow"
"""What a machine that is busy with other things may bring to any open load."""
LOOP_TICK_S = 0.001
"""uvloop keeps time in whole milliseconds, and may be early by one."""


async def never_answers(sock: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(sock, 4096):
        pass


class Answering:
    """A server that answers and notes how many connections live at a time, and whose they are."""

    def __init__(self, *, pause_s: float = 0.0) -> None:
        self.live = self.most = 0
        self.peers: list[str] = []
        self.pause_s = pause_s

    async def __call__(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.live += 1
        self.most = max(self.most, self.live)
        self.peers.append(sock.getpeername()[0])
        while await loop.sock_recv(sock, 4096):
            await asyncio.sleep(self.pause_s)
            await loop.sock_sendall(sock, ANSWER)
        self.live -= 1


# closed load


async def test_fleet_and_server_count_the_same(bundled: Bundled, plan: Plan, offer: Offer) -> None:
    endpoint, listener = await bundled()
    load = {"concurrency": 8, "duration_s": 5, "requests": 100}
    report = await offer(plan(endpoint, load=load))
    server = listener.ledger.report
    assert (report.attempted, report.ok, report.connects) == (100, 100, 100)
    assert (server.accepted, server.requests) == (100, 100)
    assert report.departures == {"active_close": 100}


async def test_closed_load_keeps_to_its_users(serve: Serve, plan: Plan, offer: Offer) -> None:
    server = Answering(pause_s=0.01)
    load = {"concurrency": 5, "duration_s": 5, "requests": 40}
    report = await offer(plan(serve(server), load=load))
    assert (report.ok, server.most) == (40, 5)


async def test_closed_load_lasts_as_long_as_it_should(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, _ = await bundled()
    began_s = time.monotonic()
    report = await offer(plan(endpoint, load={"concurrency": 2, "duration_s": 0.3}))
    assert 0.3 - LOOP_TICK_S <= time.monotonic() - began_s < 4
    assert report.ok == report.attempted > 10


async def test_users_of_a_ramp_come_one_after_another(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    server = Answering(pause_s=0.02)
    endpoint = serve(server)
    most: list[int] = []
    asyncio.get_running_loop().call_later(0.15, lambda: most.append(server.most))
    load = {"stages": [{"duration_s": 0.6, "concurrency": 6}]}
    await offer(plan(endpoint, load=load))
    assert 1 <= most[0] <= 3
    assert 4 <= server.most <= 6


async def test_workers_share_requests_and_users(serve: Serve, plan: Plan, offer: Offer) -> None:
    server = Answering()
    endpoint = serve(server)
    load = {"concurrency": 3, "duration_s": 5, "requests": 7}
    parts = [
        (await offer(plan(endpoint, load=load, worker=worker, workers=2))).attempted
        for worker in range(2)
    ]
    assert parts == [4, 3]


async def test_every_source_meets_every_destination_equally_often(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    servers = [Answering(), Answering()]
    load = {"concurrency": 2, "duration_s": 5, "requests": 24}
    sources = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    report = await offer(plan(*map(serve, servers), load=load, sources=sources))
    assert report.ok == 24
    for server in servers:
        assert Counter(server.peers) == dict.fromkeys(sources, 4)


async def test_workers_start_at_different_pairs(serve: Serve, plan: Plan, offer: Offer) -> None:
    server = Answering()
    endpoint = serve(server)
    for worker in range(3):
        await offer(
            plan(
                endpoint,
                load={"concurrency": 3, "duration_s": 5, "requests": 3},
                sources=("127.0.0.2", "127.0.0.3"),
                worker=worker,
                workers=3,
            )
        )
    assert server.peers == ["127.0.0.2", "127.0.0.3", "127.0.0.2"]


async def test_sources_take_a_port_once_for_each_destination(
    serve: Serve, plan: Plan, offer: Offer, free_window: Callable[[int], tuple[int, int]]
) -> None:
    servers = [Answering(pause_s=0.05), Answering(pause_s=0.05)]
    sources = ("127.0.0.2", "127.0.0.3")
    report = await offer(
        plan(
            *map(serve, servers),
            load={"concurrency": 4, "duration_s": 5, "requests": 4},
            sources=sources,
            client={"socket": {"IP_LOCAL_PORT_RANGE": free_window(1)}},
        )
    )
    assert (report.ok, report.errors) == (4, {})


async def test_engine_speaks_ipv6(bundled: Bundled, plan: Plan, offer: Offer) -> None:
    endpoint, listener = await bundled(address="::1")
    for client in ({}, {"bind_before_connect": True}):
        report = await offer(plan(endpoint, sources=("::1",), client=client))
        assert report.ok == 1
    assert listener.ledger.report.requests == 2


# pool


async def test_pool_is_never_larger_than_its_size(serve: Serve, plan: Plan, offer: Offer) -> None:
    server = Answering(pause_s=0.005)
    load = {"concurrency": 8, "duration_s": 5, "requests": 60}
    report = await offer(plan(serve(server), load=load, client={"pool": {"size": 3}}))
    assert (report.ok, server.most, report.connects) == (60, 3, 3)


async def test_empty_answers_keep_the_connection_too(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, listener = await bundled(response_bytes=0)
    load = {"concurrency": 1, "duration_s": 5, "requests": 10}
    report = await offer(plan(endpoint, load=load, client={"pool": {"size": 1}}))
    assert (report.ok, listener.ledger.report.accepted) == (10, 1)


async def test_connection_is_ended_after_its_requests(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, listener = await bundled(ending="server-fin")
    load = {"concurrency": 1, "duration_s": 5, "requests": 12}
    pool = {"size": 2, "requests_per_connection": 4}
    report = await offer(plan(endpoint, ending="server-fin", load=load, client={"pool": pool}))
    assert (report.ok, report.connects, report.closed_early) == (12, 3, 0)
    assert report.departures == {"passive_close": 3}
    assert listener.ledger.report.departures == {"active_close": 3}


async def test_users_pause_between_requests(bundled: Bundled, plan: Plan, offer: Offer) -> None:
    endpoint, _ = await bundled()
    load = {"concurrency": 1, "duration_s": 5, "requests": 4}
    began_s = time.monotonic()
    report = await offer(plan(endpoint, load=load, client={"pool": {"size": 1, "idle_gap_ms": 60}}))
    assert (report.ok, report.connects) == (4, 1)
    assert time.monotonic() - began_s >= 3 * (0.06 - LOOP_TICK_S)


async def test_client_closes_what_lay_idle_for_too_long(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, listener = await bundled()
    load = {"concurrency": 1, "duration_s": 5, "requests": 2}
    pool = {"size": 1, "idle_gap_ms": 300, "idle_expiry_s": 0.05}
    report = await offer(plan(endpoint, load=load, client={"pool": pool}))
    assert (report.ok, report.connects, report.closed_early) == (2, 2, 2)
    assert listener.ledger.report.departures == {"passive_close": 2}


async def test_connection_that_the_server_closed_idle_is_not_used_again(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, listener = await bundled(keepalive_timeout_s=0.05)
    load = {"concurrency": 1, "duration_s": 5, "requests": 3}
    pool = {"size": 1, "idle_gap_ms": 150}
    report = await offer(plan(endpoint, load=load, client={"pool": pool}))
    assert (report.ok, report.connects) == (3, 3)
    assert report.connection_errors["idle:EOF:closed_while_idle"] >= 2
    assert listener.ledger.report.closed_early >= 2


async def test_full_pool_makes_room_for_another_destination(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    servers = [Answering(), Answering()]
    load = {"concurrency": 1, "duration_s": 5, "requests": 6}
    report = await offer(plan(*map(serve, servers), load=load, client={"pool": {"size": 1}}))
    assert (report.ok, report.connects, report.closed_early) == (6, 6, 6)


async def test_connection_that_expired_while_the_loop_was_busy_is_not_used_again(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, _ = await bundled()
    loop = asyncio.get_running_loop()
    load = {"concurrency": 1, "duration_s": 5, "requests": 3}
    pool = {"size": 1, "idle_gap_ms": 100, "idle_expiry_s": 0.1}
    # so the expiry and the user's next request are due in the same turn
    for due_s in (0.05, 0.3, 0.55):
        loop.call_later(due_s, time.sleep, 0.2)
    report = await offer(plan(endpoint, load=load, client={"pool": pool}))
    assert (report.ok, report.connects) == (3, 3)


# failures and retries


@pytest.mark.parametrize("client", [{}, {"socket": {"TCP_NODELAY": True}}], ids=["loop", "own"])
async def test_refused_connects_fail_and_the_users_slow_down(
    client: dict[str, object], plan: Plan, offer: Offer
) -> None:
    load = {"concurrency": 1, "duration_s": 0.25}
    report = await offer(plan(("127.0.0.1", 1), load=load, client=client))
    assert set(report.errors) == {"connect:ECONNREFUSED:refused"}
    # pauses of 10, 20, 40, … ms fit four times
    assert 3 <= report.attempted <= 6
    assert report.not_sent == 0


async def test_address_that_is_not_local_fails_before_any_syn(plan: Plan, offer: Offer) -> None:
    client = {"bind_before_connect": True}
    report = await offer(plan(("127.0.0.1", 1), sources=("192.0.2.1",), client=client))
    assert report.errors == {"bind:EADDRNOTAVAIL:not_local": 1}
    assert (report.connects, report.not_sent) == (1, 1)


@pytest.mark.parametrize("client", [{}, {"socket": {"TCP_NODELAY": True}}], ids=["loop", "own"])
async def test_unanswered_syn_is_given_up_at_the_connect_timeout(
    client: dict[str, object], full_backlog: Endpoint, plan: Plan, offer: Offer
) -> None:
    report = await offer(plan(full_backlog, client=client | {"connect_timeout_s": 0.2}))
    assert report.errors == {"connect:TIMEOUT:connect_timeout": 1}
    assert (report.connects, report.established, report.not_sent) == (1, 0, 0)


async def test_failed_attempts_are_repeated_with_doubled_pauses(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    met_s: list[float] = []

    async def answers_the_third(sock: socket.socket) -> None:
        met_s.append(time.monotonic())
        await asyncio.get_running_loop().sock_recv(sock, 4096)
        if len(met_s) == 3:
            await asyncio.get_running_loop().sock_sendall(sock, ANSWER)

    client = {"retries": 5, "retry_backoff_ms": 40}
    report = await offer(plan(serve(answers_the_third), client=client))
    assert (report.attempted, report.retried, report.ok) == (3, 2, 1)
    assert report.errors == {"read:EOF:closed_unanswered": 2}
    assert met_s[1] - met_s[0] >= 0.04 - LOOP_TICK_S
    assert met_s[2] - met_s[1] >= 0.08 - LOOP_TICK_S


async def test_retries_are_used_up(plan: Plan, offer: Offer) -> None:
    client = {"retries": 2, "retry_backoff_ms": 1}
    report = await offer(plan(("127.0.0.1", 1), client=client))
    assert (report.attempted, report.retried, report.ok) == (3, 2, 0)


async def test_retries_end_with_the_load(plan: Plan, offer: Offer) -> None:
    client = {"retries": 20, "retry_backoff_ms": 1}
    began_s = time.monotonic()
    await offer(plan(("127.0.0.1", 1), client=client, load={"concurrency": 1, "duration_s": 0.1}))
    assert time.monotonic() - began_s < 30


# open load


async def test_open_load_offers_its_rate_and_measures_from_the_intended_moment(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, _ = await bundled(delay_ms=5)
    load = {"mode": "open", "rate_per_s": 200, "duration_s": 0.3}
    began_s = time.monotonic()
    report = await offer(plan(endpoint, load=load))
    assert time.monotonic() - began_s >= 0.295
    assert (report.attempted, report.ok) == (60, 60 - report.errors[LATE])
    assert "request_from_intended" in report.histograms


async def test_open_load_does_not_wait_for_answers(serve: Serve, plan: Plan, offer: Offer) -> None:
    server = Answering(pause_s=0.5)
    load = {"mode": "open", "rate_per_s": 100, "duration_s": 0.2}
    report = await offer(plan(serve(server), load=load))
    late = report.errors[LATE]
    assert report.ok == server.most == 20 - late > 1


async def test_arrivals_beyond_the_bound_in_flight_are_failures_of_our_own(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    load = {"mode": "open", "rate_per_s": 100, "duration_s": 0.2, "max_in_flight": 3}
    report = await offer(plan(serve(Answering(pause_s=0.5)), load=load))
    assert (report.attempted, report.ok, report.connects) == (20, 3, 3)
    late = report.errors.pop(LATE, 0)
    assert report.errors == {"connect:LIMIT:in_flight_limit": 17 - late}
    assert report.not_sent == 0


# the end of a load


async def test_stop_ends_a_closed_load_and_lets_requests_finish(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    server = Answering(pause_s=0.05)
    load = {"concurrency": 4, "duration_s": 60}
    began_s = time.monotonic()
    report = await offer(plan(serve(server), load=load), stop_after_s=0.12)
    assert time.monotonic() - began_s < 30
    assert report.ok == report.attempted >= 8


async def test_stop_wakes_an_open_load_that_waits_for_its_next_arrival(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, _ = await bundled()
    load = {"mode": "open", "rate_per_s": 0.1, "duration_s": 60}
    began_s = time.monotonic()
    report = await offer(plan(endpoint, load=load), stop_after_s=0.05)
    assert time.monotonic() - began_s < 30
    assert (report.attempted, report.ok) == (1, 1)


@pytest.mark.usefixtures("short_grace")
async def test_answered_connection_may_wait_for_the_servers_close_after_the_end(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    load = {"concurrency": 2, "duration_s": 0.1}
    report = await offer(plan(serve(Answering()), ending="server-fin", hold_s=0.6, load=load))
    assert (report.ok, report.errors) == (2, {})
    assert report.connection_errors == {"close:TIMEOUT:peer_did_not_close": 2}
    assert report.closed_early == 2


async def test_worker_without_users_is_done_at_once(
    bundled: Bundled, plan: Plan, offer: Offer
) -> None:
    endpoint, _ = await bundled()
    load = {"concurrency": 1, "duration_s": 600}
    report = await offer(plan(endpoint, load=load, worker=1, workers=2))
    assert report.attempted == 0


async def test_idle_pool_is_closed_at_the_end(serve: Serve, plan: Plan, offer: Offer) -> None:
    server = Answering(pause_s=0.01)
    load = {"concurrency": 4, "duration_s": 0.1}
    report = await offer(plan(serve(server), load=load, client={"pool": {"size": 4}}))
    await asyncio.sleep(0.05)
    assert (report.connects, report.closed_early, server.live) == (4, 4, 0)


@pytest.mark.usefixtures("short_grace")
async def test_what_is_unanswered_at_the_end_is_cut_off(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    report = await offer(plan(serve(never_answers), load={"concurrency": 3, "duration_s": 0.1}))
    assert report.errors == {"read:CANCELLED:run_ended": 3}
    assert (report.established, report.closed_early) == (3, 3)


@pytest.mark.usefixtures("short_grace")
async def test_what_is_unconnected_at_the_end_is_cut_off(
    full_backlog: Endpoint, plan: Plan, offer: Offer
) -> None:
    report = await offer(plan(full_backlog, load={"concurrency": 3, "duration_s": 0.1}))
    assert report.errors == {"connect:CANCELLED:run_ended": 3}
    assert report.connects == 3


@pytest.mark.usefixtures("short_grace")
async def test_what_waits_for_the_pool_at_the_end_is_cut_off(
    serve: Serve, plan: Plan, offer: Offer
) -> None:
    load = {"concurrency": 3, "duration_s": 0.1}
    report = await offer(plan(serve(never_answers), load=load, client={"pool": {"size": 1}}))
    assert report.errors == {"read:CANCELLED:run_ended": 1, "connect:CANCELLED:run_ended": 2}
    assert report.connects == 1


async def test_arrivals_that_a_slow_fleet_never_began_are_booked_as_late(
    bundled: Bundled, plan: Plan, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    until, at = Alarm.until, Pump.at

    async def oversleep(self: Alarm, at_ns: int) -> None:
        await until(self, at_ns + 150_000_000)

    def put_off(self: Pump, due_ns: int, call: Callable[[], None]) -> None:
        at(self, due_ns + 150_000_000, call)

    monkeypatch.setattr(Alarm, "until", oversleep)
    monkeypatch.setattr(Pump, "at", put_off)
    endpoint, _ = await bundled()
    load = {"mode": "open", "rate_per_s": 100, "duration_s": 0.4}
    report = await offer(plan(endpoint, load=load))
    late = report.errors[LATE]
    assert late > 0
    assert (report.attempted, report.ok, report.connects) == (40, 40 - late, 40 - late)


@pytest.mark.parametrize("ending", ["client-rst", "server-fin"])
async def test_connection_that_ended_has_given_its_port_back_before_the_next_begins(
    ending: str,
    bundled: Bundled,
    plan: Plan,
    offer: Offer,
    free_window: Callable[[int], tuple[int, int]],
) -> None:
    endpoint, _ = await bundled(ending=ending)
    load = {"concurrency": 4, "duration_s": 5, "requests": 60}
    client = {"socket": {"IP_LOCAL_PORT_RANGE": free_window(4)}}
    report = await offer(plan(endpoint, ending=ending, load=load, client=client))
    assert (report.ok, report.errors) == (60, {})
