"""What a few rounds say of each contestant, and which differences they show. Pure.

*Intervals* are percentile bootstraps of the median. BCa, scipy's default, breaks down for the
median of five values, whose bootstrap has five outcomes. The percentile interval of five is then
from the least to the greatest, which covers the true median in 1 - 2/2^5 = 94% of cases whatever
the distribution; of more it covers 88 to 95%, of four 88%, of three 75%.

*Differences* are those of the same round, as log ratios, so what slows a whole round cancels.
Student's t over the rounds gives interval and p: a bootstrap of five differences has too few
outcomes for it, and the least p of a sign or rank test is 1/16. A difference is shown when

- Holm's correction over all pairs of all judged figures leaves p at LEVEL or below, which bounds
  the chance that a comparison shows anything false. At one percent, of twenty comparisons of a
  thing with itself at least one does in one case of five, and two in one of sixty; and
- it is at least RELEVANT: what is smaller may be real, and does not matter.

The interval of a difference is the one that this test uses: it holds 0 where Holm says no.

Five rounds alone know little of their own noise, and a hundred pairs want a t beyond 20. So from
MANY contestants on, the pairs of a figure tell each other how noisy it is: the more alike their
variances are, the more they are drawn towards a common one, and the more degrees of freedom they
have (Smyth 2004, doi:10.2202/1544-6115.1027, the moderated t); but none is made less than it is. By
simulation that leaves the chance of anything false at 1 to 2%, and finds 20% at 4% of noise among
twelve contestants in nine cases of ten, instead of one of thirty.

Rounds that agree to the last digit know no more than their digits: the standard error is never less
than half a step of what a figure is read to.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, median, variance
from types import MappingProxyType
from typing import Any, Literal

from twbench.model.errors import UsageError

CONFIDENCE = 0.95
"""Of a contestant's own intervals."""
LEVEL = 0.01
"""Chance of one false difference, or more, in a comparison: all pairs, all judged figures."""
RELEVANT = 0.02
FEWEST_ROUNDS = 3
MANY = 6
"""Contestants from which on they tell of each other's noise."""
_RESAMPLES = 9999
_ALL_OF = 5
_HALF_A_DIGIT = 0.0005
"""Relative: histograms keep three digits."""
_ALIKE = 1e-4
"""Variances whose logarithms scatter by so little more than chance are one."""
_FAR = 50.0
"""Log ratios beyond this are told as this."""

Values = Sequence[float | None]
"""A figure in each round; None where a round could not measure it."""
Table = Mapping[str, Values]
"""A figure in each round, by contestant."""
Better = Literal["high", "low"]


def require_scipy() -> Any:  # noqa: ANN401 - it has no stubs
    """Return `scipy.stats`. Raises UsageError where it is not installed."""
    try:
        from scipy import stats  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        what = "comparisons take scipy, which is not installed"
        raise UsageError(f"{what}\n  remedy: pip install 'twbench[compare]'") from None
    return stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure over the rounds, with the interval that its true median lies in."""

    median: float | None
    low: float | None
    high: float | None

    def as_json(self) -> dict[str, float | None]:
        """Return it as JSON has it."""
        return {"median": _short(self.median), "low": _short(self.low), "high": _short(self.high)}


def estimate(values: Values, *, seed: int) -> Estimate:
    """Return median and interval; no interval of fewer than FEWEST_ROUNDS values."""
    known = [value for value in values if value is not None]
    if len(known) < FEWEST_ROUNDS:
        return Estimate(median=median(known) if known else None, low=None, high=None)
    # many a count is the same in every round
    if min(known) == max(known):
        return Estimate(median=known[0], low=known[0], high=known[0])
    import numpy as np  # noqa: PLC0415 - as slow as scipy

    interval = (
        require_scipy()
        .bootstrap(
            (known,),
            np.median,
            method="percentile",
            confidence_level=CONFIDENCE,
            n_resamples=_RESAMPLES,
            rng=seed,
        )
        .confidence_interval
    )
    return Estimate(median=median(known), low=float(interval.low), high=float(interval.high))


def coverage(rounds: int) -> float | None:
    """Return how often intervals of so few rounds hold the true median; None: of more than five.

    They reach from the least to the greatest, and miss it where all lie on one side of it.
    """
    return 1 - 2 ** (1 - rounds) if FEWEST_ROUNDS <= rounds <= _ALL_OF else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far one contestant is from another in a figure; `change` 0.1 is 10% above the other."""

    name: str
    other: str
    rounds: int
    """Those in which both were measured, and above 0."""
    change: float | None
    p: float | None
    """Before the correction for the number of pairs; None: too few rounds."""
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    """Of the interval from `low` to `high`, after the correction."""
    shown: bool = False

    def reversed(self) -> "Difference":
        """Return the same seen from the other one."""
        return replace(
            self,
            name=self.other,
            other=self.name,
            change=_inverse(self.change),
            low=_inverse(self.high),
            high=_inverse(self.low),
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "name": self.name,
            "other": self.other,
            "rounds": self.rounds,
            "change": _short(self.change),
            "p": _short(self.p),
            "low": _short(self.low),
            "high": _short(self.high),
            "confidence": _short(self.confidence),
            "shown": self.shown,
        }


def differences(
    tables: Mapping[str, Table], *, steps: Mapping[str, float] = MappingProxyType({})
) -> dict[str, tuple[Difference, ...]]:
    """Return each pair of contestants once, by figure, with what all pairs together show.

    Args:
        tables: the judged figures.
        steps: of a figure that is read in steps, the step, in the figure's unit.
    """
    ratios = {
        (figure, *pair): each
        for figure, table in tables.items()
        for pair, each in _ratios_of(table, step=steps.get(figure, 0.0)).items()
    }
    found = {
        (figure, one, other): Difference(
            name=one, other=other, rounds=len(each.logs), change=each.change, p=each.p()
        )
        for (figure, one, other), each in ratios.items()
    }
    tested = {key: pair.p for key, pair in found.items() if pair.p is not None}
    level, holds = 0.0, False
    for rank, (key, p) in enumerate(sorted(tested.items(), key=lambda item: item[1])):
        if not holds:
            level = LEVEL / (len(tested) - rank)
            # Holm stops at the first that is not shown, and with it at all that follow
            holds = p > level
        low, high = ratios[key].interval(1 - level)
        relevant = abs(found[key].change or 0) >= RELEVANT
        found[key] = replace(
            found[key], low=low, high=high, confidence=1 - level, shown=relevant and not holds
        )
    return {
        figure: tuple(pair for (of, *_), pair in found.items() if of == figure) for figure in tables
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ratios:
    """Two contestants in those rounds in which both were measured, and were above 0."""

    logs: tuple[float, ...]
    least_error: float
    """Of the mean of `logs`: half a step."""
    variance: float
    """Of one of `logs`; 0 where there are too few."""
    freedom: float
    """Degrees of freedom that the variance is known with."""

    @classmethod
    def of(cls, values: Values, others: Values, *, step: float) -> "_Ratios":
        both = [
            (one, other)
            for one, other in zip(values, others, strict=True)
            if one is not None and other is not None and one > 0 and other > 0
        ]
        coarsest = step / 2 / min(map(min, both)) if both else 0.0
        logs = tuple(math.log(one / other) for one, other in both)
        return cls(
            logs=logs,
            least_error=max(_HALF_A_DIGIT, coarsest),
            variance=variance(logs) if len(logs) >= FEWEST_ROUNDS else 0.0,
            freedom=len(logs) - 1,
        )

    @property
    def change(self) -> float | None:
        return math.expm1(fmean(self.logs)) if self.logs else None

    @property
    def error(self) -> float:
        """Return the standard error of the mean."""
        return max(math.sqrt(self.variance / len(self.logs)), self.least_error)

    def p(self) -> float | None:
        if len(self.logs) < FEWEST_ROUNDS:
            return None
        t = fmean(self.logs) / self.error
        return 2 * float(require_scipy().t.sf(abs(t), self.freedom))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval of the change."""
        t = float(require_scipy().t.isf((1 - confidence) / 2, self.freedom))
        middle, half = fmean(self.logs), t * self.error
        # of few and noisy rounds it may reach beyond what a float holds
        return math.expm1(max(-_FAR, middle - half)), math.expm1(min(_FAR, middle + half))


def _ratios_of(table: Table, *, step: float) -> dict[tuple[str, str], _Ratios]:
    """Return all pairs of one figure, which tell of each other's noise where they are MANY."""
    ratios = {
        (one, other): _Ratios.of(table[one], table[other], step=step)
        for one, other in combinations(table, 2)
    }
    rounds = max((len(each.logs) for each in ratios.values()), default=0)
    whole = {k: r for k, r in ratios.items() if len(r.logs) == rounds >= FEWEST_ROUNDS}
    contestants = len({name for pair in whole for name in pair})
    if contestants < MANY:
        return ratios
    floor = _HALF_A_DIGIT**2 * rounds
    common, weight = _common_noise([max(r.variance, floor) for r in whole.values()], rounds - 1)
    most = (contestants - 1) * (rounds - 1)
    for key, each in whole.items():
        own = each.freedom
        # an infinite weight is that of pairs that differ by no more than chance
        drawn = (
            common
            if math.isinf(weight)
            else (weight * common + own * each.variance) / (weight + own)
        )
        ratios[key] = replace(
            each, variance=max(drawn, each.variance), freedom=min(own + weight, most)
        )
    return ratios


def _common_noise(variances: Sequence[float], freedom: int) -> tuple[float, float]:
    """Return the variance that others scatter around, and the degrees of freedom it is worth.

    By the moments of their logarithms (Smyth 2004, section 6.2).
    """
    import numpy as np  # noqa: PLC0415 - as slow as scipy
    from scipy.optimize import brentq  # noqa: PLC0415
    from scipy.special import digamma, polygamma  # noqa: PLC0415

    half = freedom / 2
    logs = np.log(variances) - digamma(half) + math.log(half)
    spread = float(np.var(logs, ddof=1) - polygamma(1, half))
    if spread <= _ALIKE:
        return math.exp(float(np.mean(logs))), math.inf
    prior = brentq(lambda x: float(polygamma(1, x)) - spread, _ALIKE, 2 / _ALIKE)
    return math.exp(float(np.mean(logs) + digamma(prior)) - math.log(prior)), 2 * prior


def best(
    pairs: Sequence[Difference], better: Better, *, without: Collection[str] = ()
) -> str | None:
    """Return who is shown to be better than every other that was compared; None: nobody is.

    Those in `without` neither can be the best, nor keep another from it.
    """
    sign = 1 if better == "high" else -1
    compared = [
        pair
        for pair in pairs
        if pair.p is not None and pair.name not in without and pair.other not in without
    ]
    names = dict.fromkeys(name for pair in compared for name in (pair.name, pair.other))
    for name in names:
        mine = [pair if pair.name == name else pair.reversed() for pair in compared]
        mine = [pair for pair in mine if pair.name == name]
        wins = [pair for pair in mine if pair.shown and sign * (pair.change or 0) > 0]
        if len(wins) == len(names) - 1:
            return name
    return None


def _inverse(change: float | None) -> float | None:
    if change is None:
        return None
    return 1 / (1 + change) - 1 if change > -1 else math.expm1(_FAR)


_DIGITS = 6


def _short(figure: float | None) -> float | None:
    """Return a figure with as many digits as it deserves."""
    return None if figure is None else float(f"{figure:.{_DIGITS}g}")
