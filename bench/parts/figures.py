"""Figures of several rounds: medians, ranges, a slope with its noise, and the table. Pure."""

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

MET, MISSED, UNDECIDED, VOID = "met", "NOT met", "undecided", "void"
SURE = 0.8
"""The share of rounds that must agree: with fewer, chance may have decided."""
FEWEST = 3
"""Rounds without which a goal is void, and never fewer than half of them."""

_WIDTHS = (47, 10, 24, 22)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table: a figure of every round, and what it was to be.

    Without values it tells, in `goal`, why there are none.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    digits: int = 0
    goal: str = ""
    verdict: str = ""
    """MET, MISSED, UNDECIDED or VOID; empty where there is no goal."""

    @property
    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        """Return the row with its median and range."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(self.median, self.digits + 2) if self.values else None,
            "min": round(min(self.values), self.digits + 2) if self.values else None,
            "max": round(max(self.values), self.digits + 2) if self.values else None,
            "rounds": [round(value, self.digits + 2) for value in self.values],
            "goal": self.goal,
            "verdict": self.verdict,
        }

    def as_text(self) -> str:
        """Return the row as a line of the table."""
        if not self.values:
            return _line(self.name, "-", "", self.goal, "")
        low, high = (f"{end(self.values):,.{self.digits}f}" for end in (min, max))
        cells = (
            f"{self.name}, {self.unit}" if self.unit else self.name,
            f"{self.median:,.{self.digits}f}",
            f"{low} to {high}" if len(self.values) > 1 else "",
            self.goal,
        )
        return _line(*cells, self.verdict)


def at_least(goal: float, row: Row, *, void: Collection[int] = ()) -> Row:
    """Return the row with the goal `goal` or more, told by the rounds that are not in `void`."""
    return _judged(row, f">= {goal:g}", [value >= goal for value in row.values], void)


def at_most(goal: float, row: Row, *, void: Collection[int] = ()) -> Row:
    """Return the row with the goal `goal` or less, told by the rounds that are not in `void`."""
    return _judged(row, f"<= {goal:g}", [value <= goal for value in row.values], void)


def _judged(row: Row, goal: str, met: Sequence[bool], void: Collection[int]) -> Row:
    telling = [each for number, each in enumerate(met) if number not in void]
    if len(telling) < max(FEWEST, len(met) / 2):
        return replace(row, goal=goal, verdict=VOID)
    sides = {MET: telling.count(True), MISSED: telling.count(False)}
    sure = (side for side, rounds in sides.items() if rounds >= SURE * len(telling))
    return replace(row, goal=goal, verdict=next(sure, UNDECIDED))


def missing(name: str, reason: str) -> Row:
    """Return the row of what could not be measured."""
    return Row(name=name, unit="", values=(), goal=reason)


def ratio(name: str, above: Row, below: Row) -> Row:
    """Return the ratio of two rows, round by round, each of the same rounds."""
    values = tuple(a / b for a, b in zip(above.values, below.values, strict=True))
    return Row(name=name, unit="", values=values, digits=2)


def table(groups: Iterable[tuple[str, Sequence[Row]]]) -> str:
    """Return all rows as text, a heading for each group."""
    lines = [_line("", "median", "min to max", "goal", "")]
    for heading, rows in groups:
        lines += ["", heading, *(row.as_text() for row in rows)]
    return "\n".join(lines)


def _line(name: str, median: str, extent: str, goal: str, met: str) -> str:
    first, second, third, fourth = _WIDTHS
    cells = f"{name:<{first}}{median:>{second}}{extent:>{third}}  {goal:<{fourth}}{met}"
    return cells.rstrip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope:
    """How fast y grows with x, by least squares, and which slope would tell nothing."""

    per_x: float
    noise_per_x: float
    """Two standard deviations of y around the line, or its grain, over the whole extent of x."""


def slope(x: Sequence[float], y: Sequence[float], *, grain: float) -> Slope:
    """Return the slope of y over x, both of three values at least, x not all the same.

    `grain` is the least growth of y that means anything.

    A standard error would not do as the noise: memory moves in steps, so that neighbouring
    readings are alike and many of them know little more than a few.
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    across = xs - xs.mean()
    per_x = float(across @ (ys - ys.mean()) / (across @ across))
    scatter = float((ys - per_x * xs).std(ddof=2))
    noise = max(2 * scatter, grain) / float(np.ptp(xs))
    return Slope(per_x=per_x, noise_per_x=noise)
