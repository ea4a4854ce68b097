"""Scenes in which one end has a reason to send RST: the articles' four, and what lies beside them.

Each tells what the applications heard (a call's result, as a ladder shows it), and how many RSTs
and FINs either host sent.
"""

import socket
from types import MappingProxyType

from twbench.claims.claim import Finding
from twbench.claims.common import (
    LAST_ACK_LOST,
    come_to,
    copies,
    frames,
    play_until_gone,
    require_hits,
    unacknowledged_bytes,
    wait_to,
)
from twbench.claims.scenery import Scenery
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import REQUEST, ask, exchange, holder_of
from twbench.wire.endpoint import Endpoint, Outcome
from twbench.wire.packet import Flag, tcp_packet
from twbench.wire.rules import Kind
from twbench.wire.stage import SERVER_PORT, Stage

ACKS_LOST = "drop server→client ACK"
FEW_ACKS_LOST = "drop server→client ACK, 4 times"
CLIENT_UNHEARD = "drop client→server any"
THIRD_ACK_LOST = "drop client→server ACK"
USER_TIMEOUT_MS = 700
KEEPALIVE = MappingProxyType(
    {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 8}
)
"""Idle seconds before the first probe, seconds between probes, probes before it gives up."""
PROBES = 2
"""How many are answered before that is believed."""
INTO_THE_CUT_CABLE = 4
"""How often a segment is sent before the cable is put back."""
STRANGERS = MappingProxyType(
    {
        "data": (Flag.PSH | Flag.ACK, SERVER_PORT + 1),
        "ACK": (Flag.ACK, SERVER_PORT + 1),
        "FIN": (Flag.FIN | Flag.ACK, SERVER_PORT + 1),
        "SYN+ACK": (Flag.SYN | Flag.ACK, SERVER_PORT + 1),
        "ACK for a listener": (Flag.ACK, SERVER_PORT),
        "RST": (Flag.RST, SERVER_PORT + 1),
    }
)
"""Segments of connections that nobody has: their flags, and the server's port."""
STRANGER_ACK = 5_000

_WITHIN_S = 60.0
_LOOK_ON_S = 1.0
_STRANGER_PORT = 40_000
_STRANGER_SEQ = 1_000


def knock(at: Scenery, *, listens: bool) -> Finding:
    """Connect to a port on which nobody listens, or somebody does; then ask."""
    stage = at.stage
    if listens:
        client, _ = _calm(stage)
        stage.film.remark(copies(stage, Side.SERVER, Kind.SYN_ACK)[0], "somebody listens: no RST")
        return _told(stage, "", client.receive())
    client = stage.endpoint(Side.CLIENT)
    client.connect(stage.address(Side.SERVER), SERVER_PORT)
    _hear(stage, client)
    return _told(stage, "nobody listens on this port", client.receive())


def kill(at: Scenery, *, unread: bool) -> Finding:
    """Kill the server's process with the request unread, or with everything read and answered."""
    stage = at.stage
    client, server = ask(stage) if unread else _calm(stage)
    with holder_of(server) as process:
        stage.note("another process holds the server's socket: SIGKILL")
        process.kill()
        process.wait()
    _hear(stage, client)
    heard = client.receive()
    at_once = _resets(stage)
    if unread:
        return _told(stage, "the process died with data unread", heard, resets_at_once=at_once)
    client.send(REQUEST)
    come_to(stage, Side.CLIENT, TcpState.CLOSE)
    stage.film.remark(copies(stage, Side.SERVER, Kind.FIN)[0], "of the dead process: FIN, no RST")
    return _told(stage, "nobody is left to read this data", heard, resets_at_once=at_once)


def reboot(at: Scenery) -> Finding:
    """Let the server's host crash and come back, wait, and send it something."""
    stage = at.stage
    client, _ = _calm(stage)
    stage.reboot(Side.SERVER)
    stage.pause("nothing tells the client", for_s=_LOOK_ON_S)
    at_once = _resets(stage)
    client.send(REQUEST)
    _hear(stage, client)
    why = "the rebooted host knows no such connection"
    return _told(stage, why, client.receive(), resets_at_once=at_once)


def cut(at: Scenery) -> Finding:
    """Pull the server's cable, send into it, and put it back."""
    stage = at.stage
    client, server = _calm(stage)
    stage.unplug(Side.SERVER)
    before = len(frames(stage, Side.CLIENT, Kind.DATA))
    client.send(REQUEST)
    wait_to(
        stage,
        lambda: len(frames(stage, Side.CLIENT, Kind.DATA)) >= before + INTO_THE_CUT_CABLE,
        "data to be sent again",
    )
    heard, sent = client.receive(), len(frames(stage, Side.CLIENT, Kind.DATA)) - before
    stage.plug_in(Side.SERVER)
    _hear(stage, server)
    return _told(
        stage, "", heard, sent_into_it=sent, arrives_at_last=server.receive().data == REQUEST
    )


def meet_strangers(at: Scenery) -> Finding:
    """Give the server segments of connections that it does not know, one kind after the other."""
    stage = at.stage
    stage.listener()
    answers = {}
    for number, (kind, (flags, port)) in enumerate(STRANGERS.items()):
        stranger = tcp_packet(
            source=stage.address(Side.CLIENT),
            destination=stage.address(Side.SERVER),
            source_port=_STRANGER_PORT + number,
            destination_port=port,
            seq=_STRANGER_SEQ,
            ack=STRANGER_ACK if Flag.ACK in flags else 0,
            flags=flags,
            payload=REQUEST if Flag.PSH in flags else b"",
        )
        before = len(stage.film.segments(Side.SERVER))
        stage.inject(stranger, Side.SERVER, f"{kind} of a connection that nobody has")
        stage.play()
        answers[kind] = [
            {"flags": tcp.label, "seq": tcp.seq}
            for _, tcp in stage.film.segments(Side.SERVER)[before:]
        ]
    return _told(stage, "there is no such connection", answers=answers)


def lose_acks(at: Scenery, *, rule: str, user_timeout_ms: int = 0) -> Finding:
    """Send data whose acknowledgements are lost: all until the client gives up, or only a few.

    Then the way is free again and the server, which still has the connection, sends.
    """
    stage = at.stage
    client, server = _calm(stage)
    if user_timeout_ms:
        client.set(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)
    stage.rules(rule)
    client.send(REQUEST)
    wait_to(
        stage,
        lambda: client.is_readable or not unacknowledged_bytes(client),
        "an acknowledgement, or the client to give up",
        _WITHIN_S,
    )
    first, *again = copies(stage, Side.CLIENT, Kind.DATA)
    require_hits(stage)
    gave_up_s = None
    if client.is_readable:
        gave_up_s = play_until_gone(stage, Side.CLIENT, since=first, within_s=_WITHIN_S)
    at_once = _given_up(stage)
    heard = client.receive()
    stage.rules()
    server.send(REQUEST)
    _hear(stage, client if gave_up_s is None else server)
    return _told(
        stage,
        "the server's data finds no connection here any more",
        heard,
        gave_up_s=gave_up_s,
        sent_again=len(again),
        resets_at_once=at_once,
    )


def lose_last_acks(at: Scenery) -> Finding:
    """Bring the server into LAST_ACK and lose every acknowledgement of its FIN."""
    stage = at.stage
    client, server = _calm(stage)
    stage.rules(LAST_ACK_LOST)
    client.close()
    come_to(stage, Side.CLIENT, TcpState.FIN_WAIT2)
    server.receive()
    server.close()
    wait_to(stage, lambda: bool(frames(stage, Side.SERVER, Kind.FIN)), "the server's FIN")
    first = copies(stage, Side.SERVER, Kind.FIN)[0]
    gave_up_s = play_until_gone(stage, Side.SERVER, since=first, within_s=_WITHIN_S)
    require_hits(stage)
    at_once = _given_up(stage)
    again = len(copies(stage, Side.SERVER, Kind.FIN)) - 1
    return _told(stage, "", gave_up_s=gave_up_s, sent_again=again, resets_at_once=at_once)


def lose_third_acks(at: Scenery) -> Finding:
    """Lose every ACK of the handshake until the server gives it up; then the client asks."""
    stage = at.stage
    stage.listener()
    stage.rules(THIRD_ACK_LOST)
    client = stage.endpoint(Side.CLIENT)
    client.connect(stage.address(Side.SERVER), SERVER_PORT)
    come_to(stage, Side.CLIENT, TcpState.ESTABLISHED)
    first = copies(stage, Side.SERVER, Kind.SYN_ACK)[0]
    gave_up_s = play_until_gone(stage, Side.SERVER, since=first, within_s=_WITHIN_S)
    require_hits(stage)
    at_once = _given_up(stage)
    again = len(copies(stage, Side.SERVER, Kind.SYN_ACK)) - 1
    stage.rules()
    client.send(REQUEST)
    _hear(stage, client)
    return _told(
        stage,
        "the server has given this connection up",
        client.receive(),
        gave_up_s=gave_up_s,
        sent_again=again,
        resets_at_once=at_once,
    )


def keep_alive(at: Scenery, *, answered: bool) -> Finding:
    """Let the server probe an idle connection whose client is heard, or is not."""
    stage = at.stage
    client, server = _calm(stage)
    if not answered:
        stage.rules(CLIENT_UNHEARD)
    for option, value in KEEPALIVE.items():
        server.set(socket.IPPROTO_TCP, option, value)
    server.set(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stage.note("the server's socket has SO_KEEPALIVE from here on")
    wait_to(
        stage,
        lambda: (
            stage.state(Side.SERVER) is TcpState.CLOSE or (answered and _probes(stage) >= PROBES)
        ),
        "keep-alive to give up, or to be answered",
        _WITHIN_S,
    )
    stage.play()
    require_hits(stage)
    probes = _probes(stage)
    if answered:
        stage.film.remark(frames(stage, Side.CLIENT, Kind.ACK)[-1], "answers a keep-alive probe")
    heard = [client.receive(), server.receive()]
    return _told(stage, "no probe was answered: keep-alive resets", *heard, probes=probes)


def _calm(stage: Stage) -> tuple[Endpoint, Endpoint]:
    """Exchange request and answer until all is acknowledged, so that nobody has more to say."""
    client, server = exchange(stage)
    wait_to(
        stage,
        lambda: not unacknowledged_bytes(client) and not unacknowledged_bytes(server),
        "both ends to know that all has arrived",
    )
    stage.play()
    return client, server


def _hear(stage: Stage, reader: Endpoint) -> None:
    """Play until `reader` has something to receive, and to the end; having nothing tells, too."""
    stage.play(for_s=_WITHIN_S, until=lambda: reader.is_readable)
    stage.play()


def _given_up(stage: Stage) -> int:
    """Look on for a second, and return how many RSTs there were until then."""
    stage.note("this end has given up")
    stage.pause("and nothing more is sent", for_s=_LOOK_ON_S)
    return _resets(stage)


def _resets(stage: Stage) -> int:
    return sum(len(frames(stage, side, Kind.RST)) for side in Side)


def _probes(stage: Stage) -> int:
    return stage.counters(Side.SERVER).get("TcpExtTCPKeepAlive", 0)


def _told(stage: Stage, why: str, *heard: Outcome, **more: object) -> Finding:
    """Return a finding, and mark every RST in the capture with the reason."""
    for side in Side:
        for frame in frames(stage, side, Kind.RST):
            stage.film.remark(frame, f"RST: {why}")
    return {
        "heard": [str(each) for each in heard],
        "resets": {str(side): len(frames(stage, side, Kind.RST)) for side in Side},
        "fins": {str(side): len(frames(stage, side, Kind.FIN)) for side in Side},
        **more,
    }
