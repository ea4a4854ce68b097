"""A comparison: one scenario, and contestants that each lay something over it."""

import copy
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from twbench.model.errors import Problem, ScenarioError
from twbench.model.parse import build_scenario, build_table, override, parse_toml, read_text
from twbench.model.presets import PRESETS
from twbench.model.scenario import Scenario
from twbench.model.tables import Mistake, Slug, Table, refuse, refuse_each

_FEWEST = 2
_NOT_FRESH = "a comparison takes fresh hosts for each run: allowed is veth, wire or loopback"


def _preset(name: str) -> str:
    if name not in PRESETS:
        raise refuse(f"allowed is one of: {', '.join(PRESETS)}")
    return name


class CompareSpec(Table):
    """`[compare]`: how the contestants are compared."""

    repeats: int = Field(5, ge=1, le=100, description="rounds, in each of which all run once")
    seed: int = Field(1, description="of the order within each round, and of the intervals")
    baseline: str | None = Field(
        None,
        description="the contestant that the others are held against; unset: the best",
    )


class Entry(Table):
    """`[[contestant]]`: its name, and beside these keys any table of a scenario."""

    name: Slug = Field(description="as it appears in results")
    preset: Annotated[str, AfterValidator(_preset)] | None = Field(
        None,
        description=(
            "a design that this one begins with, instead of the base's pool and libraries:"
            " `twbench compare --presets`"
        ),
        json_schema_extra={"enum": [*PRESETS, None]},
    )
    description: str = Field("", description="what is special about it")


class _Frame(Table):
    """What a comparison's file holds besides a scenario."""

    name: Slug
    description: str = ""
    compare: CompareSpec = CompareSpec()
    contestant: tuple[Entry, ...] = Field(max_length=50)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [each.name for each in self.contestant]
        wrong: list[str | Mistake] = []
        if len(names) < _FEWEST:
            what = f"{len(names)}: a comparison takes at least {_FEWEST} tables [[contestant]]"
            wrong.append((("contestant",), what))
        baseline = self.compare.baseline
        if baseline is not None and baseline not in names:
            what = f"allowed is the name of a contestant: {', '.join(names)}"
            wrong.append((("compare", "baseline"), what))
        refuse_each("comparison", wrong)
        return self


@dataclass(frozen=True, kw_only=True, slots=True)
class Contestant:
    """One of those that are compared."""

    name: str
    description: str
    preset: str | None
    differs: Mapping[str, Any]
    """Dotted keys in which it is not as the base with its overrides; None: it has none of them."""
    scenario: Scenario


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """A comparison, as its file has it."""

    name: str
    description: str
    repeats: int
    seed: int
    baseline: str | None
    contestants: tuple[Contestant, ...]


def load_contest(path: Path, *, overrides: Iterable[str] = ()) -> Contest:
    """Read the comparison at `path`; `key=value` overrides are laid over the base.

    What a contestant or its preset sets is therefore its own still: a contest of pool sizes stays
    one whatever the base's pool.

    Raises:
        ScenarioError: the file cannot be read, is no TOML, or has mistakes (all are listed).
    """
    return parse_contest(read_text(path), source=str(path), overrides=overrides)


def parse_contest(text: str, *, source: str, overrides: Iterable[str] = ()) -> Contest:
    """Parse TOML `text`; `source` names it in messages. Raises ScenarioError as above."""
    raw = parse_toml(text, source=source)
    if "contestant" not in raw:
        missing = "a comparison takes at least two tables [[contestant]], each with a name"
        plain = Problem(key="contestant", found="a plain scenario", allowed=missing)
        raise ScenarioError(source, [plain])
    entries = raw["contestant"] if isinstance(raw["contestant"], list) else []
    problems: list[Problem] = []
    problems += _laid_over_base(raw, overrides)
    problems += _of_one_name(entries)
    frame = _frame(raw, source, problems)
    base = {key: value for key, value in raw.items() if key not in ("compare", "contestant")}
    found: list[list[Problem]] = []
    contestants = []
    for number, entry in enumerate(entries):
        tree = _laid_over(base, entry)
        mine: list[Problem] = []
        scenario = _scenario(tree, entry, mine)
        found.append(mine)
        if frame and scenario:
            about = frame.contestant[number]
            preset = PRESETS[about.preset].sentence if about.preset else ""
            contestants.append(
                Contestant(
                    name=about.name,
                    description=about.description or preset,
                    preset=about.preset,
                    differs=dict(_differing(tree, base)),
                    scenario=scenario,
                )
            )
    problems += _told_once(found)
    if problems or frame is None:
        raise ScenarioError(source, list(dict.fromkeys(problems)))
    return Contest(
        name=frame.name,
        description=frame.description,
        repeats=frame.compare.repeats,
        seed=frame.compare.seed,
        baseline=frame.compare.baseline,
        contestants=tuple(contestants),
    )


def contest_schema() -> dict[str, Any]:
    """Return the JSON Schema of a comparison: a scenario's, and the contestants' parts of it."""
    schema = Scenario.model_json_schema()
    entry, compare = Entry.model_json_schema(), CompareSpec.model_json_schema()
    entry["properties"] = {**schema["properties"], **entry["properties"]}
    listed = {"type": "array", "items": {"$ref": "#/$defs/Entry"}, "minItems": _FEWEST}
    schema["$defs"] |= {"CompareSpec": compare, "Entry": entry}
    schema["properties"] |= {"compare": {"$ref": "#/$defs/CompareSpec"}, "contestant": listed}
    # what is no default of the base may be each contestant's own
    schema["required"] = ["name", "contestant"]
    schema["title"] = "Comparison"
    return schema


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid over it, table by table; neither is changed."""
    result = dict(copy.deepcopy(base))
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


_OF_ENTRY = tuple(Entry.model_fields)


def _laid_over_base(raw: dict[str, Any], overrides: Iterable[str]) -> Iterator[Problem]:
    """Put overrides into the raw tree, below the contestants; give the problems there are."""
    for item in overrides:
        if item.partition("=")[0].strip().partition(".")[0] == "contestant":
            allowed = "allowed is a key of the scenario, for all contestants, or of [compare]"
            yield Problem(key="--set", found=repr(item), allowed=allowed)
        elif problem := override(raw, item):
            yield problem


def _of_one_name(entries: Sequence[object]) -> Iterator[Problem]:
    """Give each name that contestants share, whatever else is wrong with them."""
    tables = (entry for entry in entries if isinstance(entry, Mapping))
    names = Counter(str(entry["name"]) for entry in tables if "name" in entry)
    for name, count in names.items():
        if count > 1:
            found = f"{count} of the name '{name}'"
            yield Problem(key="contestant", found=found, allowed="allowed is each name once")


def _frame(raw: Mapping[str, Any], source: str, problems: list[Problem]) -> _Frame | None:
    """Return what frames the contestants, or None and the problems there are."""
    outer = {key: raw[key] for key in _Frame.model_fields if key in raw}
    if isinstance(raw["contestant"], list):
        outer["contestant"] = [
            {key: entry[key] for key in _OF_ENTRY if key in entry}
            if isinstance(entry, Mapping)
            else entry
            for entry in raw["contestant"]
        ]
    try:
        return build_table(_Frame, outer, source=source)
    except ScenarioError as error:
        problems += (
            replace(problem, key=re.sub(r"^contestant\.(\d+)", r"contestant[\1]", problem.key))
            for problem in error.problems
        )
        return None


def _laid_over(base: Mapping[str, Any], entry: object) -> dict[str, Any]:
    """Return the base with a contestant laid over it: its preset's tables, then its own."""
    if not isinstance(entry, Mapping):
        return dict(base)
    preset = PRESETS.get(str(entry.get("preset")))
    below = merged(preset.over(base), preset.tables) if preset else base
    return merged(below, {key: value for key, value in entry.items() if key not in _OF_ENTRY})


def _scenario(tree: Mapping[str, Any], entry: object, problems: list[Problem]) -> Scenario | None:
    """Return a contestant's scenario, or None and the problems there are."""
    about = entry if isinstance(entry, Mapping) else {}
    # what is wrong with these is the frame's to tell
    whole = {**tree, "name": "contestant", "description": ""}
    lab = whole.get("lab")
    if isinstance(lab, Mapping) and lab.get("link") == "host":
        problems.append(Problem(key="lab.link", found="'host'", allowed=_NOT_FRESH))
    try:
        scenario = build_scenario(whole, source="contestant")
    except ScenarioError as error:
        problems += error.problems
        return None
    named = {"name": about.get("name"), "description": about.get("description", "")}
    return scenario.model_copy(update=named)


def _told_once(found: Sequence[Sequence[Problem]]) -> Iterator[Problem]:
    """Give the problems of all contestants; those of the base, which all have, once."""
    common = set.intersection(*map(set, found)) if found else set()
    yield from (problem for problem in (found[0] if found else ()) if problem in common)
    for number, problems in enumerate(found):
        for problem in problems:
            if problem not in common:
                yield replace(problem, key=f"contestant[{number}].{problem.key}")


def _differing(
    tree: Mapping[str, Any], base: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Give each value that is not the base's, by its dotted key; None: only the base has one."""
    for key in {**tree, **base}:
        value, below = tree.get(key), base.get(key)
        if isinstance(value, Mapping) or (value is None and isinstance(below, Mapping)):
            inner = below if isinstance(below, Mapping) else {}
            yield from _differing(value or {}, inner, f"{prefix}{key}.")
        elif value != below:
            yield f"{prefix}{key}", value
