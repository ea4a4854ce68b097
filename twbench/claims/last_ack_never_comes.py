"""A side in LAST_ACK whose FIN is never acknowledged resets the connection at a limit.

Source: article 2, section 3, question 2; article 1, fourth occasion for RST; RFC 9293 section
3.8.3; tcp_write_timeout and tcp_orphan_retries.
Expected, from the article: LAST_ACK all the while, a limited number of FINs, and at last a RST.
Measured on Linux 6.18: 10 FINs, no RST, and the end after 107 s, a time that no article names.
Refuted by: a side that gives up in silence.
"""

import socket

from twbench.claims.claim import (
    Check,
    Claim,
    Expected,
    Finding,
    Findings,
    Judgement,
    Scene,
    weigh,
)
from twbench.claims.common import (
    LAST_ACK_LOST,
    copies,
    frames,
    into_last_ack,
    listed,
    play_until_gone,
    require_hits,
    rises,
    steady_exchange,
    timetable,
)
from twbench.claims.scenery import Scenery
from twbench.model.states import Side
from twbench.wire.endpoint import Endpoint
from twbench.wire.rules import Kind

_WITHIN_S = 135.0
_ALIVE = {"SO_KEEPALIVE": 1, "TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 1}


def _play(at: Scenery, *, closes: bool = True) -> Finding:
    """Bring the server into LAST_ACK and watch it until it is gone."""
    stage = at.stage
    before = stage.counters(Side.SERVER)
    server = into_last_ack(stage, Endpoint.close if closes else Endpoint.shutdown)
    require_hits(stage)
    first_fin = copies(stage, Side.SERVER, Kind.FIN)[0]
    gone_s = play_until_gone(stage, Side.SERVER, since=first_fin, within_s=_WITHIN_S)
    stage.film.remark(first_fin, "the FIN whose acknowledgement the server waits for")
    stage.pause("the server knows the connection no more", for_s=1.0)
    return {
        **timetable(stage, Side.SERVER, Kind.FIN),
        "gone_s": gone_s,
        "states": list(stage.ladder("", "").states(Side.SERVER)),
        "application": [] if closes else [str(server.receive()), str(server.send(b"late"))],
        "server_counters": rises(before, stage.counters(Side.SERVER)),
    }


def _play_keep_alive(at: Scenery) -> Finding:
    """Let the server's keep-alive expire on a client that is not heard any more."""
    stage = at.stage
    _, server = steady_exchange(stage)
    for name, value in _ALIVE.items():
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        server.set(level, getattr(socket, name), value)
    stage.rules("drop client→server any")
    last = stage.film.segments(Side.SERVER)[-1][0]
    gone_s = play_until_gone(stage, Side.SERVER, since=last, within_s=_WITHIN_S)
    stage.play()
    require_hits(stage)
    resets = frames(stage, Side.SERVER, Kind.RST)
    for frame in resets:
        stage.film.remark(frame, "this RST is sent because the keep-alive probes ran out")
    return {"gone_s": gone_s, "resets": len(resets), "application": [str(server.receive())]}


def _judge(findings: Findings, expected: Expected) -> Judgement:
    default, three, held = (findings[name] for name in ("default", "three-retries", "held-open"))
    limits = (default, three, held)
    reset, acked = findings["keep-alive"], findings["ack-comes"]
    resets = sum(each["resets"] for each in limits)
    return weigh(
        f"{_told(default)} ({listed(default['sent_s'])} s); with tcp_orphan_retries=3"
        f" {_told(three)}; with the descriptor still open and tcp_retries2=3 {_told(held)}, and"
        f" there the application's send() gave {held['application'][-1]}",
        claimed=(
            Check(
                text=f"each of the three sides that gave up sent a RST: {resets} in all",
                holds=all(each["resets"] == expected["resets"] for each in limits),
            ),
            Check(
                text="each was in LAST_ACK all the while",
                holds=all(each["states"][-2:] == ["LAST_ACK", "CLOSED"] for each in limits),
            ),
            Check(
                text="it sent its FIN again a limited number of times:"
                f" {', '.join(str(len(each['sent_s']) - 1) for each in limits)}",
                holds=all(len(each["sent_s"]) - 1 >= expected["fins_again"] for each in limits),
            ),
        ),
        controls=(
            Check(
                text=f"fewer tcp_orphan_retries end it sooner: {three['gone_s']:.1f} s",
                holds=three["gone_s"] < default["gone_s"] * expected["sooner_share"],
            ),
            Check(
                text="an acknowledged FIN ends LAST_ACK without a time-out",
                holds=acked["server_counters"]["TcpExtTCPAbortOnTimeout"] == 0
                and all(each["server_counters"]["TcpExtTCPAbortOnTimeout"] == 1 for each in limits),
            ),
            Check(
                text=f"a RST would have been seen: keep-alive that gave up sent {reset['resets']}",
                holds=reset["resets"] == 1,
            ),
        ),
    )


def _told(finding: Finding) -> str:
    silence = "with a RST" if finding["resets"] else "in silence"
    return f"{len(finding['sent_s'])} FINs, given up after {finding['gone_s']:.1f} s {silence}"


CLAIM = Claim(
    id="last-ack-never-comes",
    sentence="a passive side that never gets the last ACK stays in LAST_ACK, sends its FIN again a"
    " limited number of times, and then resets the connection",
    sources=(
        "article 2, section 3, question 2",
        "article 1, fourth occasion for RST",
        "RFC 9293 section 3.8.3",
        "tcp_write_timeout, tcp_orphan_retries",
    ),
    expected={"resets": 1, "fins_again": 1, "sooner_share": 0.5},
    refuted_by="a side that gives up and sends no RST",
    scenes=(
        Scene(
            name="default",
            sentence="every ACK of the server's FIN is lost; its application has called close()",
            play=_play,
            needs_s=110,
            rules=(LAST_ACK_LOST,),
        ),
        Scene(
            name="three-retries",
            sentence="the same with tcp_orphan_retries = 3",
            play=_play,
            needs_s=10,
            rules=(LAST_ACK_LOST,),
            server_sysctls={"net.ipv4.tcp_orphan_retries": "3"},
        ),
        Scene(
            name="held-open",
            sentence="the server called shutdown() and keeps its descriptor; tcp_retries2 = 3",
            play=lambda at: _play(at, closes=False),
            needs_s=10,
            rules=(LAST_ACK_LOST,),
            server_sysctls={"net.ipv4.tcp_retries2": "3"},
        ),
        Scene(
            name="keep-alive",
            sentence="the client is not heard any more, and the server's keep-alive gives up",
            play=_play_keep_alive,
            needs_s=6,
        ),
        Scene(
            name="ack-comes",
            sentence="the ACK of the server's FIN arrives",
            play=_play,
            needs_s=4,
        ),
    ),
    judge=_judge,
)
