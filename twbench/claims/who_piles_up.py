"""Crawlers pile TIME_WAIT up on the client, web servers that close first on the server.

Source: article 1, introduction and the question after the states: the active closer keeps it.
Expected: rate x lifetime of them, so 100/s x 60 s = 6,000 (and up to TIME_WAIT_SLACK_S longer, the
rounding of the timer), reached after a minute and held while the load lasts, on the host that
closes first, and next to none on the other; within 5 %. Over kept connections: next to none.
Refuted by: a pile on the other host, one that goes on growing, or one of another size.
"""

from functools import partial

from twbench.claims.claim import (
    Check,
    Claim,
    Expected,
    Finding,
    Findings,
    Judgement,
    Scene,
    SetUpError,
    weigh,
)
from twbench.claims.common import close_each
from twbench.claims.fleet import run_scenario
from twbench.claims.scenery import Scenery
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S, Side, TcpState
from twbench.trace.scripts import exchange

RATE_PER_S = 100
LOAD_S = 75
STEADY_FROM_S = TIME_WAIT_S + TIME_WAIT_SLACK_S + 1
"""The oldest TIME_WAIT, rounding included, ends before this."""
POOL = 10
_RATE_SLIP = 0.02
_SCENARIO = """\
name = "{name}"
[ending]
kind = "{ending}"
[load]
mode = "open"
rate_per_s = {rate}
duration_s = {load_s}
[sampling]
ticks_per_s = 2
looks_per_s = 0
[lab.client]
addresses = {addresses}
"""
USERS = 100
"""Addresses of the web server's clients. One client alone soon comes back with a port that it had
before, and its SYN reopens the server's TIME_WAIT."""
_KEPT = f"""\
[client.pool]
size = {POOL}
"""


def _play_fleet(at: Scenery, name: str, ending: str, *, users: int, kept: bool) -> Finding:
    scenario = _SCENARIO.format(
        name=name, ending=ending, rate=RATE_PER_S, load_s=LOAD_S, addresses=users
    )
    run = run_scenario(at, scenario + (_KEPT if kept else ""), takes_s=LOAD_S)
    summary = run.summary or {}
    wanted, answered = RATE_PER_S * LOAD_S, summary["outcomes"]["ok"]
    if abs(answered / wanted - 1) > _RATE_SLIP:
        raise SetUpError(f"{answered} of {wanted} requests were answered")
    if not summary["audit"]["balanced"]:
        raise SetUpError("the run's audit does not balance: its counts cannot be trusted")
    return {
        "requests": answered,
        "reopened": summary["outcomes"]["reopened"],
        "connections_per_s": summary["rates"]["connections_per_s"],
        **{
            str(side): _pile(
                [
                    (sample["t_s"], sample["sockstat"]["tw"])
                    for sample in run.samples
                    if sample["stack"] == side
                ]
            )
            for side in Side
        },
    }


def _pile(waiting: list[tuple[float, int]]) -> Finding:
    """Return how many TIME_WAITs there were half-way up, and the least and most once steady."""
    steady = [count for t_s, count in waiting if STEADY_FROM_S <= t_s <= LOAD_S]
    if not steady:
        raise SetUpError("no sample of the steady time")
    half_s, half = min(waiting, key=lambda sample: abs(sample[0] - 30))
    return {
        "half_way": half,
        "half_way_s": half_s,
        "steady_least": min(steady),
        "steady_most": max(steady),
    }


def _play_page(at: Scenery, first: Side) -> Finding:
    stage = at.stage
    client, server = exchange(stage)
    ends = (client, server) if first is Side.CLIENT else (server, client)
    close_each(stage, *ends)
    fins = [each for each in stage.ladder("", "").crossings if "FIN" in each.segment.label]
    stage.mark(fins[0], f"the first FIN is the {first}'s: the {first} is left with TIME_WAIT")
    return {str(side): stage.state(side).name for side in Side}


def _judge(findings: Findings, expected: Expected) -> Judgement:
    crawler, web, kept = (findings[name] for name in ("crawler", "web-server", "kept-connections"))
    least = expected["rate_per_s"] * expected["lifetime_s"]
    most = expected["rate_per_s"] * (expected["lifetime_s"] + expected["rounding_s"])
    share = expected["tolerance_share"]

    def piled(who: str, there: Finding, other: Finding) -> Check:
        low, high = there["steady_least"], there["steady_most"]
        return Check(
            text=f"{who}: {there['half_way']:,} after {there['half_way_s']:.0f} s, and from"
            f" {STEADY_FROM_S:.0f} s on {low:,} to {high:,} ({least:,.0f} to {most:,.0f} ±"
            f" {share:.0%} expected); {other['steady_most']:,} on the other host",
            holds=least * (1 - share) <= low
            and high <= most * (1 + share)
            and other["steady_most"] <= expected["other_most"],
        )

    kept_most = max(kept[side]["steady_most"] for side in Side)
    return weigh(
        f"at {RATE_PER_S} connections/s, from {STEADY_FROM_S:.0f} s on, crawlers that close first"
        f" left {_held(crawler)}, and web servers that close first {_held(web)}; with kept"
        f" connections there were at most {kept_most} on either",
        claimed=(
            piled("a crawler that closes each connection", crawler["client"], crawler["server"]),
            piled("a web server that closes each connection", web["server"], web["client"]),
            Check(
                text="one page on the wire shows why: who sends the first FIN keeps TIME_WAIT",
                holds=findings["one-page-client-first"] == _LEFT[Side.CLIENT]
                and findings["one-page-server-first"] == _LEFT[Side.SERVER],
            ),
        ),
        controls=(
            Check(
                text=f"{kept['requests']:,} requests over {POOL} kept connections:"
                f" {kept_most} TIME_WAITs",
                holds=kept_most <= expected["kept_most"],
            ),
        ),
    )


def _held(fleet: Finding) -> str:
    """Return how many TIME_WAITs either host held once steady."""
    spans = (
        dict.fromkeys(f"{fleet[side][each]:,}" for each in ("steady_least", "steady_most"))
        for side in Side
    )
    client, server = map(" to ".join, spans)
    return f"{client} TIME_WAITs on the client and {server} on the server"


_LEFT = {
    first: {str(first): TcpState.TIME_WAIT.name, str(first.other): TcpState.CLOSE.name}
    for first in Side
}


def _fleet(name: str, ending: str, sentence: str, *, users: int = 1, kept: bool = False) -> Scene:
    return Scene(
        name=name,
        sentence=f"{RATE_PER_S} requests/s for {LOAD_S} s: {sentence}",
        play=partial(_play_fleet, name=name, ending=ending, users=users, kept=kept),
        needs_s=LOAD_S + 5,
        link=None,
    )


CLAIM = Claim(
    id="who-piles-up",
    sentence="crawlers, which close first, pile TIME_WAIT up on the client, and web servers that"
    " close first pile it up on the server",
    sources=(
        "article 1, introduction, and the question after the states",
        "article 2, section 4, first sentence",
        "RFC 9293 section 3.3.2 (TIME-WAIT); Linux: tcp_time_wait(), TCP_TIMEWAIT_LEN",
    ),
    expected={
        "rate_per_s": RATE_PER_S,
        "lifetime_s": TIME_WAIT_S,
        "rounding_s": TIME_WAIT_SLACK_S,
        "tolerance_share": 0.05,
        "other_most": 10,
        "kept_most": POOL,
    },
    refuted_by="a pile on the other host, one that goes on growing after a minute, or another size",
    scenes=(
        _fleet("crawler", "client-fin", "a connection for each, which the client closes first"),
        _fleet(
            "web-server",
            "server-fin",
            f"a connection for each, of clients with {USERS} addresses; the server closes first",
            users=USERS,
        ),
        _fleet(
            "kept-connections", "client-fin", f"all of them over {POOL} kept connections", kept=True
        ),
        *(
            Scene(
                name=f"one-page-{side}-first",
                sentence=f"one request and its answer, then the {side} closes first",
                play=partial(_play_page, first=side),
                needs_s=1,
            )
            for side in Side
        ),
    ),
    judge=_judge,
)
