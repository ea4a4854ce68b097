"""`twbench schema`: every key of a scenario."""

import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Twbench = Callable[..., subprocess.CompletedProcess[str]]
CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))


def printed(twbench: Twbench, *options: str) -> dict[str, Any]:
    done = twbench("schema", *options)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def schema(twbench: Twbench) -> dict[str, Any]:
    return printed(twbench)


def table_of(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any] | None:
    """Return the table that a field's schema refers to, if it is one."""
    choices = [field, *field.get("anyOf", ()), field.get("items", {})]
    references = [choice["$ref"] for choice in choices if "$ref" in choice]
    return schema["$defs"][references[0].rpartition("/")[2]] if references else None


def fields(schema: dict[str, Any], table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for field in table["properties"].values():
        yield field
        if inner := table_of(schema, field):
            yield from fields(schema, inner)


def test_schema_is_closed_and_says_what_is_required(schema: dict[str, Any]) -> None:
    assert schema["required"] == ["name", "load"]
    for table in (schema, *schema["$defs"].values()):
        assert table["additionalProperties"] is False


def test_every_number_has_a_lower_limit_but_the_seeds(schema: dict[str, Any]) -> None:
    numbers = [
        field | kind
        for field in fields(schema, schema)
        for kind in (field, *field.get("anyOf", ()))
        if kind.get("type") in {"integer", "number"}
    ]
    assert len(numbers) > 30
    unlimited = [each for each in numbers if not {"minimum", "exclusiveMinimum"} & {*each}]
    said = [each["description"] for each in unlimited if "power of two" not in each["description"]]
    assert sorted(said) == [
        "of everything random",
        "of loss, duplication and the rules' chances",
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_key_of_the_configs_is_in_it(twbench: Twbench, config: Path) -> None:
    given = tomllib.loads(config.read_text())
    schema = printed(twbench, *(["--compare"] if "contestant" in given else []))

    def check(table: dict[str, Any], given: dict[str, Any]) -> None:
        for key, value in given.items():
            assert key in table["properties"], key
            inner = table_of(schema, table["properties"][key])
            if inner:
                for each in value if isinstance(value, list) else [value]:
                    check(inner, each)

    check(schema, given)
