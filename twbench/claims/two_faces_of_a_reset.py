"""Broken pipe and Connection reset by peer are two faces of a reset.

Source: article 1, last paragraph on RST; RFC 9293 section 3.10.7.4; tcp_reset, tcp_recvmsg_locked
and tcp_sendmsg_locked in the kernel.
Expected: a RST in ESTABLISHED gives ECONNRESET to the first call, then EPIPE to each send(); one
that comes after the peer's FIN gives EPIPE alone. The same FIN and RST in the other order give
ECONNRESET. Beside the claim: a RST that answers the SYN is ECONNREFUSED, send() after one's own
shutdown is EPIPE without any RST, and a process that does not ignore SIGPIPE is killed by it. A RST
that the wire loses gives neither error.
Refuted by: a RST in ESTABLISHED that shows as neither.
"""

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from twbench.claims.common import come_to, frames, wait_to
from twbench.claims.scenery import Scenery
from twbench.model.states import Side, TcpState
from twbench.trace.scripts import ask, exchange
from twbench.wire.endpoint import Endpoint
from twbench.wire.ladder import Crossing, Fate
from twbench.wire.rules import Kind
from twbench.wire.stage import SERVER_PORT, Stage

_LIMIT_S = 60.0
_END_OF_FILE = "0 bytes: end of file"
_ARRIVED = {Fate.DELIVERED, Fate.RELEASED}
_WRITE_AND_BE_KILLED = (
    "import os, signal, sys; signal.signal(signal.SIGPIPE, signal.SIG_DFL);"
    " os.write(int(sys.argv[1]), b'x')"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """What happens first, and the calls that an application then makes on the end it is given."""

    name: str
    sentence: str
    arrange: Callable[[Stage], Endpoint]
    calls: tuple[str, ...]
    rules: tuple[str, ...] = ()


def _reset_in_established(stage: Stage) -> Endpoint:
    client, server = exchange(stage)
    client.reset()
    _wait_for_end(stage, server)
    return server


def _reset_with_data_unread(stage: Stage) -> Endpoint:
    client, server = ask(stage)
    client.reset()
    _wait_for_end(stage, server)
    return server


def _reset_after_fin(stage: Stage) -> Endpoint:
    client, server = exchange(stage)
    client.close()
    come_to(stage, Side.SERVER, TcpState.CLOSE_WAIT)
    server.send(b"x")
    _wait_for_end(stage, server)
    return server


def _reset_before_fin(stage: Stage) -> Endpoint:
    client, server = exchange(stage)
    client.close()
    _wait_for_rule(stage)
    server.send(b"x")
    _wait_for_end(stage, server)
    return server


def _reset_after_own_fin(stage: Stage) -> Endpoint:
    client, server = exchange(stage)
    server.shutdown()
    come_to(stage, Side.SERVER, TcpState.FIN_WAIT2)
    client.reset()
    _wait_for_end(stage, server)
    return server


def _reset_of_the_syn(stage: Stage) -> Endpoint:
    client = stage.endpoint(Side.CLIENT)
    client.connect(stage.address(Side.SERVER), SERVER_PORT)
    _wait_for_end(stage, client)
    return client


def _own_shutdown(stage: Stage) -> Endpoint:
    _, server = exchange(stage)
    server.shutdown()
    come_to(stage, Side.SERVER, TcpState.FIN_WAIT2)
    own = frames(stage, Side.SERVER, Kind.FIN)[-1]
    stage.film.remark(own, "the server's own FIN, after which it sends; nobody sends a RST")
    return server


def _reset_lost(stage: Stage) -> Endpoint:
    client, server = exchange(stage)
    client.reset()
    _wait_for_rule(stage)
    return server


def _wait_for_end(stage: Stage, end: Endpoint) -> None:
    come_to(stage, end.side, TcpState.CLOSE)


def _wait_for_rule(stage: Stage) -> None:
    wait_to(stage, lambda: any(stage.hits().values()), "the rule to meet its packet")


def _play(at: Scenery, situation: Situation) -> Finding:
    """Tell whether FIN and RST came, in which order, and the outcome of each call after that."""
    stage = at.stage
    end = situation.arrange(stage)
    came = [each for each in stage.ladder("", "").crossings if _ends(each, end.side)]
    make: dict[str, Callable[[], object]] = {
        "recv": end.receive,
        "send": partial(end.send, b"x"),
        "send by a process with SIGPIPE": partial(_send_with_sigpipe, stage, end),
    }
    outcomes = [str(make[call]()) for call in situation.calls]
    for each in came:
        stage.mark(each, f"after it, on the {end.side}: {_told(situation.calls, outcomes)}")
    return {
        "came": list(dict.fromkeys(each.segment.label.partition("+")[0] for each in came)),
        "calls": list(situation.calls),
        "outcomes": outcomes,
    }


def _told(calls: Sequence[str], outcomes: Sequence[str]) -> str:
    return ", ".join(f"{call}: {outcome}" for call, outcome in zip(calls, outcomes, strict=True))


def _ends(crossing: Crossing, side: Side) -> bool:
    """Return whether this is a FIN or RST that came to a side."""
    ends = crossing.segment.label.startswith(("FIN", "RST"))
    return ends and crossing.origin is not side and crossing.fate in _ARRIVED


def _send_with_sigpipe(stage: Stage, end: Endpoint) -> str:
    """Send from a process that leaves SIGPIPE its default action; tell how that ended."""
    number = end.socket.fileno()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _WRITE_AND_BE_KILLED, str(number)],
        pass_fds=[number],
        stderr=subprocess.DEVNULL,
        timeout=_LIMIT_S,
        check=False,
    )
    code = done.returncode
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    stage.pause(f"a process that leaves SIGPIPE its default sends: {how}")
    return how


def _judge(findings: Findings, expected: Expected) -> Judgement:
    reset, pipe, refused = (
        errno.errorcode.get(int(expected[name]), "no errno")
        for name in ("reset_errno", "pipe_errno", "refused_errno")
    )

    def so(name: str, came: str, *outcomes: str) -> Check:
        found = findings[name]
        return Check(
            text=f"{name} ({' then '.join(found['came']) or 'no FIN, no RST'}):"
            f" {_told(found['calls'], found['outcomes'])}",
            holds=found["came"] == came.split() and found["outcomes"] == list(outcomes),
        )

    first = findings["reset-then-recv"]["outcomes"]
    core = Check(
        text=f"a RST in ESTABLISHED: the first call gave {first[0]}, the next send() {first[1]}",
        holds=findings["reset-then-recv"]["came"] == ["RST"] and first[:2] == [reset, pipe],
    )
    after_fin = findings["reset-after-fin"]["outcomes"]
    swapped = findings["reset-before-fin"]["outcomes"]
    own = findings["own-shutdown"]["outcomes"]
    syn = findings["reset-of-the-syn"]["outcomes"]
    return weigh(
        f"a RST in ESTABLISHED gave {first[0]} to the first call and {first[1]} to the next send();"
        f" after the peer's FIN it gave {after_fin[0]} at once, and where the RST came without"
        f" that FIN {swapped[0]}. After one's own shutdown, without a RST, send() gave {own[0]},"
        f" and a RST that answers the SYN gave {syn[0]}",
        claimed=(
            core,
            so("reset-then-recv", "RST", reset, pipe, _END_OF_FILE, pipe),
            so("reset-then-send", "RST", reset, pipe, _END_OF_FILE),
            so("reset-after-fin", "FIN RST", pipe, pipe, _END_OF_FILE),
            so("reset-before-fin", "RST", reset, pipe, _END_OF_FILE),
            so("reset-with-data-unread", "RST", "32 bytes", reset, pipe),
            so("reset-after-own-fin", "RST", reset, pipe),
        ),
        caveats=(
            so("own-shutdown", "", pipe, "EAGAIN"),
            so("reset-of-the-syn", "RST", refused, pipe),
            so("sigpipe", "FIN RST", "killed by SIGPIPE"),
        ),
        controls=(so("reset-lost", "", "EAGAIN", "1"),),
    )


SITUATIONS = (
    Situation(
        name="reset-then-recv",
        sentence="the client closes with SO_LINGER 0; the server receives first",
        arrange=_reset_in_established,
        calls=("recv", "send", "recv", "send"),
    ),
    Situation(
        name="reset-then-send",
        sentence="the client closes with SO_LINGER 0; the server sends first, and again",
        arrange=_reset_in_established,
        calls=("send", "send", "recv"),
    ),
    Situation(
        name="reset-after-fin",
        sentence="the client closes, the server sends, is answered by RST, and sends again",
        arrange=_reset_after_fin,
        calls=("send", "send", "recv"),
    ),
    Situation(
        name="reset-before-fin",
        sentence="the same, but the wire holds the FIN, so that the RST comes without it",
        arrange=_reset_before_fin,
        calls=("send", "send", "recv"),
        rules=("hold client→server FIN",),
    ),
    Situation(
        name="reset-with-data-unread",
        sentence="the client asks and closes with SO_LINGER 0; the request lies unread",
        arrange=_reset_with_data_unread,
        calls=("recv", "recv", "send"),
    ),
    Situation(
        name="reset-after-own-fin",
        sentence="the server shuts its sending half down, then the client closes with SO_LINGER 0",
        arrange=_reset_after_own_fin,
        calls=("recv", "send"),
    ),
    Situation(
        name="own-shutdown",
        sentence="the server shuts its sending half down and sends; the client does nothing",
        arrange=_own_shutdown,
        calls=("send", "recv"),
    ),
    Situation(
        name="reset-of-the-syn",
        sentence="the client connects to a port on which nobody listens",
        arrange=_reset_of_the_syn,
        calls=("recv", "send"),
    ),
    Situation(
        name="sigpipe",
        sentence="as reset-after-fin, but the second send() is that of a process which leaves"
        " SIGPIPE its default action",
        arrange=_reset_after_fin,
        calls=("send by a process with SIGPIPE",),
    ),
    Situation(
        name="reset-lost",
        sentence="control: the client closes with SO_LINGER 0, and the wire loses the RST",
        arrange=_reset_lost,
        calls=("recv", "send"),
        rules=("drop client→server RST",),
    ),
)

CLAIM = Claim(
    id="two-faces-of-a-reset",
    sentence="Broken pipe and Connection reset by peer are two faces of a reset",
    sources=(
        "article 1, last paragraph on RST (which call meets which error: our addition)",
        "RFC 9293 section 3.10.7.4; send(2), recv(2), signal(7)",
        "tcp_reset, tcp_recvmsg_locked and tcp_sendmsg_locked in net/ipv4",
    ),
    expected={
        "reset_errno": errno.ECONNRESET,
        "pipe_errno": errno.EPIPE,
        "refused_errno": errno.ECONNREFUSED,
    },
    refuted_by="a RST in ESTABLISHED that shows as neither",
    scenes=tuple(
        Scene(
            name=each.name,
            sentence=each.sentence,
            play=partial(_play, situation=each),
            rules=each.rules,
            needs_s=1,
        )
        for each in SITUATIONS
    ),
    judge=_judge,
)
