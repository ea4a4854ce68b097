"""From TOML text to a scenario, with every mistake reported at once and in the user's terms."""

import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from twbench.model.errors import Problem, ScenarioError
from twbench.model.scenario import Scenario

T = TypeVar("T", bound=BaseModel)


def load_scenario(path: Path, *, overrides: Iterable[str] = ()) -> Scenario:
    """Read the scenario at `path`, with `key=value` overrides applied.

    Raises:
        ScenarioError: the file cannot be read, is no TOML, or has mistakes (all are listed).
    """
    return parse_scenario(read_text(path), source=str(path), overrides=overrides)


def parse_scenario(text: str, *, source: str, overrides: Iterable[str] = ()) -> Scenario:
    """Parse TOML `text`; `source` names it in messages. Raises ScenarioError as above."""
    raw = parse_toml(text, source=source)
    if several := next((key for key in ("contestant", "compare") if key in raw), None):
        found, allowed = "a comparison", "allowed is one scenario; `twbench compare` takes this"
        raise ScenarioError(source, [Problem(key=several, found=found, allowed=allowed)])
    problems = [p for p in (override(raw, item) for item in overrides) if p]
    try:
        scenario = build_scenario(raw, source=source)
    except ScenarioError as error:
        raise ScenarioError(source, [*problems, *error.problems]) from None
    if problems:
        raise ScenarioError(source, problems)
    return scenario


def build_scenario(raw: Mapping[str, Any], *, source: str) -> Scenario:
    """Validate a plain dict. Raises ScenarioError with every mistake found."""
    return build_table(Scenario, raw, source=source)


def read_text(path: Path) -> str:
    """Return what is in a file. Raises ScenarioError where it cannot be read."""
    try:
        return path.read_bytes().decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        allowed = "allowed is a readable TOML file in UTF-8"
        problem = Problem(key=str(path), found=reason, allowed=allowed)
        raise ScenarioError(str(path), [problem]) from None


def parse_toml(text: str, *, source: str) -> dict[str, Any]:
    """Return the tree of a TOML document. Raises ScenarioError where it is none."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # beside TOMLDecodeError: numbers of thousands of digits, and nesting without end
        problem = Problem(key="TOML", found=str(error), allowed="allowed is a TOML document")
        raise ScenarioError(source, [problem]) from None


def build_table(model: type[T], raw: Mapping[str, Any], *, source: str) -> T:
    """Validate a plain dict as a table. Raises ScenarioError with every mistake found."""
    try:
        # a TOML date has no JSON, and no field takes NaN either
        text = json.dumps(raw, default=lambda _: math.nan)
    except (ValueError, TypeError, RecursionError) as error:
        problem = Problem(key="scenario", found=str(error), allowed=_PLAIN)
        raise ScenarioError(source, [problem]) from None
    try:
        # strict JSON mode: "5" is no number and true is no 1, yet an array serves as a tuple
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = [_problem(detail, raw, model) for detail in error.errors(include_url=False)]
        raise ScenarioError(source, problems) from None


def override(raw: dict[str, Any], item: str) -> Problem | None:
    """Put one `--set key=value` into the raw tree; the value is TOML, or else a plain string."""
    key, equals, value = item.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        allowed = "allowed is key=value, as in load.duration_s=5"
        return Problem(key="--set", found=repr(item), allowed=allowed)
    # names of sysctls and figures hold dots themselves: what follows these tables is one key
    cut = next((n for n, part in enumerate(parts[:-1], start=1) if part in _DOTTED), None)
    if cut:
        parts = [*parts[:cut], ".".join(parts[cut:]).strip("\"'")]
    table = raw
    for depth, part in enumerate(parts[:-1], start=1):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            found = f"a value at {'.'.join(parts[:depth])}"
            allowed = "allowed is a key inside a table"
            return Problem(key=f"--set {key}", found=found, allowed=allowed)
    table[parts[-1]] = _toml_value(value)
    return None


def _toml_value(text: str) -> Any:  # noqa: ANN401 - whatever TOML holds
    """Return the value that `text` is in TOML, or else `text` itself."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    # a text of several lines can hold further keys, and is then no value
    return document["value"] if len(document) == 1 else text


def _problem(detail: ErrorDetails, raw: Mapping[str, Any], model: type[BaseModel]) -> Problem:
    """Turn one pydantic error into a problem in the user's terms."""
    location = [*detail["loc"]]
    if location[-1:] == ["[key]"] and detail["type"] != "extra_forbidden":
        # so pydantic marks a name that is wrong, beside values that are
        location.pop()
    key = ".".join(str(part) for part in location) or "scenario"
    match detail["type"]:
        case "extra_forbidden":
            return Problem(key=key, found="an unknown key", allowed=_suggestion(location, model))
        case "missing":
            return Problem(key=key, found="nothing", allowed="this key is required")
        case "json_invalid":
            return Problem(key=key, found=detail["ctx"]["error"], allowed=_PLAIN)
    allowed = detail["msg"].replace("Input should be", "allowed is")
    return Problem(key=key, found=_found(raw, location), allowed=_IN_TOML.get(allowed, allowed))


def _suggestion(location: list[int | str], table: type[BaseModel]) -> str:
    """Say which keys a table inside of `table` has, the most similar one first."""
    for part in location[:-1]:
        field = table.model_fields.get(str(part))
        candidates = [field.annotation, *get_args(field.annotation)] if field else []
        table = next((c for c in candidates if _is_table(c)), table)
    names = {name.lower(): name for name in table.model_fields}
    close = difflib.get_close_matches(str(location[-1]).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean '{names[close[0]]}'? " if close else ""
    return f"{hint}allowed here: {', '.join(names.values())}"


def _is_table(candidate: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def _found(raw: Mapping[str, Any], location: list[int | str]) -> str:
    """Say in short what stands at a place."""
    value: Any = raw
    for part in location:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return "nothing"
    if isinstance(value, Mapping):
        text = ", ".join(map(str, value)) or "an empty table"
    else:
        text = repr(value) if isinstance(value, _WITH_LITERALS) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


_LONGEST = 80
_DOTTED = {"sysctl", "thresholds"}
_WITH_LITERALS = (str, int, float, list)
_PLAIN = "allowed are tables of numbers, strings and arrays, none nested without end"
_IN_TOML = {
    "allowed is an object": "allowed is a table",
    "allowed is a valid dictionary": "allowed is a table",
}
