"""A ladder drawn as text: the diagram of the textbooks, for a terminal and for the documentation.

Also what every drawing of a ladder shares: how a packet of each fate is drawn, and which states
are shown at which rung. Every character is taken to be one column wide.
"""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from types import MappingProxyType

from twbench.model.states import Side
from twbench.wire.ladder import Call, Crossing, EndState, Fate, Ladder, Pause, Step

NARROWEST = 72
"""The least width, in columns, that has room for both margins and the arrows."""
_LEAST_LANE = 24
_LEAST_MARGIN = 16
_GOOD_MARGIN = 19
_STUB = 11
"""Columns between an arrow's loose end and the line that it does not touch."""
_GAP = "  "
_TIMEWAIT_TIMER = 3
_RESTARTED_S = 0.1
"""A TIME_WAIT with so much more time left than it can have has begun anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stroke:
    """How a packet is drawn: which of the two lines its arrow touches, and what stands if none."""

    leaves: bool = True
    """The arrow starts at its origin's line."""
    arrives: bool = True
    """The arrow ends at the other line."""
    word: str = ""
    """Stands at the loose end; of an arrow without one, before the note."""
    mark: tuple[str, str] = ("", "")
    """The loose end itself, where it points to the left line and to the right one."""
    head: tuple[str, str] = ("◄", "►")


_CROSS = ("╳", "╳")  # noqa: RUF001 - the cross is meant
_BRACKET = ("├", "┤")

STROKES: Mapping[Fate, Stroke] = MappingProxyType(
    {
        Fate.DELIVERED: Stroke(),
        Fate.DROPPED: Stroke(arrives=False, word="dropped", mark=_CROSS),
        Fate.HELD: Stroke(arrives=False, word="held", mark=_BRACKET),
        Fate.RELEASED: Stroke(leaves=False, word="released", mark=_BRACKET),
        Fate.DUPLICATED: Stroke(word="duplicated", head=("◄◄", "►►")),
        Fate.ANSWERED: Stroke(arrives=False, word="answered", mark=_CROSS),
        Fate.INJECTED: Stroke(leaves=False, word="injected", mark=("●", "●")),
    }
)


def rungs(ladder: Ladder, *, times: bool) -> Iterator[tuple[Step, Mapping[Side, str]]]:
    """Yield every step with the states to show beside it: those that are news, by side.

    News is a state that changed, TIME_WAIT still there at a pause and, with `times`, its timer
    having started anew. With `times` the time left stands behind the state.
    """
    before: dict[Side, EndState] = {}
    before_s = 0.0
    for step in ladder.steps:
        news = {}
        for side, now in step.states.items():
            was, counts = before.get(side), now.timer == _TIMEWAIT_TIMER
            same = was is not None and was.name == now.name
            anew = times and same and counts and _restarted(was, now, step.t_s - before_s)
            if not same or anew or (counts and isinstance(step, Pause)):
                left = f" {now.expires_s:.1f} s" if times and counts else ""
                news[side] = now.name + (" ↻" if anew else "") + left
        yield step, news
        before, before_s = dict(step.states), step.t_s


def _restarted(was: EndState | None, now: EndState, elapsed_s: float) -> bool:
    return was is not None and now.expires_s > max(0, was.expires_s - elapsed_s) + _RESTARTED_S


def call_text(call: Call) -> str:
    """Return the call as strace writes it: "recv() = 100 bytes"."""
    return plain(f"{call.text} = {call.result}" if call.result else call.text)


def note_text(crossing: Crossing) -> str:
    """Return what stands below the arrow, if anything: the note, and a fate not yet told."""
    stroke = STROKES[crossing.fate]
    untold = stroke.word if stroke.leaves and stroke.arrives else ""
    return plain(": ".join(filter(None, (untold, crossing.note))))


def plain(text: str) -> str:
    """Return `text` on one line, with no more than its printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def wrapped(text: str, columns: int, *, indent: str = "") -> list[str]:
    """Break `text` into lines of at most `columns`, all but the first indented."""
    return textwrap.wrap(
        plain(text), max(1, columns), subsequent_indent=indent, break_on_hyphens=False
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Columns:
    """The widths of the parts of a line: `clock margin │lane│ margin`."""

    clock: int
    lane: int
    margins: Mapping[Side, int]

    def line(self, *, clock: str = "", client: str = "", lane: str = "", server: str = "") -> str:
        left = (
            f"{clock:>{self.clock}}{_GAP * bool(self.clock)}{client:>{self.margins[Side.CLIENT]}}"
        )
        return f"{left} │{lane:^{self.lane}}│ {server}".rstrip()


def draw_text(ladder: Ladder, *, width: int = 100, times: bool = True) -> str:
    """Draw the ladder in at most `width` columns, lines parted by newlines, none at the end.

    Without `times` nothing depends on the clock: no times, no timers. Raises ValueError for a
    width below `NARROWEST`.
    """
    if width < NARROWEST:
        raise ValueError(f"a ladder takes {NARROWEST} columns at least, not {width}")
    columns = _columns(ladder, width, times=times)
    lines = [*wrapped(ladder.title, width), *wrapped(ladder.sentence, width), ""]
    lines.append(
        columns.line(clock="seconds" if times else "", client=Side.CLIENT, server=Side.SERVER)
    )
    before: Step | None = None
    for step, news in rungs(ladder, times=times):
        if _takes_a_breath(before, step):
            lines.append(columns.line())
        lines += _drawn(step, news, columns, times=times)
        before = step
    return "\n".join([*lines, columns.line()])


def _takes_a_breath(before: Step | None, step: Step) -> bool:
    """Tell whether an empty rung makes the drawing clearer here."""
    match before, step:
        case (None | Pause(), _) | (_, Pause()) | (Crossing(), Call()):
            return True
        case Crossing(), _:
            return bool(note_text(before))
    return False


def _columns(ladder: Ladder, width: int, *, times: bool) -> _Columns:
    """Give every part the width that it asks for, or its share of what there is."""
    clock = max(map(len, ["seconds", *map(_clock, ladder.steps)])) if times else 0
    asked = dict.fromkeys(Side, _LEAST_MARGIN)
    lane = _LEAST_LANE
    for step, news in rungs(ladder, times=times):
        for side in Side:
            parts = filter(None, (_call_of(side, step), news.get(side)))
            asked[side] = max(asked[side], len(_GAP.join(parts)))
        lane = max(lane, _lane_asked(step))
    room = width - clock - len(_GAP) * bool(clock) - len(" ││ ")
    lane = min(lane, max(_LEAST_LANE, room - sum(min(it, _GOOD_MARGIN) for it in asked.values())))
    half = (room - lane) // 2
    margins = {side: min(asked[side], max(half, room - lane - asked[side.other])) for side in Side}
    return _Columns(clock=clock, lane=lane, margins=margins)


def _lane_asked(step: Step) -> int:
    match step:
        case Crossing():
            stroke = STROKES[step.fate]
            loose = 0 if stroke.leaves and stroke.arrives else _STUB
            return len(plain(str(step.segment))) + 8 + loose
        case Pause():
            return min(40, len(plain(step.text)) + 8)
    return 0


def _call_of(side: Side, step: Step) -> str:
    return call_text(step) if isinstance(step, Call) and step.side is side else ""


def _clock(step: Step) -> str:
    return f"{step.t_s:.3f}"


def _drawn(
    step: Step, news: Mapping[Side, str], columns: _Columns, *, times: bool
) -> Iterator[str]:
    """Yield the lines of one rung."""
    above: list[str] = []
    lane: list[str] = []
    match step:
        case Crossing():
            above, lane = _arrow(step, columns.lane)
        case Pause():
            told = [f" {line} " for line in wrapped(step.text, columns.lane - 8)] or [""]
            lane = [line.center(columns.lane, "┄") for line in told]
    sides = {
        side: [""] * len(above)
        + _margin(side, _call_of(side, step), news.get(side, ""), columns.margins[side])
        for side in Side
    }
    clock = _clock(step) if times else ""
    rows = zip_longest(above + lane, sides[Side.CLIENT], sides[Side.SERVER], fillvalue="")
    for number, (middle, client, server) in enumerate(rows):
        yield columns.line(
            clock=clock if number == len(above) else "", client=client, lane=middle, server=server
        )


def _margin(side: Side, call: str, state: str, columns: int) -> list[str]:
    """Set the call at the outer edge and the state at the line, on one line if they fit."""
    calls = wrapped(call, columns, indent="  ")
    block = max(map(len, calls), default=0)
    states = wrapped(state, columns)
    together = len(calls) <= 1 and block + 2 + len(state) <= columns
    rows = list(zip_longest(calls, states, fillvalue="")) if together else []
    rows = rows or [(line, "") for line in calls] + [("", line) for line in states]
    if side is Side.CLIENT:
        return [f"{outer}{inner:>{columns - len(outer)}}" for outer, inner in rows]
    return [
        f"{inner}{outer.ljust(block) if outer else '':>{columns - len(inner)}}"
        for outer, inner in rows
    ]


def _arrow(crossing: Crossing, columns: int) -> tuple[list[str], list[str]]:
    """Return the lines above the arrow's row, and that row with the note below it.

    The segment stands in the arrow or, where that is too short, above.
    """
    stroke = STROKES[crossing.fate]
    rightwards = crossing.origin is Side.CLIENT
    left = _tip(stroke, tail=rightwards, right=False)
    right = _tip(stroke, tail=not rightwards, right=True)
    shaft = columns - len(left) - len(right)
    text = plain(str(crossing.segment))
    fits = len(text) + 4 <= shaft
    row = left + (f" {text} " if fits else "").center(shaft, "─") + right
    above = [] if fits else wrapped(text, columns - 2)
    return above, [row, *wrapped(note_text(crossing), columns - 2)]


def _tip(stroke: Stroke, *, tail: bool, right: bool) -> str:
    """Return the arrow's tail or head: at the line, or loose and with its word."""
    if stroke.leaves if tail else stroke.arrives:
        return "" if tail else stroke.head[right]
    mark = stroke.mark[right]
    return f"{mark} {stroke.word}".ljust(_STUB) if right else f"{stroke.word} {mark}".rjust(_STUB)
