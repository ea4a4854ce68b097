"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

ScenarioPath = Annotated[Path, typer.Argument(metavar="SCENARIO", help="a scenario's TOML file")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override one key; can be given many times"),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="X",
        help="the client: auto, streams, uring, an HTTP library, or FILE.py:NAME",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="write JSON to standard output")]
Plain = Annotated[bool, typer.Option("--plain", help="plain lines instead of a live table")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="where the results folder is made")]
RESULTS = Path("results")
