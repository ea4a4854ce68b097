"""The active closer takes one path through the states, the passive one another.

Active: FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT, CLOSED. Passive: CLOSE_WAIT, LAST_ACK, CLOSED.
Source: article 1, text diagram; article 2, steps 1 to 7; RFC 9293 section 3.6, figure 12.
Expected: exactly these states, in this order, on both hosts, whichever side closes first.
Refuted by: a state that is missing, or another one between.
"""

from twbench.claims.claim import Check, Claim, Expected, Finding, Findings, Judgement, Scene, weigh
from twbench.claims.scenery import Scenery
from twbench.model.states import TIME_WAIT_S, TIME_WAIT_SLACK_S, Side, TcpState
from twbench.trace.scripts import close_in_turn, exchange

ACTIVE = ["ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "TIME_WAIT", "CLOSED"]
PASSIVE = ["ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"]


def _play(at: Scenery, first: Side) -> Finding:
    stage = at.stage
    client, server = exchange(stage)
    if first is Side.CLIENT:
        close_in_turn(stage, client, server)
    else:
        close_in_turn(stage, server, client)
    stage.play(
        for_s=TIME_WAIT_S + 2 * TIME_WAIT_SLACK_S,
        until=lambda: stage.state(first) is TcpState.CLOSE,
    )
    stage.pause("the 2MSL timer has run out")
    ladder = stage.ladder("", "")
    return {str(side): _from_established(ladder.states(side)) for side in Side}


def _from_established(states: tuple[str, ...]) -> list[str]:
    return list(states[states.index("ESTABLISHED") :]) if "ESTABLISHED" in states else []


def _judge(findings: Findings, _expected: Expected) -> Judgement:
    client, server = findings["client-closes-first"], findings["server-closes-first"]
    return weigh(
        f"the active closer went {' → '.join(client['client'])}, the passive one"
        f" {' → '.join(client['server'])}; mirrored when the server closed first",
        claimed=(
            Check(
                text="the client, closing first, took the active path",
                holds=client["client"] == ACTIVE,
            ),
            Check(text="the server took the passive path", holds=client["server"] == PASSIVE),
        ),
        controls=(
            Check(
                text="with the server first, the paths are swapped",
                holds=server["server"] == ACTIVE and server["client"] == PASSIVE,
            ),
        ),
    )


CLAIM = Claim(
    id="closing-states",
    sentence="the side that closes first goes through FIN_WAIT_1, FIN_WAIT_2 and TIME_WAIT to"
    " CLOSED, the other through CLOSE_WAIT and LAST_ACK",
    sources=(
        "article 1, text diagram of the states",
        "article 2, section 2, steps 1 to 7",
        "RFC 9293 section 3.6, figure 12",
    ),
    expected={},
    refuted_by="a state that is missing on either side, or another one between",
    scenes=(
        Scene(
            name="client-closes-first",
            sentence="one exchange, then the client closes first; TIME_WAIT is waited out",
            play=lambda at: _play(at, Side.CLIENT),
            needs_s=64,
        ),
        Scene(
            name="server-closes-first",
            sentence="the same, and the server closes first",
            play=lambda at: _play(at, Side.SERVER),
            needs_s=64,
        ),
    ),
    judge=_judge,
)
