"""The scenes of the claim about knobs: what each does to TIME_WAIT, and what it risks."""

import socket

from twbench.claims.claim import Finding, SetUpError
from twbench.claims.common import LAST_ACK_LOST, close_each, come_to, wait_to
from twbench.claims.crowd import Crowd, First, Order, crowd
from twbench.claims.scenery import Scenery
from twbench.kernel.readers import TickReader
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import close_in_turn, exchange
from twbench.wire.endpoint import Endpoint
from twbench.wire.ladder import Crossing
from twbench.wire.stage import SERVER_PORT, Stage

PORTS = 64
BUCKETS = 16
RANGE = "net.ipv4.ip_local_port_range"
REUSE = "net.ipv4.tcp_tw_reuse"
REUSE_DELAY = "net.ipv4.tcp_tw_reuse_delay"
TIMESTAMPS = "net.ipv4.tcp_timestamps"
OVERFLOW = "TcpExtTCPTimeWaitOverflow"
MAX_BUCKETS = "net.ipv4.tcp_max_tw_buckets"
ONE_PORT = "40000 40000"
PATIENCE_S = 2.1
"""More than the second after which a port may be reused, on kernels that count whole ones, too."""
SENT_BYTES = 50_000
CLIENT_PORT = 40000
_NOT_YET_MS = 60_000


def range_of(ports: int) -> str:
    """Return a port range as the sysctl is written."""
    return f"40000 {40000 + ports - 1}"


# Many connections over a veth


def churn(at: Scenery, *, ending: First = First.CLIENT, patience_s: float = 0.0) -> Finding:
    """Use every port of a small range once, wait, and use them again.

    TCPTimeWaitOverflow and OutRsts are of the first round, TWRecycled is of the second.
    """
    fresh = _counters(at)
    with crowd(at) as of:
        first = of.make(Order(count=PORTS, ending=ending))
        of.settle()
        before = _counters(at)
        at.wait(patience_s)
        again = of.make(Order(count=PORTS, ending=ending))
        of.settle()
        after = _counters(at)
    if first.error:
        raise SetUpError(f"connection {len(first.ports)}: {first.error}")
    return {
        "connections": len(first.ports),
        "time_waits": before["tw"],
        "again": len(again.ports),
        "error": again.error,
        "time_waits_again": after["tw"],
        "TWRecycled": after["TcpExtTWRecycled"] - before["TcpExtTWRecycled"],
        "TCPTimeWaitOverflow": before[OVERFLOW] - fresh[OVERFLOW],
        "OutRsts": before["TcpOutRsts"] - fresh["TcpOutRsts"],
    }


def churn_with_reuse(at: Scenery) -> Finding:
    """Do the same where ports may be reused: not before the delay, and then every one."""
    stack = at.lab.hosts["client"].stack
    delayed = at.lab.sysctls(stack, [REUSE_DELAY])
    with crowd(at) as of:
        if delayed:
            at.lab.set_sysctl(stack, REUSE_DELAY, str(_NOT_YET_MS))
        _fill(of)
        of.settle()
        before = _counters(at)
        early = of.make(Order(count=1)).error if delayed else "unknown"
        if delayed:
            at.lab.set_sysctl(stack, REUSE_DELAY, delayed[REUSE_DELAY])
        at.wait(PATIENCE_S)
        again = of.make(Order(count=PORTS))
        of.settle()
        after = _counters(at)
    return {
        "time_waits": before["tw"],
        "too_early": early,
        "again": len(again.ports),
        "error": again.error,
        "time_waits_again": after["tw"],
        "TWRecycled": after["TcpExtTWRecycled"] - before["TcpExtTWRecycled"],
    }


def _fill(of: Crowd) -> None:
    made = of.make(Order(count=PORTS))
    if made.error:
        raise SetUpError(f"connection {len(made.ports)}: {made.error}")


def _counters(at: Scenery) -> dict[str, int]:
    """Return the client's counters, of a host that has just been made, and sockstat's `tw`."""
    stack = at.lab.hosts["client"].stack
    with TickReader(lambda path: at.lab.open(stack, path)) as reader:
        tick = reader.tick()
    return tick.counters | {"tw": tick.sockstat["tw"]}


# One connection on the wire


def reuse_a_port(at: Scenery, *, lose_last_ack: bool) -> Finding:
    """Reuse the only port while the peer is gone, or while it still waits for the last ACK."""
    stage = at.stage
    client, server = exchange(stage)
    port = client.port
    if lose_last_ack:
        stage.rules(LAST_ACK_LOST)
    close_in_turn(stage, client, server)
    wanted = TcpState.LAST_ACK if lose_last_ack else TcpState.CLOSE
    found = stage.state(Side.SERVER)
    if found is not wanted or stage.state(Side.CLIENT) is not TcpState.TIME_WAIT:
        raise SetUpError(f"the server is in {found.name}, or the client not in TIME_WAIT")
    stage.rules("drop server→client FIN")
    stage.pause("more than a second: the port may be taken again", for_s=PATIENCE_S)
    listener = stage.listener()
    first = len(_crossings(stage))
    again = stage.endpoint(Side.CLIENT)
    again.connect(stage.address(Side.SERVER), SERVER_PORT)
    come_to(stage, Side.CLIENT, TcpState.ESTABLISHED)
    stage.play()
    stage.accept(listener)
    crossings = _crossings(stage)[first:]
    syns = [each for each in crossings if each.segment.label == "SYN"]
    resets = [each for each in crossings if "RST" in each.segment.label]
    stage.mark(syns[0], f"takes port {again.port}, which was in TIME_WAIT")
    for each in resets:
        stage.mark(each, "the server was still in LAST_ACK and did not take the SYN: this ends it")
    for each in syns[1:]:
        stage.mark(each, "the SYN once more, and now it is taken")
    return {
        "same_port": again.port == port,
        "syns": len(syns),
        "resets": len(resets),
    }


def close_with_full_buckets(at: Scenery) -> Finding:
    """Close on the client; see what the server's FIN is answered with, and the server's call."""
    stage = at.stage
    client, server = exchange(stage)
    client.close()
    come_to(stage, Side.CLIENT, TcpState.FIN_WAIT2, TcpState.CLOSE)
    server.receive()
    left = stage.state(Side.CLIENT).name
    first = len(_crossings(stage))
    server.shutdown()
    wait_to(stage, lambda: len(_crossings(stage)) > first + 1, "an answer to the server's FIN")
    answer = _crossings(stage)[-1]
    if answer.origin is not Side.CLIENT:
        raise SetUpError("the server's FIN was not answered")
    stage.mark(answer, f"the answer to the server's FIN; the client was in {left}")
    return {
        "after_first_fin": left,
        "answer": answer.segment.label,
        "server_error": server.error(),
        "TCPTimeWaitOverflow": stage.counters(Side.CLIENT)["TcpExtTCPTimeWaitOverflow"],
        "time_waits": stage.counters(Side.CLIENT)["sockstat_tw"],
    }


def leave_in_mid_sentence(at: Scenery, *, reset: bool) -> Finding:
    """Send more than one flight of segments, and leave at once; see what the server could read."""
    stage = at.stage
    client, server = stage.connection()
    sent = client.send(bytes(SENT_BYTES)).value or 0
    leave = client.reset if reset else client.close
    leave()
    come_to(stage, Side.SERVER, TcpState.CLOSE_WAIT, TcpState.CLOSE)
    stage.play()
    if reset:
        _mark_last(stage, Side.CLIENT, "RST", "what was still unsent is thrown away with this")
    else:
        _mark_last(stage, Side.CLIENT, "FIN", f"comes after all {sent:,} bytes")
    read = 0
    while data := (outcome := server.receive()).data:
        read += len(data)
    server.close()
    stage.play()
    return {
        "sent_bytes": sent,
        "read_bytes": read,
        "end": str(outcome),
        "time_waits": stage.counters(Side.CLIENT)["sockstat_tw"],
    }


def restart_a_server(at: Scenery, *, reset: bool) -> Finding:
    """Bind to the port that the server's own TIME_WAIT is on, without SO_REUSEADDR and with it.

    Where the server left by RST there is no TIME_WAIT, and the second bind() is not tried.
    """
    stage = at.stage
    client, server = exchange(stage)
    if reset:
        server.reset()
        come_to(stage, Side.CLIENT, TcpState.CLOSE)
        client.close()
        _mark_last(stage, Side.SERVER, "RST", "leaves no TIME_WAIT on the server's port")
    else:
        close_each(stage, server, client)
        _mark_last(stage, Side.SERVER, "FIN", "leaves TIME_WAIT on the server's port")
    left = stage.counters(Side.SERVER)["sockstat_tw"]
    if left != (not reset):
        raise SetUpError(f"the server is left with {left} TIME_WAITs")
    wait_to(stage, lambda: not _listens(stage), "the first listener to be gone")
    address = stage.address(Side.SERVER)
    without = stage.endpoint(Side.SERVER).bind(address, SERVER_PORT)
    if reset:
        return {"without": without.error, "time_waits": left}
    listener = _reusing(stage, Side.SERVER)
    bound = listener.bind(address, SERVER_PORT)
    listening = listener.listen()
    return {
        "without": without.error,
        "with": bound.error or listening.error,
        "time_waits": stage.counters(Side.SERVER)["sockstat_tw"],
    }


def _listens(stage: Stage) -> bool:
    """Return whether the server has a listener: its close is late where a copy is still held."""
    return TcpState.LISTEN in stage.sockets(Side.SERVER)["state"]


def connect_again(at: Scenery) -> Finding:
    """Bind a client to the port of its TIME_WAIT, and connect to the same server."""
    stage = at.stage
    listener = stage.listener()
    client = _reusing(stage, Side.CLIENT)
    client.bind(stage.address(Side.CLIENT), CLIENT_PORT)
    client.connect(stage.address(Side.SERVER), SERVER_PORT)
    come_to(stage, Side.SERVER, TcpState.ESTABLISHED)
    stage.play()
    close_each(stage, client, stage.accept(listener))
    before = stage.counters(Side.CLIENT)["sockstat_tw"]
    if not before:
        raise SetUpError("the client is left with no TIME_WAIT")
    _mark_last(stage, Side.CLIENT, "FIN", "leaves the TIME_WAIT of this four-tuple")
    without = stage.endpoint(Side.CLIENT).bind(stage.address(Side.CLIENT), CLIENT_PORT)
    again = _reusing(stage, Side.CLIENT)
    bound = again.bind(stage.address(Side.CLIENT), CLIENT_PORT)
    first = len(_crossings(stage))
    connected = again.connect(stage.address(Side.SERVER), SERVER_PORT)
    stage.play()
    crossings = _crossings(stage)[first:]
    if crossings:
        stage.mark(crossings[0], "the four-tuple of the TIME_WAIT, which is thrown away")
    after = stage.counters(Side.CLIENT)
    return {
        "time_waits": before,
        "bind_without": without.error,
        "bind_with": bound.error,
        "connect": str(connected),
        "time_waits_again": after["sockstat_tw"],
        "TWRecycled": after["TcpExtTWRecycled"],
    }


def _reusing(stage: Stage, side: Side) -> Endpoint:
    endpoint = stage.endpoint(side)
    endpoint.set(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return endpoint


def _mark_last(stage: Stage, side: Side, flag: str, text: str) -> None:
    """Mark the last packet of a side that has this flag."""
    sent = [each for each in _crossings(stage) if each.origin is side]
    flagged = [each for each in sent if flag in each.segment.label]
    if not flagged:
        raise SetUpError(f"the {side} sent no {flag}")
    stage.mark(flagged[-1], text)


def _crossings(stage: Stage) -> tuple[Crossing, ...]:
    return stage.ladder("", "").crossings
