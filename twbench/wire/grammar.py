"""One rule of the wire: a readable line, and the data it stands for. Pure text and data.

    rule      = action [nth] [direction] kind {modifier}
    action    = "pass" | "drop" | "hold" | "delay" | "duplicate" | "reorder" | "reset" | "refuse"
    nth       = "1st" | "2nd" | "3rd" | …         counted from the connection's first packet
    direction = "client→server" | "server→client" both without it; "->" is read as "→"
    kind      = "any" | "SYN" | "SYN+ACK" | "ACK" | "DATA" | "FIN" | "RST"
    modifier  = "by" number ("us" | "ms" | "s")   delay (needed) and duplicate: how much later
              | "with icmp" type "/" code         refuse (needed)
              | "until" event                     hold; without it, until let go by hand
              | "after" event                     only once that has been seen
              | number "%"                        by chance
              | count                             at most so often in each connection
              | count "in all"                    at most so often in all connections
    event     = [nth] ("client" | "server") kind | [nth] kind "from the other side"
    count     = "once" | "twice" | number "times" commas are for the reader

For example:

    drop client→server ACK after server FIN, once
    hold FIN until FIN from the other side
    delay 2nd client→server DATA by 200 ms
    refuse client→server SYN with icmp 3/13
    drop any 1%

The first rule that matches a packet decides; `pass` excepts it from the rules below. A packet is of
every kind that fits it, and one without TCP of the kind `any` alone. A retransmission is one more
packet. What became of a packet does not matter to the other rules: dropped or held, it was seen.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from twbench.model.errors import Problem, UsageError
from twbench.model.states import Side

CERTAIN_PPM = 1_000_000
MAX_COUNT = 1_000_000
MAX_DELAY_NS = 3_600 * 10**9


FINS_CROSS = "hold FIN until FIN from the other side"
"""The rule by which each FIN leaves before the other's has arrived."""


class RuleError(UsageError, ValueError):
    """A line that is no rule: the message gives the line, what was found there, and what may be."""

    def __init__(self, line: object, found: str, allowed: Iterable[str]) -> None:
        """Keep what was found in the line, and what is allowed there, as clauses of a sentence."""
        self.found = found
        self.allowed = f"allowed is {', '.join(allowed)}"
        super().__init__(str(Problem(key=f"rule '{line}'", found=found, allowed=self.allowed)))


class Action(StrEnum):
    """What happens to a packet."""

    PASS = "pass"  # noqa: S105 - a verb
    """It crosses at once."""
    DROP = "drop"
    """It is lost."""
    HOLD = "hold"
    """It waits for an event, or for a hand."""
    DELAY = "delay"
    """It crosses later."""
    DUPLICATE = "duplicate"
    """It crosses at once, and a copy with it or later."""
    REORDER = "reorder"
    """It crosses behind the next packet of its direction."""
    RESET = "reset"
    """It is lost and answered with RST; a RST or what is no TCP is lost only."""
    REFUSE = "refuse"
    """It is lost and answered with an ICMP error; an ICMP error is lost only."""


class Kind(StrEnum):
    """What a packet is, by its flags and payload."""

    ANY = "any"
    SYN = "SYN"
    SYN_ACK = "SYN+ACK"
    ACK = "ACK"
    """Acknowledges and nothing else: no payload, no SYN, FIN or RST."""
    DATA = "DATA"
    """Carries payload, whatever its flags."""
    FIN = "FIN"
    RST = "RST"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """The `nth` packet of `kind` that came from `side`; None is the side the packet is sent to."""

    kind: Kind
    side: Side | None
    nth: int = 1

    def __str__(self) -> str:
        """Return the event as a rule writes it."""
        what = f"{self.side} {self.kind}" if self.side else f"{self.kind} from the other side"
        return what if self.nth == 1 else f"{_nth(self.nth)} {what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One line of the grammar above; `str` writes it in the canonical form, which parses back.

    `origin` is the side a packet comes from, None for both. `by_ns` is in nanoseconds, `icmp` holds
    type and code, `chance_ppm` is in parts per million. `times` counts in each connection.

    Raises:
        RuleError: the action lacks what it needs, or was given what only others take.
    """

    action: Action
    kind: Kind
    origin: Side | None = None
    nth: int | None = None
    by_ns: int | None = None
    icmp: tuple[int, int] | None = None
    until: Event | None = None
    after: Event | None = None
    chance_ppm: int = CERTAIN_PPM
    times: int | None = None
    times_in_all: int | None = None

    def __post_init__(self) -> None:
        for name, (word, takers) in _ONLY_WITH.items():
            if getattr(self, name) is not None and self.action not in takers:
                raise RuleError(self, f"'{word}' with {self.action}", takers)
        name, example = _NEEDED_BY.get(self.action, ("action", ""))
        if getattr(self, name) is None:
            raise RuleError(self, f"{self.action} alone", [f"'{self.action} … {example}'"])

    def __str__(self) -> str:
        """Return the rule's line."""
        words: tuple[object, ...] = (
            self.action,
            self.nth and _nth(self.nth),
            self.origin and f"{self.origin}→{self.origin.other}",
            self.kind,
            self.by_ns and f"by {_fraction(self.by_ns, places=6)} ms",
            self.icmp and f"with icmp {self.icmp[0]}/{self.icmp[1]}",
            self.until and f"until {self.until}",
            self.after and f"after {self.after}",
            self.chance_ppm < CERTAIN_PPM and f"{_fraction(self.chance_ppm, places=4)}%",
        )
        counts: tuple[object, ...] = (
            self.times and _count(self.times),
            self.times_in_all and f"{_count(self.times_in_all)} in all",
        )
        line = " ".join(str(word) for word in words if word)
        return ", ".join([line, *(str(count) for count in counts if count)])

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Return the rule of one line. Raises RuleError for anything else."""
        words = _Words(text)
        fields: dict[str, Any] = {"action": words.take(_ACTIONS), "nth": _read_nth(words)}
        fields["origin"] = words.take(_DIRECTIONS) if words.next_is(_DIRECTIONS) else None
        fields["kind"] = words.take(_KINDS, or_else=() if fields["origin"] else _DIRECTIONS)
        while word := words.word:
            name, value = _read_modifier(words)
            if name in fields:
                words.refuse(word, ["each modifier once"])
            fields[name] = value
        return cls(**fields)


_ONLY_WITH: Mapping[str, tuple[str, tuple[Action, ...]]] = MappingProxyType(
    {
        "by_ns": ("by", (Action.DELAY, Action.DUPLICATE)),
        "icmp": ("with icmp", (Action.REFUSE,)),
        "until": ("until", (Action.HOLD,)),
    }
)
_NEEDED_BY: Mapping[Action, tuple[str, str]] = MappingProxyType(
    {
        Action.DELAY: ("by_ns", "by 200 ms"),
        Action.REFUSE: ("icmp", "with icmp 3/13"),
    }
)

_ACTIONS = {str(action): action for action in Action}
_KINDS = {str(kind): kind for kind in Kind}
_SIDES = {str(side): side for side in Side}
_DIRECTIONS = {f"{side}→{side.other}": side for side in Side}
_UNITS_NS = {"us": 10**3, "ms": 10**6, "s": 10**9}
_COUNTS = {"once": 1, "twice": 2}
_ORDINALS = {1: "st", 2: "nd", 3: "rd"}

_SPELLINGS = (
    (re.compile(r"\s*(?:->|→)\s*"), "→"),
    (re.compile(r"\s+%"), "%"),
    (re.compile(r"(?<=[0-9])(?=(?:us|ms|s)\b)"), " "),
)
"""What people also write, and what is read for it: `client -> server`, `1 %`, `200ms`."""
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_NTH = re.compile(r"([0-9]{1,9})(?:st|nd|rd|th)", re.IGNORECASE)
_ICMP = re.compile(r"([0-9]{1,3})/([0-9]{1,3})")

_T = TypeVar("_T")


class _Words:
    """The words of a line, read one after another; `word` is the next, empty at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        for pattern, spelling in _SPELLINGS:
            text = pattern.sub(spelling, text)
        self._rest = re.findall(r"[^\s,]+", text)
        self._end = "its end" if self._rest else "nothing"

    @property
    def word(self) -> str:
        return self._rest[0] if self._rest else ""

    def next_is(self, table: Mapping[str, object]) -> bool:
        return self.word.lower() in map(str.lower, table)

    def take(self, table: Mapping[str, _T], *, or_else: Iterable[str] = ()) -> _T:
        """Return what the next word stands for in `table`, whatever its case.

        A refusal names what might stand there `or_else`, too.
        """
        named = {name.lower(): value for name, value in table.items()}
        if self.word.lower() not in named:
            self.refuse(self.word, [*or_else, *table])
        return named[self._rest.pop(0).lower()]

    def take_phrase(self, *phrase: str) -> None:
        for word in phrase:
            self.take({word: None})

    def convert(self, as_value: Callable[[str], _T | None], allowed: str) -> _T:
        """Return what `as_value` makes of the next word; None from it refuses the word."""
        value = as_value(self.word)
        if value is None:
            self.refuse(self.word, [allowed])
        self._rest.pop(0)
        return value

    def refuse(self, word: str, allowed: Iterable[str]) -> NoReturn:
        raise RuleError(self._text, repr(word) if word else self._end, allowed)


def _scaled(word: str, scale: int, highest: int) -> int | None:
    """Return a decimal number times `scale`, if that is whole and from 1 to `highest`."""
    if not _DECIMAL.fullmatch(word):
        return None
    value = Decimal(word) * scale
    return int(value) if value == int(value) and 1 <= value <= highest else None


def _icmp(word: str) -> tuple[int, int] | None:
    match = _ICMP.fullmatch(word)
    kind, code = (int(match[1]), int(match[2])) if match else (256, 256)
    return (kind, code) if max(kind, code) < 256 else None  # noqa: PLR2004 - both are one byte


def _read_nth(words: _Words) -> int | None:
    if not _NTH.fullmatch(words.word):
        return None
    return words.convert(lambda word: _scaled(word[:-2], 1, MAX_COUNT), f"1st to {_nth(MAX_COUNT)}")


def _read_event(words: _Words) -> Event:
    nth = _read_nth(words) or 1
    if words.next_is(_SIDES):
        return Event(nth=nth, side=words.take(_SIDES), kind=words.take(_KINDS))
    if not words.next_is(_KINDS):
        words.refuse(words.word, [*_SIDES, "a kind 'from the other side'"])
    event = Event(nth=nth, side=None, kind=words.take(_KINDS))
    words.take_phrase("from", "the", "other", "side")
    return event


def _read_by(words: _Words) -> int:
    allowed = "a time up to an hour, in whole nanoseconds, as in 200 ms"
    number = words.convert(lambda word: word if _DECIMAL.fullmatch(word) else None, allowed)
    value = _scaled(number, words.take(_UNITS_NS), MAX_DELAY_NS)
    if value is None:
        words.refuse(number, [allowed])
    return value


def _read_icmp(words: _Words) -> tuple[int, int]:
    words.take_phrase("icmp")
    return words.convert(_icmp, "type/code, each 0 to 255, as in 3/13")


def _read_count(words: _Words) -> tuple[str, int]:
    if words.next_is(_COUNTS):
        count = words.take(_COUNTS)
    else:
        count = words.convert(lambda word: _scaled(word, 1, MAX_COUNT), f"1 to {MAX_COUNT} times")
        words.take_phrase("times")
    if not words.next_is({"in": None}):
        return "times", count
    words.take_phrase("in", "all")
    return "times_in_all", count


_MODIFIERS: Mapping[str, tuple[str, Callable[[_Words], object]]] = {
    "by": ("by_ns", _read_by),
    "with": ("icmp", _read_icmp),
    "until": ("until", _read_event),
    "after": ("after", _read_event),
}


def _read_modifier(words: _Words) -> tuple[str, object]:
    """Return the field that the next words set, and its value."""
    if words.next_is(_MODIFIERS):
        name, read = words.take(_MODIFIERS)
        return name, read(words)
    if words.word.endswith("%"):
        percent = words.convert(
            lambda word: _scaled(word[:-1], CERTAIN_PPM // 100, CERTAIN_PPM),
            "0.0001% to 100%, in steps of 0.0001%",
        )
        return "chance_ppm", percent
    if words.next_is(_COUNTS) or words.word[0] in "0123456789":
        return _read_count(words)
    return words.refuse(words.word, [*_MODIFIERS, "P%", *_COUNTS, "N times"])


def _nth(number: int) -> str:
    teens = number // 10 % 10 == 1
    return f"{number}{'th' if teens else _ORDINALS.get(number % 10, 'th')}"


def _count(number: int) -> str:
    return next((word for word, n in _COUNTS.items() if n == number), f"{number} times")


def _fraction(value: int, *, places: int) -> str:
    """Return `value` divided by 10 to the power of `places`, exactly and without idle zeros."""
    whole, rest = divmod(value, 10**places)
    return f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".")
