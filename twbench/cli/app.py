"""The commands together, and how each error becomes a message and an exit status.

The exit statuses stand in `exits.py`.
"""

import asyncio
import os
import sys

import typer

from twbench.cli import claims, demo, diff, doctor, forecast, report, schema, serve, trace, watch
from twbench.cli import compare as compare_command
from twbench.cli import exec as exec_command
from twbench.cli import run as run_command
from twbench.cli.exits import Exit
from twbench.model.errors import TwbenchError

app = typer.Typer(
    help=(
        "See who holds TIME_WAIT, when ports run out, and who resets whom: a client fleet and a"
        " server on hosts of their own, and an account of every connection."
    ),
    epilog=(
        "Exit status: 0 done, thresholds met · 1 an experiment did not come about · 2 wrong"
        " scenario or arguments · 3 no lab possible here · 4 a threshold was missed · 5 the audit"
        " does not balance, or a process of the run failed · 130 a run was interrupted"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    demo,
    run_command,
    exec_command,
    compare_command,
    trace,
    claims,
    forecast,
    watch,
    serve,
    doctor,
    report,
    diff,
    schema,
):
    command.register(app)


def run() -> int:
    """Run a command; return the exit status."""
    try:
        app()
    except Exception as raised:
        error = _cause(raised)
        if isinstance(error, TwbenchError):
            sys.stderr.write(f"twbench: {error}\n")
            return error.exit_status
        if isinstance(error, BrokenPipeError):
            # whoever read the output has gone; say nothing more, not even at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        raise
    except (KeyboardInterrupt, asyncio.CancelledError):
        return Exit.INTERRUPTED
    return 0


def _cause(error: BaseException) -> BaseException:
    """Return the error itself, or the first of those that a task group raised together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
