"""A summary as tables for a terminal."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from twbench.model.endings import ENDINGS
from twbench.model.outcomes import kind_of_key
from twbench.model.reports import PacketFate
from twbench.model.states import Side
from twbench.report.foreign import measured_alone, pages_table, strangers
from twbench.report.tables import EXHAUSTED, Summary, count_of, moment_of, new_table


def render_summary(summary: Summary) -> RenderableType:
    """Return everything a summary says, as a person reads it."""
    parts: list[RenderableType] = [_title(summary), _rates(summary), _hosts([summary])]
    for title, key in (("errors", "errors"), ("seen by connections", "connection_errors")):
        if counts := summary["outcomes"][key]:
            parts.append(_errors(title, counts))
    if any(summary["latency_ms"].values()):
        parts.append(_latencies(summary))
    if wire := summary.get("wire"):
        parts.append(_wire(wire))
    parts += [_forecast(summary), _audit(summary["audit"])]
    if summary["thresholds"]:
        parts.append(_thresholds(summary["thresholds"]))
    parts += [Text(f"! {warning}", style="yellow") for warning in summary["warnings"]]
    for event in summary["events"]:
        parts.append(Text(f"! {event['t_s']:.1f} s: {event['event']}", style="yellow"))
        if detail := event.get("detail"):
            parts.append(Text(f"  {detail.splitlines()[-1]}", style="yellow"))
    if summary["ended_early"]:
        parts.append(Text(f"! ended early: {summary['ended_early']}", style="bold yellow"))
    return Group(*_spaced(parts))


def render_comparison(summaries: Iterable[Summary]) -> RenderableType:
    """Return several runs side by side, a column each."""
    runs = list(summaries)
    table = new_table("side by side", "", *(run["scenario"]["name"] for run in runs))
    table.add_row("who closes first", *(_ending(run) for run in runs))
    for key, label in (("connections_per_s", "connections/s"), ("requests_per_s", "requests/s")):
        table.add_row(label, *(f"{run['rates'][key]:,.1f}" for run in runs))
    hosts = list(dict.fromkeys(name for run in runs for name in run["hosts"]))
    for name in hosts:
        peaks = (r["hosts"].get(name, {}).get("time_wait", {}).get("peak", 0) for r in runs)
        table.add_row(f"peak TIME_WAIT, {name}", *(f"{peak:,}" for peak in peaks))
    for name in hosts:
        cells = [_ports(run["hosts"].get(name, {})) for run in runs]
        if any(cells):
            table.add_row(f"ports in use, {name}", *cells)
    table.add_row("ok of attempted", *(_ok(run) for run in runs))
    table.add_row("errors", *(_error_lines(run["outcomes"]["errors"]) for run in runs))
    table.add_row("ports exhausted: forecast", *(_foretold(run) for run in runs))
    table.add_row(
        "ports exhausted: measured",
        *(moment_of(r["forecast"]["measured"], EXHAUSTED) for r in runs),
    )
    table.add_row("audit", *(_verdict(run["audit"]) for run in runs))
    return table


def _engines(engines: Mapping[str, Any]) -> Iterator[Text]:
    """Give what fleet and server ran on, and why."""
    for name, engine in engines.items():
        if why := engine.get("why"):
            yield Text(f"{name}: engine {engine['engine']} ({why})", style="dim")


def _spaced(parts: list[RenderableType]) -> Iterator[RenderableType]:
    for part in parts:
        yield part
        if isinstance(part, Table):
            yield Text()


def _title(summary: Summary) -> RenderableType:
    scenario = summary["scenario"]
    ending = ENDINGS[scenario["ending"]["kind"]]
    return Group(
        Text.assemble((scenario["name"], "bold"), f"   {summary['run_id']}"),
        Text(scenario.get("description", "").strip()),
        Text(f"ending {ending.name}: {ending.sentence}", style="dim"),
        *strangers(summary),
        *_engines(summary["environment"]["engines"]),
        Text(),
    )


def _ending(summary: Summary) -> str:
    if summary.get("foreign"):
        return "whoever likes"
    first = ENDINGS[summary["scenario"]["ending"]["kind"]].first
    kept = "keep-alive, then " if summary["scenario"]["client"].get("pool") else ""
    return kept + " and ".join(sorted(first))


def _rates(summary: Summary) -> RenderableType:
    if summary.get("foreign"):
        return pages_table(summary)
    outcomes, rates = summary["outcomes"], summary["rates"]
    table = new_table(
        "load", "attempted", "ok", "failed", "retried", "connections/s", "requests/s", "s"
    )
    table.add_row(
        f"{outcomes['attempted']:,}",
        f"{outcomes['ok']:,}",
        f"{sum(outcomes['errors'].values()):,}",
        f"{outcomes['retried']:,}",
        f"{rates['connections_per_s']:,.1f}",
        f"{rates['requests_per_s']:,.1f}",
        f"{summary['load_s']:g}",
    )
    return table


def _hosts(runs: list[Summary]) -> RenderableType:
    table = new_table(
        "hosts", "host", "TIME_WAIT peak", "at the end", "held", "ports in use, peak", "of capacity"
    )
    for run in runs:
        for name, host in run["hosts"].items():
            waiting = host["time_wait"]
            ports = host.get("ports")
            table.add_row(
                name,
                f"{waiting['peak']:,}",
                f"{waiting['end']:,}",
                f"{waiting['held_s']:.1f} s",
                f"{ports['in_use_peak']:,}" if ports else "",
                f"{ports['capacity']:,}" if ports else "",
            )
    return table


def _errors(title: str, counts: Mapping[str, int]) -> RenderableType:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim")
    table.add_column("phase:errno:kind")
    table.add_column("count", justify="right")
    table.add_column("meaning")
    for key, count in counts.items():
        table.add_row(key, f"{count:,}", kind_of_key(key).meaning)
    return table


def _wire(wire: Mapping[str, Any]) -> RenderableType:
    table = new_table("packets on the wire, by the side they came from", "", *Side)
    for fate in PacketFate:
        counts = [wire[side][fate] for side in Side]
        if any(counts):
            table.add_row(fate.replace("_", " "), *(f"{count:,}" for count in counts))
    for rule, count in wire["rules"].items():
        table.add_row(f"rule '{rule}'", "", f"{count:,} in all")
    return table


def _latencies(summary: Summary) -> RenderableType:
    table = new_table("latency, ms", "", "p50", "p90", "p99", "p99.9", "max")
    labels = {
        "connect": "connect",
        "request": "request",
        "request_from_intended": "request, from its intended start",
    }
    for key, label in labels.items():
        if found := summary["latency_ms"].get(key):
            figures = (found[p] for p in ("p50", "p90", "p99", "p99_9", "max"))
            table.add_row(label, *(f"{figure:,.3f}" for figure in figures))
    return table


def _forecast(summary: Summary) -> RenderableType:
    forecast = summary["forecast"]
    predicted, measured = forecast["predicted"], forecast["measured"]
    if summary.get("foreign"):
        return measured_alone(predicted, measured)
    source = " (from the measured rate: a closed load has none of its own)"
    title = "forecast" + (source if forecast["from_measured_rate"] else "")
    table = new_table(title, "", "forecast", "measured")
    table.add_row(
        "TIME_WAIT, peak of this load",
        count_of(predicted, "time_wait_peak"),
        count_of(measured, "time_wait_peak"),
    )
    table.add_row(
        "TIME_WAIT, steady after 60 s",
        count_of(predicted, "time_wait_steady"),
        count_of(measured, "time_wait_steady", none="load shorter than that"),
    )
    table.add_row(
        "ports exhausted", moment_of(predicted, EXHAUSTED), moment_of(measured, EXHAUSTED)
    )
    table.add_row(
        "connect gets dear (half the range full)", moment_of(predicted, "cliff_after_s"), ""
    )
    table.add_row(
        "sustainable new connections/s",
        count_of(predicted, "sustainable_rate_per_s", none="no limit by ports"),
        count_of(measured, "sustainable_rate_per_s", none="not a minute at the limit"),
    )
    return table


def _foretold(summary: Summary) -> str:
    predicted = summary["forecast"]["predicted"]
    return "unknown" if summary.get("foreign") else moment_of(predicted, EXHAUSTED)


def _ports(host: Mapping[str, Any]) -> str:
    ports = host.get("ports")
    return f"{ports['in_use_peak']:,} of {ports['capacity']:,}" if ports else ""


def _ok(summary: Summary) -> str:
    outcomes = summary["outcomes"]
    return f"{outcomes['ok']:,} of {outcomes['attempted']:,}"


def _error_lines(errors: Mapping[str, int]) -> str:
    """Return each error on a line of its own: a column has no room for whole keys."""
    lines = (f"{count:,} {':'.join(key.split(':')[:2])}" for key, count in errors.items())
    return "\n".join(lines) or "none"


def _verdict(audit: Mapping[str, Any]) -> str:
    if not audit["promised"]:
        return "not promised here"
    return "balanced" if audit["balanced"] else "NOT BALANCED"


def _audit(audit: Mapping[str, Any]) -> RenderableType:
    identities = audit["identities"]
    open_ones = [i for i in identities if i["residual"]]
    title = f"audit: {_verdict(audit)} ({len(identities)} identities, {len(open_ones)} residuals)"
    table = new_table(title, "identity", "left", "right", "residual", "explained by")
    table.columns[-1].justify = "left"
    for identity in identities:
        if identity["left"] or identity["right"] or identity["residual"]:
            table.add_row(
                identity["name"],
                f"{identity['left']:,}",
                f"{identity['right']:,}",
                f"{identity['residual']:,}",
                identity["explained"],
                style="bold red" if identity["residual"] else "",
            )
    return table


def _thresholds(thresholds: Iterable[Mapping[str, Any]]) -> RenderableType:
    table = new_table("thresholds", "expression", "value", "met")
    for threshold in thresholds:
        value = "no such figure" if threshold["value"] is None else f"{threshold['value']:g}"
        style = "" if threshold["ok"] else "bold red"
        met = "yes" if threshold["ok"] else "NO"
        table.add_row(threshold["expression"], value, met, style=style)
    return table


def render_audits(summaries: Iterable[Summary]) -> RenderableType:
    """Return one line for each run's audit, with whatever does not balance."""
    lines = []
    for summary in summaries:
        audit = summary["audit"]
        name, identities = summary["scenario"]["name"], audit["identities"]
        lines.append(Text(f"audit of {name}: {_verdict(audit)}, {len(identities)} identities"))
        lines += [
            Text(f"  residual {i['residual']:,}: {i['name']}", style="bold red")
            for i in identities
            if i["residual"]
        ]
    return Group(*lines, Text())
