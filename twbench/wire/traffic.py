"""The packets on a wire: what the rules and the lines do to each, and when it is due. Pure.

A packet is its bytes. It meets the rules as it comes; what crosses then enters the line of its
direction, which may lose, double, queue or delay it.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import count, takewhile

from twbench.model.reports import PacketFate
from twbench.model.scenario import WireSpec
from twbench.model.states import Side
from twbench.wire.line import Line
from twbench.wire.packet import MalformedPacketError, Packet, parse
from twbench.wire.rules import Action, Decision, Rule, Rulebook, answer_to

_Held = tuple[int, Side, bytes]
"""Since when (ns), from whom, and the packet."""


class Traffic:
    """Everything on the wire between two calls; times in nanoseconds of one monotonic clock.

    A packet is held for `hold_ns` at the most. Without rules no packet is even parsed.
    """

    def __init__(
        self, spec: WireSpec, *, hold_ns: int, own_rules: Sequence[Rule | str] = ()
    ) -> None:
        """Begin with an empty wire; `own_rules` come after the scenario's. Raises RuleError."""
        rules = [*spec.rules, *own_rules]
        self.counts = {side: Counter[str]() for side in Side}
        self._book = Rulebook(rules, seed=spec.seed) if rules else None
        self._lines = {side: Line(spec, side) for side in Side}
        self._hold_ns = hold_ns
        self._order = count()
        self._due: list[tuple[int, int, Side, bytes, bool]] = []
        self._held: dict[int, _Held] = {}
        self._reordered: dict[Side, list[_Held]] = defaultdict(list)

    @property
    def next_due_ns(self) -> int | None:
        """Return when something is due next; None on an empty wire, held packets apart."""
        return self._due[0][0] if self._due else None

    @property
    def hits(self) -> dict[str, int]:
        """Return how many packets each rule, by its line, has decided about so far."""
        return {str(rule): n for rule, n in self._book.hits.items()} if self._book else {}

    def take(self, origin: Side, raw: bytes, now_ns: int) -> str:
        """Take a packet that `origin` has sent; return what touched it, if anything did."""
        counts = self.counts[origin]
        counts[PacketFate.SEEN] += 1
        counts[PacketFate.BARE_RESET] += _is_bare_reset(raw)
        if self._book is None:
            return self._enter(origin, raw, now_ns)
        try:
            packet = parse(raw)
        except MalformedPacketError:
            return self._enter(origin, raw, now_ns)
        decision = self._book.decide(origin, packet)
        for hold in self._book.freed():
            self._let_go(self._held.pop(hold, None), now_ns)
        note = self._obey(decision, origin, packet, now_ns)
        if decision.action is not Action.REORDER:
            for held in self._reordered.pop(origin, ()):
                self._let_go(held, now_ns)
        return note

    def due(self, now_ns: int) -> Iterator[tuple[Side, bytes]]:
        """Give, in order, each packet that is due by now, with the side that it came from."""
        self._let_go_of_the_old(now_ns)
        while self._due and self._due[0][0] <= now_ns:
            due_ns, _, origin, raw, crosses = heapq.heappop(self._due)
            if crosses:
                yield origin, raw
            else:
                self._enter(origin, raw, due_ns)

    def _obey(self, decision: Decision, origin: Side, packet: Packet, now_ns: int) -> str:
        counts, raw = self.counts[origin], packet.raw
        match decision.action:
            case Action.PASS:
                return self._enter(origin, raw, now_ns)
            case Action.DROP:
                counts[PacketFate.DROPPED_BY_RULE] += 1
            case Action.HOLD if decision.hold is not None:
                counts[PacketFate.HELD] += 1
                self._held[decision.hold] = now_ns, origin, raw
            case Action.HOLD | Action.REORDER:
                counts[PacketFate.HELD] += 1
                self._reordered[origin].append((now_ns, origin, raw))
            case Action.DELAY:
                counts[PacketFate.DELAYED] += 1
                self._push(now_ns + decision.by_ns, origin, raw, crosses=False)
            case Action.DUPLICATE:
                counts[PacketFate.DUPLICATED] += 1
                self._enter(origin, raw, now_ns)
                self._push(now_ns + decision.by_ns, origin, raw, crosses=False)
            case Action.RESET | Action.REFUSE:
                counts[PacketFate.DROPPED_BY_RULE] += 1
                self._answer(decision, origin, packet, now_ns)
        return f"rule: {decision.rule}"

    def _answer(self, decision: Decision, origin: Side, packet: Packet, now_ns: int) -> None:
        """Answer a packet as a firewall does, if it is one that may be answered."""
        answer = answer_to(decision, packet)
        if answer is not None:
            self.counts[origin][PacketFate.ANSWERED] += 1
            self._push(now_ns, origin.other, answer.raw, crosses=True)

    def _enter(self, origin: Side, raw: bytes, now_ns: int) -> str:
        """Put a packet on the line of its direction; return what the line did to it."""
        counts, line = self.counts[origin], self._lines[origin]
        if line.loses():
            counts[PacketFate.LOST] += 1
            return "lost by chance"
        note = ""
        if line.doubles():
            counts[PacketFate.DUPLICATED] += 1
            note = "duplicated by chance"
            self._cross(line, origin, raw, now_ns)
        return note if self._cross(line, origin, raw, now_ns) else "dropped: the queue is full"

    def _cross(self, line: Line, origin: Side, raw: bytes, now_ns: int) -> bool:
        due_ns = line.enter(now_ns, len(raw))
        if due_ns is None:
            self.counts[origin][PacketFate.DROPPED_BY_QUEUE] += 1
            return False
        self._push(due_ns, origin, raw, crosses=True)
        return True

    def _push(self, due_ns: int, origin: Side, raw: bytes, *, crosses: bool) -> None:
        """Have a packet cross at `due_ns`, or else enter its line then."""
        heapq.heappush(self._due, (due_ns, next(self._order), origin, raw, crosses))

    def _let_go(self, held: _Held | None, now_ns: int) -> None:
        if held is not None:
            self._enter(held[1], held[2], now_ns)

    def _let_go_of_the_old(self, now_ns: int) -> None:
        """Let what has been held for `hold_ns` go: the oldest stand first."""
        before_ns = now_ns - self._hold_ns
        old = [*takewhile(lambda hold: self._held[hold][0] <= before_ns, self._held)]
        for hold in old:
            self._let_go(self._held.pop(hold), now_ns)
        for origin in [o for o, held in self._reordered.items() if held[0][0] <= before_ns]:
            for each in self._reordered.pop(origin):
                self._let_go(each, now_ns)


_TCP = 6
_LAYOUTS = {0x45: (9, 33), 0x60: (6, 53)}
"""The first byte of an IP header to the places of the protocol and of TCP's flags."""
_RST, _RST_AND_ACK = 0x04, 0x14


def _is_bare_reset(raw: bytes) -> bool:
    """Return whether a packet is TCP with RST and without ACK; unparsed, as all are asked."""
    protocol, flags = _LAYOUTS.get(raw[0], (0, 0))
    return len(raw) > flags and raw[flags] & _RST_AND_ACK == _RST and raw[protocol] == _TCP
