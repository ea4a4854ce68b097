"""What a few rounds say of each contestant, and which differences they show. Pure.

*Intervals* are percentile bootstraps of the median. BCa, scipy's default, breaks down for the
median of five values, whose bootstrap has five outcomes. The percentile interval of five is then
from the least to the greatest, which covers the true median in 1 - 2/2^5 = 94% of cases whatever
the distribution; of more it covers 88 to 95%, of four 88%, of three 75%.

*Differences* are those of the same round, as log ratios, so what slows a whole round cancels.
Student's t over the rounds gives interval and p: a bootstrap of five differences has too few
outcomes for it, and the least p of a sign or rank test is 1/16. A difference is shown when

- Holm's correction over all pairs of a figure leaves p at LEVEL or below. With one percent, twenty
  comparisons of a thing with itself give a false difference in one case of five, and two in one of
  sixty; and
- it is at least RELEVANT: what is smaller may be real, and does not matter.

The interval of a difference is the one that this test uses: it holds 0 where Holm says no.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, median, stdev
from typing import Any, Literal

from twbench.model.errors import UsageError

CONFIDENCE = 0.95
"""Of a contestant's own intervals."""
LEVEL = 0.01
"""Chance of one false difference, or more, among all pairs of a figure."""
RELEVANT = 0.02
FEWEST_ROUNDS = 3
_RESAMPLES = 9999
_ALL_OF = 5
_EXACT = 1e-9
_FAR = 50.0
"""Log ratios beyond this are told as this."""

Values = Sequence[float | None]
"""A figure in each round; None where a round could not measure it."""
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


def differences(values: Mapping[str, Values]) -> tuple[Difference, ...]:
    """Return each pair of contestants once, with what all pairs together show."""
    logs = {(a, b): _log_ratios(values[a], values[b]) for a, b in combinations(values, 2)}
    plain = {
        (name, other): Difference(
            name=name,
            other=other,
            rounds=len(ratios),
            change=math.expm1(fmean(ratios)) if ratios else None,
            p=_p(ratios),
        )
        for (name, other), ratios in logs.items()
    }
    tested = {key: pair.p for key, pair in plain.items() if pair.p is not None}
    level, holds = 0.0, False
    for rank, (key, p) in enumerate(sorted(tested.items(), key=lambda item: item[1])):
        if not holds:
            level = LEVEL / (len(tested) - rank)
            # Holm stops at the first that is not shown, and with it at all that follow
            holds = p > level
        low, high = _interval(logs[key], 1 - level)
        relevant = abs(plain[key].change or 0) >= RELEVANT
        plain[key] = replace(
            plain[key], low=low, high=high, confidence=1 - level, shown=relevant and not holds
        )
    return tuple(plain.values())


def _log_ratios(values: Values, others: Values) -> list[float]:
    """Return the difference in each round in which both were measured, and are above 0."""
    return [
        math.log(one / other)
        for one, other in zip(values, others, strict=True)
        if one is not None and other is not None and one > 0 and other > 0
    ]


def _p(ratios: Sequence[float]) -> float | None:
    if len(ratios) < FEWEST_ROUNDS:
        return None
    if _without_noise(ratios):
        return float(abs(ratios[0]) < _EXACT)
    t = fmean(ratios) / _standard_error(ratios)
    return 2 * float(require_scipy().t.sf(abs(t), len(ratios) - 1))


def _interval(ratios: Sequence[float], confidence: float) -> tuple[float, float]:
    """Return the interval of the change that ratios show."""
    if _without_noise(ratios):
        return math.expm1(ratios[0]), math.expm1(ratios[0])
    t = float(require_scipy().t.isf((1 - confidence) / 2, len(ratios) - 1))
    half = t * _standard_error(ratios)
    # of few and noisy rounds it may reach beyond what a float holds
    ends = (max(-_FAR, fmean(ratios) - half), min(_FAR, fmean(ratios) + half))
    return math.expm1(ends[0]), math.expm1(ends[1])


def _standard_error(ratios: Sequence[float]) -> float:
    return stdev(ratios) / math.sqrt(len(ratios))


def _without_noise(ratios: Sequence[float]) -> bool:
    """Return whether all are the same: one connection for each page is always one."""
    return max(ratios) - min(ratios) < _EXACT


def best(pairs: Sequence[Difference], better: Better) -> str | None:
    """Return who is shown to be better than every other that was compared; None: nobody is."""
    sign = 1 if better == "high" else -1
    compared = [pair for pair in pairs if pair.p is not None]
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
