"""TIME_WAIT lasts 2MSL, which Linux fixes at 60 s, and no sysctl shortens it.

Source: article 1, below the state diagram (2MSL is from 30 s to 4 minutes); article 2, section 3,
question 1 (60 s, fixed); TCP_TIMEWAIT_LEN in include/net/tcp.h, tcp_time_wait().
Expected: on either side, over IPv4 and IPv6, and whatever is set before or meanwhile, the kernel
sets its timer to 60 s; the timer wheel may fire late by an eighth (kernel/time/timer.c), never
early. What tcp_fin_timeout does shorten is FIN_WAIT_2.
Refuted by: a TIME_WAIT that is gone earlier, or stays longer.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from twbench.claims.common import EACH_FIN_ONCE, come_to
from twbench.claims.scenery import Scenery
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S, Side, TcpState
from twbench.trace.scripts import exchange
from twbench.wire.ladder import Crossing
from twbench.wire.packet import Flag

FIN_TIMEOUT = {"net.ipv4.tcp_fin_timeout": "5"}
NONE_ALLOWED = {"net.ipv4.tcp_max_tw_buckets": "0"}
OFTEN_TRIED = {
    **FIN_TIMEOUT,
    "net.ipv4.tcp_tw_recycle": "1",
    "net.ipv4.tcp_tw_reuse": "1",
    "net.ipv4.tcp_tw_reuse_delay": "1",
    "net.ipv4.tcp_max_tw_buckets": "1",
    "net.ipv4.tcp_timestamps": "0",
    "net.ipv4.tcp_keepalive_time": "1",
    "net.ipv4.tcp_keepalive_intvl": "1",
    "net.ipv4.tcp_keepalive_probes": "1",
    "net.ipv4.tcp_retries2": "8",
    "net.ipv4.tcp_orphan_retries": "3",
    "net.ipv4.tcp_rto_max_ms": "1000",
}
"""What people set against many TIME_WAITs; those that a kernel lacks are left out."""

PLAIN = ("client-holds", "server-holds", "ipv6")
SETTINGS = {
    "fin-timeout": "with tcp_fin_timeout = 5, and a FIN that came late",
    "settings-before": "with every sysctl that is often tried",
    "settings-meanwhile": "with the same sysctls, and tcp_max_tw_buckets = 0, set meanwhile",
}
_WATCHED_S = 100.0
_LOOK_EVERY_S = 0.2
_RUNG_EVERY_S = 15.0
_DOUBT_AT_MOST_S = 3.0
_FIN_LATE_BY_S = 1.0


def _close(at: Scenery, side: Side = Side.CLIENT, fin_late_by_s: float = 0.0) -> None:
    """Close in turn, `side` first; its FIN_WAIT_2 lasts a while where the other FIN is late."""
    client, server = exchange(at.stage)
    first, second = (client, server) if side is Side.CLIENT else (server, client)
    first.close()
    come_to(at.stage, side, TcpState.FIN_WAIT2, TcpState.CLOSE)
    if fin_late_by_s:
        at.stage.pause("FIN_WAIT_2, with the timer of tcp_fin_timeout", for_s=fin_late_by_s)
    second.receive()
    second.close()
    come_to(at.stage, second.side, TcpState.CLOSE)


def _hold(at: Scenery, side: Side = Side.CLIENT, fin_late_by_s: float = 0.0) -> Finding:
    _close(at, side, fin_late_by_s)
    return _watch(at, side)


def _settings_before(at: Scenery) -> Finding:
    settings = _set_all(at, OFTEN_TRIED)
    _close(at)
    return {"set": settings, **_watch(at)}


def _settings_meanwhile(at: Scenery) -> Finding:
    _close(at)
    settings: list[str] = []
    found = _watch(at, then=lambda: settings.extend(_set_all(at, OFTEN_TRIED | NONE_ALLOWED)))
    return {"set": settings, **found}


def _set_all(at: Scenery, wanted: Mapping[str, str]) -> list[str]:
    """Set those that this kernel has on the client's host, and return them as `name = value`."""
    there = at.lab.sysctls(Side.CLIENT, wanted)
    for name in there:
        at.lab.set_sysctl(Side.CLIENT, name, wanted[name])
    at.stage.pause(f"{len(there)} sysctls are set, tcp_fin_timeout = 5 among them")
    return [f"{name} = {wanted[name]}" for name in there]


def _fin_wait_2(at: Scenery) -> Finding:
    """Leave the client in FIN_WAIT_2: the server never closes."""
    client, _ = exchange(at.stage)
    client.close()
    come_to(at.stage, Side.CLIENT, TcpState.FIN_WAIT2)
    return _watch(at, state=TcpState.FIN_WAIT2)


def _none_allowed(at: Scenery) -> Finding:
    stage = at.stage
    _close(at)
    seen = "TIME_WAIT" in stage.ladder("", "").states(Side.CLIENT)
    fin = next(n for n, tcp in stage.film.segments(Side.SERVER) if Flag.FIN in tcp.flags)
    stage.film.remark(fin, "this FIN is followed by " + ("TIME_WAIT" if seen else "no TIME_WAIT"))
    return {
        "seen": seen,
        "TcpExtTCPTimeWaitOverflow": stage.counters(Side.CLIENT)["TcpExtTCPTimeWaitOverflow"],
    }


def _watch(
    at: Scenery,
    side: Side = Side.CLIENT,
    state: TcpState = TcpState.TIME_WAIT,
    then: Callable[[], None] = lambda: None,
) -> Finding:
    """Watch a state that a side has just entered until it is gone.

    Finds, each as [at least, at most], to what its timer was set and how long it lasted; None is
    the limit where it was still there in the end. `then` is done as soon as the timer is read.
    """
    stage, steps = at.stage, at.stage.film.steps
    number = next((n for n, s in enumerate(steps) if s.states[side].state is state), None)
    if number is None:
        raise SetUpError(f"the {side} never was in {state.name}")
    after_s, by_s = steps[number - 1].t_s, steps[number].t_s
    timer_s = stage.look()[side].expires_s
    timer = [timer_s, timer_s + stage.elapsed_s - after_s]
    then()
    seen_s = rung_s = by_s
    gone_s: float | None = None
    while gone_s is None and seen_s < by_s + _WATCHED_S:
        at.wait(_LOOK_EVERY_S)
        now_s = stage.elapsed_s
        if stage.state(side) is state:
            seen_s = now_s
        else:
            gone_s = stage.elapsed_s
        if seen_s > rung_s + _RUNG_EVERY_S:
            rung_s = seen_s
            stage.pause(f"{seen_s - by_s:.0f} s later")
    if any(Flag.RST in tcp.flags for end in Side for _, tcp in stage.film.segments(end)):
        raise SetUpError(f"a RST came, so {state.name} was not left alone")
    lasted = [seen_s - by_s, None if gone_s is None else gone_s - after_s]
    if lasted[1] is not None and lasted[1] - (seen_s - by_s) > _DOUBT_AT_MOST_S:
        raise SetUpError("looked too seldom to tell how long it lasted")
    found = {"timer_s": timer, "lasted_s": lasted}
    told = f"{state.name} lasted {_told([found])}"
    stage.pause(told)
    began = next(step for step in reversed(steps[: number + 1]) if isinstance(step, Crossing))
    stage.mark(began, f"here it begins: {told}")
    return found


def _fits(limits: Sequence[float | None], low_s: float, high_s: float) -> bool:
    """Return whether what is known to lie between `limits` can lie between these two."""
    at_least_s, at_most_s = (math.inf if limit is None else limit for limit in limits)
    return at_least_s <= high_s and low_s <= at_most_s


def _told(findings: Iterable[Finding], name: str = "lasted_s") -> str:
    """Return these times as text, each from the middle of its limits: "60.1 to 61.9 s"."""
    limits = [finding[name] for finding in findings]
    if any(at_most_s is None for _, at_most_s in limits):
        return f"{min(at_least_s for at_least_s, _ in limits):.1f} s or more"
    shown = sorted(sum(each) / 2 for each in limits)
    span = dict.fromkeys(f"{each:.1f}" for each in (shown[0], shown[-1]))
    return f"{' to '.join(span)} s"


def _judge(findings: Findings, expected: Expected) -> Judgement:
    lifetime_s, late = expected["lifetime_s"], 1 + expected["late_share"]
    plain = [findings[name] for name in PLAIN]
    every = [*plain, *(findings[name] for name in SETTINGS)]
    short, default = findings["fin-wait-2"], findings["fin-wait-2-by-default"]
    low_s, high_s, tick_s = expected["at_least_s"], expected["at_most_s"], expected["tick_s"]

    def lasted(finding: Finding, wanted_s: float) -> bool:
        return _fits(finding["lasted_s"], wanted_s - tick_s, wanted_s * late + tick_s)

    def was_set(finding: Finding) -> bool:
        return _fits(finding["timer_s"], lifetime_s - tick_s, lifetime_s + tick_s)

    settings = [
        Check(text=f"{what}: {_told([findings[name]])}", holds=lasted(findings[name], lifetime_s))
        for name, what in SETTINGS.items()
    ]
    changed = [check.text for check in settings if not check.holds]
    seen = findings["none-allowed"]["seen"]
    return weigh(
        f"{len(every)} TIME_WAITs lasted {_told(every)}, their timers set to"
        f" {_told(every, 'timer_s')}; {'; '.join(changed) or 'no sysctl changed that'}."
        f" FIN_WAIT_2 lasted {_told([short])} with tcp_fin_timeout = 5, {_told([default])} with its"
        f" default; with tcp_max_tw_buckets = 0 {'a' if seen else 'no'} TIME_WAIT was seen",
        claimed=(
            Check(
                text=f"on the client, on the server, over IPv6: {_told(plain)}",
                holds=all(lasted(finding, lifetime_s) for finding in plain),
            ),
            Check(
                text=f"the kernel set its timer to {_told(every, 'timer_s')}",
                holds=all(map(was_set, every)),
            ),
            *settings,
            Check(
                text=f"that is between {low_s:g} and {high_s:g} s",
                holds=all(_fits(each["lasted_s"], low_s, high_s) for each in every),
            ),
        ),
        controls=(
            Check(
                text=f"FIN_WAIT_2 with tcp_fin_timeout = 5: {_told([short])}",
                holds=lasted(short, expected["fin_timeout_s"]),
            ),
            Check(
                text=f"FIN_WAIT_2 with the default of it: {_told([default])}",
                holds=lasted(default, expected["default_fin_timeout_s"]),
            ),
            Check(
                text="with tcp_max_tw_buckets = 0 no TIME_WAIT is seen: the looks can tell",
                holds=not seen,
            ),
        ),
    )


_scene = partial(Scene, rules=EACH_FIN_ONCE, needs_s=TIME_WAIT_S + 2 * TIME_WAIT_SLACK_S)

CLAIM = Claim(
    id="time-wait-lasts-60-s",
    sentence="TIME_WAIT lasts 2MSL, which is between 30 s and 4 minutes, and on Linux a fixed 60 s"
    " that no sysctl shortens",
    sources=(
        "article 1, below the state diagram: 2MSL is more than 30 s and less than 4 minutes",
        "article 2, section 3, question 1: 60 s on Linux, fixed",
        "TCP_TIMEWAIT_LEN in include/net/tcp.h; tcp_time_wait() in net/ipv4/tcp_minisocks.c",
        "RFC 9293 section 3.4.2: MSL is 2 minutes",
    ),
    expected={
        "lifetime_s": 60,
        "late_share": 0.125,
        "tick_s": 0.01,
        "at_least_s": 30,
        "at_most_s": 240,
        "fin_timeout_s": 5,
        "default_fin_timeout_s": 60,
    },
    refuted_by="a TIME_WAIT, left alone, that is gone before 60 s, or stays for more than an eighth"
    " longer (the coarsest that the timer wheel is)",
    scenes=(
        _scene(
            name="client-holds",
            sentence="the client closes first; its TIME_WAIT is watched until it is gone",
            play=_hold,
        ),
        _scene(
            name="server-holds",
            sentence="the server closes first; its TIME_WAIT is watched until it is gone",
            play=lambda at: _hold(at, Side.SERVER),
        ),
        _scene(
            name="ipv6",
            sentence="the client's TIME_WAIT, over IPv6",
            play=_hold,
            family=6,
        ),
        _scene(
            name="fin-timeout",
            sentence="tcp_fin_timeout = 5, and the server's FIN comes a second late",
            play=lambda at: _hold(at, fin_late_by_s=_FIN_LATE_BY_S),
            client_sysctls=FIN_TIMEOUT,
        ),
        _scene(
            name="settings-before",
            sentence="every sysctl that is often tried is set before the connection is opened",
            play=_settings_before,
        ),
        _scene(
            name="settings-meanwhile",
            sentence="the same sysctls, and tcp_max_tw_buckets = 0, are set in TIME_WAIT",
            play=_settings_meanwhile,
        ),
        _scene(
            name="fin-wait-2",
            sentence="tcp_fin_timeout = 5, and the server never closes: FIN_WAIT_2 is watched",
            play=_fin_wait_2,
            needs_s=6,
            client_sysctls=FIN_TIMEOUT,
        ),
        _scene(
            name="fin-wait-2-by-default",
            sentence="the server never closes, and tcp_fin_timeout is as the kernel has it",
            play=_fin_wait_2,
        ),
        _scene(
            name="none-allowed",
            sentence="tcp_max_tw_buckets = 0: no TIME_WAIT comes about",
            play=_none_allowed,
            needs_s=1,
            client_sysctls=NONE_ALLOWED,
        ),
    ),
    judge=_judge,
)
