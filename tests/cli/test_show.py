"""What the commands have in common: a run as a line, as a live table, as an exit status."""

from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from twbench.cli.show import leave, live_view, plain_line
from twbench.run.course import Result
from twbench.run.progress import HostView, Progress

EXHAUSTED = "connect:EADDRNOTAVAIL:ports_exhausted"


def progress(*, in_use: int | None = 30, errors: dict[str, int] | None = None) -> Progress:
    return Progress(
        scenario="shown",
        stage="load",
        t_s=2.5,
        total_s=10,
        attempted=1300,
        ok=1200,
        connections_per_s=1234.5,
        requests_per_s=1200,
        latency_p50_ms=0.25,
        latency_p99_ms=None,
        errors=errors or {},
        hosts=(
            HostView(
                name="client",
                time_wait=2100,
                established=3,
                ports_in_use=in_use,
                ports_capacity=40,
            ),
            HostView(name="server", time_wait=0, established=4),
        ),
    )


def drawn(shown: Progress) -> str:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(live_view(shown))
    return capture.get()


def test_line_has_time_rate_time_wait_and_ports() -> None:
    assert plain_line(progress()) == (
        "shown   2.5/10 s load  1,234 connections/s"
        "  client: TIME_WAIT 2,100, ports 30 of 40  server: TIME_WAIT 0"
    )


def test_line_leaves_out_ports_until_they_were_looked_at() -> None:
    line = plain_line(progress(in_use=None))
    assert line.endswith("  client: TIME_WAIT 2,100  server: TIME_WAIT 0")


def test_only_the_four_most_frequent_errors_are_shown() -> None:
    errors = {f"read:E{n}:unknown": n for n in range(1, 7)} | {EXHAUSTED: 1000}
    for text in (plain_line(progress(errors=errors)), drawn(progress(errors=errors))):
        assert f"1,000 {EXHAUSTED}" in text
        assert "6 read:E6:unknown" in text
        assert "3 read:E3:unknown" not in text


def test_live_table_has_a_bar_of_the_ports_used() -> None:
    text = drawn(progress())
    assert "shown  load    2.5 s, 8 s left" in text
    assert "p50 0.25 ms  p99 -" in text
    client, server = [line for line in text.splitlines() if line.startswith(("client", "server"))]
    # three quarters of 24 cells
    assert client.count("━") == 18
    assert "30 of 40" in client
    assert "━" not in server


def result(
    *, interrupted: bool = False, balanced: bool = True, ended_early: str = "", met: bool = True
) -> Result:
    summary: dict[str, Any] = {
        "audit": {"balanced": balanced},
        "ended_early": ended_early,
        "thresholds": [{"ok": True}, {"ok": met}],
    }
    return Result(path=Path("results/x"), summary=summary, interrupted=interrupted)


def test_run_as_it_should_be_leaves_with_zero() -> None:
    leave(result(), result())


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ([result(met=False)], 4),
        ([result(balanced=False)], 5),
        ([result(ended_early="every server process has ended")], 5),
        ([result(balanced=False, met=False)], 5),
        ([result(interrupted=True, ended_early="interrupted", met=False)], 130),
        ([result(), result(met=False)], 4),
        ([result(met=False), result(balanced=False)], 5),
    ],
)
def test_gravest_of_what_went_wrong_is_the_exit_status(results: list[Result], status: int) -> None:
    with pytest.raises(typer.Exit) as caught:
        leave(*results)
    assert caught.value.exit_code == status
