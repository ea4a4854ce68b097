"""The colours of a drawn ladder, for light and dark pages, and the style sheet made of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from twbench.wire.ladder import Fate


@dataclass(frozen=True, kw_only=True, slots=True)
class StateColour:
    """One TCP state's colours: of the end's own line, and of the pill's fill and its ink."""

    line: str
    light: tuple[str, str]
    dark: tuple[str, str]


_OPENING = StateColour(line="#5b9bea", light=("#cfe3fb", "#0b3d78"), dark=("#173a61", "#cfe3fb"))

STATE_COLOURS: Mapping[str, StateColour] = MappingProxyType(
    {
        "CLOSED": StateColour(
            line="#a6adb6", light=("#e6e8eb", "#59616b"), dark=("#30363d", "#a4adb8")
        ),
        "LISTEN": StateColour(
            line="#a6adb6", light=("#dcecef", "#1f5561"), dark=("#1c3d45", "#c5e4ea")
        ),
        "SYN_SENT": _OPENING,
        "SYN_RECEIVED": _OPENING,
        "ESTABLISHED": StateColour(
            line="#46b067", light=("#c4ebcd", "#14532d"), dark=("#17492b", "#c4ebcd")
        ),
        "FIN_WAIT_1": StateColour(
            line="#f3bd4f", light=("#ffedc9", "#6b4300"), dark=("#54400f", "#ffe3b0")
        ),
        "FIN_WAIT_2": StateColour(
            line="#ec9526", light=("#ffdaa3", "#6b3a00"), dark=("#643f08", "#ffdfae")
        ),
        "CLOSING": StateColour(
            line="#e2702f", light=("#ffd2b5", "#702a00"), dark=("#6b3210", "#ffd2b5")
        ),
        "TIME_WAIT": StateColour(
            line="#d9363f", light=("#d1242f", "#ffffff"), dark=("#f0524f", "#1c0504")
        ),
        "CLOSE_WAIT": StateColour(
            line="#b79bee", light=("#ece3fc", "#45237f"), dark=("#372a58", "#e4d7fb")
        ),
        "LAST_ACK": StateColour(
            line="#8a5fd8", light=("#dac8fa", "#3a1873"), dark=("#4b2f80", "#e9defc")
        ),
    }
)
"""By the name of `EndState.name`: the active closer's way goes from amber to red, the passive
one's is violet."""

_PAGE = ("#ffffff", "#0d1117")
_INK = ("#1b1f24", "#e6edf3")
_SOFT = ("#59616b", "#9aa4b0")
_LOST = ("#c0202b", "#ff7b72")
_KEPT = ("#9a5700", "#e3a84f")
_MADE = ("#7a2fc4", "#c297ff")

FATE_INKS: Mapping[Fate, tuple[str, str]] = MappingProxyType(
    {
        Fate.DELIVERED: _INK,
        Fate.DROPPED: _LOST,
        Fate.HELD: _KEPT,
        Fate.RELEASED: _KEPT,
        Fate.DUPLICATED: _KEPT,
        Fate.ANSWERED: _LOST,
        Fate.INJECTED: _MADE,
    }
)
"""An arrow's ink on a light and on a dark page."""

TITLE_PX, BODY_PX, CODE_PX, NOTE_PX = 22, 14, 13, 12

_SHAPES = f"""\
.ladder text {{ font: {BODY_PX}px system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }}
.ladder .code {{ font: {CODE_PX}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.ladder .title {{ font-size: {TITLE_PX}px; font-weight: 600; }}
.ladder .host {{ font-weight: 600; }}
.ladder .time {{ font-size: {NOTE_PX}px; }}
.ladder .note {{ font-size: {NOTE_PX}px; font-style: italic; }}
.ladder .shaft {{ stroke-width: 1.6; fill: none; }}
.ladder .faint {{ stroke-width: 1; stroke-opacity: 0.35; }}
.ladder .TIME_WAIT text {{ font-weight: 700; }}"""


def style_sheet() -> str:
    """Return the rules common to both kinds of page, the light colours and the dark ones."""
    lines = [f".ladder .bar.{name} {{ fill: {it.line}; }}" for name, it in STATE_COLOURS.items()]
    dark = ["@media (prefers-color-scheme: dark) {", *_colours(dark=True), "}"]
    return "\n".join([_SHAPES, *lines, *_colours(dark=False), *dark])


def _colours(*, dark: bool) -> list[str]:
    rules = [
        f".ladder .page {{ fill: {_PAGE[dark]}; }}",
        f".ladder .ink {{ fill: {_INK[dark]}; }}",
        f".ladder .soft {{ fill: {_SOFT[dark]}; }}",
        f".ladder .rule {{ stroke: {_SOFT[dark]}; }}",
    ]
    for name, colour in STATE_COLOURS.items():
        fill, ink = colour.dark if dark else colour.light
        rules.append(f".ladder .{name} rect {{ fill: {fill}; }}")
        rules.append(f".ladder .{name} text {{ fill: {ink}; }}")
    for fate, inks in FATE_INKS.items():
        rules.append(f".ladder .{fate} {{ fill: {inks[dark]}; }}")
        rules.append(f".ladder .{fate} .shaft {{ stroke: {inks[dark]}; }}")
    return rules
