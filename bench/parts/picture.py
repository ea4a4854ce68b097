"""The pictures: bars of several contestants, and lines of a cost against a size. Pure: SVG as text.

Readable on a light and a dark page, and without colours: what is ours is bold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 880
_STYLE = """\
text { font: 14px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1b1f24; }
.title { font-size: 19px; font-weight: 600; }
.small { font-size: 12.5px; fill: #59616b; }
.ours { font-weight: 700; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.page { fill: #ffffff; }
.bar { fill: #b3bcc7; }
.bar.ours { fill: #d1242f; }
.bar.held { fill-opacity: 0.4; }
.grid { stroke: #59616b; stroke-opacity: 0.25; }
.line { fill: none; stroke-width: 1.8; stroke: #8b96a3; }
.line.ours { stroke: #d1242f; stroke-width: 3; }
.dot { fill: #8b96a3; }
.dot.ours { fill: #d1242f; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.small { fill: #9aa4b0; }
.page { fill: #0d1117; }
.bar { fill: #4a5460; }
.bar.ours, .dot.ours { fill: #f0524f; }
.line.ours { stroke: #f0524f; }
}"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One figure of all contestants: its heading, and which end of it is the good one."""

    heading: str
    values: Mapping[str, float]
    most_first: bool
    digits: int = 0
    held: frozenset[str] = frozenset()
    """Who is drawn lighter, and `why` that is."""
    why: str = ""


_TOP, _ROW, _GAP = 78, 27, 44
_LABEL, _ROOM = 172, 180


def bars(title: str, note: str, panels: Sequence[Panel], *, ours: frozenset[str]) -> str:
    """Return panels one below the other, horizontal bars in each, the best one first."""
    parts, y = [_text(24, 36, title, "title"), _text(24, 58, note, "small")], _TOP
    for panel in panels:
        parts.append(_text(24, y + 16, panel.heading, "ours"))
        y += 28
        most = max(panel.values.values(), default=0) or 1
        ordered = sorted(panel.values.items(), key=lambda it: it[1], reverse=panel.most_first)
        for name, value in ordered:
            mark = " ours" if name in ours else ""
            held = name in panel.held
            told = f"{value:,.{panel.digits}f}{f', {panel.why}' if held else ''}"
            width = (_WIDTH - _LABEL - _ROOM - 24) * value / most
            parts += [
                _text(_LABEL - 8, y + 17, name, f"end{mark}"),
                _rectangle(f"bar{mark}{' held' if held else ''}", _LABEL, y + 3, width, _ROW - 7),
                _text(_LABEL + width + 7, y + 17, told, mark.strip()),
            ]
            y += _ROW
        y += _GAP - 28
    return _page(title, y, parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One method: its cost in milliseconds at each size, sizes rising, all above zero."""

    name: str
    points: tuple[tuple[int, float], ...]
    ours: bool = False


_LEFT, _RIGHT, _HEIGHT, _BOTTOM = 76, 180, 470, 44
_LEAST_APART = 17


def lines(title: str, note: str, series: Sequence[Series], *, across: str, up: str) -> str:
    """Return lines on logarithmic axes, each named at its end. ValueError without a point."""
    every = [point for each in series for point in each.points]
    if not every:
        raise ValueError("nothing to draw")
    sizes, costs = zip(*every, strict=True)
    low_x, high_x = math.log10(min(sizes)), math.log10(max(sizes))
    low_y, high_y = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    wide = (_WIDTH - _LEFT - _RIGHT) / ((high_x - low_x) or 1)
    high = (_HEIGHT - _BOTTOM - _TOP) / ((high_y - low_y) or 1)

    def at(size: float, cost: float) -> tuple[float, float]:
        right, above = (math.log10(size) - low_x) * wide, (math.log10(cost) - low_y) * high
        return _LEFT + right, _HEIGHT - _BOTTOM - above

    parts = [_text(24, 36, title, "title"), _text(24, 58, f"{note} Upwards: {up}.", "small")]
    for power in range(low_y, high_y + 1):
        _, y = at(min(sizes), 10.0**power)
        parts += [
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>',
            _text(_LEFT - 8, y + 4, f"{10.0**power:g}", "small end"),
        ]
    for size in sorted(set(sizes)):
        x, _ = at(size, 1)
        parts += [
            f'<path class="grid" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>',
            _text(x, _HEIGHT - _BOTTOM + 18, f"{size:,}", "small middle"),
        ]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, "small middle"))
    for each in series:
        mark = " ours" if each.ours else ""
        spots = [at(*point) for point in each.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
        parts.append(f'<path class="line{mark}" d="M{path}"/>')
        parts += [
            f'<circle class="dot{mark}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in spots
        ]
    ends = {each.name: at(*each.points[-1])[1] for each in series if each.points}
    ours = {each.name for each in series if each.ours}
    parts += [
        _text(_WIDTH - _RIGHT + 10, y + 5, name, "ours" if name in ours else "")
        for name, y in spread(ends, _LEAST_APART, _HEIGHT - _BOTTOM).items()
    ]
    return _page(title, _HEIGHT, parts)


def spread(places: Mapping[str, float], apart: float, lowest: float) -> dict[str, float]:
    """Return the places moved, in their order, until all are `apart` and none below `lowest`."""
    ordered = sorted(places, key=places.__getitem__)
    moved: dict[str, float] = {}
    last = -math.inf
    for name in ordered:
        last = moved[name] = max(places[name], last + apart)
    last = lowest + apart
    for name in reversed(ordered):
        last = moved[name] = min(moved[name], last - apart)
    return moved


def _text(x: float, y: float, words: str, classes: str) -> str:
    marks = f' class="{classes}"' if classes else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{marks}>{escape(words)}</text>'


def _rectangle(classes: str, x: float, y: float, width: float, height: float) -> str:
    place = f'x="{x}" y="{y}" width="{width:.1f}" height="{height:.0f}"'
    return f'<rect class="{classes}" {place}/>'


def _page(title: str, height: float, parts: Sequence[str]) -> str:
    size = f'width="{_WIDTH}" height="{height:.0f}" viewBox="0 0 {_WIDTH} {height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            _rectangle("page", 0, 0, _WIDTH, height),
            *parts,
            "</svg>\n",
        ]
    )
