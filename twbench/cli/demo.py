"""`twbench demo`: the whole story in about 70 seconds."""

import typer
from rich.text import Text

from twbench.cli.options import RESULTS, Json, Out, Plain
from twbench.cli.show import leave, print_json, stderr, stdout, watching
from twbench.model.scenario import Scenario
from twbench.model.states import TIME_WAIT_S
from twbench.report.text import render_audits, render_comparison
from twbench.run.course import Result, run_scenario
from twbench.run.demonstration import acts
from twbench.run.planning import DEFAULT_PORT_RANGE, predict_scenario


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "demo",
        help="The whole story in 70 seconds: who holds TIME_WAIT, and what it costs.",
        epilog="Example: twbench demo --out /tmp/twbench",
    )(demo)


def demo(out: Out = RESULTS, *, json: Json = False, plain: Plain = False) -> None:
    """Run the three acts and put them side by side."""
    results: list[Result] = []
    progress = stderr()
    for number, scenario in enumerate(acts(), start=1):
        for line in _introduction(number, scenario):
            progress.print(line, soft_wrap=True)
        with watching(plain=plain or json) as observe:
            results.append(run_scenario(scenario, results_dir=out, observe=observe))
        for line in _outcome(results[-1]):
            progress.print(line, soft_wrap=True)
        if results[-1].interrupted:
            break
    summaries = [result.summary for result in results]
    if json:
        print_json({"runs": summaries})
    else:
        console = stdout()
        console.print(render_comparison(summaries))
        console.print(render_audits(summaries))
        console.print(_moral())
        for result in results:
            console.print(f"results: {result.path}")
    leave(*results)


def _introduction(number: int, scenario: Scenario) -> list[Text]:
    predicted = predict_scenario(scenario, {})
    if predicted.exhausted_after_s is None:
        forecast = "forecast: the client's ports never run out"
    else:
        forecast = (
            f"forecast: {predicted.capacity:,} ports at {scenario.load.rate_per_s:g} connections/s"
            f" are used up after {predicted.exhausted_after_s:.2f} s"
        )
    return [
        Text(),
        Text(f"({number}) {scenario.name}: {scenario.description}", style="bold"),
        Text(f"    {forecast}"),
    ]


def _outcome(result: Result) -> list[Text]:
    hosts = result.summary["hosts"]
    held = ", ".join(f"{host['time_wait']['peak']:,} on the {name}" for name, host in hosts.items())
    lines = [Text(f"    measured: TIME_WAIT at most {held}")]
    if reopened := result.summary["outcomes"]["reopened"]:
        why = "the client's port came back with a new SYN"
        lines.append(Text(f"    {reopened:,} more ended early on the server: {why}"))
    after_s = result.summary["forecast"]["measured"]["exhausted_after_s"]
    if after_s is not None:
        errors = result.summary["outcomes"]["errors"]
        failed = errors.get("connect:EADDRNOTAVAIL:ports_exhausted", 0)
        what = f"    measured: ports used up after {after_s:.2f} s; {failed:,} connects failed"
        lines.append(Text(f"{what} with EADDRNOTAVAIL", style="red"))
    return lines


def _moral() -> Text:
    low, high = DEFAULT_PORT_RANGE
    ports = high - low + 1
    return Text(
        f"With Linux's default range of {ports:,} ports the limit towards one destination is"
        f" {ports / TIME_WAIT_S:.0f} new connections/s: each port is held for {TIME_WAIT_S:g} s.",
    )
