"""A ladder drawn as one self-contained SVG: for a slide or a page, in light and in dark.

No scripts, no fonts of its own. Lengths are in pixels, y grows downwards. Nobody can ask how wide
a text will be, so it is estimated from above, and all columns are made as wide as their texts.
"""

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

from twbench.model.states import Side
from twbench.wire.drawing import STROKES, Stroke, call_text, note_text, plain, rungs, wrapped
from twbench.wire.ladder import Call, Crossing, Ladder, Pause, Step
from twbench.wire.palette import BODY_PX, CODE_PX, NOTE_PX, TITLE_PX, style_sheet

_MONO, _SANS = 0.62, 0.6
"""Widest mean advance of a character, in em, among the fonts of either stack."""
_EDGE, _GAP, _BAR, _PILL = 28, 12, 8, 20
_LINE, _NOTE_LINE = 17, 15
_LEAST_LANE = 320
_CALL_CHARS, _NOTE_CHARS = 32, 60
_STUB = 92
"""Between an arrow's loose end and the line that it does not touch; holds the fate's word."""

_MARKS: Mapping[str, str] = MappingProxyType(
    {
        "╳": '<path class="shaft" d="M{x} {y}m-6-6l12 12m0-12l-12 12"/>',  # noqa: RUF001
        "├": '<path class="shaft" d="M{x} {y}m0-8v16"/>',
        "┤": '<path class="shaft" d="M{x} {y}m0-8v16"/>',
        "●": '<circle cx="{x}" cy="{y}" r="4.5"/>',
    }
)
"""A loose end's mark in the text, and the same as a shape."""


def draw_svg(ladder: Ladder, *, times: bool = True) -> str:
    """Draw the ladder as an SVG document. Without `times` nothing depends on the clock."""
    return _Picture(ladder, times=times).document()


def _widest(texts: Sequence[str], px: float, em: float = _MONO) -> float:
    return max(map(len, texts), default=0) * px * em


def _clock(step: Step) -> str:
    return f"{step.t_s:.3f} s"


def _call_lines(call: Call) -> list[str]:
    return wrapped(call_text(call), _CALL_CHARS)


def _note_lines(crossing: Crossing) -> list[str]:
    return wrapped(note_text(crossing), _NOTE_CHARS)


def _lane_asked(step: Step) -> float:
    match step:
        case Crossing():
            stubs = 0 if _whole(STROKES[step.fate]) else _STUB
            segment = _widest([plain(str(step.segment))], CODE_PX) + stubs
            return max(segment, _widest(_note_lines(step), NOTE_PX, _SANS)) + 48
        case Pause():
            return _widest(wrapped(step.text, _NOTE_CHARS), BODY_PX, _SANS) + 96
    return 0


def _whole(stroke: Stroke) -> bool:
    return stroke.leaves and stroke.arrives


class _Picture:
    """The columns' places, found once, and the shapes, added from the top to the bottom."""

    def __init__(self, ladder: Ladder, *, times: bool) -> None:
        self.ladder, self.times = ladder, times
        self.rungs = list(rungs(ladder, times=times))
        clock = _widest([_clock(step) for step in ladder.steps], NOTE_PX) * times
        pills = {side: [news.get(side, "") for _, news in self.rungs] for side in Side}
        self.to_call = {
            side: _BAR / 2 + _GAP + _widest(pills[side], CODE_PX) + 20 + _GAP for side in Side
        }
        outside = {side: self.to_call[side] + self._widest_call(side) for side in Side}
        lane = max([_LEAST_LANE, *map(_lane_asked, ladder.steps)])
        self.clock_x = _EDGE + clock
        client = self.clock_x + 2 * _GAP * times + outside[Side.CLIENT]
        self.bars = {Side.CLIENT: client, Side.SERVER: client + lane}
        drawn = client + lane + outside[Side.SERVER]
        titled = _EDGE + _widest([plain(ladder.title)], TITLE_PX)
        self.width = round(max(drawn, titled) + _EDGE)
        self.y = _EDGE
        self.since: dict[Side, tuple[int, str]] = {}
        self.below: list[str] = []
        self.shapes: list[str] = []

    def _widest_call(self, side: Side) -> float:
        calls = (call for call in self.ladder.calls if call.side is side)
        return _widest([line for call in calls for line in _call_lines(call)], CODE_PX)

    def document(self) -> str:
        """Draw everything and return the whole."""
        self._heading()
        for step, news in self.rungs:
            self._rung(step, news)
        self.y += 2 * _GAP
        for side in Side:
            self._line_down(side)
        size = (self.width, self.y + _EDGE)
        told = (f"{side.capitalize()}: {', '.join(self.ladder.states(side))}." for side in Side)
        opening = (
            '<svg xmlns="http://www.w3.org/2000/svg" class="ladder" role="img" '
            'width="{0}" height="{1}" viewBox="0 0 {0} {1}">'
        )
        return "\n".join(
            [
                opening.format(*size),
                f"<title>{escape(plain(self.ladder.title))}</title>",
                f"<desc>{escape(' '.join([plain(self.ladder.sentence), *told]))}</desc>",
                f"<style>\n{style_sheet()}\n</style>",
                '<rect class="page" width="{}" height="{}" rx="10"/>'.format(*size),
                *self.below,
                *self.shapes,
                "</svg>\n",
            ]
        )

    def _heading(self) -> None:
        self.y += 18
        self._text(_EDGE, plain(self.ladder.title), "title ink")
        for line in wrapped(
            self.ladder.sentence, int((self.width - 2 * _EDGE) / (BODY_PX * _SANS))
        ):
            self.y += 21
            self._text(_EDGE, line, "soft")
        self.y += 40
        for side in Side:
            self._text(self.bars[side], side, "host ink", anchor="middle")

    def _rung(self, step: Step, news: Mapping[Side, str]) -> None:
        """Draw one step: at `y` its arrow, call or break begins, and states change."""
        self.y += 38 if isinstance(step, Pause) else 28 if isinstance(step, Call) else 34
        if self.times:
            self._text(self.clock_x, _clock(step), "code time soft", dy=4, anchor="end")
        lines = 0
        match step:
            case Crossing():
                lines = self._crossing(step)
            case Call():
                lines = self._call(step)
            case Pause():
                lines = self._pause(step)
        for side, text in news.items():
            self._state(side, step.states[side].name, text)
        self.y += lines

    def _state(self, side: Side, name: str, text: str) -> None:
        """Put the state into a pill, and let the end's line have its colour from here on."""
        if name != self.since.get(side, (0, ""))[1]:
            self._line_down(side)
            self.since[side] = (self.y, name)
        wide, away = _widest([text], CODE_PX) + 20, _BAR / 2 + _GAP
        x = self.bars[side] + (-away - wide if side is Side.CLIENT else away)
        self.shapes.append(
            f'<g class="{name}"><rect x="{x:.1f}" y="{self.y - _PILL / 2:g}" '
            f'width="{wide:.1f}" height="{_PILL}" rx="{_PILL / 2:g}"/>'
        )
        self._text(x + wide / 2, text, "code", dy=4.5, anchor="middle")
        self.shapes.append("</g>")

    def _line_down(self, side: Side) -> None:
        """Draw the end's line from its last change on; thin where there is no connection."""
        start, name = self.since.get(side, (self.y, "CLOSED"))
        wide = _BAR / 4 if name in {"CLOSED", "LISTEN"} else _BAR
        if self.y > start:
            self.below.append(
                f'<rect class="bar {name}" x="{self.bars[side] - wide / 2:.1f}" y="{start}" '
                f'width="{wide:g}" height="{self.y - start}"/>'
            )

    def _call(self, call: Call) -> int:
        """Write the call at the outside, led to its end's line; return the height below `y`."""
        outwards = -1 if call.side is Side.CLIENT else 1
        bar, lines = self.bars[call.side], _call_lines(call)
        x = bar + outwards * self.to_call[call.side]
        self._stroke(x - outwards * _GAP / 2, bar + outwards * _BAR / 2, "faint rule")
        for number, line in enumerate(lines):
            anchor = "end" if outwards < 0 else "start"
            self._text(x, line, "code ink", dy=4.5 + number * _LINE, anchor=anchor)
        return max(0, len(lines) - 1) * _LINE

    def _pause(self, pause: Pause) -> int:
        """Break the lane with words; return the height below `y`."""
        left, right = self.bars[Side.CLIENT] + _BAR, self.bars[Side.SERVER] - _BAR
        middle, lines = (left + right) / 2, wrapped(pause.text, _NOTE_CHARS)
        half = _widest(lines, BODY_PX, _SANS) / 2 + (_GAP if lines else 0)
        for start, end in ((left, middle - half), (middle + half, right)):
            self._stroke(start, end, "rule", 'stroke-dasharray="2 5"')
        for number, line in enumerate(lines):
            self._text(middle, line, "soft", dy=4.5 + number * _LINE, anchor="middle")
        return max(0, len(lines) - 1) * _LINE + 8

    def _crossing(self, crossing: Crossing) -> int:
        """Draw the arrow, its segment above, its note below; return the height below `y`."""
        stroke, fate = STROKES[crossing.fate], crossing.fate
        way = 1 if crossing.origin is Side.CLIENT else -1
        tail = self.bars[crossing.origin] + way * (_BAR / 2 if stroke.leaves else _STUB)
        head = self.bars[crossing.origin.other] - way * (_BAR / 2 if stroke.arrives else _STUB)
        segment = plain(str(crossing.segment))
        about = escape(f"Frame {crossing.frame}: {segment}, {fate}")
        self.shapes.append(f'<g class="{fate}"><title>{about}</title>')
        self._stroke(tail, head - way * 5 * stroke.arrives)
        self._text((tail + head) / 2, segment, "code", dy=-7, anchor="middle")
        for tip in range(len(stroke.head[0]) * stroke.arrives):
            x = head - way * (1 + tip * 9)
            self.shapes.append(f'<path d="M{x:.1f} {self.y}l{-10 * way}-5v10z"/>')
        if not _whole(stroke):
            loose, outwards = (head, way) if stroke.leaves else (tail, -way)
            mark = _MARKS[stroke.mark[outwards > 0]]
            self.shapes.append(mark.format(x=f"{loose:.1f}", y=self.y))
            anchor = "start" if outwards > 0 else "end"
            self._text(loose + outwards * 11, stroke.word, "word", dy=4, anchor=anchor)
        self.shapes.append("</g>")
        middle, notes = sum(self.bars.values()) / 2, _note_lines(crossing)
        for number, line in enumerate(notes):
            self._text(middle, line, "note soft", dy=17 + number * _NOTE_LINE, anchor="middle")
        return len(notes) * _NOTE_LINE + (4 if notes else 0)

    def _stroke(self, start: float, end: float, kind: str = "", more: str = "") -> None:
        kinds = f"shaft {kind}".rstrip()
        self.shapes.append(
            f'<path class="{kinds}" d="M{start:.1f} {self.y}H{end:.1f}"{more and " " + more}/>'
        )

    def _text(self, x: float, text: str, kind: str, *, dy: float = 0, anchor: str = "") -> None:
        placed = f' text-anchor="{anchor}"' if anchor else ""
        self.shapes.append(
            f'<text class="{kind}" x="{x:.1f}" y="{self.y + dy:g}"{placed}>{escape(text)}</text>'
        )
