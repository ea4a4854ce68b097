"""`twbench schema`: the JSON Schema of a scenario."""

import typer

from twbench.cli.show import print_json
from twbench.model.scenario import Scenario


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "schema",
        help="Print the JSON Schema of a scenario: every key, its default and its limits.",
        epilog="Example: twbench schema > scenario.schema.json",
    )(schema)


def schema() -> None:
    """Print the schema."""
    print_json(Scenario.model_json_schema())
