"""Several loads in turn, round after round, and rows made of what they came to."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.parts.errors import BrokenError, UnavailableError
from bench.parts.figures import Row, at_least, at_most, missing, ratio
from bench.parts.loads import Carried

BUSY_PERCENT = 90.0
"""Under this a core was not the limit: the other side was, or another program."""

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

    def absences(self) -> list[Row]:
        """Return a row for each that did not take part."""
        return [missing(name, reason) for name, reason in self.absent.items()]


def in_turn(what: str, names: Sequence[str], rounds: int, carry: Callable[[str], Carried]) -> Tally:
    """Let all carry their load once a round, each round beginning with another one."""
    tally = Tally(carried={name: [] for name in names})
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
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

    With `busy`, the share of the core that is to be the limit, the ratio is void when one of the
    two left that core idle. A goal that ours meets in spite of that, theirs being full, is met.
    """
    name = name.format(f"{goal.ours} / {goal.theirs}")
    if reason := tally.why_not(goal.ours, goal.theirs):
        return missing(name, reason)
    rows = [tally.row(who, figure, "", "") for who in (goal.ours, goal.theirs)]
    row = replace(ratio(name, *rows), digits=3 if goal.most else 2)
    if goal.most is not None:
        return at_most(goal.most, row)
    if goal.least is None:
        return row
    met = row.median >= goal.least
    full = {
        who: busy is None or tally.row(who, busy, "", "").median >= BUSY_PERCENT
        for who in (goal.ours, goal.theirs)
    }
    return at_least(goal.least, row, void=not full[goal.theirs] or not (full[goal.ours] or met))


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
