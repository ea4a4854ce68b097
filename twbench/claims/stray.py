"""A segment that strays from one connection into the next on its ports, with a guard or without.

The earlier connection sends A, B, C and D; the wire keeps the first D, which is SEQ=300, and it is
sent again. That connection ends, the next one sends a, b, c, d and e, and amid them the D turns up.
Nothing is forged: it is the segment that the client's own kernel sent.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from socket import IPPROTO_TCP, SO_REUSEADDR, SOL_SOCKET, TCP_NODELAY

from twbench.claims.claim import Finding, NotHereError, SetUpError
from twbench.claims.common import come_to, unacknowledged_bytes, wait_to
from twbench.claims.scenery import Scenery
from twbench.model.states import Side, TcpState
from twbench.wire.endpoint import Endpoint
from twbench.wire.ladder import Call, Crossing
from twbench.wire.packet import Flag
from twbench.wire.stage import SERVER_PORT, Stage, Waiting

SIZES = {"a": 99, "b": 100, "c": 100, "d": 100, "e": 100}
"""Bytes of each segment, so that they begin at seq 1, 100, 200, 300 and 400."""
CLIENT_PORT = 40_000
ISN = 1_000_000_000
ASTRAY = "hold client→server DATA, once"

_STRAY = b"D" * SIZES["d"]
_COUNTERS = ("TcpExtPAWSEstab", "TcpExtTCPChallengeACK", "TcpExtTCPDSACKOldSent", "TcpOutRsts")
_STRAY_NAME = "SEQ=300 of the earlier connection"
_ANSWERS = {
    ("ACK", True): "acknowledges what this connection's client has not sent yet",
    ("ACK", False): "the stray moved nothing: the same bytes are waited for",
    ("RST", False): "there is no such connection any more",
}
"""What the server's answer to the stray says, by its flags and whether the stray was taken."""
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_TCP_SEND_QUEUE = 2
_SEQUENCES = 1 << 32
_ROW_BYTES = 25

Ending = Callable[[Stage, Endpoint, Endpoint], None]
"""Of the earlier connection: given the client's and the server's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """How the earlier connection ends, how the next one begins, and when the stray turns up."""

    ending: Ending
    time_wait: Side | None = None
    """Who has TIME_WAIT when the next connection begins."""
    isn: int | None = ISN
    """The client's, in both connections; None leaves it to the kernel's clock."""
    before: str = "abc"
    """What the next connection has sent by then: after "abc" the stray is just what comes next."""


def play(at: Scenery, plot: Plot) -> Finding:
    """Play the plot; return what was sent and read, and what the server did about the stray.

    Leaves `bytes.txt`, both streams side by side.
    """
    stage = at.stage
    listener = stage.listener()
    client, _ = _knock(stage, plot.isn)
    server = _let_in(stage, listener)
    stray = _lose_one(stage, client, server)
    plot.ending(stage, client, server)
    _require_time_wait(stage, plot.time_wait)
    earlier_calls = len(stage.ladder("", "").calls)
    client, refused = _knock(stage, plot.isn)
    if refused:
        if plot.time_wait is not Side.CLIENT:
            raise SetUpError(f"the next connection is refused, {refused}, and no TIME_WAIT is why")
        stage.pause("the port is still taken: the client uses another")
        client, _ = _knock(stage, plot.isn, port=0)
    server = _let_in(stage, listener)
    sent = b"".join(_say(stage, client, letter) for letter in plot.before)
    server_before = stage.counters(Side.SERVER)
    turned_up, answer = _turn_up(stage, stray)
    counted = _rises(server_before, stage.counters(Side.SERVER))
    read = server.receive().data
    stage.pause(f"{len(sent)} bytes were sent, {len(read)} were read")
    _remark(stage, turned_up, answer, taken=len(read) > len(sent), counted=counted)
    sent += b"".join(_say(stage, client, each) for each in SIZES if each not in plot.before)
    read += server.receive().data
    stage.pause(f"sent: {runs(sent.decode())}")
    stage.pause(f"read: {runs(read.decode())}")
    (at.folder / "bytes.txt").write_text(side_by_side(sent.decode(), read.decode()))
    calls = stage.ladder("", "").calls[earlier_calls:]
    return {
        "refused": refused,
        "sent": sent.decode(),
        "read": read.decode(),
        "answer": answer.segment.label if answer else "",
        "counted": counted,
        "failed_calls": [f"{each.text}: {each.result}" for each in calls if _failed(each)],
        "time_waits": {str(side): _time_waits(stage, side) for side in Side},
        **({} if plot.isn else {"isn_tick_ns": _isn_tick_ns(stage)}),
    }


def _knock(stage: Stage, isn: int | None, *, port: int = CLIENT_PORT) -> tuple[Endpoint, str]:
    """Start to connect from a port, with this ISN; return the end, and why it is refused."""
    client = stage.endpoint(Side.CLIENT)
    client.set(IPPROTO_TCP, TCP_NODELAY, 1)
    if isn is not None:
        _choose_isn(client, isn)
    client.set(SOL_SOCKET, SO_REUSEADDR, 1)
    client.bind(stage.address(Side.CLIENT), port)
    error = client.connect(stage.address(Side.SERVER), SERVER_PORT).error
    return client, "" if error == "EINPROGRESS" else error


def _choose_isn(client: Endpoint, isn: int) -> None:
    """Make connect() take this ISN. Comes before SO_REUSEADDR, which leaving repair mode clears."""
    try:
        client.set(IPPROTO_TCP, _TCP_REPAIR, 1)
    except OSError as error:
        raise NotHereError(f"TCP_REPAIR, which chooses the ISN: {error.strerror}") from None
    client.set(IPPROTO_TCP, _TCP_REPAIR_QUEUE, _TCP_SEND_QUEUE)
    client.set(IPPROTO_TCP, _TCP_QUEUE_SEQ, isn)
    client.set(IPPROTO_TCP, _TCP_REPAIR, 0)


def _let_in(stage: Stage, listener: Endpoint) -> Endpoint:
    """Play until the connection stands, and return the server's end."""
    come_to(stage, Side.CLIENT, TcpState.ESTABLISHED)
    stage.play()
    return stage.accept(listener)


def _say(stage: Stage, client: Endpoint, letter: str) -> bytes:
    """Send one segment of this letter, play until it is acknowledged, and return it."""
    data = letter.encode() * SIZES[letter.lower()]
    client.send(data)
    wait_to(stage, lambda: not unacknowledged_bytes(client), f"the ACK of segment {letter}")
    stage.play()
    return data


def _lose_one(stage: Stage, client: Endpoint, server: Endpoint) -> Waiting:
    """Say A to D in the earlier connection; D goes astray and is sent again. Return the stray."""
    for letter in "ABC":
        _say(stage, client, letter)
    stage.rules(ASTRAY)
    _say(stage, client, "D")
    stage.rules()
    server.receive()
    held = [each for each in stage.held if each.packet.tcp and each.packet.tcp.payload == _STRAY]
    if len(held) != 1 or len(stage.held) != 1:
        raise SetUpError(f"{len(held)} of {len(stage.held)} held packets are the one to go astray")
    stage.film.remark(held[0].frame, f"{_STRAY_NAME} goes astray")
    stage.held.clear()
    return held[0]


def _turn_up(stage: Stage, stray: Waiting) -> tuple[Crossing, Crossing | None]:
    """Give the stray to the server; return how it crossed, and the server's answer to it."""
    crossing = stage.inject(stray.packet, Side.SERVER, f"{_STRAY_NAME} turns up")
    steps = len(stage.film.steps)
    stage.play()
    answers = [
        step
        for step in stage.film.steps[steps:]
        if isinstance(step, Crossing) and step.origin is Side.SERVER
    ]
    return crossing, answers[0] if answers else None


def _rises(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each of the counters rose that did."""
    risen = {name: after[name] - before[name] for name in _COUNTERS if name in before}
    return {name: rise for name, rise in risen.items() if rise}


def _remark(
    stage: Stage,
    turned_up: Crossing,
    answer: Crossing | None,
    *,
    taken: bool,
    counted: Mapping[str, int],
) -> None:
    """Say in the capture what became of the stray, and what that did to the packets around it."""
    counters = ", ".join(f"{name} +{rise}" for name, rise in counted.items())
    stage.mark(turned_up, f"{'taken as data' if taken else 'not taken'} ({counters})")
    if answer:
        stage.mark(answer, _ANSWERS.get((answer.segment.label, taken), "the answer to the stray"))
    for frame, tcp in stage.film.segments(Side.CLIENT):
        if tcp.flags == Flag.RST:
            stage.film.remark(frame, "the client knows no such connection: this ends the TIME_WAIT")


def _require_time_wait(stage: Stage, side: Side | None) -> None:
    """Raise SetUpError unless the earlier connection has left TIME_WAIT on this side alone."""
    left = [each for each in Side if _time_waits(stage, each)]
    if left != ([side] if side else []):
        raise SetUpError(f"TIME_WAIT on {' and '.join(left) or 'neither side'}, not as planned")


def _time_waits(stage: Stage, side: Side) -> int:
    return int((stage.sockets(side)["state"] == TcpState.TIME_WAIT).sum())


def _isn_tick_ns(stage: Stage) -> float:
    """Return how long the clock behind the client's ISNs takes for one step, in nanoseconds."""
    syns: dict[int, int] = {}
    for frame, tcp in stage.film.segments(Side.CLIENT):
        if Flag.SYN in tcp.flags:
            syns.setdefault(tcp.seq, stage.film.time_ns(frame))
    both = list(syns.items())
    (first, first_ns), (last, last_ns) = both[0], both[-1]
    return round((last_ns - first_ns) / ((last - first) % _SEQUENCES or 1), 2)


def _failed(call: Call) -> bool:
    return call.result.startswith("E") and call.result != "EINPROGRESS"


def runs(text: str) -> str:
    """Return text with its runs counted: "99a 100b"."""
    return " ".join(f"{len(list(run))}{letter}" for letter, run in itertools.groupby(text))


def wrong_bytes(finding: Finding) -> list[int]:
    """Return where what was read differs from what was sent, as offsets in bytes."""
    pairs = itertools.zip_longest(finding["sent"], finding["read"])
    return [offset for offset, (sent, read) in enumerate(pairs) if sent != read]


def side_by_side(sent: str, read: str) -> str:
    """Return both streams in rows of 25 bytes, those that differ marked."""
    lines = [f"byte  {'sent':<{_ROW_BYTES}}  read"]
    for at in range(0, max(len(sent), len(read)), _ROW_BYTES):
        ours, theirs = (text[at : at + _ROW_BYTES] for text in (sent, read))
        differs = "" if ours == theirs else "≠"
        row = f"{at:>4}  {ours:<{_ROW_BYTES}}  {theirs:<{_ROW_BYTES}}  {differs}"
        lines.append(row.rstrip())
    return "\n".join(lines) + "\n"
