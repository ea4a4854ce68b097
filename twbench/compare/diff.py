"""What is different between two runs, comparisons or scenarios. Pure."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any

_COUNTED = re.compile(
    r"(.+\.)?(errors|connection_errors|counters|states_peak|departures\.\w+)\.[^.]+"
)
_ASKED_FOR = (
    r"load_s|rates\..+|audit\.balanced|program\.(exit_status|cpu_s|elapsed_s)",
    r"outcomes\.(attempted|ok|retried|silent_retries|not_accepted)",
    r"outcomes\.(errors|connection_errors)\..+",
    r"latency_ms\.\w+\.(p50|p99|p99_9)",
    r"hosts\.[^.]+\.time_wait\..+|hosts\.[^.]+\.ports\.(capacity|in_use_peak)",
    r"forecast\.measured\.(exhausted_after_s|sustainable_rate_per_s)",
    r"contestants\.[^.]+\.(?!totals).+|contestants\.[^.]+\.totals\.errors\..+",
)
_ASKED = re.compile("|".join(_ASKED_FOR))


Unlike = tuple[str, Any, Any]
"""A key, A's value and B's; None is unset."""
_CONTESTANT = re.compile(r"contestants\.([^.]+)\.")


class Kind(StrEnum):
    """What can be compared, each with its like."""

    RUN = "a run"
    COMPARISON = "a comparison"
    SCENARIO = "a scenario"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A measured number; with the interval that it is known to lie in, where one was computed."""

    value: float | None
    """None: there was nothing to measure it by."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One side: what was found at a path."""

    kind: Kind
    name: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By dotted key, as in thresholds; of a comparison after `contestants.NAME.`."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """What the figures depend on: keys of the scenario, and of the environment."""

    def figure(self, key: str) -> Figure:
        """Return a figure; what is counted and never came up is 0, what is not there is None."""
        nothing = 0 if is_counted(key) else None
        return self.figures.get(key, Figure(value=nothing))


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A figure on both sides."""

    key: str
    a: Figure
    b: Figure

    @property
    def absolute(self) -> Fraction | None:
        """Return b - a, exactly as the decimals say; None where a side has no number."""
        if self.a.value is None or self.b.value is None:
            return None
        return _exact(self.b.value) - _exact(self.a.value)

    @property
    def relative(self) -> Fraction | float | None:
        """Return the change as a share of a; of nothing to something it is infinite."""
        absolute = self.absolute
        if absolute is None or self.a.value is None:
            return None
        if self.a.value:
            return absolute / abs(_exact(self.a.value))
        return math.copysign(math.inf, absolute) if absolute else Fraction(0)

    @property
    def shown(self) -> bool:
        """Return whether the figures are known to differ; only intervals can overlap."""
        a_low, a_high, b_low, b_high = self.a.low, self.a.high, self.b.low, self.b.high
        if a_low is None or a_high is None or b_low is None or b_high is None:
            return self.a.value != self.b.value
        return a_high < b_low or b_high < a_low


@dataclass(frozen=True, kw_only=True, slots=True)
class Diff:
    """What is different, in the order of the documents."""

    context: tuple[Unlike, ...]
    changes: tuple[Change, ...]


def diff(a: Subject, b: Subject, *, every: bool = False) -> Diff:
    """Return what differs from `a` to `b`: the figures that people ask for, or every one."""
    wanted: Callable[[str], object] = (lambda _: True) if every else _ASKED.fullmatch
    keys = (key for key in _in_order(a.figures, b.figures) if wanted(key))
    changes = (Change(key=key, a=a.figure(key), b=b.figure(key)) for key in keys)
    unlike = [
        (key, a.context.get(key), b.context.get(key))
        for key in _in_order(a.context, b.context)
        if a.context.get(key) != b.context.get(key)
    ]
    names = {found[1] for key in (*a.context, *b.context) if (found := _CONTESTANT.match(key))}
    return Diff(
        context=_told_once(unlike, len(names)),
        changes=tuple(change for change in changes if change.a.value != change.b.value),
    )


def is_counted(key: str) -> bool:
    """Return whether a figure is one of counts that are left out where they are 0."""
    return _COUNTED.fullmatch(key) is not None


def _told_once(unlike: Sequence[Unlike], contestants: int) -> tuple[Unlike, ...]:
    """Return what differs; what does so in the same way for all contestants under `*`, once."""
    folded = [(_CONTESTANT.sub("contestants.*.", key), a, b) for key, a, b in unlike]
    told = (
        whole if contestants > 1 and folded.count(whole) == contestants else each
        for each, whole in zip(unlike, folded, strict=True)
    )
    rows: list[Unlike] = []
    rows += (row for row in told if row not in rows)
    return tuple(rows)


def _in_order(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the keys of both, those of a table together."""
    keys = list({**a, **b})
    places: dict[tuple[str, ...], int] = {}

    def place(key: str) -> tuple[int, int]:
        first, second, *_ = (*key.split("."), "")
        return (
            places.setdefault((first,), len(places)),
            places.setdefault((first, second), len(places)),
        )

    return sorted(keys, key=place)


def _exact(figure: float) -> Fraction:
    # as its decimals say: 0.77 is 10% more than 0.7, which binary fractions are not sure of
    return Fraction(str(float(figure)))
