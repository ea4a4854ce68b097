"""docs/rules.md teaches the language that the parser reads."""

import re
import tomllib
from pathlib import Path

import pytest

from twbench.wire.grammar import Action, Kind, Rule
from twbench.wire.rules import FINS_CROSS, Rulebook

PAGE = (Path(__file__).resolve().parents[2] / "docs/rules.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## Examples")[2], re.MULTILINE)


def part(name: str) -> list[str]:
    """Return what the table of the line's parts lists for one of them."""
    (row,) = re.findall(rf"^\| {name} \| (.*) \|$", PAGE, re.MULTILINE)
    return re.findall(r"`([^`]+)`", row)


@pytest.mark.parametrize("line", EXAMPLES)
def test_example_is_a_rule_in_its_canonical_form(line: str) -> None:
    assert str(Rule.parse(line)) in {line, line.replace("1 s", "1000 ms")}
    Rulebook([line], family=4)


def test_every_action_and_kind_is_told_and_every_action_has_an_example() -> None:
    assert part("action") == list(Action)
    assert part("kind") == list(Kind)
    assert {Rule.parse(line).action for line in EXAMPLES} == set(Action)
    assert FINS_CROSS in EXAMPLES


def test_every_field_of_a_rule_has_an_example() -> None:
    plain = Rule(action=Action.DROP, kind=Kind.FIN)
    used = {
        name
        for line in EXAMPLES
        for name in Rule.__slots__
        if getattr(Rule.parse(line), name) != getattr(plain, name)
    }
    assert used == set(Rule.__slots__)


def test_rules_of_the_scenario_are_rules() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    for line in tomllib.loads(block)["lab"]["wire"]["rules"]:
        Rule.parse(line)
