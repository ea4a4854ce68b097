"""Runs the contestants of a comparison, interleaved, each time on hosts made for that run."""

import asyncio
import importlib.util
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from twbench.compare import folder
from twbench.compare.document import Played, build_document
from twbench.compare.statistics import require_scipy
from twbench.model.contest import Contest, Contestant
from twbench.model.crawling import LIBRARIES
from twbench.model.errors import LabError, TwbenchError, UsageError
from twbench.record.reader import read_run
from twbench.run.course import Result, run_scenario
from twbench.run.progress import Progress

_MAKING_S = 2.0
"""What a run takes besides its load: hosts, processes, the last looks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a comparison stands."""

    number: int
    """Of the run, from 1."""
    runs: int
    round: int
    rounds: int
    contestant: str
    left_s: float
    """Until all is over, from the time that earlier runs took."""
    progress: Progress | None = None
    """Of the run under way; None: it begins, or has ended."""
    played: Played | None = None
    """The run, once it has ended."""


Observer = Callable[[Standing], None]
Teller = Callable[[dict[str, Any]], str]
"""Makes compare.txt of what compare.json holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A comparison that has come to its end."""

    path: Path
    """Its results folder."""
    document: dict[str, Any]
    """What compare.json holds."""
    interrupted: bool


def compare_scenarios(
    contest: Contest,
    *,
    results_dir: Path,
    observe: Observer = lambda _: None,
    tell: Teller | None = None,
) -> Comparison:
    """Run every contestant in every round, and return what that shows.

    The folder is brought up to date after each round: a kill costs one at the most. Ctrl-C ends the
    run under way in order, and with it the comparison: its whole rounds count.

    Raises:
        UsageError: scipy or a crawler's file is missing, or the folder cannot be used; as
            RecordError where that shows in mid-run.
        LabError: a library is missing, or the hosts cannot be made here. Whole rounds are kept.
    """
    require_scipy()
    for contestant in contest.contestants:
        refuse_missing(contestant)
    path = folder.make(results_dir, contest.name, started=datetime.now(UTC))
    played: list[Played] = []

    def keep(ended_early: str) -> dict[str, Any]:
        document = build_document(contest, played, ended_early=ended_early)
        folder.write_document(path, document)
        if tell:
            folder.write_text(path, tell(document))
        return document

    try:
        ended_early = _play(contest, path / folder.RUNS, observe, played, keep)
    except TwbenchError as error:
        if played:
            keep(str(error))
        else:
            folder.remove_empty(path)
        raise
    document = keep(ended_early)
    return Comparison(path=path, document=document, interrupted=bool(ended_early))


def refuse_missing(contestant: Contestant) -> None:
    """Raise LabError or UsageError for an engine that is not here, before anything is run."""
    client = contestant.scenario.client
    if client.engine in LIBRARIES and importlib.util.find_spec(client.engine) is None:
        what = f"contestant '{contestant.name}': {client.engine} is not installed"
        raise LabError(what, remedy="pip install 'twbench[peers]'")
    if client.is_own and not Path(client.engine.rpartition(":")[0]).is_file():
        raise UsageError(f"contestant '{contestant.name}': there is no {client.engine}")


def schedule(contest: Contest) -> Iterator[tuple[int, Contestant]]:
    """Give the runs as (round, contestant), by a Latin square that the seed shuffles.

    In as many rounds as there are contestants each is once in each place, and of an even number
    each comes once right after each other one (E. J. Williams, 1949); of an odd number, in twice as
    many rounds.
    """
    entered = list(contest.contestants)
    random.Random(contest.seed).shuffle(entered)
    size = len(entered)
    # 0, 1, -1, 2, -2 …: no two neighbours are as far apart
    places = [(n + 1) // 2 if n % 2 else -n // 2 for n in range(size)]
    for turn in range(contest.repeats):
        order = places if turn // size % 2 == 0 else places[::-1]
        yield from ((turn + 1, entered[(turn + place) % size]) for place in order)


def _play(
    contest: Contest,
    runs_dir: Path,
    observe: Observer,
    played: list[Played],
    keep: Callable[[str], object],
) -> str:
    """Run all, adding to `played`; return why it ended before that, or nothing.

    `keep` gets, between rounds, what to say of the rest if nobody can do so later.
    """
    runs = list(schedule(contest))
    took_s: dict[str, list[float]] = {}
    for number, (round_, contestant) in enumerate(runs, start=1):
        standing = Standing(
            number=number,
            runs=len(runs),
            round=round_,
            rounds=contest.repeats,
            contestant=contestant.name,
            left_s=sum(_expected_s(left, took_s) for _, left in runs[number - 1 :]),
        )
        begun_s = time.monotonic()
        try:
            observe(standing)
            result = run_scenario(
                contestant.scenario, results_dir=runs_dir, observe=_within(standing, observe)
            )
            if result.interrupted:
                return _interrupted(len(played), len(runs))
            took_s.setdefault(contestant.name, []).append(time.monotonic() - begun_s)
            played.append(_played(round_, contestant.name, result))
            observe(replace(standing, played=played[-1]))
            if number < len(runs) and runs[number][0] > round_:
                keep(f"under way, or killed, after {number} of {len(runs)} runs")
        except (KeyboardInterrupt, asyncio.CancelledError):
            return _interrupted(len(played), len(runs))
    return ""


def _interrupted(done: int, runs: int) -> str:
    return f"interrupted after {done} of {runs} runs"


def _within(standing: Standing, observe: Observer) -> Callable[[Progress], None]:
    begun_s = time.monotonic()

    def tell(progress: Progress) -> None:
        left_s = max(0.0, standing.left_s - (time.monotonic() - begun_s))
        observe(replace(standing, left_s=left_s, progress=progress))

    return tell


def _expected_s(contestant: Contestant, took_s: dict[str, list[float]]) -> float:
    """Return how long a run will take: as long as its like did, or as its scenario says."""
    if before := took_s.get(contestant.name):
        return fmean(before)
    scenario = contestant.scenario
    return scenario.load.total_s + scenario.sampling.after_s + _MAKING_S


def _played(round_: int, name: str, result: Result) -> Played:
    first: dict[str, int] = {}
    for sample in read_run(result.path).samples:
        first.setdefault(sample["stack"], sample["sockstat"].get("tw", 0))
    return Played(
        round=round_,
        contestant=name,
        run_id=result.path.name,
        time_wait_first=first,
        summary=result.summary,
    )
