"""What is told otherwise of a client that is not ours: a library, a crawler, any program."""

import shlex
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from twbench.report.tables import (
    EXHAUSTED,
    Summary,
    count_of,
    figure_or_unknown,
    moment_of,
    new_table,
)


def strangers(summary: Summary) -> Iterator[Text]:
    """Tell of a client that is not ours, and of the program that it was."""
    if summary.get("foreign"):
        yield Text("the client closes as it likes: the ending is the server's part", style="dim")
    if program := summary.get("program"):
        ended = f"ended by {program['ended_by']}, status {program['exit_status']}"
        spent = f"{program['elapsed_s']:.2f} s, of the processor {program['cpu_s']:.2f} s"
        yield Text(f"program: {shlex.join(program['argv'])}")
        yield Text(f"  {ended}, after {spent}")


def pages_table(summary: Summary) -> RenderableType:
    """Return what a client got that may use its connections again as it likes."""
    outcomes, rates = summary["outcomes"], summary["rates"]
    each = "request" if summary.get("program") else "page"
    known = {
        "attempted": f"{outcomes['attempted']:,}",
        "ok": f"{outcomes['ok']:,}",
        "failed": f"{sum(outcomes['errors'].values()):,}",
        "retried": f"{outcomes['retried']:,}",
        "silent retries": figure_or_unknown(outcomes["silent_retries"], ","),
    }
    figures = {
        **({} if summary.get("program") else known),
        f"{each}s/s": f"{rates['requests_per_s']:,.1f}",
        f"CPU µs/{each}": figure_or_unknown(rates["client_cpu_us_per_request"], ",.1f"),
        "connections/s": f"{rates['connections_per_s']:,.1f}",
        f"connections/{each}": figure_or_unknown(rates["connections_per_request"], ".4f"),
        "s": f"{summary['load_s']:g}",
    }
    table = new_table("load", *figures)
    table.add_row(*figures.values())
    return table


def measured_alone(predicted: Summary, measured: Summary) -> RenderableType:
    """Return what is measured where nobody can foretell who closes first, and when."""
    table = new_table("ports and TIME_WAIT, all hosts together", "", "measured")
    table.add_row("TIME_WAIT, peak of this load", count_of(measured, "time_wait_peak"))
    table.add_row(
        "TIME_WAIT, steady after 60 s",
        count_of(measured, "time_wait_steady", none="load shorter than that"),
    )
    capacity = predicted["capacity_per_destination"]
    peak = count_of(measured, "ports_in_use_peak_per_destination")
    table.add_row("ports in use towards one destination, peak", f"{peak} of {capacity:,}")
    table.add_row("ports exhausted", moment_of(measured, EXHAUSTED))
    return table
