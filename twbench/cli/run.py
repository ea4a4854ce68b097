"""`twbench run`: one scenario, from the forecast to the audit."""

import typer

from twbench.cli.options import RESULTS, Engine, Json, Out, Overrides, Plain, ScenarioPath
from twbench.cli.show import leave, print_json, stdout, watching
from twbench.model.parse import load_scenario
from twbench.report.text import render_summary
from twbench.run.course import run_scenario


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "run",
        help="Run one scenario: live table, summary, audit.",
        epilog=(
            "Examples: twbench run configs/port-exhaustion.toml · "
            "twbench run configs/crawler-short-lived.toml --set load.duration_s=5 --json · "
            "twbench run configs/crawl.toml --engine aiohttp"
        ),
    )(run)


def run(
    scenario: ScenarioPath,
    overrides: Overrides = None,
    out: Out = RESULTS,
    *,
    engine: Engine = None,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Run one scenario."""
    chosen = () if engine is None else (f"client.engine={engine}",)
    parsed = load_scenario(scenario, overrides=(*(overrides or ()), *chosen))
    with watching(plain=plain or json) as observe:
        result = run_scenario(parsed, results_dir=out, observe=observe)
    if json:
        print_json(result.summary)
    else:
        console = stdout()
        console.print(render_summary(result.summary))
        console.print(f"results: {result.path}")
    leave(result)
