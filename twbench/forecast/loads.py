"""Loads, and their count of connections as a function of time.

A load is a mean flow: N(t) connections were opened by second t. With rates that change linearly
N(t) is a parabola piece by piece, so is N(t) - N(t - w), the count of those opened in the last w
seconds, and its peaks and crossings have closed forms. Arrivals at random (Poisson) share the mean
and scatter around it by the square root of the count.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

ROUNDING = 1e-9
"""Relative: a load that needs exactly what there is must not look as if it needed more."""
_SHORTEST_S = 1e-9
"""A stage lasts, if ever so shortly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A part of an open load: the rate goes in a straight line from start to end."""

    duration_s: float
    rate_start_per_s: float
    rate_end_per_s: float

    def __post_init__(self) -> None:
        if self.duration_s <= 0 or min(self.rate_start_per_s, self.rate_end_per_s) < 0:
            raise ValueError("a stage lasts, and its rates are not negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenLoad:
    """Connections that are opened when they are due, whatever became of the ones before."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("an open load has at least one stage")

    @classmethod
    def constant(cls, *, rate_per_s: float, duration_s: float) -> "OpenLoad":
        """Return a load of one rate."""
        stage = Stage(duration_s=duration_s, rate_start_per_s=rate_per_s, rate_end_per_s=rate_per_s)
        return cls(stages=(stage,))

    def at_most(self, connections: float) -> "OpenLoad":
        """Return the same load, over as soon as it has opened so many."""
        stages = []
        for stage in self.stages:
            rise_per_s = stage.rate_end_per_s - stage.rate_start_per_s
            half_slope = rise_per_s / stage.duration_s / 2
            span = _Span(0.0, stage.duration_s, 0.0, stage.rate_start_per_s, half_slope)
            missing, connections = connections, connections - span.at(stage.duration_s)
            if connections < 0:
                lasts_s = max(span.first_at(missing), _SHORTEST_S)
                end_per_s = stage.rate_start_per_s + 2 * half_slope * lasts_s
                stages.append(
                    replace(stage, duration_s=lasts_s, rate_end_per_s=max(end_per_s, 0.0))
                )
                break
            stages.append(stage)
        return OpenLoad(stages=tuple(stages))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClosedLoad:
    """`concurrency` connections at a time, each followed by the next when it ends.

    `rate_per_s`, new connections per second, is a result and not an input of such a load: give a
    measured or an assumed one, or None where there is neither.
    """

    concurrency: int
    duration_s: float
    rate_per_s: float | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.duration_s <= 0 or (self.rate_per_s or 0) < 0:
            raise ValueError("a closed load has connections, lasts, and its rate is not negative")


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where N(t) is one parabola: from `start_s` on, and from `count` at that second."""

    start_s: float
    count: float
    rate_per_s: float
    slope_per_s2: float

    def count_at(self, t_s: float) -> float:
        age_s = t_s - self.start_s
        return self.count + age_s * (self.rate_per_s + self.slope_per_s2 * age_s / 2)

    def rate_at(self, t_s: float) -> float:
        return self.rate_per_s + self.slope_per_s2 * (t_s - self.start_s)


@dataclass(frozen=True, slots=True)
class _Span:
    """A parabola of the count within a window, by powers of the seconds since `start_s`."""

    start_s: float
    length_s: float
    count: float
    rate_per_s: float
    half_slope_per_s2: float

    def at(self, age_s: float) -> float:
        return self.count + age_s * (self.rate_per_s + age_s * self.half_slope_per_s2)

    def top(self) -> float:
        ages_s = [0.0, self.length_s]
        if self.half_slope_per_s2 < 0:
            vertex_s = -self.rate_per_s / (2 * self.half_slope_per_s2)
            ages_s.append(min(max(vertex_s, 0.0), self.length_s))
        return max(self.at(age_s) for age_s in ages_s)

    def first_at(self, limit: float) -> float:
        """Return the first age at which the count is `limit`, given that it rises above it."""
        missing = limit - self.count
        if missing <= 0:
            return 0.0
        # The smaller positive root of missing = rate*s + half_slope*s^2, in the form that stays
        # exact where half_slope vanishes.
        root = math.sqrt(max(self.rate_per_s**2 + 4 * self.half_slope_per_s2 * missing, 0.0))
        return min(2 * missing / (self.rate_per_s + root), self.length_s)


class Arrivals:
    """N(t) of an open load: zero before the start, and no more after the end."""

    def __init__(self, load: OpenLoad) -> None:
        pieces = [_Piece(0.0, 0.0, 0.0, 0.0)]
        start_s, count = 0.0, 0.0
        for stage in load.stages:
            rise_per_s = stage.rate_end_per_s - stage.rate_start_per_s
            slope = rise_per_s / stage.duration_s
            pieces.append(_Piece(start_s, count, stage.rate_start_per_s, slope))
            start_s += stage.duration_s
            count += (stage.rate_start_per_s + stage.rate_end_per_s) / 2 * stage.duration_s
        pieces.append(_Piece(start_s, count, 0.0, 0.0))
        self._pieces = pieces
        self._edges_s = [piece.start_s for piece in pieces[1:]]
        self.duration_s = start_s
        self.total = count

    def by(self, t_s: float) -> float:
        """Return the connections opened by second `t_s`."""
        return self._piece(t_s).count_at(t_s)

    def within(self, window_s: float, t_s: float) -> float:
        """Return the connections opened in the last `window_s` seconds before `t_s`."""
        return self.by(t_s) - self.by(t_s - window_s)

    def peak(self, window_s: float) -> float:
        """Return the most connections ever opened within `window_s` seconds."""
        return min(max(span.top() for span in self._spans(window_s)), self.total)

    def exceeds_at(self, limit: float, window_s: float) -> float | None:
        """Return the second at which the count within `window_s` goes above `limit`, or None."""
        clearly_above = limit + ROUNDING * max(limit, 1.0)
        for span in self._spans(window_s):
            if span.top() > clearly_above:
                return span.start_s + span.first_at(limit)
        return None

    def _piece(self, t_s: float) -> _Piece:
        return self._pieces[bisect_right(self._edges_s, t_s)]

    def _spans(self, window_s: float) -> Iterator[_Span]:
        cuts_s = {*self._edges_s, *(edge_s + window_s for edge_s in self._edges_s)}
        inside_s = sorted(cut_s for cut_s in cuts_s if cut_s <= self.duration_s)
        for start_s, end_s in pairwise(inside_s):
            # Which pieces the span lies in is asked at its middle: its edges may be rounded.
            middle_s = (start_s + end_s) / 2
            new, old = self._piece(middle_s), self._piece(middle_s - window_s)
            yield _Span(
                start_s=start_s,
                length_s=end_s - start_s,
                count=new.count_at(start_s) - old.count_at(start_s - window_s),
                rate_per_s=new.rate_at(start_s) - old.rate_at(start_s - window_s),
                half_slope_per_s2=(new.slope_per_s2 - old.slope_per_s2) / 2,
            )
