"""The rulebook: what happens to a packet, by the rules and what its connection has seen. Pure.

The wire shows every packet to `decide` once, as it comes onto the wire, and does what it answers;
after each it asks `freed` which held packets may go. A connection is a four-tuple, and starts anew
with a SYN that does not repeat the one before, or that follows a RST or both FINs.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from types import MappingProxyType

from twbench.model.states import Side
from twbench.wire.grammar import CERTAIN_PPM, FINS_CROSS, Action, Event, Kind, Rule, RuleError
from twbench.wire.packet import Flag, Packet, is_icmp_error, reset_for, unreachable_for

__all__ = [
    "FINS_CROSS",
    "Action",
    "Decision",
    "Event",
    "Flow",
    "Kind",
    "Rule",
    "RuleError",
    "Rulebook",
    "answer_to",
    "check_icmp",
    "flow_of",
    "kinds_of",
]

MAX_CONNECTIONS = 100_000

Flow = tuple[bytes, int, int]
"""A four-tuple as the client sends it: both addresses in wire form, client's and server's port."""

_Counter = tuple[Side | None, Kind]
"""Packets of a kind that came from a side, or from either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to do with one packet, and by which rule (None: no rule matched, so it passes).

    `by_ns` is how much later it, or its copy, is to cross, in nanoseconds. `icmp` is the type and
    code of the answer. `hold` names this packet in `freed`; None where only a hand lets it go.
    """

    action: Action
    rule: Rule | None = None
    by_ns: int = 0
    icmp: tuple[int, int] | None = None
    hold: int | None = None


_UNTOUCHED = Decision(action=Action.PASS)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Threshold:
    """A counter and the number it has to reach."""

    counter: _Counter
    number: int

    def reached(self, seen: Mapping[_Counter, int]) -> bool:
        return seen.get(self.counter, 0) >= self.number


@dataclass(frozen=True, kw_only=True, slots=True)
class _Clause:
    """A rule as the packets of one side and kind meet it; `number` is its place in the book."""

    number: int
    rule: Rule
    decision: Decision
    after: _Threshold | None
    until: _Threshold | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Page:
    """What concerns the packets of one side and kind: the counters they raise, the clauses."""

    counters: tuple[_Counter, ...]
    clauses: tuple[_Clause, ...]


@dataclass(kw_only=True, slots=True)
class _Connection:
    """What one connection has seen, by counter, and how often each rule has acted on it."""

    seen: dict[_Counter, int] = field(default_factory=lambda: defaultdict(int))
    acted: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    isn: dict[Side, int] = field(default_factory=dict)
    waiting: dict[int, _Threshold] = field(default_factory=dict)

    def is_over_for(self, origin: Side, isn: int) -> bool:
        """Return whether a SYN with this sequence number begins another connection."""
        ended = self.seen.get(_RST) or all(self.seen.get(fin) for fin in _FINS)
        return bool(ended) or self.isn.get(origin, isn) != isn


_RST: _Counter = (None, Kind.RST)
_FINS: tuple[_Counter, ...] = ((Side.CLIENT, Kind.FIN), (Side.SERVER, Kind.FIN))

_BARE = (False,)
_EITHER = (False, True)
_SPECIAL = Flag.SYN | Flag.FIN | Flag.RST | Flag.ACK
_BY_HEADER: Mapping[Kind, tuple[Flag, Flag, tuple[bool, ...]]] = MappingProxyType(
    {
        Kind.ANY: (Flag(0), Flag(0), _EITHER),
        Kind.SYN: (Flag.SYN | Flag.ACK, Flag.SYN, _EITHER),
        Kind.SYN_ACK: (Flag.SYN | Flag.ACK, Flag.SYN | Flag.ACK, _EITHER),
        Kind.ACK: (_SPECIAL, Flag.ACK, _BARE),
        Kind.DATA: (Flag(0), Flag(0), (True,)),
        Kind.FIN: (Flag.FIN, Flag.FIN, _EITHER),
        Kind.RST: (Flag.RST, Flag.RST, _EITHER),
    }
)
"""Which flags count for a kind, how they must be, and whether there is payload."""

_FEW = 10
"""So many ICMP types are listed one by one."""

_ANYTHING = frozenset({Kind.ANY})
_TCP_KINDS = tuple(
    frozenset(
        kind
        for kind, (mask, wanted, payload) in _BY_HEADER.items()
        if flags & mask == wanted and loaded in payload
    )
    for loaded in (False, True)
    for flags in range(256)
)
"""The kinds of a TCP packet, by its flags' byte, and 256 more with payload."""


def kinds_of(packet: Packet) -> frozenset[Kind]:
    """Return every kind that fits the packet; without TCP, `any` alone."""
    tcp = packet.tcp
    return _TCP_KINDS[tcp.flags + (256 if tcp.payload else 0)] if tcp else _ANYTHING


def answer_to(decision: Decision, packet: Packet) -> Packet | None:
    """Return what a firewall answers a packet with, by `reset` or `refuse`; None: it only drops.

    A RST, and what is no TCP, gets no RST, and an ICMP message no ICMP error.
    """
    match decision.action:
        case Action.RESET if packet.tcp and Kind.RST not in kinds_of(packet):
            return reset_for(packet)
        case Action.REFUSE if decision.icmp is not None and packet.icmp is None:
            kind, code = decision.icmp
            return unreachable_for(packet, kind=kind, code=code)
        case _:
            return None


def check_icmp(rule: Rule, *, family: int) -> None:
    """Raise RuleError where a rule answers with an ICMP type that is no error of IPv`family`."""
    if rule.icmp is not None and not is_icmp_error(rule.icmp[0], family=family):
        errors = [str(kind) for kind in range(256) if is_icmp_error(kind, family=family)]
        allowed = ", ".join(errors) if len(errors) < _FEW else f"{errors[0]} to {errors[-1]}"
        found = f"ICMP type {rule.icmp[0]}"
        raise RuleError(rule, found, [f"the type of an ICMP error of IPv{family}: {allowed}"])


def flow_of(origin: Side, packet: Packet) -> Flow:
    """Return the packet's four-tuple, alike for both directions; ports are 0 without TCP."""
    addresses, tcp = packet.addresses, packet.tcp
    source, destination = (tcp.source_port, tcp.destination_port) if tcp else (0, 0)
    if origin is Side.CLIENT:
        return addresses, source, destination
    half = len(addresses) // 2
    return addresses[half:] + addresses[:half], destination, source


class Rulebook:
    """Rules in force, with the memory they need; the same packets and seed, the same decisions.

    It knows the `max_connections` that sent last. One that is forgotten, or gives way to the next
    on its four-tuple, frees what it held; a forgotten one that goes on is counted from zero.
    """

    def __init__(
        self,
        rules: Sequence[Rule | str],
        *,
        seed: int = 0,
        max_connections: int = MAX_CONNECTIONS,
        family: int | None = None,
    ) -> None:
        """Take rules or their lines; the first that matches decides. Raises RuleError.

        With a `family`, 4 or 6, what a rule answers with must be an ICMP error of it.
        """
        self._rules = [Rule.parse(rule) if isinstance(rule, str) else rule for rule in rules]
        if family is not None:
            for rule in self._rules:
                check_icmp(rule, family=family)
        self._random = Random(seed)
        self._hits = [0] * len(self._rules)
        self._remembers = any(map(_needs_memory, self._rules))
        self._pages = _write_pages(self._rules, remembers=self._remembers)
        self._connections: OrderedDict[Flow, _Connection] = OrderedDict()
        self._max_connections = max_connections
        self._stranger = _Connection()
        self._holds = 0
        self._freed: list[int] = []

    @property
    def hits(self) -> Mapping[Rule, int]:
        """Return how many packets each rule has decided about, zero included."""
        hits = dict.fromkeys(self._rules, 0)
        for rule, count in zip(self._rules, self._hits, strict=True):
            hits[rule] += count
        return hits

    def decide(self, origin: Side, packet: Packet) -> Decision:
        """Return what to do with a packet that `origin` has just sent."""
        kinds = kinds_of(packet)
        page = self._pages[origin, kinds]
        connection = self._stranger
        if self._remembers:
            connection = self._connection(origin, packet, kinds)
            for counter in page.counters:
                connection.seen[counter] += 1
            if connection.waiting:
                self._free_reached(connection)
        for clause in page.clauses:
            if self._matches(clause, connection):
                return self._apply(clause, connection)
        return _UNTOUCHED

    def freed(self) -> tuple[int, ...]:
        """Return the holds that have ended since the last call, in the order in which they began.

        Their packets are older than the one just decided about, so they go before it. A packet that
        a hand let go may be named here all the same.
        """
        if not self._freed:
            return ()
        freed = tuple(sorted(self._freed))
        self._freed.clear()
        return freed

    def _connection(self, origin: Side, packet: Packet, kinds: frozenset[Kind]) -> _Connection:
        """Return the packet's connection, now the one that sent last."""
        flow = flow_of(origin, packet)
        connection = self._connections.get(flow)
        isn = packet.tcp.seq if packet.tcp and Kind.SYN in kinds else None
        if connection and isn is not None and connection.is_over_for(origin, isn):
            self._freed += connection.waiting
            connection = None
        if connection is None:
            connection = self._connections[flow] = _Connection()
            if len(self._connections) > self._max_connections:
                _, forgotten = self._connections.popitem(last=False)
                self._freed += forgotten.waiting
        if isn is not None:
            connection.isn[origin] = isn
        self._connections.move_to_end(flow)
        return connection

    def _free_reached(self, connection: _Connection) -> None:
        waiting = connection.waiting
        ended = [hold for hold, until in waiting.items() if until.reached(connection.seen)]
        for hold in ended:
            del waiting[hold]
        self._freed += ended

    def _matches(self, clause: _Clause, connection: _Connection) -> bool:
        rule, seen = clause.rule, connection.seen
        return (
            (rule.nth is None or seen[rule.origin, rule.kind] == rule.nth)
            and (clause.after is None or clause.after.reached(seen))
            and (clause.until is None or not clause.until.reached(seen))
            and (rule.times is None or connection.acted[clause.number] < rule.times)
            and (rule.times_in_all is None or self._hits[clause.number] < rule.times_in_all)
            # last, so that only packets in question roll the dice
            and (
                rule.chance_ppm >= CERTAIN_PPM
                or self._random.random() * CERTAIN_PPM < rule.chance_ppm
            )
        )

    def _apply(self, clause: _Clause, connection: _Connection) -> Decision:
        self._hits[clause.number] += 1
        if clause.rule.times is not None:
            connection.acted[clause.number] += 1
        if clause.until is None:
            return clause.decision
        self._holds += 1
        connection.waiting[self._holds] = clause.until
        return replace(clause.decision, hold=self._holds)


def _needs_memory(rule: Rule) -> bool:
    return any(item is not None for item in (rule.nth, rule.after, rule.until, rule.times))


def _write_pages(
    rules: Sequence[Rule], *, remembers: bool
) -> dict[tuple[Side, frozenset[Kind]], _Page]:
    """Return the page of every side and set of kinds; counters that nobody reads are left out."""
    pages = {}
    for origin in Side:
        for kinds in {_ANYTHING, *_TCP_KINDS}:
            raised = {(side, kind) for side in (origin, None) for kind in kinds}
            clauses = tuple(
                _clause(number, rule, origin, raised)
                for number, rule in enumerate(rules)
                if (rule.origin, rule.kind) in raised
            )
            pages[origin, kinds] = raised, clauses
    read = {_RST, *_FINS} if remembers else set()
    for _, clauses in pages.values():
        for clause in clauses:
            read.add((clause.rule.origin, clause.rule.kind))
            read |= {each.counter for each in (clause.after, clause.until) if each}
    return {
        key: _Page(counters=tuple(raised & read), clauses=clauses)
        for key, (raised, clauses) in pages.items()
    }


def _clause(number: int, rule: Rule, origin: Side, raised: set[_Counter]) -> _Clause:
    """Return a rule as packets from `origin` that raise these counters meet it."""

    def threshold(event: Event | None) -> _Threshold | None:
        if event is None:
            return None
        counter = (event.side or origin.other, event.kind)
        return _Threshold(counter=counter, number=event.nth)

    after = threshold(rule.after)
    if after and after.counter in raised:
        # the packet itself is counted by then, and comes not after itself
        after = replace(after, number=after.number + 1)
    return _Clause(
        number=number,
        rule=rule,
        decision=Decision(action=rule.action, rule=rule, by_ns=rule.by_ns or 0, icmp=rule.icmp),
        after=after,
        until=threshold(rule.until),
    )
