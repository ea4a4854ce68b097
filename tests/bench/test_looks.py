"""The goals of a look are told by the ratios of each round."""

from bench.looks import ALONE, COUNTED, DRAINED, LOOK, TICK, goals
from bench.parts.figures import MET, MISSED, UNDECIDED

TIMES = {
    TICK: [0.05] * 5,
    LOOK: [1.0, 1.0, 2.0, 2.0, 1.0],
    ALONE: [1.2] * 5,
    COUNTED: [2.0] * 5,
    "ss -tan": [8.0, 9.0, 16.0, 15.0, 8.0],
    "psutil": [50.0, 50.0, 50.0, 50.0, 39.0],
    DRAINED: [1.0, 1.0, 1.0, 0.5, 0.9],
}


def test_each_goal_has_one_verdict_by_the_rounds() -> None:
    told = {row.name: row.verdict for row in goals(TIMES)}
    assert told == {
        f"ss -tan / {LOOK}": MET,
        f"psutil / {LOOK}": UNDECIDED,
        f"{ALONE} / {DRAINED}": UNDECIDED,
        f"{COUNTED} / {DRAINED}": "",
        f"{TICK}, CPU time": MET,
    }


def test_slower_look_misses() -> None:
    (ss, *_) = goals(TIMES | {LOOK: [4.0] * 5})
    assert (ss.median, ss.verdict) == (2.25, MISSED)


def test_without_a_compiler_one_goal_is_missing_and_says_why() -> None:
    (row,) = (
        row for row in goals({n: t for n, t in TIMES.items() if n != DRAINED}) if not row.values
    )
    assert "no C compiler" in row.goal
