"""`--fail-if`: what may not become of a figure from A to B, as a CI job says it. Pure.

hosts.client.time_wait.peak > +10%              fails when it rose by more than a tenth
rates.requests_per_s <= -5%                     fails when it fell by a twentieth or more
outcomes.errors.read:EOF:keepalive_race > +0    fails when there is one more
"""

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from twbench.compare.diff import Change, Subject, is_counted
from twbench.model.errors import UsageError
from twbench.model.thresholds import mistake_in

_OPERATORS: Mapping[str, Callable[[Fraction | float, Fraction], bool]] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
)
_GATE = re.compile(
    r"\s*(?P<key>\S(?:.*?\S)?)\s*(?P<sign>>=|<=|>|<)"
    r"\s*(?P<change>[+-][0-9]+(?:\.[0-9]+)?)\s*(?P<percent>%?)\s*"
)
_ALLOWED = (
    "allowed is KEY OP CHANGE: a key of summary.json, one of > >= < <=, and a change with its sign,"
    " relative or absolute, as in 'hosts.client.time_wait.peak > +10%' or 'outcomes.ok < -3'"
)
_TOTALS = re.compile(r"^contestants\.[^.]+\.totals\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """One condition that fails the comparison."""

    text: str
    key: str
    sign: str
    change: Fraction
    """A share of A's value where `relative`, else in the figure's own unit."""
    relative: bool

    def is_met(self, change: Change) -> bool:
        """Return whether the figure changed so.

        A difference that its intervals do not show counts as none. A figure that one side alone
        has cannot be judged, which is no reason to let it pass.
        """
        moved = change.relative if self.relative else change.absolute
        if moved is None:
            return True
        return _OPERATORS[self.sign](moved if change.shown else Fraction(0), self.change)


def parse_gate(text: str) -> Gate:
    """Read KEY OP CHANGE. UsageError for anything else."""
    found = _GATE.fullmatch(text)
    if not found:
        raise UsageError(f"--fail-if: found {text!r}; {_ALLOWED}")
    relative = bool(found["percent"])
    return Gate(
        text=text.strip(),
        key=found["key"],
        sign=found["sign"],
        change=Fraction(found["change"]) / (100 if relative else 1),
        relative=relative,
    )


def judge(gate: Gate, a: Subject, b: Subject) -> Change:
    """Return the change that a gate is about.

    Raises:
        UsageError: neither side has the key, or has a number for it.
    """
    known = {**a.figures, **b.figures}
    if gate.key not in known and not _never_came_up(gate.key, known):
        near = difflib.get_close_matches(gate.key, known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"--fail-if: found the key '{gate.key}'; {hint}allowed is the dotted key of a figure"
            " in the summary.json of A or B, or in compare.json after contestants.NAME"
        )
    change = Change(key=gate.key, a=a.figure(gate.key), b=b.figure(gate.key))
    if change.a.value is None and change.b.value is None:
        raise UsageError(
            f"--fail-if: '{gate.key}' was measured neither in A nor in B, and cannot be judged;"
            " allowed is a figure that one of them has"
        )
    return change


def _never_came_up(key: str, known: Mapping[str, object]) -> bool:
    """Return whether a key is a count that exists, and is 0 on both sides."""
    if not is_counted(key) or mistake_in(_TOTALS.sub("outcomes.", key)):
        return False
    # a table of errors is empty where there were none; what it stands in is not
    table = re.sub(r"(\.(connection_)?errors)?\.[^.]+$", ".", key)
    return any(other.startswith(table) for other in known)
