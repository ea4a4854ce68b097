"""What a look amounts to: sockets by side and state, ports in use, queues, timers. Pure.

Everything is counted by numpy, block by block: 200,000 rows take a few milliseconds.
"""

import math
import socket
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twbench.kernel.sockdiag import SOCKETS, Sockets, join
from twbench.model.states import Side, TcpState

Endpoint = tuple[str, int]
"""An address as text and a port."""

BUCKET_S = 5
"""The width of a bucket of the TIME_WAIT histogram, in seconds."""

_STATE_NAMES = {int(state): state.name for state in TcpState}
_STATES = 256
_PORTS = 65536
_BUCKETS = 64
_BLOCK_ROWS = 32768
"""So few that a column stays in the processor's cache, and its memory is used again."""
_OPAQUE = np.dtype(f"V{SOCKETS.itemsize}")
"""A row without fields: numpy copies those whole, not field by field."""
_NUMBERS = ("head", "src_first", "src_second", "dst_first", "dst_second")
_WORDS = np.dtype(
    {
        "names": [*_NUMBERS, "ends"],
        "formats": [*(">u8" for _ in _NUMBERS), "V36"],
        "offsets": [0, 8, 16, 24, 32, 4],
        "itemsize": SOCKETS.itemsize,
    }
)
"""`SOCKETS` as words: neighbouring fields come at the price of one. `ends`: ports and addresses."""
_FAMILY_BIT, _STATE_BIT, _SPORT_BIT = 56, 48, 16
"""Where these begin in the head, whose lowest 16 bits are the remote port."""
_ALL_BITS = 2**64 - 1
_LOCAL = (("head", 0xFFFF << _SPORT_BIT), ("src_first", _ALL_BITS), ("src_second", _ALL_BITS))
_REMOTE = (
    ("head", 0xFF << _FAMILY_BIT),
    ("head", 0xFFFF),
    ("dst_first", _ALL_BITS),
    ("dst_second", _ALL_BITS),
)
"""What makes an end: words, and the bits of them that belong to it."""
_ZERO_IN_IPV4 = ("src_second", "dst_second")
_ADDRESS_BYTES = 16
_MAPPED_PREFIX = bytes(10) + b"\xff\xff"

_RemoteEnd = tuple[int, bytes, int]
"""Family, 16 bytes of address, port."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The counts of one look.

    `states_by_side`: side → state name → sockets, zeros and LISTEN left out; a state that is not in
    the table is "STATE_n". `listening`: sockets in LISTEN. `ports_in_use`: "remote address:port" →
    distinct (local address, local port) of client sockets inside the port range. `accept_queue`:
    "local address:port" → connections waiting for accept(). `time_wait_left_s`: lower edge of a
    bucket of BUCKET_S seconds → sockets in TIME_WAIT with that time left; the bucket at 315 s, far
    beyond what TIME_WAIT lasts, also has all above.
    """

    states_by_side: dict[str, dict[str, int]]
    listening: int
    ports_in_use: dict[str, int]
    accept_queue: dict[str, int]
    time_wait_left_s: dict[int, int]


def summarise(
    *parts: Sockets,
    servers: Collection[int | Endpoint] | None = None,
    port_range: tuple[int, int] = (0, _PORTS - 1),
) -> Summary:
    """Count the rows of a look, which may come in parts.

    A socket is the server's when its local port, or its local address and port, is among `servers`;
    with None, when its local port is one that some socket listens on. `port_range` is inclusive.
    """
    listeners = join([part[part["state"] == TcpState.LISTEN] for part in parts])
    ends = _Servers(set(listeners["sport"].tolist()) if servers is None else servers)
    low, high = port_range
    by_side = np.zeros(2 * _STATES, np.intp)
    buckets = np.zeros(_BUCKETS, np.intp)
    clients: list[Sockets] = []
    for block in _blocks(parts):
        heads = _numbers(block, "head").view(np.intp)
        states, ports = heads >> _STATE_BIT & 0xFF, heads >> _SPORT_BIT & 0xFFFF
        server = ends.have(block, ports)
        by_side += np.bincount(states + _STATES * server, minlength=len(by_side))
        left = block["expires_ms"][states == TcpState.TIME_WAIT] // (BUCKET_S * 1000)
        buckets += np.bincount(np.minimum(left, _BUCKETS - 1), minlength=_BUCKETS)
        client = ~server & (states != TcpState.LISTEN) & (ports >= low) & (ports <= high)
        if client.all():
            clients.append(block)
        elif client.any():
            clients.append(block.view(_OPAQUE)[client].view(SOCKETS))
    return Summary(
        states_by_side={
            side.value: _state_names(counts)
            for side, counts in zip((Side.CLIENT, Side.SERVER), np.split(by_side, 2), strict=True)
        },
        listening=len(listeners),
        ports_in_use=_ports_in_use(clients),
        accept_queue=_accept_queue(listeners),
        time_wait_left_s={int(n) * BUCKET_S: int(buckets[n]) for n in np.flatnonzero(buckets)},
    )


def address_text(family: int, address: bytes) -> str:
    """Return 16 address bytes as text; an IPv4 address mapped into IPv6 is shown as IPv4."""
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, address[:4])
    if address.startswith(_MAPPED_PREFIX):
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def endpoint_text(family: int, address: bytes, port: int) -> str:
    """Return "192.0.2.1:80" or "[2001:db8::1]:80"."""
    text = address_text(family, address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _blocks(parts: Sequence[Sockets]) -> Iterator[Sockets]:
    """Yield all rows in blocks: large parts in views, small ones joined."""
    few: list[Sockets] = []
    rows = 0
    for part in parts:
        for start in range(0, len(part), _BLOCK_ROWS):
            few.append(part[start : start + _BLOCK_ROWS])
            rows += len(few[-1])
            if rows >= _BLOCK_ROWS:
                yield join(few)
                few, rows = [], 0
    if few:
        yield join(few)


class _Servers:
    """The local ends that are the server's."""

    def __init__(self, servers: Collection[int | Endpoint]) -> None:
        self._anywhere = np.zeros(_PORTS, np.bool_)
        self._at: dict[tuple[int, bytes], NDArray[np.bool_]] = defaultdict(
            lambda: np.zeros(_PORTS, np.bool_)
        )
        for server in servers:
            if isinstance(server, int):
                self._anywhere[server] = True
                continue
            address, port = server
            for form in _forms(address):
                self._at[form][port] = True

    def have(self, block: Sockets, ports: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Tell of each row whether its local end, whose port is given too, is one of them."""
        found: NDArray[np.bool_] = self._anywhere[ports]
        for (family, address), table in self._at.items():
            rows = np.flatnonzero(table[ports])
            if len(rows):
                first, second = np.frombuffer(address, ">u8")
                words = block.view(_WORDS)
                found[rows] |= (
                    (block["family"][rows] == family)
                    & (words["src_first"][rows] == first)
                    & (words["src_second"][rows] == second)
                )
        return found


def _forms(address: str) -> tuple[tuple[int, bytes], ...]:
    """Return (family, 16 bytes) of every row that can mean this address."""
    if ":" in address:
        return ((socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address)),)
    packed = socket.inet_pton(socket.AF_INET, address)
    return (
        (socket.AF_INET, packed.ljust(_ADDRESS_BYTES, b"\0")),
        (socket.AF_INET6, _MAPPED_PREFIX + packed),
    )


def _state_names(counts: NDArray[np.intp]) -> dict[str, int]:
    """Return the counts by name, zeros and LISTEN left out."""
    return {
        _STATE_NAMES.get(state, f"STATE_{state}"): count
        for state, count in enumerate(counts.tolist())
        if count and state != TcpState.LISTEN
    }


def _accept_queue(listeners: Sockets) -> dict[str, int]:
    """Return the accept queue of each local end, summed over SO_REUSEPORT."""
    totals: Counter[str] = Counter()
    for row in listeners:
        label = endpoint_text(int(row["family"]), row["src"].tobytes(), int(row["sport"]))
        totals[label] += int(row["rqueue"])
    return dict(totals)


def _ports_in_use(blocks: Sequence[Sockets]) -> dict[str, int]:
    """Count the distinct local ends of each remote end, over all rows."""
    totals: Counter[str] = Counter()
    for remote, count in (_count_by_marks(blocks) or _count_in_set(blocks)).items():
        totals[endpoint_text(*remote)] += count
    return dict(totals)


def _count_by_marks(blocks: Sequence[Sockets]) -> dict[_RemoteEnd, int]:
    """Count with a byte for each possible pair of ends; nothing, where those outweigh the rows.

    The ends of a lab differ in few bits, and these make the number of a pair, remote end first.
    """
    some, every = _bits(blocks)
    remote, local = (
        [_Span(word, bits) for word, field in end if (bits := some[word] & ~every[word] & field)]
        for end in (_REMOTE, _LOCAL)
    )
    shape = tuple(1 << sum(span.width for span in spans) for spans in (remote, local))
    if math.prod(shape) > SOCKETS.itemsize * sum(map(len, blocks)):
        return {}
    marks = np.zeros(shape, np.bool_)
    for block in blocks:
        words = {word: _numbers(block, word) for word in {span.word for span in remote + local}}
        pairs: Any = 0
        for span in remote + local:
            pairs = pairs << span.width | words[span.word] >> span.low & span.mask
        marks.reshape(-1)[pairs] = True
    return {
        _remote_end(number, remote, every): int(count)
        for number, count in enumerate(map(np.count_nonzero, marks))
        if count
    }


class _Span:
    """The bits of a word from the lowest in which rows differ up to the highest."""

    def __init__(self, word: str, differing: int) -> None:
        self.word = word
        self.low = (differing & -differing).bit_length() - 1
        self.width = differing.bit_length() - self.low
        self.mask = (1 << self.width) - 1


def _numbers(block: Sockets, word: str) -> NDArray[np.uint64]:
    """Return a word of each row, as an array of its own in the machine's byte order."""
    numbers: NDArray[np.uint64] = block.view(_WORDS)[word].astype(np.uint64)
    return numbers


def _bits(blocks: Sequence[Sockets]) -> tuple[dict[str, int], dict[str, int]]:
    """Return, by word, the bits that some row has, and those that every row has."""
    some, every = dict.fromkeys(_NUMBERS, 0), dict.fromkeys(_NUMBERS, _ALL_BITS)
    for block in blocks:
        for word in _NUMBERS:
            if word in _ZERO_IN_IPV4 and some["head"] >> _FAMILY_BIT == socket.AF_INET:
                every[word] = 0
                continue
            numbers = _numbers(block, word)
            some[word] |= int(np.bitwise_or.reduce(numbers))
            every[word] &= int(np.bitwise_and.reduce(numbers))
    return some, every


def _remote_end(number: int, spans: Sequence[_Span], every: dict[str, int]) -> _RemoteEnd:
    """Return the remote end that has this number."""
    words = dict(every)
    for span in reversed(spans):
        words[span.word] |= (number & span.mask) << span.low
        number >>= span.width
    address = words["dst_first"] << 64 | words["dst_second"]
    return (
        words["head"] >> _FAMILY_BIT,
        address.to_bytes(_ADDRESS_BYTES, "big"),
        words["head"] & 0xFFFF,
    )


def _count_in_set(blocks: Sequence[Sockets]) -> dict[_RemoteEnd, int]:
    """Count pairs of ends that may differ in any bit: some ten times slower."""
    pairs = {
        pair
        for block in blocks
        for pair in zip(block["family"].tolist(), block.view(_WORDS)["ends"].tolist(), strict=True)
    }
    return Counter((family, ends[20:], int.from_bytes(ends[2:4])) for family, ends in pairs)
