"""A client that keeps no books: true accounts balance, false ones do not, and real programs do.

The made accounts are sums of events: what one connection does to the server's books and to both
kernels' counters. Any number of each must balance.
"""

import dataclasses
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.audit import Account, StackAccount, audit
from twbench.model.endings import ENDINGS
from twbench.model.parse import build_scenario
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.states import Side
from twbench.run.books import Books
from twbench.run.course import Result, run_scenario
from twbench.run.program import Program
from twbench.run.summarise import summarise_run

ON_CLOSE, ON_DATA = "TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnData"
RST = "TcpOutRsts"
TW = "TcpExtTW"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One connection's end: as the server books it, and as each kernel counts it."""

    booked: str
    client: tuple[str, ...] = ()
    server: tuple[str, ...] = ()
    killed: Side | None = None
    """Whose TIME_WAIT a RST ended."""


EVENTS = {
    "the client closes first": Event(booked="passive_close", client=(TW,)),
    "the server closes first": Event(booked="active_close", server=(TW,)),
    "the client resets": Event(booked="reset_by_peer", client=(ON_DATA, RST)),
    "the server resets": Event(booked="active_reset", server=(ON_DATA, RST)),
    "the client's FIN comes just before the server's close": Event(
        booked="active_close", client=(TW,)
    ),
    "both FINs meet": Event(booked="active_close", client=(TW,), server=(TW,)),
    "the client resets in answer to the server's FIN": Event(
        booked="active_close", client=(ON_CLOSE, RST)
    ),
    "the client resets a TIME_WAIT": Event(
        booked="active_close", client=(ON_CLOSE, RST), server=(TW,), killed=Side.SERVER
    ),
    "data comes to the client's FIN_WAIT_1": Event(booked="passive_close", client=(ON_DATA, RST)),
    "data comes to the client's FIN_WAIT_2": Event(
        booked="passive_close", client=(TW, RST), killed=Side.CLIENT
    ),
    "the server sees that as a reset": Event(
        booked="reset_by_peer", client=(TW, RST), killed=Side.CLIENT
    ),
    "the server closes unread data": Event(booked="active_close", server=(ON_CLOSE, RST)),
    "the server leaves a request unread after the client's FIN": Event(
        booked="passive_close", server=(ON_CLOSE, RST)
    ),
    "its RST ends a TIME_WAIT": Event(
        booked="passive_close", client=(TW,), server=(ON_CLOSE, RST), killed=Side.CLIENT
    ),
    "a request comes to the server's FIN_WAIT_2": Event(
        booked="active_close", server=(TW, RST), killed=Side.SERVER
    ),
    "the client's RST comes before the server's": Event(
        booked="active_reset", client=(ON_CLOSE, RST)
    ),
}


def account(counts: Mapping[str, int], *, strays: int = 0) -> Account:
    """Return the account of a run in which each event happened so many times."""
    departures: Counter[str] = Counter()
    counters: dict[Side, Counter[str]] = {side: Counter() for side in Side}
    killed: Counter[Side] = Counter()
    for name, times in counts.items():
        event = EVENTS[name]
        departures[event.booked] += times
        for side, counted in ((Side.CLIENT, event.client), (Side.SERVER, event.server)):
            counters[side].update(dict.fromkeys(counted, times))
        if event.killed:
            killed[event.killed] += times
    connections = departures.total()
    counters[Side.CLIENT]["TcpActiveOpens"] = connections
    counters[Side.CLIENT][RST] += strays
    counters[Side.SERVER]["TcpPassiveOpens"] = connections
    server = ServerReport(accepted=connections, departures=departures)
    stacks = [
        StackAccount(
            name=side.value,
            sides=frozenset({side}),
            counters=counted,
            history=((0.0, 0), (5.0, counted[TW])),
            waiting=(0, counted[TW] - killed[side]),
            time_wait_end=counted[TW] - killed[side],
            accept_queue_end=0,
            fleet=FleetReport(),
            server=server if side is Side.SERVER else ServerReport(),
        )
        for side, counted in counters.items()
    ]
    # with this ending the server may reset, and close where it is idle
    server.closed_early = departures["active_close"]
    return Account(ending=ENDINGS["server-rst"], stacks=tuple(stacks), foreign=True)


def residuals(of_run: Account) -> dict[str, int]:
    return {i.name: i.residual for i in audit(of_run).identities if i.residual}


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_by_itself_balances(event: str) -> None:
    assert residuals(account({event: 3})) == {}


@given(st.fixed_dictionaries({name: st.integers(0, 40) for name in EVENTS}))
def test_any_mixture_of_events_balances(counts: dict[str, int]) -> None:
    assert residuals(account(counts)) == {}


def test_packets_to_a_client_that_has_reset_are_answered_with_more_resets() -> None:
    assert residuals(account({"the client resets": 3}, strays=30)) == {}
    assert residuals(account({"the client resets": 3}, strays=31)) == {
        "client: TcpOutRsts = active resets": 1
    }


PLAIN = {"the client closes first": 20, "the client resets": 5}
"""A server that waits for its client sees everything."""
OUTSIDE = "server-rst: the server closes none first"
WRONG: list[tuple[str, str, int, set[str]]] = [
    ("server", "TcpPassiveOpens", 1, {"server: TcpPassiveOpens = accepted"}),
    ("client", "TcpActiveOpens", 1, {"client: TcpActiveOpens = accepted"}),
    ("client", "TcpActiveOpens", -1, {"client: TcpActiveOpens = accepted"}),
    ("client", TW, -1, {"client: TcpExtTW + TcpExtTWKilled = active closes"}),
    ("client", TW, 1, {"client: TcpExtTW + TcpExtTWKilled = active closes"}),
    ("server", TW, 1, {"server: TcpExtTW + TcpExtTWKilled = active closes"}),
    ("client", RST, -1, {"client: TcpOutRsts = active resets"}),
    ("server", RST, 1, {"server: TcpOutRsts = active resets"}),
]


@pytest.mark.parametrize(("host", "counter", "by", "shown"), WRONG)
def test_false_counter_shows(host: str, counter: str, by: int, shown: set[str]) -> None:
    true = account(PLAIN)
    assert residuals(true) == {}
    stacks = [
        dataclasses.replace(s, counters={**s.counters, counter: s.count(counter) + by})
        if s.name == host
        else s
        for s in true.stacks
    ]
    assert shown <= residuals(dataclasses.replace(true, stacks=tuple(stacks))).keys()


@pytest.mark.parametrize("departure", ["active_close", "passive_close", "reset_by_peer"])
@pytest.mark.parametrize("by", [1, -1])
def test_false_book_of_the_servers_shows(departure: str, by: int) -> None:
    false = account({**PLAIN, "the server closes first": 5})
    false.stacks[1].server.departures[departure] += by
    assert "server: accepted = departed" in residuals(false)


def test_connection_booked_under_another_end_shows() -> None:
    false = account(PLAIN)
    false.stacks[1].server.departures.update(passive_close=-1, reset_by_peer=1)
    assert residuals(false) == {"client: TcpOutRsts = active resets": -1}


def test_time_wait_that_nobody_has_any_more_shows() -> None:
    true = account(PLAIN)
    client, server = true.stacks
    client = dataclasses.replace(client, time_wait_end=client.time_wait_end - 1)
    false = dataclasses.replace(true, stacks=(client, server))
    assert "client: sockstat tw at the end = entries - expired" in residuals(false)


@pytest.mark.parametrize(("failed", "residual"), [(3, {}), (2, 1)])
def test_connects_that_failed_are_among_those_that_were_begun(
    failed: int, residual: dict[str, int] | int
) -> None:
    true = account(PLAIN)
    client, server = true.stacks
    counters = {**client.counters, "TcpActiveOpens": 28, "TcpAttemptFails": failed}
    made = dataclasses.replace(
        true, stacks=(dataclasses.replace(client, counters=counters), server)
    )
    name = "client: TcpActiveOpens = accepted"
    assert residuals(made) == ({name: residual} if residual else {})


def test_pages_are_compared_with_themselves_where_there_are_any() -> None:
    true = account(PLAIN)
    client, server = true.stacks
    pages = FleetReport(attempted=10, ok=8, errors=Counter({"read:EOF:keepalive_race": 1}))
    made = dataclasses.replace(true, stacks=(dataclasses.replace(client, fleet=pages), server))
    assert residuals(made) == {"fleet: attempted = ok + errors": 1}


def test_server_that_resets_against_its_ending_shows() -> None:
    false = dataclasses.replace(account({"the server resets": 2}), ending=ENDINGS["server-fin"])
    assert residuals(false) == {"server-fin: the server resets none": 2}


def test_what_is_not_promised_cannot_fail() -> None:
    false = account(PLAIN)
    false.stacks[1].server.accepted += 1
    assert not audit(false).balanced
    assert audit(dataclasses.replace(false, promised=False)).balanced


# real programs on the real kernel

CLIENT = """
import os, socket, struct, time
from urllib.parse import urlsplit
at = urlsplit(os.environ["TWBENCH_URL"])
for number in range(60):
    with socket.create_connection((at.hostname, at.port)) as sock:
        if {linger}:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: server.test\\r\\n{header}\\r\\n")
        {then}
"""
SESSION = """
import os, requests
session = requests.Session() if {kept} else requests
for _ in range(60):
    try:
        session.get(os.environ["TWBENCH_URL"])
    except requests.RequestException:
        pass
"""
AIOHTTP = """
import aiohttp, asyncio, os
async def user(session):
    for _ in range(20):
        try:
            async with session.get(os.environ["TWBENCH_URL"]) as answer:
                await answer.read()
        except aiohttp.ClientError:
            pass
async def main():
    connector = aiohttp.TCPConnector(force_close={force})
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(user(session) for _ in range(5)))
asyncio.run(main())
"""
HTTPX = """
import asyncio, httpx, os
async def user(client):
    for _ in range(15):
        try:
            await client.get(os.environ["TWBENCH_URL"])
        except httpx.HTTPError:
            pass
async def main():
    async with httpx.AsyncClient() as client:
        await asyncio.gather(*(user(client) for _ in range(4)))
asyncio.run(main())
"""


def python(text: str, **given: object) -> list[str]:
    return [sys.executable, "-c", text.format(**given) if given else text]


def raw(then: str, *, linger: bool = False, last: bool = False) -> list[str]:
    header = "Connection: close\\r\\n" if last else ""
    return python(CLIENT, then=then, linger=linger, header=header)


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


WAIT = "time.sleep(0.003)"
PROGRAMS: dict[str, list[str]] = {
    "curl": shell("for i in $(seq 40); do curl -s -o /dev/null $TWBENCH_URL; done"),
    "curl, last": shell(
        "for i in $(seq 40); do curl -s -o /dev/null -H 'Connection: close' $TWBENCH_URL; done"
    ),
    "wrk": shell("wrk -t1 -c10 -d1 $TWBENCH_URL"),
    "wrk, last": shell("wrk -t1 -c10 -d1 -H 'Connection: close' $TWBENCH_URL"),
    "ab": shell("ab -q -r -n 300 -c 5 $TWBENCH_URL"),
    "ab -k": shell("ab -q -r -k -n 300 -c 5 $TWBENCH_URL"),
    "aiohttp": python(AIOHTTP, force=False),
    "aiohttp, force_close": python(AIOHTTP, force=True),
    "requests": python(SESSION, kept=True),
    "requests, no session": python(SESSION, kept=False),
    "httpx": python(HTTPX),
    "resets": raw("sock.recv(65536)", linger=True),
    "resets what the server closed": raw(f"sock.recv(65536); {WAIT}", linger=True, last=True),
    "leaves data unread": raw(f"{WAIT}; sock.recv(10)"),
    "leaves data unread, last": raw(f"{WAIT}; sock.recv(10)", last=True),
    "does not wait": raw("pass"),
    "does not wait, last": raw("pass", last=True),
    "reads to the end": raw("\n        while sock.recv(65536): pass".strip(), last=True),
}
SERVERS: dict[str, dict[str, Any]] = {
    "keep-alive": {},
    "server-fin": {"server": {"keepalive_requests": 3}},
    "server-rst": {"server": {"keepalive_requests": 3}, "ending": {"kind": "server-rst"}},
    "large": {"server": {"keepalive_requests": 3, "response_bytes": 200_000}},
    "streams": {"server": {"keepalive_requests": 3, "engine": "streams"}},
    "loopback": {"server": {"keepalive_requests": 3}, "lab": {"link": "loopback"}},
    "wire": {
        "server": {"keepalive_requests": 3},
        "lab": {"link": "wire", "wire": {"delay_ms": 1}},
    },
}
EVERYWHERE = ("keep-alive", "server-fin", "server-rst")
"""Servers that meet every program; the others meet those that leave data on the way."""
ROUGH = ("wrk", "resets", "leaves data unread", "does not wait", "does not wait, last")
RUNS = [
    (server, name) for server in SERVERS for name in (PROGRAMS if server in EVERYWHERE else ROUGH)
]
NEEDED = {"curl": "curl", "wrk": "wrk", "ab": "ab"}
AT_ONCE = 3


def begin(folder: Path, tables: Mapping[str, Any], argv: list[str]) -> Result:
    asked = build_scenario(
        {
            "name": "foreign",
            "load": {"concurrency": 10, "duration_s": 8},
            "ending": {"kind": "server-fin"},
            **tables,
        },
        source="test",
    )
    with Path(os.devnull).open("wb") as nowhere:
        return run_scenario(
            asked, results_dir=folder, program=Program(argv, stdout=nowhere.fileno())
        )


def tool_of(name: str) -> str | None:
    """Return the program that a line of PROGRAMS needs and this machine lacks."""
    needed = NEEDED.get(name.replace(",", "").split()[0])
    return needed if needed and shutil.which(needed) is None else None


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Result]]:
    """Return what waits for a program's run against a server."""
    folder = tmp_path_factory.mktemp("foreign")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs: dict[tuple[str, str], Future[Result]] = {
            (server, name): pool.submit(begin, folder, SERVERS[server], PROGRAMS[name])
            for server, name in RUNS
            if tool_of(name) is None
        }
        yield lambda server, name: runs[server, name].result()


@pytest.mark.namespaces
@pytest.mark.slow
@pytest.mark.parametrize(("server", "name"), RUNS)
def test_books_of_a_real_program_balance(
    ran: Callable[[str, str], Result], server: str, name: str
) -> None:
    if missing := tool_of(name):
        pytest.skip(f"{missing} is not installed")
    summary = ran(server, name).summary
    found = summary["audit"]
    assert [each for each in found["identities"] if each["residual"]] == []
    assert found["promised"]
    assert summary["rates"]["connections_per_s"] > 0
    opens = summary["hosts"]["client"]["counters"]["TcpActiveOpens"]
    assert opens >= summary["hosts"]["server"]["counters"]["TcpPassiveOpens"] > 0


FALSIFIED: dict[str, tuple[dict[str, int], str]] = {
    "one accepted too many": ({"accepted": 1}, "server: accepted = departed"),
    "one that never ended": ({"passive_close": -1}, "server: accepted = departed"),
    "a close booked as a reset": (
        {"passive_close": -1, "reset_by_peer": 1},
        "client: TcpOutRsts = active resets",
    ),
    "one too many in all": (
        {"accepted": 1, "passive_close": 1},
        "client: TcpActiveOpens = accepted",
    ),
}


@pytest.mark.namespaces
@pytest.mark.parametrize("name", FALSIFIED)
def test_falsified_book_of_a_real_run_does_not_balance(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, shown = FALSIFIED[name]

    def falsified(*, books: Books, **rest: Any) -> dict[str, Any]:  # noqa: ANN401 - as summarise_run
        true = summarise_run(books=books, **rest)
        assert true["audit"]["balanced"]
        for figure, by in changes.items():
            if figure == "accepted":
                books.server.accepted += by
            else:
                books.server.departures[figure] += by
        return summarise_run(books=books, **rest)

    monkeypatch.setattr("twbench.run.course.summarise_run", falsified)
    found = begin(tmp_path, {}, raw("sock.recv(65536)")).summary["audit"]
    assert not found["balanced"]
    assert shown in [each["name"] for each in found["identities"] if each["residual"]]


@pytest.mark.namespaces
def test_books_of_crawlers_on_two_hosts_balance_as_one_clients(tmp_path: Path) -> None:
    asked = build_scenario(
        {
            "name": "two",
            "lab": {"client": {"hosts": 2}},
            "web": {"sites": 3, "redirects": 0.2},
            "server": {"keepalive_requests": 5},
            "client": {"engine": "streams", "pool": {"size": 6}},
            "load": {"concurrency": 4, "duration_s": 0.5},
        },
        source="test",
    )
    summary = run_scenario(asked, results_dir=tmp_path).summary
    assert [each for each in summary["audit"]["identities"] if each["residual"]] == []
    names = [each["name"] for each in summary["audit"]["identities"]]
    assert "clients: TcpActiveOpens = accepted" in names
    assert summary["outcomes"]["ok"] > 0
    assert summary["outcomes"]["silent_retries"] == 0
    assert summary["rates"]["client_cpu_us_per_request"] > 0
