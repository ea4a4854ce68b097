"""After the client's FIN the server can go on sending, and the client receives it.

Source: article 1, first paragraphs on the close; article 2, section 2, step 1; RFC 9293 section
3.10.4 (CLOSE); kernel function tcp_rcv_state_process.
Expected: so it is after shutdown(SHUT_WR), and the client itself can send no more. After close()
the FIN is the same on the wire, but an answer is met by RST, in FIN_WAIT_1 as in FIN_WAIT_2.
Refuted by: an answer that does not arrive, byte for byte, after shutdown(SHUT_WR).
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
    weigh,
)
from twbench.claims.common import come_to, wait_to
from twbench.claims.scenery import Scenery
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import ANSWER, REQUEST, ask
from twbench.wire.endpoint import Endpoint
from twbench.wire.ladder import STATE_NAMES, Crossing
from twbench.wire.stage import Stage

ANSWER_BYTES = 30_000
"""More than ten segments, the usual first window, so the client has to acknowledge in between."""
_LONG_ANSWER = bytes(number % 251 for number in range(ANSWER_BYTES))
_NO_ACK = "drop server→client ACK after client FIN"


def _half_close(at: Scenery) -> Finding:
    stage = at.stage
    client, server = ask(stage)
    client.shutdown()
    fin, read = _fin_and_what_was_read(stage, server, TcpState.FIN_WAIT2)
    sent = server.send(_LONG_ANSWER)
    wait_to(stage, lambda: not server.info()["unacked"], "the answer to be acknowledged")
    states = stage.look()
    received = client.receive(ANSWER_BYTES + 1)
    client_sends = client.send(REQUEST)
    server.close()
    come_to(stage, Side.SERVER, TcpState.CLOSE)
    end = client.receive()
    client.close()
    return {
        "fin": str(fin.segment),
        "read_after_fin_bytes": read,
        "sent_bytes": sent.value,
        "received_bytes": len(received.data),
        "same_bytes": received.data == _LONG_ANSWER,
        "states": {str(side): state.name for side, state in states.items()},
        "client_send": client_sends.error,
        "client_end_of_file": end.value == b"",
        "resets": len(_resets(stage)),
    }


def _full_close(at: Scenery, answered_in: TcpState) -> Finding:
    """Close the client's end, and answer its request when that is in state `answered_in`."""
    stage = at.stage
    client, server = ask(stage)
    client.close()
    fin, read = _fin_and_what_was_read(stage, server, answered_in)
    wait_to(stage, lambda: all(stage.hits().values()), "the rule to meet the FIN's ACK")
    before = stage.counters(Side.CLIENT)
    sent = server.send(ANSWER)
    come_to(stage, Side.SERVER, TcpState.CLOSE)
    after = stage.counters(Side.CLIENT)
    again = server.send(ANSWER)
    server.close()
    resets = _resets(stage)
    for reset in resets:
        stage.mark(reset, "answers data that came after close(): nobody is left to read it")
    return {
        "fin": str(fin.segment),
        "answered_in": STATE_NAMES[answered_in],
        "read_after_fin_bytes": read,
        "sent_bytes": sent.value,
        "server_send_again": again.error,
        "resets": len(resets),
        "TcpOutRsts": after["TcpOutRsts"] - before["TcpOutRsts"],
        "TcpExtTCPAbortOnData": after["TcpExtTCPAbortOnData"] - before["TcpExtTCPAbortOnData"],
    }


def _fin_and_what_was_read(
    stage: Stage, server: Endpoint, client_state: TcpState
) -> tuple[Crossing, list[int]]:
    """Wait for both ends' states, then read twice: the request from before the FIN, and its end."""
    come_to(stage, Side.SERVER, TcpState.CLOSE_WAIT)
    come_to(stage, Side.CLIENT, client_state)
    crossings = stage.ladder("", "").crossings
    fin = next(each for each in crossings if "FIN" in each.segment.label)
    stage.mark(fin, "the client's FIN; the server has not answered yet")
    return fin, [len(server.receive().data), len(server.receive().data)]


def _resets(stage: Stage) -> list[Crossing]:
    crossings = stage.ladder("", "").crossings
    return [each for each in crossings if each.segment.label.startswith("RST")]


def _judge(findings: Findings, expected: Expected) -> Judgement:
    half = findings["half-close"]
    closed = [findings["closed-in-fin-wait-1"], findings["closed-in-fin-wait-2"]]
    asked = len(REQUEST)
    answered = "; ".join(
        f"in {each['answered_in']} an answer was met by {each['resets'] or 'no'} RST"
        f" (TCPAbortOnData {each['TcpExtTCPAbortOnData']:+d}), and the server's next send() gave"
        f" {each['server_send_again'] or 'no error'}"
        for each in closed
    )
    same = all(each["fin"] == half["fin"] for each in closed)
    return weigh(
        f"after shutdown(SHUT_WR) the client, in {half['states']['client']}, received"
        f" {half['received_bytes']:,} of {half['sent_bytes']:,} bytes that the server sent in"
        f" {half['states']['server']}. The FIN of close() is {'the same' if same else 'another'};"
        f" after it, {answered}",
        claimed=(
            Check(
                text=f"{half['received_bytes']:,} bytes sent after the FIN were received, the same"
                f" ones, and {half['resets']} RSTs crossed",
                holds=half["received_bytes"] == expected["answer_bytes"]
                and half["same_bytes"]
                and half["resets"] == 0,
            ),
            Check(
                text=f"the client was in {half['states']['client']}, the server in"
                f" {half['states']['server']}",
                holds=half["states"] == {"client": "FIN_WAIT_2", "server": "CLOSE_WAIT"},
            ),
            Check(
                text=f"the client could send no more: {half['client_send'] or 'no error'}",
                holds=half["client_send"] == "EPIPE",
            ),
            Check(
                text=f"the server read the {asked} bytes from before the FIN, then the end of file",
                holds=all(each["read_after_fin_bytes"] == [asked, 0] for each in (half, *closed)),
            ),
        ),
        caveats=(
            Check(
                text=f"the FIN of close() looks no other ({closed[0]['fin']}), and after it the"
                " client receives nothing",
                holds=same and all(each["resets"] for each in closed),
            ),
        ),
        controls=tuple(
            Check(
                text=f"after close(), an answer in {each['answered_in']} was met by RST"
                f" (TcpOutRsts {each['TcpOutRsts']:+d})",
                holds=each["TcpOutRsts"] >= each["resets"] >= expected["least_resets_after_close"],
            )
            for each in closed
        ),
    )


CLAIM = Claim(
    id="half-close",
    sentence="after the client's FIN the client can send no more, but still receives: the server"
    " can go on sending until its own FIN",
    sources=(
        "article 1, what follows the client's FIN",
        "article 2, section 2, step 1 (half-close)",
        "RFC 9293 section 3.10.4; tcp_rcv_state_process in net/ipv4/tcp_input.c",
    ),
    expected={"answer_bytes": ANSWER_BYTES, "least_resets_after_close": 1},
    refuted_by="an answer that does not arrive, byte for byte, after shutdown(SHUT_WR)",
    scenes=(
        Scene(
            name="half-close",
            sentence="the client asks and shuts its sending half down; then the server answers",
            play=_half_close,
            needs_s=1,
        ),
        Scene(
            name="closed-in-fin-wait-1",
            sentence="control: the client asks and closes, the FIN's ACK is lost, and then the"
            " server answers",
            play=partial(_full_close, answered_in=TcpState.FIN_WAIT1),
            rules=(_NO_ACK,),
            needs_s=1,
        ),
        Scene(
            name="closed-in-fin-wait-2",
            sentence="control: the client asks and closes; then the server answers",
            play=partial(_full_close, answered_in=TcpState.FIN_WAIT2),
            needs_s=1,
        ),
    ),
    judge=_judge,
)
