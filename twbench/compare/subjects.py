"""Reads what can be compared: a run's folder, a comparison's, or a scenario's file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twbench.compare.diff import Figure, Kind, Subject
from twbench.compare.folder import is_comparison, read_document
from twbench.model.contest import load_contest
from twbench.model.errors import ScenarioError, UsageError
from twbench.model.parse import build_scenario, load_scenario, parse_toml, read_text
from twbench.model.scenario import Scenario
from twbench.model.thresholds import FIGURES
from twbench.record.reader import read_run
from twbench.record.schema import SUMMARY

Leaf = tuple[str, Any]
"""A dotted key, and a value that is no table."""
_MEASURED = (*FIGURES, "program")
_UNTOLD = ("description", "thresholds")
"""Keys of a scenario on which no figure depends."""
_MACHINE = ("kernel", "architecture", "cpus", "python", "packages", "privileged", "engines")


def read_subject(path: Path) -> Subject:
    """Return what is at `path`.

    Raises:
        UsageError: it is none of the three, cannot be read, or is a run without a summary.
    """
    if path.is_file():
        return Subject(kind=Kind.SCENARIO, name=str(path), context=dict(_in_file(path)))
    if is_comparison(path):
        return _comparison(path)
    run = read_run(path)
    if run.summary is None:
        raise UsageError(f"{path} has no {SUMMARY}: its run was ended before; nothing to compare")
    return Subject(
        kind=Kind.RUN,
        name=run.run_id,
        figures={
            key: Figure(value=value)
            for table in _MEASURED
            if table in run.summary
            for key, value in numbers(run.summary[table], table)
        },
        context={
            **dict(_leaves(_whole(run.summary["scenario"]), "scenario")),
            **dict(_machine(run.summary["environment"])),
            **_ended(run.summary),
        },
    )


def numbers(value: object, key: str) -> Iterator[tuple[str, float | None]]:
    """Give every number below a key of a document, or None where one could not be measured.

    Of a list, those are read that have a name; a truth is 0 or 1.
    """
    match value:
        case None | bool() | int() | float():
            yield key, value
        case Mapping():
            for name, inner in value.items():
                yield from numbers(inner, f"{key}.{name}")
        case list():
            for inner in value:
                if isinstance(inner, Mapping) and "name" in inner:
                    yield from numbers(inner, f"{key}.{inner['name']}")
        case _:
            pass


def _machine(environment: Mapping[str, Any]) -> Iterator[Leaf]:
    """Give what figures depend on besides the scenario."""
    for name in _MACHINE:
        if name in environment:
            yield from _leaves(environment[name], name)
    for stack, sysctls in environment.get("sysctls", {}).items():
        yield from _leaves(sysctls.get("before", {}), f"sysctls.{stack}")


def _whole(scenario: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recorded scenario with today's defaults for the keys that it is too old to have."""
    try:
        built = build_scenario(scenario, source="recorded").model_dump(
            mode="json", exclude_none=True
        )
    except ScenarioError:
        built = dict(scenario)
    return {key: value for key, value in built.items() if key not in _UNTOLD}


def _leaves(value: object, key: str) -> Iterator[Leaf]:
    """Give each value that is no table, by dotted key."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inner in value.items():
        yield from _leaves(inner, f"{key}.{name}" if key else name)


def _in_file(path: Path) -> Iterator[Leaf]:
    """Give every key of a scenario's file, or of each contestant's scenario in a comparison's."""
    if "contestant" not in parse_toml(read_text(path), source=str(path)):
        yield from _leaves(_whole(_recorded(load_scenario(path))), "")
        return
    contest = load_contest(path)
    yield from (("repeats", contest.repeats), ("seed", contest.seed))
    for each in contest.contestants:
        yield from _leaves(_whole(_recorded(each.scenario)), f"contestants.{each.name}")


def _recorded(scenario: Scenario) -> dict[str, Any]:
    return scenario.model_dump(mode="json", exclude_none=True)


def _comparison(path: Path) -> Subject:
    document = read_document(path)
    figures: dict[str, Figure] = {}
    context = {key: document[key] for key in ("repeats", "rounds", "seed")}
    context |= _machine(document["environment"])
    for each in document["contestants"]:
        prefix = f"contestants.{each['name']}"
        for key, figure in each["figures"].items():
            figures[f"{prefix}.{key}"] = Figure(
                value=figure["median"], low=figure["low"], high=figure["high"]
            )
        for key, value in numbers(each["totals"], f"{prefix}.totals"):
            figures[key] = Figure(value=value)
        context |= _leaves(_whole(each["scenario"]), prefix)
        context[f"{prefix}.engine"] = each["engine"]
        context |= _leaves(each.get("sysctls", {}), f"{prefix}.sysctls")
    context |= _ended(document)
    return Subject(kind=Kind.COMPARISON, name=path.resolve().name, figures=figures, context=context)


def _ended(document: Mapping[str, Any]) -> dict[str, str]:
    """Return why it was not brought to its end, if it was not."""
    return {"ended_early": document["ended_early"]} if document.get("ended_early") else {}
