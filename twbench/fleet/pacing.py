"""When each arrival is due, and how many users there are: pure functions of time.

A load is a piecewise linear profile of a rate (open) or a number of users (closed). The i-th
arrival of a constant load is due when the profile's area reaches i; a Poisson load puts a unit-rate
Poisson process through the same inverse (the time-rescaling theorem), so ramps need no other code.
All times are seconds since the start of the load.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from twbench.model.scenario import LoadSpec


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of a load, `duration_s` long, on which the level goes from `low` to `high`."""

    start_s: float
    duration_s: float
    low: float
    high: float

    @property
    def area(self) -> float:
        """Return level times seconds over the whole leg."""
        return self.duration_s * (self.low + self.high) / 2


class Profile:
    """A load over time; its level is arrivals per second, or users."""

    def __init__(self, *levels: tuple[float, float, float]) -> None:
        """Take the legs in order, each as (duration in seconds, level at its start, at its end)."""
        starts = [0.0]
        for duration_s, _, _ in levels:
            starts.append(starts[-1] + duration_s)
        self.duration_s = starts.pop()
        self.legs = tuple(Leg(at, *level) for at, level in zip(starts, levels, strict=True))

    @classmethod
    def of(cls, load: LoadSpec) -> Self:
        """Build a scenario's profile: constant, or ramps between the stages' targets."""
        if not load.stages:
            level = float(load.rate_per_s or load.concurrency or 0)
            return cls((load.total_s, level, level))
        targets = [float(s.rate_per_s or s.concurrency or 0) for s in load.stages]
        levels = [float(load.rate_per_s or load.concurrency or 0), *targets]
        return cls(
            *(
                (stage.duration_s, low, high)
                for stage, (low, high) in zip(load.stages, pairwise(levels), strict=True)
            )
        )

    def level(self, t_s: float) -> float:
        """Return the level at a time; 0 outside the load."""
        for leg in self.legs:
            if leg.start_s <= t_s < leg.start_s + leg.duration_s:
                return leg.low + (leg.high - leg.low) * (t_s - leg.start_s) / leg.duration_s
        return 0.0

    @property
    def varies(self) -> bool:
        """Return whether the level ever changes."""
        return any(leg.low != leg.high for leg in self.legs) or len(self.legs) > 1

    @property
    def highest(self) -> float:
        """Return the highest level ever asked for."""
        return max(max(leg.low, leg.high) for leg in self.legs)

    @property
    def area(self) -> float:
        """Return the area under the whole profile: for a rate, the number of arrivals."""
        return sum(leg.area for leg in self.legs)

    def time_of(self, area: float) -> float | None:
        """Return when the area under the profile reaches `area`; None if it never does."""
        for leg in self.legs:
            if area <= leg.area and leg.area > 0:
                return leg.start_s + _time_within(leg, area)
            area -= leg.area
        return None


def _time_within(leg: Leg, area: float) -> float:
    """Solve low·t + slope·t²/2 = area for t within one leg."""
    slope = (leg.high - leg.low) / leg.duration_s
    # this form of the root keeps its digits as the slope goes to 0
    root = math.sqrt(max(0.0, leg.low**2 + 2 * slope * area))
    return min(leg.duration_s, 2 * area / (leg.low + root)) if leg.low + root > 0 else 0.0


def arrivals(load: LoadSpec, *, worker: int = 0, workers: int = 1) -> Iterator[float]:
    """Yield the due times, in seconds, of the arrivals that fall to one of `workers`.

    Constant: the arrivals are dealt out in turn. Poisson: each worker has an independent process
    of its share of the rate; superposed they are the Poisson process that was asked for.
    """
    profile = Profile.of(load)
    chance = random.Random(f"{load.seed}/{worker}")
    area = float(worker)
    while True:
        if load.arrivals == "poisson":
            area += chance.expovariate(1.0) * workers
        due_s = profile.time_of(area)
        if due_s is None or due_s >= profile.duration_s:
            return
        yield due_s
        if load.arrivals == "constant":
            area += workers
