"""What both applications do in each ending, call by call; what crosses is the kernels' business.

A script leaves the connection ended on both sides, TIME_WAIT apart.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

from twbench.model.states import Side, TcpState
from twbench.wire.endpoint import Endpoint
from twbench.wire.errors import StageError
from twbench.wire.rules import FINS_CROSS
from twbench.wire.stage import Stage

REQUEST = b"GET / HTTP/1.1\r\nHost: server\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
KEEPALIVE_TIMEOUT_S = 1.0
WITHIN_S = 5.0
"""Far more than an ACK is ever delayed (TCP_DELACK_MAX, 200 ms), or a lost packet is missed."""

Script = Callable[[Stage], None]


def play_to(stage: Stage, side: Side, state: TcpState) -> None:
    """Play until `side` is in `state`, or a few seconds are over: an ACK may be delayed."""
    stage.play(for_s=WITHIN_S, until=lambda: stage.state(side) is state)


def play_for(stage: Stage, reader: Endpoint) -> bool:
    """Play until `reader` has something to receive, or a few seconds are over, and to the end.

    Returns whether it has.
    """
    came = stage.play(for_s=WITHIN_S, until=lambda: reader.is_readable)
    stage.play()
    return came


def bring(stage: Stage, what: str, reader: Endpoint) -> None:
    """Play until the request or the answer is there; StageError where it does not come."""
    if not play_for(stage, reader):
        raise StageError(f"the {what} did not come to the {reader.side} in {WITHIN_S:g} s")


def ask(stage: Stage) -> tuple[Endpoint, Endpoint]:
    """Open a connection and bring the request to the server; return both ends.

    Raises StageError where there is no connection, or no request comes.
    """
    client, server = stage.connection()
    client.send(REQUEST)
    bring(stage, "request", server)
    return client, server


def exchange(stage: Stage) -> tuple[Endpoint, Endpoint]:
    """Open a connection, ask and answer; return both ends. Raises StageError as `ask` does."""
    client, server = ask(stage)
    server.receive()
    server.send(ANSWER)
    bring(stage, "answer", client)
    client.receive()
    return client, server


def close_in_turn(stage: Stage, first: Endpoint, second: Endpoint) -> None:
    """Close one end, and when the other has acknowledged and seen the FIN, close that."""
    first.close()
    play_to(stage, first.side, TcpState.FIN_WAIT2)
    second.receive()
    second.close()
    stage.play()


def _client_fin(stage: Stage) -> None:
    client, server = exchange(stage)
    close_in_turn(stage, client, server)


def _server_fin(stage: Stage) -> None:
    client, server = exchange(stage)
    close_in_turn(stage, server, client)


def _client_rst(stage: Stage) -> None:
    client, server = exchange(stage)
    client.reset()
    play_for(stage, server)
    server.receive()
    server.close()


def _server_rst(stage: Stage) -> None:
    client, server = exchange(stage)
    server.reset()
    play_for(stage, client)
    client.receive()
    client.close()


def _client_half_close(stage: Stage) -> None:
    client, server = ask(stage)
    client.shutdown()
    play_to(stage, Side.CLIENT, TcpState.FIN_WAIT2)
    server.receive()
    server.receive()
    server.send(ANSWER)
    bring(stage, "answer", client)
    client.receive()
    server.close()
    play_for(stage, client)
    client.receive()
    client.close()


def _server_half_close(stage: Stage) -> None:
    client, server = exchange(stage)
    server.shutdown()
    play_to(stage, Side.SERVER, TcpState.FIN_WAIT2)
    client.receive()
    client.close()
    play_for(stage, server)
    server.receive()
    server.close()


def _server_unread(stage: Stage) -> None:
    client, server = ask(stage)
    server.close()
    play_for(stage, client)
    client.receive()
    client.close()


def _server_idle(stage: Stage) -> None:
    client, server = exchange(stage)
    stage.pause(
        "the connection is idle; the server's keep-alive time runs out", for_s=KEEPALIVE_TIMEOUT_S
    )
    close_in_turn(stage, server, client)


def _simultaneous(stage: Stage) -> None:
    client, server = exchange(stage)
    stage.rules(FINS_CROSS)
    client.close()
    stage.play()
    server.close()
    stage.play()


def _crash(stage: Stage) -> None:
    client, server = ask(stage)
    with holder_of(server) as process:
        stage.note("another process holds the server's socket: SIGKILL")
        process.kill()
        process.wait()
    play_for(stage, client)
    client.receive()
    client.close()


def holder_of(endpoint: Endpoint) -> subprocess.Popen[bytes]:
    """Hand the endpoint's socket to a process that only holds it."""
    holder = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[endpoint.socket.fileno()],
    )
    endpoint.socket.close()
    return holder


SCRIPTS: Mapping[str, Script] = MappingProxyType(
    {
        "client-fin": _client_fin,
        "server-fin": _server_fin,
        "client-rst": _client_rst,
        "server-rst": _server_rst,
        "client-half-close": _client_half_close,
        "server-half-close": _server_half_close,
        "server-unread": _server_unread,
        "server-idle": _server_idle,
        "simultaneous": _simultaneous,
        "crash": _crash,
    }
)
"""A script for every ending of model/endings.py."""
