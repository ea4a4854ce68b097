"""`twbench forecast`: the arithmetic of a scenario, before anything runs."""

from dataclasses import asdict

import typer
from rich.table import Table

from twbench.cli.options import Json, Overrides, ScenarioPath
from twbench.cli.show import print_json, stdout
from twbench.lab.sysctls import RECORDED_SYSCTLS, read_sysctls
from twbench.model.errors import UsageError
from twbench.model.parse import load_scenario
from twbench.run.planning import port_range, predict_scenario
from twbench.run.wiring import check_rules

_LARGE = 10_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "forecast",
        help="Print what the arithmetic says of a scenario; nothing is run.",
        epilog="Example: twbench forecast configs/port-exhaustion.toml --set load.rate_per_s=1000",
    )(forecast)


def forecast(
    scenario: ScenarioPath,
    overrides: Overrides = None,
    rate: float | None = typer.Option(
        None, min=0, help="connections/s to assume for a closed load, which has no rate of its own"
    ),
    *,
    json: Json = False,
) -> None:
    """Print the forecast."""
    parsed = load_scenario(scenario, overrides=overrides or ())
    check_rules(parsed.lab)
    if rate is not None and parsed.load.mode == "open":
        raise UsageError("--rate is for a closed load; an open one has load.rate_per_s or stages")
    if rate is not None and parsed.crawls:
        raise UsageError("--rate says nothing of a crawl: a crawler closes when it likes")
    # other links have hosts of their own, with the kernel's defaults until they are made
    sysctls = read_sysctls(RECORDED_SYSCTLS) if parsed.lab.link == "host" else {}
    predicted = predict_scenario(parsed, sysctls, rate_per_s=rate)
    low, high = port_range(parsed, sysctls)
    if json:
        print_json({"scenario": parsed.name, "port_range": [low, high], **asdict(predicted)})
        return
    unknown = "unknown: a closed load has no rate of its own, assume one with --rate"
    open_load = parsed.load.mode == "open" or rate is not None
    never = "never within this load" if open_load else unknown
    no_limit = "no limit by ports"
    if parsed.crawls:
        unknown = never = no_limit = "unknown: a crawler closes when it likes"
    rows = (
        ("port range", f"{low}-{high}", ""),
        ("ports towards one destination", predicted.capacity_per_destination, ""),
        ("ports in all", predicted.capacity, ""),
        ("TIME_WAIT, steady after 60 s", predicted.time_wait_steady, unknown),
        ("TIME_WAIT, peak of this load", predicted.time_wait_peak, unknown),
        ("ports exhausted after, s", predicted.exhausted_after_s, never),
        ("half the range full, connect gets dear after, s", predicted.cliff_after_s, never),
        ("sustainable new connections/s", predicted.sustainable_rate_per_s, no_limit),
    )
    table = Table(title=f"forecast of {parsed.name}", title_justify="left", show_header=False)
    for label, value, none in rows:
        text = none if value is None else value if isinstance(value, str) else _figure(value)
        table.add_row(label, f"{value:,}" if isinstance(value, int) else text)
    stdout().print(table)


def _figure(value: float) -> str:
    """Return four digits of a small number, and every one before the point of a large one."""
    return f"{value:,.0f}" if value >= _LARGE else f"{value:,.4g}"
