"""Every ending traced once, for all the tests here."""

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from twbench.model.endings import ENDINGS, Ending
from twbench.trace.trace import Trace, trace_ending
from twbench.wire.ladder import Fate

TRIES = 5
Traces = Mapping[tuple[str, int], Trace]
Calmly = Callable[[Callable[[], Trace]], Trace]


def was_stalled(trace: Trace) -> bool:
    """Return whether a kernel sent something again, as it does after 200 ms without an answer."""
    sent = Counter(
        (each.origin, each.segment)
        for each in trace.ladder.crossings
        if each.fate is not Fate.RELEASED
    )
    return max(sent.values()) > 1


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
        return calmly(lambda: trace_ending(ending, family=family))

    wanted = [(ending, family) for family in (4, 6) for ending in ENDINGS.values()]
    with ThreadPoolExecutor() as pool:
        found = pool.map(one, wanted)
        return {
            (ending.name, family): trace
            for (ending, family), trace in zip(wanted, found, strict=True)
        }
