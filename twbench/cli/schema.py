"""`twbench schema`: the JSON Schema of a scenario, or of a comparison."""

from typing import Annotated

import typer

from twbench.cli.show import print_json
from twbench.model.contest import contest_schema
from twbench.model.scenario import Scenario


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "schema",
        help="Print the JSON Schema of a scenario: every key, its default and its limits.",
        epilog="Example: twbench schema > scenario.schema.json",
    )(schema)


def schema(
    *, compare: Annotated[bool, typer.Option("--compare", help="of a comparison's file")] = False
) -> None:
    """Print the schema."""
    print_json(contest_schema() if compare else Scenario.model_json_schema())
