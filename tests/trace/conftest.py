"""Every ending traced once, for all the tests here."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from twbench.model.endings import ENDINGS, Ending
from twbench.trace.trace import Trace, trace_ending
from twbench.wire.ladder import Crossing, Fate

TRIES = 5
LATE_S = 0.15
DRAWN = 4
"""The family whose ladders are in the album, with the first seconds of TIME_WAIT."""
Traces = Mapping[tuple[str, int], Trace]
Calmly = Callable[[Callable[[], Trace]], Trace]


def was_stalled(trace: Trace) -> bool:
    """Return whether something was sent again because it, or its answer, crossed late.

    A kernel sends again after 200 ms. What was sent again although no step was late tells of a
    mistake, and is no stall.
    """
    steps = trace.ladder.steps
    late = [False, *(b.t_s - a.t_s >= LATE_S for a, b in pairwise(steps))]
    first: dict[object, int] = {}
    for number, step in enumerate(steps):
        if isinstance(step, Crossing) and step.fate is not Fate.RELEASED:
            began = first.setdefault((step.origin, step.segment), number)
            if any(late[began:number]):
                return True
    return False


@pytest.fixture(scope="session")
def calmly() -> Calmly:
    """Return what makes a trace once more where the machine was too busy for stop-motion."""

    def until_calm(make: Callable[[], Trace]) -> Trace:
        for _ in range(TRIES):
            trace = make()
            if not was_stalled(trace):
                break
        return trace

    return until_calm


@pytest.fixture(scope="session")
def traces(calmly: Calmly) -> Traces:
    """Give the trace of each ending by its name and the family of its addresses."""

    def one(wanted: tuple[Ending, int]) -> Trace:
        ending, family = wanted
        watch_s = 2 if family == DRAWN else 0
        return calmly(lambda: trace_ending(ending, family=family, watch_s=watch_s))

    wanted = [(ending, family) for family in (4, 6) for ending in ENDINGS.values()]
    with ThreadPoolExecutor() as pool:
        found = pool.map(one, wanted)
        return {
            (ending.name, family): trace
            for (ending, family), trace in zip(wanted, found, strict=True)
        }
