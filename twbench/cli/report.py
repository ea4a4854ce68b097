"""`twbench report`: a results folder as text."""

from pathlib import Path
from typing import Annotated

import typer

from twbench.cli.options import RESULTS
from twbench.cli.show import stdout
from twbench.compare.folder import is_comparison, read_document
from twbench.record.reader import latest, read_run
from twbench.report.comparison import render_contest
from twbench.report.partial import render_partial
from twbench.report.text import render_summary


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "report",
        help="Print a results folder as text, a comparison's or a killed run's too.",
        epilog="Example: twbench report results/reference/client-closes-first",
    )(report)


def report(
    result: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RESULT]", help="a results folder; without it the latest in results/"
        ),
    ] = None,
) -> None:
    """Print a results folder."""
    folder = result or latest(RESULTS)
    console = stdout()
    if is_comparison(folder):
        console.print(render_contest(read_document(folder)))
        return
    run = read_run(folder)
    console.print(render_partial(run) if run.summary is None else render_summary(run.summary))
