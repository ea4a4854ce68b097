"""What the commands have in common: consoles, the live table, plain lines, exit statuses."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from twbench.cli.exits import Exit
from twbench.run.course import Result
from twbench.run.progress import HostView, Observer, Progress

_PLAIN_EVERY_S = 2.0
_BAR_CELLS = 24
_SHOWN_ERRORS = 4


def stdout() -> Console:
    """Return a console for results."""
    return Console(soft_wrap=False, highlight=False, width=None if sys.stdout.isatty() else 110)


class _Progress(Console):
    """A console whose reader may go away; the run goes on."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True


def stderr() -> Console:
    """Return a console for progress, so that results can be piped."""
    return _Progress(stderr=True, highlight=False)


def print_json(document: Mapping[str, Any]) -> None:
    """Write a document to standard output for a machine."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


@contextmanager
def watching(*, plain: bool) -> Iterator[Observer]:
    """Give an observer of runs: a live table on a terminal, else a line every two seconds."""
    console = stderr()
    if plain or not console.is_terminal:
        yield _plain_lines(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def observe(progress: Progress) -> None:
            if progress.event:
                live.console.print(Text(f"! {progress.event}", style="yellow"))
            live.update(live_view(progress))

        yield observe


def _plain_lines(console: Console) -> Observer:
    next_s: dict[str, float] = {}

    def observe(progress: Progress) -> None:
        if progress.event:
            console.print(f"! {progress.event}")
        if progress.t_s >= next_s.get(progress.scenario, 0.0):
            next_s[progress.scenario] = progress.t_s + _PLAIN_EVERY_S
            console.print(plain_line(progress), soft_wrap=True)

    return observe


def plain_line(progress: Progress) -> str:
    """Return a run's state as one line."""
    hosts = "  ".join(_plain_host(host) for host in progress.hosts)
    errors = "".join(f"  {count:,} {key}" for key, count in _worst(progress))
    return (
        f"{progress.scenario} {progress.t_s:5.1f}/{progress.total_s:g} s {progress.stage}"
        f"  {progress.connections_per_s:,.0f} connections/s  {hosts}{errors}"
    )


def _plain_host(host: HostView) -> str:
    text = f"{host.name}: TIME_WAIT {host.time_wait:,}"
    if host.ports_in_use is None or host.ports_capacity is None:
        return text
    return f"{text}, ports {host.ports_in_use:,} of {host.ports_capacity:,}"


def live_view(progress: Progress) -> RenderableType:
    """Return a run's state as a table that is drawn again and again."""
    left_s = max(0.0, progress.total_s - progress.t_s)
    head = Text.assemble(
        (progress.scenario, "bold"),
        f"  {progress.stage}  {progress.t_s:5.1f} s, {left_s:.0f} s left   ",
        f"{progress.connections_per_s:,.0f} connections/s, {progress.requests_per_s:,.0f} ok/s",
        f"   p50 {_ms(progress.latency_p50_ms)}  p99 {_ms(progress.latency_p99_ms)}",
    )
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("host", "TIME_WAIT", "established"):
        table.add_column(column, justify="left" if column == "host" else "right")
    table.add_column("ports used")
    table.add_column("of capacity")
    for host in progress.hosts:
        used, capacity = host.ports_in_use, host.ports_capacity
        bar: RenderableType = Text("")
        if used is not None and capacity:
            bar = ProgressBar(total=capacity, completed=min(used, capacity), width=_BAR_CELLS)
        table.add_row(
            host.name,
            f"{host.time_wait:,}",
            f"{host.established:,}",
            bar,
            f"{used:,} of {capacity:,}" if used is not None and capacity else "",
        )
    errors = [Text(f"  {count:,} {key}", style="red") for key, count in _worst(progress)]
    return Group(head, table, *errors)


def _worst(progress: Progress) -> list[tuple[str, int]]:
    return sorted(progress.errors.items(), key=lambda item: -item[1])[:_SHOWN_ERRORS]


def _ms(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2f} ms"


def leave(*results: Result) -> None:
    """Leave with the exit status that the results ask for."""
    checks: tuple[tuple[int, Callable[[Result], bool]], ...] = (
        (Exit.INTERRUPTED, lambda r: r.interrupted),
        (Exit.NOT_BALANCED, lambda r: not r.summary["audit"]["balanced"]),
        (Exit.NOT_BALANCED, lambda r: bool(r.summary["ended_early"])),
        (Exit.THRESHOLD_MISSED, lambda r: not all(t["ok"] for t in r.summary["thresholds"])),
    )
    for status, applies in checks:
        if any(applies(result) for result in results):
            raise typer.Exit(status)
