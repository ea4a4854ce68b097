"""Double entry: true accounts balance, effects are named, and every wrong figure shows.

The accounts are written by hand. `CLIENT_FIN` is a run in which each identity has something to
compare; for each identity there is at least one figure that is then falsified.
"""

import copy
import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from twbench.audit import Account, Identity, StackAccount, audit
from twbench.model.endings import ENDINGS
from twbench.model.reports import FleetReport, ServerReport
from twbench.model.states import Side

ON_CLOSE, ON_DATA = "TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnData"
EMPTY: dict[str, Any] = {}


def stack(
    *sides: Side,
    counters: Mapping[str, int],
    fleet: Mapping[str, Any] = EMPTY,
    server: Mapping[str, Any] = EMPTY,
    **rest: Any,  # noqa: ANN401 - fields of StackAccount
) -> StackAccount:
    """Return a stack that had no TIME_WAIT at the end and an empty accept queue, unless given."""
    fields = {"history": ((0.0, 0),), "time_wait_end": 0, "accept_queue_end": 0, **rest}
    return StackAccount(
        name="-".join(sides),
        sides=frozenset(sides),
        counters=counters,
        fleet=FleetReport(**counted(fleet)),
        server=ServerReport(**counted(server)),
        **fields,
    )


def counted(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {k: Counter(v) if isinstance(v, Mapping) else v for k, v in figures.items()}


def account(ending: str, *stacks: StackAccount, promised: bool = True) -> Account:
    return Account(ending=ENDINGS[ending], stacks=stacks, promised=promised)


def of(ended: int, departure: str, **figures: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a fleet's book: so many connections with a good answer each, left in one way."""
    ok = {"attempted": ended, "ok": ended, "connects": ended, "established": ended}
    return {**ok, "departures": {departure: ended}, **figures}


def taken(accepted: int, departure: str, **figures: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a server's book: so many connections, left in one way."""
    return {"accepted": accepted, "departures": {departure: accepted}, **figures}


def residuals(of_run: Account) -> dict[str, int]:
    return {i.name: i.residual for i in audit(of_run).identities if i.residual}


def terms(of_run: Account) -> dict[str, Mapping[str, int]]:
    return {i.name: i.terms for i in audit(of_run).identities if i.terms}


# 100 attempts: 2 without a port, 1 refused, 97 answered and closed by the client.
CLIENT_FIN = account(
    "client-fin",
    stack(
        Side.CLIENT,
        counters={"TcpActiveOpens": 98, "TcpExtTW": 97},
        fleet={
            "attempted": 100,
            "ok": 97,
            "connects": 100,
            "not_sent": 2,
            "established": 97,
            "errors": {
                "connect:EADDRNOTAVAIL:ports_exhausted": 2,
                "connect:ECONNREFUSED:refused": 1,
            },
            "departures": {"active_close": 97},
        },
        history=((0.0, 0), (5.0, 97)),
        time_wait_end=97,
    ),
    stack(
        Side.SERVER,
        counters={"TcpPassiveOpens": 97, "TcpOutRsts": 1},
        server=taken(97, "passive_close"),
    ),
)


def falsified(true: Account, figure: str, by: int) -> Account:
    """Return an account in which one figure, such as `client.fleet.ok`, is wrong by so much."""
    host, *path = figure.split(".")
    stacks = []
    for one in true.stacks:
        false = copy.deepcopy(one)
        if one.name == host:
            match path:
                case ["counters", name]:
                    counters = {**one.counters, name: one.count(name) + by}
                    false = dataclasses.replace(false, counters=counters)
                case [("fleet" | "server") as book, name]:
                    report = getattr(false, book)
                    setattr(report, name, getattr(report, name) + by)
                case [("fleet" | "server") as book, name, key]:
                    getattr(getattr(false, book), name)[key] += by
                case [name]:
                    false = dataclasses.replace(false, **{name: getattr(false, name) + by})
        stacks.append(false)
    wrong = dataclasses.replace(true, stacks=tuple(stacks))
    assert wrong != true
    return wrong


def test_true_account_balances_and_names_the_refused_connect() -> None:
    assert residuals(CLIENT_FIN) == {}
    assert audit(CLIENT_FIN).balanced
    assert terms(CLIENT_FIN) == {
        "server: TcpOutRsts = active resets": {"refused connects": 1},
    }


ATTEMPTED = "fleet: attempted = ok + errors"
DEPARTED = "fleet: established = departed"
ACCEPTED = "fleet: established = server: accepted"
ACTIVE_OPENS = "client: TcpActiveOpens = connects whose SYN left"
PASSIVE_OPENS = "server: TcpPassiveOpens = accepted"
FOREIGN = "client-fin: errors that this ending does not bring about"
IN_VAIN = "client-fin: nobody waited in vain for the first closer"


def entries(host: str) -> str:
    return f"{host}: TcpExtTW + TcpExtTWKilled = active closes"


def resets(host: str) -> str:
    return f"{host}: TcpOutRsts = active resets"


def at_the_end(host: str) -> str:
    return f"{host}: sockstat tw at the end = entries - expired"


# a figure, by how much it is wrong, and what the audit then says
WRONG: list[tuple[str, int, dict[str, int]]] = [
    ("client.fleet.attempted", 1, {ATTEMPTED: 1}),
    ("client.fleet.ok", -1, {ATTEMPTED: 1}),
    ("client.fleet.errors.connect:ETIMEDOUT:syn_unanswered", 1, {ATTEMPTED: -1}),
    ("client.fleet.errors.read:ECONNRESET:reset_by_peer", 1, {ATTEMPTED: -1, FOREIGN: 1}),
    ("client.fleet.connection_errors.close:ECONNRESET:reset_at_close", 1, {FOREIGN: 1}),
    ("client.fleet.connection_errors.close:TIMEOUT:peer_did_not_close", 1, {IN_VAIN: 1}),
    ("server.server.held_in_vain", 1, {IN_VAIN: 1}),
    ("client.fleet.established", 1, {DEPARTED: 1, ACCEPTED: 1}),
    ("client.fleet.departures.passive_close", 1, {DEPARTED: -1}),
    (
        "client.fleet.departures.active_reset",
        1,
        {DEPARTED: -1, resets("client"): -1, "client-fin: the client resets none": 1},
    ),
    ("client.fleet.departures.active_close", -1, {DEPARTED: 1, entries("client"): 1}),
    ("client.fleet.connects", 1, {ACTIVE_OPENS: -1}),
    ("client.fleet.not_sent", 1, {ACTIVE_OPENS: 1}),
    ("client.counters.TcpActiveOpens", 1, {ACTIVE_OPENS: 1}),
    ("client.counters.TcpExtTW", 1, {entries("client"): 1, at_the_end("client"): -1}),
    ("client.counters.TcpExtTWKilled", 1, {entries("client"): 1, at_the_end("client"): -1}),
    ("client.counters.TcpOutRsts", 1, {resets("client"): 1}),
    ("client.counters." + ON_CLOSE, 1, {entries("client"): 1, resets("client"): -1}),
    ("client.counters." + ON_DATA, 1, {entries("client"): 1, resets("client"): -1}),
    ("client.counters.TcpExtTCPTimeWaitOverflow", 1, {entries("client"): 1}),
    ("client.counters.TcpExtTWRecycled", 1, {at_the_end("client"): 1}),
    ("client.time_wait_end", -1, {at_the_end("client"): -1}),
    ("client.time_wait_end", 1, {at_the_end("client"): 1}),
    ("server.server.accepted", -1, {ACCEPTED: 1, PASSIVE_OPENS: 1}),
    ("server.accept_queue_end", 1, {ACCEPTED: -1, PASSIVE_OPENS: -1}),
    ("server.counters.TcpPassiveOpens", 1, {PASSIVE_OPENS: 1}),
    ("server.counters.TcpExtTW", 1, {entries("server"): 1, at_the_end("server"): -1}),
    ("server.counters.TcpOutRsts", 1, {resets("server"): 1}),
    ("server.time_wait_end", 1, {at_the_end("server"): 1}),
    ("server.server.reopened", 1, {at_the_end("server"): 1}),
    (
        "server.server.departures.active_close",
        1,
        {entries("server"): -1, "client-fin: the server closes none first": 1},
    ),
    (
        "server.server.departures.active_reset",
        1,
        {resets("server"): -1, "client-fin: the server resets none": 1},
    ),
    ("server.server.closed_early", 1, {"client-fin: the server closes none first": -1}),
]


@pytest.mark.parametrize(
    ("figure", "by", "expected"), WRONG, ids=[f"{f}{n:+d}" for f, n, _ in WRONG]
)
def test_wrong_figure_leaves_its_residual_and_unbalances_the_audit(
    figure: str, by: int, expected: dict[str, int]
) -> None:
    wrong = falsified(CLIENT_FIN, figure, by)
    assert residuals(wrong) == expected
    assert not audit(wrong).balanced


def test_there_is_a_wrong_figure_for_each_identity() -> None:
    shown = {name for _, _, expected in WRONG for name in expected}
    assert shown == {identity.name for identity in audit(CLIENT_FIN).identities}


def test_resets_that_were_booked_but_were_closes_in_truth_are_not_explained_away() -> None:
    lie = account(
        "client-rst",
        stack(
            Side.CLIENT,
            counters={"TcpActiveOpens": 5, "TcpExtTW": 5},
            fleet=of(5, "active_reset"),
            time_wait_end=5,
        ),
        stack(Side.SERVER, counters={"TcpPassiveOpens": 5}, server=taken(5, "reset_by_peer")),
    )
    assert residuals(lie) == {entries("client"): 5, resets("client"): -5}


# One true account for each ending, and for each effect that has a name.

FIN_CLIENT = {"TcpActiveOpens": 10, "TcpExtTW": 10}
SERVER_FIN = stack(
    Side.SERVER,
    counters={"TcpPassiveOpens": 10, "TcpExtTW": 10},
    server=taken(10, "active_close"),
    time_wait_end=10,
)
PASSIVE_CLIENT = stack(Side.CLIENT, counters={"TcpActiveOpens": 10}, fleet=of(10, "passive_close"))
RESET_CLIENT = stack(Side.CLIENT, counters={"TcpActiveOpens": 10}, fleet=of(10, "reset_by_peer"))
FAILED_CLIENT = stack(
    Side.CLIENT,
    counters={"TcpActiveOpens": 10},
    fleet=of(10, "reset_by_peer", ok=0, errors={"read:ECONNRESET:reset_by_peer": 10}),
)

BALANCED = {
    "server-fin": account("server-fin", PASSIVE_CLIENT, SERVER_FIN),
    "server-half-close": account("server-half-close", PASSIVE_CLIENT, SERVER_FIN),
    "server-idle": account("server-idle", PASSIVE_CLIENT, SERVER_FIN),
    "client-half-close": account(
        "client-half-close",
        stack(Side.CLIENT, counters=FIN_CLIENT, fleet=of(10, "active_close"), time_wait_end=10),
        stack(Side.SERVER, counters={"TcpPassiveOpens": 10}, server=taken(10, "passive_close")),
    ),
    "client-rst": account(
        "client-rst",
        stack(
            Side.CLIENT,
            counters={"TcpActiveOpens": 10, "TcpOutRsts": 10, ON_DATA: 10},
            fleet=of(10, "active_reset"),
        ),
        stack(Side.SERVER, counters={"TcpPassiveOpens": 10}, server=taken(10, "reset_by_peer")),
    ),
    "server-rst": account(
        "server-rst",
        stack(
            Side.CLIENT,
            counters={"TcpActiveOpens": 10},
            fleet=of(
                10, "reset_by_peer", connection_errors={"close:ECONNRESET:reset_at_close": 10}
            ),
        ),
        stack(
            Side.SERVER,
            counters={"TcpPassiveOpens": 10, "TcpOutRsts": 10, ON_DATA: 10},
            server=taken(10, "active_reset"),
        ),
    ),
    **{
        ending: account(
            ending,
            FAILED_CLIENT,
            stack(
                Side.SERVER,
                counters={"TcpPassiveOpens": 10, "TcpOutRsts": 10, ON_CLOSE: 10},
                server=taken(10, "active_reset"),
            ),
        )
        for ending in ("server-unread", "crash")
    },
    "simultaneous": account(
        "simultaneous",
        stack(Side.CLIENT, counters=FIN_CLIENT, fleet=of(10, "active_close"), time_wait_end=10),
        SERVER_FIN,
    ),
    "on one stack": account(
        "client-fin",
        stack(
            Side.CLIENT,
            Side.SERVER,
            counters={"TcpActiveOpens": 10, "TcpPassiveOpens": 10, "TcpExtTW": 10},
            fleet=of(10, "active_close"),
            server=taken(10, "passive_close"),
            time_wait_end=10,
        ),
    ),
}


@pytest.mark.parametrize("run", BALANCED.values(), ids=BALANCED)
def test_account_of_an_ending_without_any_effect_balances_without_any_term(run: Account) -> None:
    assert residuals(run) == {}
    assert terms(run) == {}


def test_every_ending_has_its_account() -> None:
    named = {run.ending.name for run in BALANCED.values()} | {CLIENT_FIN.ending.name}
    assert named == set(ENDINGS)


@pytest.mark.parametrize(
    ("told_by", "ending"),
    [
        ("client.fleet.errors.read:ECONNRESET:reset_by_peer", "client-rst"),
        ("client.fleet.errors.read:SHORT:truncated_answer", "server-fin"),
        ("client.fleet.errors.read:PROTOCOL:malformed_answer", "server-idle"),
        ("client.fleet.connection_errors.idle:ECONNRESET:reset_while_idle", "server-fin"),
        ("client.fleet.errors.write:EFAULT:unknown", "server-unread"),
    ],
)
def test_error_that_an_ending_does_not_bring_about_shows(told_by: str, ending: str) -> None:
    shown = residuals(falsified(BALANCED[ending], told_by, 2))
    assert shown[f"{ending}: errors that this ending does not bring about"] == 2


@pytest.mark.parametrize(
    "key",
    [
        "connect:ETIMEDOUT:syn_unanswered",
        "bind:EADDRINUSE:ports_exhausted",
        "read:TIMEOUT:request_timeout",
        "read:CANCELLED:run_ended",
        "read:STATUS:http_error",
        "write:EPIPE:keepalive_race",
    ],
)
def test_error_that_any_run_may_meet_is_no_fault_of_the_ending(key: str) -> None:
    shown = residuals(falsified(CLIENT_FIN, f"client.fleet.errors.{key}", 2))
    assert FOREIGN not in shown


def test_pooled_connection_closed_by_the_server_is_no_error_of_the_ending() -> None:
    key = "client.fleet.connection_errors.idle:EOF:closed_while_idle"
    assert residuals(falsified(CLIENT_FIN, key, 2)) == {}


# effect: the account, the identity, its terms, and a figure without which it does not balance
EFFECTS: dict[str, tuple[Account, str, dict[str, int], str]] = {
    "nobody accepted them": (
        account(
            "client-fin",
            stack(Side.CLIENT, counters=FIN_CLIENT, fleet=of(10, "active_close"), time_wait_end=10),
            stack(
                Side.SERVER,
                counters={"TcpPassiveOpens": 10},
                server=taken(7, "passive_close"),
                accept_queue_end=3,
            ),
        ),
        ACCEPTED,
        {"left in the accept queue": 3},
        "server.accept_queue_end",
    ),
    "unread data turned closes into resets": (
        account(
            "client-fin",
            stack(
                Side.CLIENT,
                counters={
                    "TcpActiveOpens": 10,
                    "TcpExtTW": 6,
                    "TcpOutRsts": 4,
                    ON_CLOSE: 3,
                    ON_DATA: 1,
                },
                fleet=of(10, "active_close"),
                time_wait_end=6,
            ),
            stack(Side.SERVER, counters={"TcpPassiveOpens": 10}, server=taken(10, "passive_close")),
        ),
        entries("client"),
        {"closes that became resets": -4},
        f"client.counters.{ON_CLOSE}",
    ),
    "the buckets were full": (
        account(
            "client-fin",
            stack(
                Side.CLIENT,
                counters={
                    "TcpActiveOpens": 10,
                    "TcpExtTW": 8,
                    "TcpExtTCPTimeWaitOverflow": 2,
                },
                fleet=of(10, "active_close"),
                time_wait_end=8,
            ),
            stack(Side.SERVER, counters={"TcpPassiveOpens": 10}, server=taken(10, "passive_close")),
        ),
        entries("client"),
        {"TCPTimeWaitOverflow": -2},
        "client.counters.TcpExtTCPTimeWaitOverflow",
    ),
    "requests met connections that the server had closed": (
        account(
            "server-idle",
            stack(
                Side.CLIENT,
                counters={"TcpActiveOpens": 10},
                fleet=of(
                    10,
                    "passive_close",
                    attempted=13,
                    ok=10,
                    errors={"read:ECONNRESET:keepalive_race": 2, "read:EOF:keepalive_race": 1},
                ),
            ),
            stack(
                Side.SERVER,
                counters={"TcpPassiveOpens": 10, "TcpExtTW": 10, "TcpOutRsts": 3},
                server=taken(10, "active_close"),
                time_wait_end=7,
            ),
        ),
        resets("server"),
        {"requests that met FIN WAIT 2": 3},
        "server.counters.TcpOutRsts",
    ),
    "the same, where a full socket was met": (
        account(
            "server-idle",
            stack(
                Side.CLIENT,
                counters={"TcpActiveOpens": 10},
                fleet=of(10, "passive_close", ok=7, errors={"read:ECONNRESET:keepalive_race": 3}),
            ),
            stack(
                Side.SERVER,
                counters={"TcpPassiveOpens": 10, "TcpExtTW": 8, "TcpOutRsts": 3, ON_DATA: 2},
                server=taken(10, "active_close"),
                time_wait_end=7,
            ),
        ),
        resets("server"),
        {"closes that became resets": 2, "requests that met FIN WAIT 2": 1},
        "server.counters.TcpOutRsts",
    ),
    "the FIN after such a request met no socket either": (
        account(
            "server-idle",
            stack(
                Side.CLIENT,
                counters={"TcpActiveOpens": 10},
                fleet=of(10, "passive_close", ok=7, errors={"read:EOF:keepalive_race": 3}),
            ),
            stack(
                Side.SERVER,
                counters={"TcpPassiveOpens": 10, "TcpExtTW": 8, "TcpOutRsts": 5, ON_DATA: 2},
                server=taken(10, "active_close"),
                time_wait_end=8,
            ),
        ),
        resets("server"),
        {"closes that became resets": 2, "FINs that met no socket": 3},
        "client.fleet.errors.read:EOF:keepalive_race",
    ),
    "TIME_WAIT was recycled for new connects": (
        account(
            "client-fin",
            stack(
                Side.CLIENT,
                counters={**FIN_CLIENT, "TcpExtTWRecycled": 4},
                fleet=of(10, "active_close"),
                time_wait_end=6,
            ),
            stack(Side.SERVER, counters={"TcpPassiveOpens": 10}, server=taken(10, "passive_close")),
        ),
        at_the_end("client"),
        {"TWRecycled": -4},
        "client.counters.TcpExtTWRecycled",
    ),
    "SYNs ended TIME_WAITs of the server": (
        account(
            "server-fin",
            PASSIVE_CLIENT,
            stack(
                Side.SERVER,
                counters={"TcpPassiveOpens": 10, "TcpExtTW": 10},
                server=taken(10, "active_close", reopened=4),
                time_wait_end=6,
            ),
        ),
        at_the_end("server"),
        {"reopened by a SYN": -4},
        "server.server.reopened",
    ),
    "some of them had been resets": (
        account(
            "server-fin",
            PASSIVE_CLIENT,
            stack(
                Side.SERVER,
                counters={"TcpPassiveOpens": 10, "TcpExtTW": 8, "TcpOutRsts": 2, ON_CLOSE: 2},
                server=taken(10, "active_close", reopened=4),
                time_wait_end=6,
            ),
        ),
        at_the_end("server"),
        {"reopened by a SYN": -4, "of these had no TIME WAIT": 2},
        f"server.counters.{ON_CLOSE}",
    ),
    "the first TIME_WAITs expired": (
        account(
            "client-fin",
            stack(
                Side.CLIENT,
                counters=FIN_CLIENT,
                fleet=of(10, "active_close"),
                history=((0.0, 0), (1.0, 4), (30.0, 7), (31.0, 10), (90.0, 10)),
                time_wait_end=4,
            ),
            stack(Side.SERVER, counters={"TcpPassiveOpens": 10}, server=taken(10, "passive_close")),
        ),
        at_the_end("client"),
        {"expired": -6},
        "",
    ),
    "the server's idle time ran out before the client closed": (
        account(
            "client-fin",
            stack(
                Side.CLIENT,
                counters={"TcpActiveOpens": 10, "TcpExtTW": 7},
                fleet=of(10, "active_close", departures={"active_close": 7, "passive_close": 3}),
                time_wait_end=7,
            ),
            stack(
                Side.SERVER,
                counters={"TcpPassiveOpens": 10, "TcpExtTW": 3},
                server=taken(
                    10,
                    "",
                    departures={"active_close": 3, "passive_close": 7},
                    closed_early=3,
                ),
                time_wait_end=3,
            ),
        ),
        "client-fin: the server closes none first",
        {"idle or late or at the end of the run": 3},
        "server.server.closed_early",
    ),
}


@pytest.mark.parametrize(
    ("run", "name", "named", "told_by"),
    EFFECTS.values(),
    ids=[e.replace(" ", "-") for e in EFFECTS],
)
def test_effect_is_named_and_needs_what_tells_of_it(
    run: Account, name: str, named: dict[str, int], told_by: str
) -> None:
    assert residuals(run) == {}
    assert terms(run)[name] == named
    if told_by:
        assert residuals(falsified(run, told_by, -1))


# 10 entries by 1 s, 20 by 30 s, none later; the last tick is at 90 s: what came in by 27.9 s has
# expired for sure, what came in by the first tick after 30 s may have.
@pytest.mark.parametrize(
    ("left", "residual"),
    [(21, 11), (20, 10), (11, 1), (10, 0), (5, 0), (0, 0)],
)
def test_expiry_explains_no_less_than_what_must_and_no_more_than_what_may_be_gone(
    left: int, residual: int
) -> None:
    client = stack(
        Side.CLIENT,
        counters={"TcpActiveOpens": 20, "TcpExtTW": 20},
        fleet=of(20, "active_close"),
        history=((0.0, 0), (1.0, 10), (30.0, 20), (31.0, 20), (90.0, 20)),
        time_wait_end=left,
    )
    server = stack(Side.SERVER, counters={"TcpPassiveOpens": 20}, server=taken(20, "passive_close"))
    shown = residuals(account("client-fin", client, server))
    assert shown.get(at_the_end("client"), 0) == residual


@pytest.mark.parametrize(("left", "residual"), [(10, 0), (8, 0), (7, -1)])
def test_late_reopening_may_or_may_not_have_ended_a_time_wait(left: int, residual: int) -> None:
    server = stack(
        Side.SERVER,
        counters={"TcpPassiveOpens": 10, "TcpExtTW": 10},
        server=taken(10, "active_close", reopened_perhaps=2),
        time_wait_end=left,
    )
    shown = residuals(account("server-fin", PASSIVE_CLIENT, server))
    assert shown.get(at_the_end("server"), 0) == residual


@pytest.mark.parametrize(("left", "residual"), [(7, 1), (6, 0), (4, 0), (3, -1)])
def test_no_more_reopenings_are_put_down_to_resets_than_there_were_resets(
    left: int, residual: int
) -> None:
    run, name, _, _ = EFFECTS["some of them had been resets"]
    shown = residuals(falsified(run, "server.time_wait_end", left - 6) if left != 6 else run)
    assert shown.get(name, 0) == residual


def test_several_client_hosts_are_each_held_to_their_own_counters() -> None:
    one, server = BALANCED["server-fin"].stacks
    hosts = [dataclasses.replace(copy.deepcopy(one), name=f"client-{n}") for n in (1, 2)]
    taken_twice = dataclasses.replace(
        server,
        counters={"TcpPassiveOpens": 20, "TcpExtTW": 20},
        server=ServerReport(**counted(taken(20, "active_close"))),
        time_wait_end=20,
    )
    run = account("server-fin", *hosts, taken_twice)
    assert residuals(run) == {}
    assert residuals(falsified(run, "client-2.counters.TcpActiveOpens", 1)) == {
        "client-2: TcpActiveOpens = connects whose SYN left": 1
    }


# the machine itself as link


def test_shared_counters_promise_nothing_and_still_show_their_residuals() -> None:
    shared = dataclasses.replace(falsified(CLIENT_FIN, "client.fleet.ok", -1), promised=False)
    result = audit(shared)
    assert residuals(shared) == {ATTEMPTED: 1}
    assert result.balanced
    assert (result.as_json()["balanced"], result.as_json()["promised"]) == (True, False)


def test_identity_gives_both_figures_the_difference_and_its_terms_in_words() -> None:
    identity = Identity(name="a = b", left=7, right=6, terms={"late": 2, "lost": -3})
    assert identity.as_json() == {
        "name": "a = b",
        "left": 7,
        "right": 6,
        "residual": 1,
        "explained": "+2 late; -3 lost",
    }


def test_audit_in_json_has_each_identity() -> None:
    result = audit(CLIENT_FIN)
    assert result.as_json() == {
        "balanced": True,
        "promised": True,
        "identities": [identity.as_json() for identity in result.identities],
    }


# over a wire

LATE = "server: TcpOutRsts = active resets"
KILLED = "client: sockstat tw at the end = entries - expired"


def over_a_wire(resets: int, told: int, left: int = 10) -> Account:
    """Return ten crossing closes after which so many late packets were answered with RST."""
    client = stack(
        Side.CLIENT,
        counters=FIN_CLIENT,
        fleet=of(10, "active_close"),
        time_wait_end=left,
        bare_resets_met=told,
    )
    counters = {**SERVER_FIN.counters, "TcpOutRsts": resets}
    server = dataclasses.replace(SERVER_FIN, counters=counters, bare_resets=told)
    return account("simultaneous", client, server)


def test_resets_that_the_wire_saw_are_explained_and_so_are_the_time_wait_they_ended() -> None:
    run = over_a_wire(resets=4, told=4, left=7)
    assert residuals(run) == {}
    assert terms(run) == {
        LATE: {"packets that met no socket": 4},
        KILLED: {"ended by a RST": -3},
    }
    [killed] = [each for each in audit(run).identities if each.name == KILLED]
    assert killed.explained == "-3 ended by a RST (at most 4)"


def test_resets_beyond_those_that_the_wire_saw_are_not_explained_away() -> None:
    assert residuals(over_a_wire(resets=4, told=3)) == {LATE: 1}
    assert residuals(over_a_wire(resets=3, told=3, left=6)) == {KILLED: -1}


def retransmitting(times: int) -> Account:
    """Return ten closes by a busy server; its FIN, sent again, met no socket three times."""
    counters = {"TcpPassiveOpens": 10, "TcpExtTW": 10, "TcpRetransSegs": times}
    return account(
        "server-fin",
        stack(
            Side.CLIENT,
            counters={"TcpActiveOpens": 10, "TcpOutRsts": 3},
            fleet=of(10, "passive_close"),
        ),
        stack(Side.SERVER, counters=counters, server=taken(10, "active_close"), time_wait_end=7),
    )


def test_retransmissions_of_a_busy_machine_explain_resets_as_far_as_the_kernel_counts_them() -> (
    None
):
    assert residuals(retransmitting(3)) == {}
    assert terms(retransmitting(3)) == {
        resets("client"): {"packets that met no socket": 3},
        at_the_end("server"): {"ended by a RST": -3},
    }
    assert residuals(retransmitting(2)) == {resets("client"): 1, at_the_end("server"): -1}


def overtaking(resets: int, left: int) -> Account:
    """Return ten closes by the client, whose host then had `left` TIME_WAIT."""
    return account(
        "client-fin",
        stack(
            Side.CLIENT,
            counters={"TcpActiveOpens": 10, "TcpExtTW": 10},
            fleet=of(10, "active_close"),
            history=((0.0, 0), (1.0, 10), (2.0, 10)),
            waiting=(0, left, left),
            time_wait_end=left,
        ),
        stack(
            Side.SERVER,
            counters={"TcpPassiveOpens": 10, "TcpOutRsts": resets},
            server=taken(10, "passive_close"),
        ),
    )


def test_resets_to_overtaken_acks_are_those_that_both_kernels_tell_of() -> None:
    assert residuals(overtaking(resets=3, left=7)) == {}
    assert terms(overtaking(resets=3, left=7)) == {
        resets("server"): {"packets that met no socket": 3},
        at_the_end("client"): {"ended by a RST": -3},
    }
    assert residuals(overtaking(resets=3, left=10)) == {resets("server"): 3}
    assert residuals(overtaking(resets=0, left=7)) == {at_the_end("client"): -3}
    assert residuals(overtaking(resets=4, left=7)) == {resets("server"): 1}


def test_time_wait_that_expired_did_not_vanish() -> None:
    kept = stack(
        Side.CLIENT,
        counters={},
        history=((0.0, 0), (1.0, 10), (61.5, 10), (62.0, 12)),
        waiting=(0, 10, 3, 2),
    )
    assert kept.vanished == 0
    gone = dataclasses.replace(kept, waiting=(0, 8, 3, 2))
    assert gone.vanished == 2
