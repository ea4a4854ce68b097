"""The active closer takes one path through the states, the passive one another.

Active: FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT, CLOSED. Passive: CLOSE_WAIT, LAST_ACK, CLOSED.
Source: article 1, text diagram; article 2, steps 1 to 7; RFC 9293 section 3.6, figure 12.
Expected: exactly these states, in this order, on both hosts, whichever side closes first; none of
them where a RST ends the connection.
Refuted by: a state that is missing, or another one between.
"""

from twbench.claims.claim import Check, Claim, Expected, Finding, Findings, Judgement, Scene, weigh
from twbench.claims.common import EACH_FIN_ONCE, close_each, come_to, frames, wait_to
from twbench.claims.scenery import Scenery
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S, Side, TcpState
from twbench.trace.scripts import exchange
from twbench.wire.rules import Kind
from twbench.wire.stage import Stage

ACTIVE = ["ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT", "CLOSED"]
PASSIVE = ["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"]


def _play(at: Scenery, first: Side) -> Finding:
    stage = at.stage
    ends = dict(zip(Side, exchange(stage), strict=True))
    close_each(stage, ends[first], ends[first.other])
    for side, kind, text in (
        (first, Kind.FIN, f"the {first} closes first, with this FIN"),
        (first.other, Kind.FIN, f"the {first.other} closes, too: TIME_WAIT on the {first}"),
        (first, Kind.ACK, f"the last ACK: the {first.other} is CLOSED"),
    ):
        stage.film.remark(frames(stage, side, kind)[-1], text)
    wait_to(
        stage,
        lambda: stage.state(first) is TcpState.CLOSE,
        "the 2MSL timer to run out",
        TIME_WAIT_S + 2 * TIME_WAIT_SLACK_S,
    )
    stage.pause("the 2MSL timer has run out")
    return _paths(stage)


def _play_reset(at: Scenery) -> Finding:
    stage = at.stage
    client, server = exchange(stage)
    client.reset()
    come_to(stage, Side.SERVER, TcpState.CLOSE)
    stage.film.remark(frames(stage, Side.CLIENT, Kind.RST)[-1], "this RST ends it, no FIN does")
    server.receive()
    server.close()
    stage.pause("both ends are closed")
    return _paths(stage)


def _paths(stage: Stage) -> Finding:
    ladder = stage.ladder("", "")
    return {str(side): _from_established(ladder.states(side)) for side in Side}


def _from_established(states: tuple[str, ...]) -> list[str]:
    return list(states[states.index("ESTABLISHED") :]) if "ESTABLISHED" in states else []


def _judge(findings: Findings, expected: Expected) -> Judgement:
    normal, mirrored = findings["client-closes-first"], findings["server-closes-first"]
    reset = findings["reset"]

    def active(path: list[str]) -> bool:
        return path == ACTIVE and _between(path) == expected["states_of_the_active"]

    def passive(path: list[str]) -> bool:
        return path == PASSIVE and _between(path) == expected["states_of_the_passive"]

    swapped = active(mirrored["server"]) and passive(mirrored["client"])
    return weigh(
        f"closing first, the client went {_told(normal['client'])}, the server"
        f" {_told(normal['server'])}; closing first, the server went {_told(mirrored['server'])},"
        f" the client {_told(mirrored['client'])}. With a RST the client went"
        f" {_told(reset['client'])}, the server {_told(reset['server'])}",
        claimed=(
            Check(
                text=f"the client, closing first, took the active path, with"
                f" {_between(normal['client'])} states between ESTABLISHED and CLOSED",
                holds=active(normal["client"]),
            ),
            Check(
                text=f"the server took the passive path, with {_between(normal['server'])} states"
                " between",
                holds=passive(normal["server"]),
            ),
            Check(text="with the server first, the paths are swapped", holds=swapped),
        ),
        controls=(
            Check(
                text="ended by a RST, both sides went from ESTABLISHED to CLOSED at once",
                holds=all(
                    path[:1] == ACTIVE[:1] and _between(path) == expected["states_after_a_reset"]
                    for path in reset.values()
                ),
            ),
        ),
    )


def _between(path: list[str]) -> int:
    """Return how many states lie between ESTABLISHED and CLOSED."""
    return len(path) - 2


def _told(path: list[str]) -> str:
    return " → ".join(path) or "nowhere"


CLAIM = Claim(
    id="closing-states",
    sentence="the side that closes first goes through FIN_WAIT_1, FIN_WAIT_2 and TIME_WAIT to"
    " CLOSED, the other through CLOSE_WAIT and LAST_ACK",
    sources=(
        "article 1, text diagram of the states",
        "article 2, section 2, steps 1 to 7",
        "RFC 9293 section 3.6, figure 12",
    ),
    expected={"states_of_the_active": 3, "states_of_the_passive": 2, "states_after_a_reset": 0},
    refuted_by="a state that is missing on either side, or another one between",
    scenes=(
        Scene(
            name="client-closes-first",
            sentence="one exchange, then the client closes first; TIME_WAIT is waited out",
            play=lambda at: _play(at, Side.CLIENT),
            needs_s=64,
            rules=EACH_FIN_ONCE,
        ),
        Scene(
            name="server-closes-first",
            sentence="the same, and the server closes first",
            play=lambda at: _play(at, Side.SERVER),
            needs_s=64,
            rules=EACH_FIN_ONCE,
        ),
        Scene(
            name="reset",
            sentence="control: one exchange, then the client ends the connection by RST",
            play=_play_reset,
            needs_s=1,
        ),
    ),
    judge=_judge,
)
