"""What compare.json says: contestants, their figures over the rounds, and who differs. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twbench.compare.advice import advise
from twbench.compare.figures import (
    FIGURES,
    JUDGED,
    RANKED_BY,
    STEPS,
    Figures,
    figures_of,
    totals_of,
)
from twbench.compare.statistics import (
    CONFIDENCE,
    FEWEST_ROUNDS,
    LEVEL,
    RELEVANT,
    Difference,
    best,
    coverage,
    differences,
    estimate,
)
from twbench.model.contest import Contest, Contestant

SCHEMA = 1
"""Of compare.json; goes up when a reader of it has to know of a change."""
FAILING = 0.001
"""Share of failed attempts; whoever has more of them than others is quick in vain."""
_MACHINE = ("kernel", "architecture", "cpus", "python", "packages", "privileged")


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """One run of one contestant, as much as the comparison needs of it."""

    round: int
    contestant: str
    run_id: str
    time_wait_first: Mapping[str, int]
    """By stack, at the first tick: before any load."""
    summary: Mapping[str, Any]

    @property
    def clean(self) -> bool:
        """Return whether every host was seen without TIME_WAIT at the start."""
        return bool(self.time_wait_first) and not any(self.time_wait_first.values())

    @property
    def sound(self) -> bool:
        """Return whether it began clean, went to its end, and its audit balances as promised."""
        balanced = bool(self.summary["audit"]["balanced"])
        return self.clean and not self.summary["ended_early"] and balanced


def build_document(
    contest: Contest, played: Sequence[Played], *, ended_early: str = ""
) -> dict[str, Any]:
    """Return the content of compare.json; a round counts in which all ran, and all began clean.

    Args:
        contest: what was compared.
        played: every run that was recorded, in order.
        ended_early: why there are no more of them; empty where all ran.
    """
    size = len(contest.contestants)
    runs_of = Counter(run.round for run in played if run.clean)
    complete = [run for run in played if runs_of[run.round] == size]
    by_name = {c.name: [r for r in complete if r.contestant == c.name] for c in contest.contestants}
    rows = [
        _contestant(contestant, by_name[contestant.name], contest.seed)
        for contestant in contest.contestants
    ]
    tables = {key: _values(rows, key) for key in JUDGED} if complete else {}
    pairs = differences(tables, steps=STEPS)
    failing = _failing(rows)
    ranking = _ranking(rows) if complete else []
    reference = contest.baseline or (ranking[0] if ranking else None)
    for row in rows:
        row["against_reference"] = _against(reference, row["name"], pairs)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "name": contest.name,
        "description": contest.description,
        "repeats": contest.repeats,
        "rounds": len(complete) // size,
        "seed": contest.seed,
        "baseline": contest.baseline,
        "ended_early": ended_early,
        "left_out": [run.run_id for run in played if run not in complete],
        "method": {
            "confidence": CONFIDENCE,
            "level": LEVEL,
            "relevant": RELEVANT,
            "failing": FAILING,
            "fewest_rounds": FEWEST_ROUNDS,
            "covers": coverage(len(complete) // size),
        },
        "labels": {key: figure.label for key, figure in FIGURES.items()},
        "contestants": rows,
        "ranking": ranking,
        "reference": reference,
        "best": {
            # who fails fetches fewer pages: there it shows without our help
            key: best(found, JUDGED[key], without=() if key == RANKED_BY else failing)
            for key, found in pairs.items()
        },
        "failing": failing,
        "differences": {key: [each.as_json() for each in found] for key, found in pairs.items()},
        "gate": _gate(played),
        "environment": _environment(played),
    }
    return document | {"advice": [each.as_json() for each in advise(document)]}


def _against(
    reference: str | None, name: str, pairs: Mapping[str, Iterable[Difference]]
) -> dict[str, Any]:
    """Return by figure how far a contestant is from the one that all are held against."""
    return {
        key: (pair if pair.name == name else pair.reversed()).as_json()
        for key, found in pairs.items()
        for pair in found
        if {pair.name, pair.other} == {name, reference}
    }


def _contestant(contestant: Contestant, runs: Sequence[Played], seed: int) -> dict[str, Any]:
    # what a run that broke off measured is no figure of the contestant
    measured = [{} if r.summary["ended_early"] else figures_of(r.summary) for r in runs]
    errors: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for run in runs:
        counts = totals_of(run.summary)
        errors.update(counts.pop("errors"))
        totals.update(counts)
    return {
        "name": contestant.name,
        "description": contestant.description,
        "preset": contestant.preset,
        "differs": dict(contestant.differs),
        "engine": _engine(runs),
        "ports_capacity": _capacity(runs),
        "sysctls": _sysctls(runs),
        "runs": [run.run_id for run in runs],
        "sound": sum(run.sound for run in runs),
        "thresholds_missed": sum(
            not all(each["ok"] for each in run.summary["thresholds"]) for run in runs
        ),
        "figures": {key: _figure(measured, key, seed) for key in _keys(measured)},
        "totals": {**totals, "errors": dict(errors.most_common())},
        "scenario": contestant.scenario.model_dump(mode="json", exclude_none=True),
    }


def _keys(measured: Iterable[Figures]) -> list[str]:
    return list(dict.fromkeys(key for figures in measured for key in figures))


def _figure(measured: Sequence[Figures], key: str, seed: int) -> dict[str, Any]:
    values = [figures.get(key) for figures in measured]
    return {**estimate(values, seed=seed).as_json(), "values": values}


def _values(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[float | None]]:
    return {
        row["name"]: row["figures"].get(key, {}).get("values") or [None] * len(row["runs"])
        for row in rows
    }


def _ranking(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names by the median of pages/s, the highest first."""
    medians = {row["name"]: row["figures"].get(RANKED_BY, {}).get("median") or 0 for row in rows}
    return sorted(medians, key=lambda name: -medians[name])


def _failing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return those of whose attempts more failed than is rare, and than of the best of all."""
    totals = {row["name"]: row["totals"] for row in rows}
    shares = {n: t.get("failed", 0) / max(1, t.get("attempted", 0)) for n, t in totals.items()}
    fewest = min(shares.values())
    return [name for name, share in shares.items() if share > max(FAILING, fewest)]


def _engine(runs: Sequence[Played]) -> str:
    fleet = runs[0].summary["environment"]["engines"].get("fleet", {}) if runs else {}
    return str(fleet.get("engine", ""))


def _capacity(runs: Sequence[Played]) -> int | None:
    hosts = runs[0].summary["hosts"].values() if runs else ()
    return min((host["ports"]["capacity"] for host in hosts if "ports" in host), default=None)


def _sysctls(runs: Sequence[Played]) -> dict[str, dict[str, str]]:
    """Return each host's, as the first run found them."""
    hosts = runs[0].summary["environment"].get("sysctls", {}) if runs else {}
    return {host: dict(read.get("before", {})) for host, read in hosts.items()}


def _gate(played: Sequence[Played]) -> dict[str, Any]:
    """Say whether each run began on hosts without TIME_WAIT, and which rounds did not."""
    return {
        "clean": all(run.clean for run in played),
        "rounds_left_out": sorted({run.round for run in played if not run.clean}),
        "time_wait_first": {run.run_id: dict(run.time_wait_first) for run in played},
    }


def _environment(played: Sequence[Played]) -> dict[str, Any]:
    environment = played[-1].summary["environment"] if played else {}
    return {key: environment[key] for key in _MACHINE if key in environment}
