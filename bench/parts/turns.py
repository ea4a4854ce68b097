"""Several loads in turn, round after round, and rows made of what they came to."""

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.figures import Row, at_least, at_most, missing, ratio
from bench.parts.loads import Carried

BUSY_PERCENT = 90.0
"""Under this a core was not the limit: the other side was, or another program."""

INTERRUPTED = 130
"""The exit status after Ctrl-C."""

MOST_FAILED_PERCENT = 0.1
"""Beyond it a round says nothing about a goal."""

BROKEN = "broken: "

Figure = Callable[[Carried], float]


@dataclass(kw_only=True, slots=True)
class Tally:
    """What each contestant came to in every round, and why some did not take part."""

    carried: dict[str, list[Carried]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def leave_out(self, name: str, error: UnavailableError | BrokenError) -> None:
        """Drop a contestant, with its earlier rounds, and tell why."""
        say(f"{name}: {error}")
        why, *_ = str(error).splitlines()
        self.absent[name] = f"{BROKEN}{why}" if isinstance(error, BrokenError) else why
        self.carried.pop(name, None)

    def why_not(self, *names: str) -> str:
        """Return why one of these is absent; empty if all took part."""
        return next((reason for name in names if (reason := self.absent.get(name))), "")

    def row(self, who: str, figure: Figure, name: str, unit: str, *, digits: int = 0) -> Row:
        """Return one figure of a contestant, `{}` in the name being who it is."""
        values = tuple(map(figure, self.carried[who]))
        return Row(name=name.format(who), unit=unit, values=values, digits=digits)

    def rows(self, figure: Figure, name: str, unit: str, *, digits: int = 0) -> list[Row]:
        """Return one figure of every contestant that took part."""
        return [self.row(who, figure, name, unit, digits=digits) for who in self.carried]

    def troubles(self) -> list[Row]:
        """Return a row for each that did not take part, or of whose attempts some failed."""
        failed = self.rows(lambda carried: carried.failed, "failed, {}", "attempts")
        absent = [missing(name, reason) for name, reason in self.absent.items()]
        return [*absent, *(row for row in failed if any(row.values))]


def in_turn(what: str, names: Sequence[str], rounds: int, carry: Callable[[str], Carried]) -> Tally:
    """Let all carry their load once a round, in an order that is drawn, the same in every run."""
    tally = Tally(carried={name: [] for name in names})
    for number in range(rounds):
        drawn = random.Random(f"{what} {number}")
        for name in drawn.sample(names, len(names)):
            if name in tally.absent:
                continue
            say(f"{what}, round {number + 1} of {rounds}: {name}")
            try:
                tally.carried[name].append(carry(name))
            except (UnavailableError, BrokenError) as error:
                tally.leave_out(name, error)
    return tally


@dataclass(frozen=True, kw_only=True, slots=True)
class Versus:
    """A goal: one contestant's figure is to be so many times another's, round by round."""

    ours: str
    theirs: str
    least: float | None = None
    most: float | None = None


def judged(
    tally: Tally, goal: Versus, figure: Figure, name: str, *, busy: Figure | None = None
) -> Row:
    """Return the ratio of a figure with its goal, `name` having a `{}` for who against whom.

    A round in which more than MOST_FAILED_PERCENT failed says nothing, and with `busy`, the share
    of the core that is to be the limit, nor does one in which either left that core idle: unless
    ours met its goal in spite of that, theirs being full.
    """
    name = name.format(f"{goal.ours} / {goal.theirs}")
    if reason := tally.why_not(goal.ours, goal.theirs):
        return missing(name, reason)
    row = ratio(name, *(tally.row(who, figure, "", "") for who in (goal.ours, goal.theirs)))
    if goal.most is not None:
        row = replace(row, digits=3)
    pairs = zip(tally.carried[goal.ours], tally.carried[goal.theirs], strict=True)
    void = set()
    for number, (ours, theirs) in enumerate(pairs):
        met = goal.least is not None and row.values[number] >= goal.least
        full = busy is None or (
            busy(theirs) >= BUSY_PERCENT and (met or busy(ours) >= BUSY_PERCENT)
        )
        if not full or failing(ours) or failing(theirs):
            void.add(number)
    if goal.most is not None:
        return at_most(goal.most, row, void=void)
    return row if goal.least is None else at_least(goal.least, row, void=void)


def failing(carried: Carried) -> bool:
    """Return whether too many attempts failed for the others to say anything."""
    return carried.failed_percent > MOST_FAILED_PERCENT


def medians(tally: Tally, figures: Mapping[str, Figure]) -> list[dict[str, object]]:
    """Return, for every contestant, its name and the medians of these figures."""
    return [
        {
            "name": who,
            **{key: tally.row(who, figure, "", "").median for key, figure in figures.items()},
        }
        for who in tally.carried
    ]


def say(what: str) -> None:
    """Tell on standard error how far it is."""
    print(what, file=sys.stderr, flush=True)
