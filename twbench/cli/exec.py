"""`twbench exec`: any program on the client's host, in the fleet's place."""

import sys
from contextlib import nullcontext
from typing import Annotated

import typer
from rich.console import Console

from twbench.cli.options import RESULTS, Json, Out, Overrides, Plain, ScenarioPath
from twbench.cli.show import leave, print_json, watching
from twbench.model.parse import load_scenario
from twbench.report.text import render_summary
from twbench.run.course import run_scenario
from twbench.run.program import EndedBy, Program
from twbench.run.progress import Progress

_STDERR = 2
_WIDTH = 110


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "exec",
        help=(
            "Run a program of yours against a scenario's server: on a host of its own, sampled,"
            " audited and recorded like a fleet. It finds the server at $TWBENCH_URL and its sites"
            " at $TWBENCH_SITES, and is ended after load.duration_s."
        ),
        epilog=(
            "Example: twbench exec configs/crawler-short-lived.toml -- "
            "sh -c 'wrk -d 5 $TWBENCH_URL'   "
            "Exit status: the program's, or one of twbench's own where it ended well"
        ),
    )(execute)


def execute(
    scenario: ScenarioPath,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND…", help="the program and its arguments")
    ],
    overrides: Overrides = None,
    out: Out = RESULTS,
    *,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Run a program: it owns standard output, unless JSON is asked for."""
    parsed = load_scenario(scenario, overrides=overrides or ())
    program = Program(command, stdout=_STDERR if json else None)
    # the terminal is the program's, unless lines are asked for
    with watching(plain=True) if plain else nullcontext(_silent) as observe:
        result = run_scenario(parsed, results_dir=out, observe=observe, program=program)
    if json:
        print_json(result.summary)
    else:
        console = Console(
            stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDTH
        )
        console.print(render_summary(result.summary))
        console.print(f"results: {result.path}")
    ended = result.summary["program"]
    if ended["ended_by"] == EndedBy.ITSELF and ended["exit_status"]:
        raise typer.Exit(ended["exit_status"])
    leave(result)


def _silent(_: Progress) -> None:
    """Show nothing on the way."""
