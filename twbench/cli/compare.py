"""`twbench compare`: contestants in turn on fresh hosts, and what tells them apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from twbench.cli.exits import Exit
from twbench.cli.options import RESULTS, Json, Out, Overrides, Plain
from twbench.cli.show import live_view, print_json, stderr, stdout
from twbench.compare.runner import Comparison, Observer, Standing, compare_scenarios
from twbench.model.contest import load_contest
from twbench.model.errors import UsageError
from twbench.model.presets import PRESETS
from twbench.report.comparison import contest_text, render_contest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "compare",
        help="Run contestants in turn on fresh hosts: a ranking with intervals, and advice.",
        epilog=(
            "Examples: twbench compare configs/compare-pools.toml · "
            "twbench compare my.toml --set compare.repeats=3 --json · twbench compare --presets"
        ),
    )(compare)


def compare(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="COMPARISON", help="a comparison's TOML file")
    ] = None,
    overrides: Overrides = None,
    out: Out = RESULTS,
    *,
    presets: Annotated[bool, typer.Option("--presets", help="list the ready designs")] = False,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Run a comparison, or list the presets."""
    if presets:
        _list_presets(json=json)
        return
    if scenario is None:
        raise UsageError("which comparison? Name a TOML file with tables [[contestant]]")
    contest = load_contest(scenario, overrides=overrides or ())
    with _watching(plain=plain or json) as observe:
        comparison = compare_scenarios(contest, results_dir=out, observe=observe, tell=contest_text)
    if json:
        print_json(comparison.document)
    else:
        console = stdout()
        console.print(render_contest(comparison.document))
        console.print(f"results: {comparison.path}", soft_wrap=True)
    _leave(comparison)


def _list_presets(*, json: bool) -> None:
    if json:
        designs = [
            {"name": name, "sentence": preset.sentence, "tables": preset.tables}
            for name, preset in PRESETS.items()
        ]
        print_json({"presets": designs})
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("preset", no_wrap=True)
    table.add_column("what it is")
    for name, preset in PRESETS.items():
        table.add_row(name, preset.sentence)
    stdout().print(table)


@contextmanager
def _watching(*, plain: bool) -> Iterator[Observer]:
    """Give an observer of comparisons: a live table on a terminal, else a line a run."""
    console = stderr()

    def tell(standing: Standing) -> None:
        for line in _lines(standing):
            console.print(line, soft_wrap=True)

    if plain or not console.is_terminal:
        yield tell
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def update(standing: Standing) -> None:
            for line in _lines(standing):
                if standing.progress or standing.played:
                    live.console.print(line)
            head = Text(head_line(standing), style="bold")
            live.update(
                Group(head, live_view(standing.progress)) if standing.progress else Group(head)
            )

        yield update


def _lines(standing: Standing) -> Iterator[Text]:
    """Give what is worth a line of its own: a run begins, something happens, a run has ended."""
    progress, played = standing.progress, standing.played
    if progress is not None:
        if progress.event:
            yield Text(f"! {standing.contestant}: {progress.event}", style="yellow")
    elif played is None:
        yield Text(head_line(standing))
    else:
        rates = played.summary["rates"]
        yield Text(f"    {played.contestant}: {rates['requests_per_s']:,.0f} pages/s")
        if not played.clean:
            yield Text("! the hosts were not clean: this round does not count", style="yellow")


def head_line(standing: Standing) -> str:
    """Return where a comparison stands, as one line."""
    minutes, seconds = divmod(round(standing.left_s), 60)
    return (
        f"{standing.number} of {standing.runs}, round {standing.round} of {standing.rounds}:"
        f" {standing.contestant}   about {minutes}:{seconds:02} min left"
    )


def _leave(comparison: Comparison) -> None:
    """Leave with the exit status that the comparison asks for."""
    rows = comparison.document["contestants"]
    if comparison.interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    clean = comparison.document["gate"]["clean"]
    if not clean or any(row["sound"] < len(row["runs"]) for row in rows):
        raise typer.Exit(Exit.NOT_BALANCED)
    if any(row["thresholds_missed"] for row in rows):
        raise typer.Exit(Exit.THRESHOLD_MISSED)
