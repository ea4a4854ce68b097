"""A real summary as a person reads it, and what is made of each thing that can be wrong."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console, RenderableType

from twbench.model.parse import build_scenario
from twbench.model.reports import PacketFate
from twbench.record.reader import Run, read_run
from twbench.report.partial import render_partial
from twbench.report.text import render_audits, render_comparison, render_summary
from twbench.run.course import run_scenario

pytestmark = pytest.mark.namespaces

EXHAUSTED = "connect:EADDRNOTAVAIL:ports_exhausted"
Summary = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run of 64 ports into their end, and into a threshold."""
    scenario = build_scenario(
        {
            "name": "told",
            "description": "sixty-four ports",
            "lab": {"client": {"sysctl": {"net.ipv4.ip_local_port_range": "40000 40063"}}},
            "load": {"mode": "open", "rate_per_s": 200, "duration_s": 0.5},
            "thresholds": {"outcomes.ok": "== 64", "hosts.client-9.time_wait.peak": "== 0"},
        },
        source="test",
    )
    return read_run(run_scenario(scenario, results_dir=tmp_path_factory.mktemp("r")).path)


@pytest.fixture
def summary(run: Run) -> Summary:
    """Return a copy of the run's summary, to be changed as a test likes."""
    return copy.deepcopy(run.summary) or {}


def text_of(drawn: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(drawn)
    return out.getvalue()


def row(text: str, start: str) -> list[str]:
    """Return the cells of the first table row whose first cell is `start`."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if len(cells) > 1 and cells[0] == start:
            return cells
    raise AssertionError(f"no row {start!r} in:\n{text}")


def test_same_summary_is_the_same_text(run: Run, summary: Summary) -> None:
    assert run.summary is not None
    assert text_of(render_summary(run.summary)) == text_of(render_summary(summary))


def test_head_names_the_run_and_tells_its_ending_in_a_sentence(summary: Summary) -> None:
    lines = [line.rstrip() for line in text_of(render_summary(summary)).splitlines()]
    assert lines[:2] == [f"told   {summary['run_id']}", "sixty-four ports"]
    assert lines[2].startswith("ending client-fin: the client closes when the answer is complete")


def test_figures_are_those_of_the_summary(summary: Summary) -> None:
    text = text_of(render_summary(summary))
    assert row(text, "100")[:4] == ["100", "64", "36", "0"]
    assert row(text, "client")[1:3] == ["64", "64"]
    assert row(text, "client")[4:6] == ["64", "64"]
    assert row(text, "server")[1:3] == ["0", "0"]
    assert row(text, EXHAUSTED) == [
        EXHAUSTED,
        "36",
        "every port towards this destination is in use",
    ]
    p50 = summary["latency_ms"]["connect"]["p50"]
    assert row(text, "connect")[1] == f"{p50:.3f}"


def test_forecast_stands_beside_what_was_measured(summary: Summary) -> None:
    text = text_of(render_summary(summary))
    after_s = summary["forecast"]["measured"]["exhausted_after_s"]
    exhausted = ["ports exhausted", "after 0.32 s", f"after {after_s:.2f} s"]
    assert row(text, "ports exhausted") == exhausted
    assert row(text, "TIME_WAIT, peak of this load")[1:] == ["64", "64"]
    assert row(text, "TIME_WAIT, steady after 60 s")[2] == "load shorter than that"
    assert "a closed load has none" not in text


def test_threshold_on_a_figure_that_is_not_there_is_missed(summary: Summary) -> None:
    text = text_of(render_summary(summary))
    assert row(text, "outcomes.ok == 64")[1:] == ["64", "yes"]
    assert row(text, "hosts.client-9.time_wait.peak == 0")[1:] == ["no such figure", "NO"]


def test_balanced_audit_shows_both_sides_of_each_identity_that_is_not_empty(
    summary: Summary,
) -> None:
    text = text_of(render_summary(summary))
    count = len(summary["audit"]["identities"])
    assert f"audit: balanced ({count} identities, 0 residuals)" in text
    name = "client: TcpActiveOpens = connects whose SYN left"
    assert row(text, name)[1:4] == ["64", "64", "0"]
    assert "closes none first" not in text


def unbalance(summary: Summary) -> None:
    summary["audit"]["balanced"] = False
    summary["audit"]["identities"][0] |= {"left": 101, "residual": 1, "explained": "-2 of these"}


def test_residual_is_never_hidden(summary: Summary) -> None:
    unbalance(summary)
    text = text_of(render_summary(summary))
    assert "audit: NOT BALANCED" in text
    assert "1 residuals" in text
    assert row(text, "fleet: attempted = ok + errors")[1:] == ["101", "100", "1", "-2 of these"]
    short = text_of(render_audits([summary]))
    assert "audit of told: NOT BALANCED" in short
    assert "residual 1: fleet: attempted = ok + errors" in short


def promise_nothing(summary: Summary) -> None:
    summary["audit"]["promised"] = False


def warn(summary: Summary) -> None:
    summary["warnings"] = ["the table is shared"]


def end_early(summary: Summary) -> None:
    summary["ended_early"] = "interrupted"


def close(summary: Summary) -> None:
    summary["forecast"]["from_measured_rate"] = True


def fall_silent(summary: Summary) -> None:
    summary["latency_ms"]["connect"] = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (promise_nothing, "audit: not promised here"),
        (warn, "! the table is shared"),
        (end_early, "! ended early: interrupted"),
        (close, "from the measured rate: a closed load has none"),
    ],
)
def test_what_restricts_the_figures_is_said(
    summary: Summary, change: Callable[[Summary], None], said: str
) -> None:
    assert said not in text_of(render_summary(summary))
    change(summary)
    assert said in text_of(render_summary(summary))


def test_latency_that_nobody_had_is_left_out(summary: Summary) -> None:
    fall_silent(summary)
    with pytest.raises(AssertionError, match="no row 'connect'"):
        row(text_of(render_summary(summary)), "connect")


def test_packets_on_a_wire_stand_by_their_fate_and_by_rule(summary: Summary) -> None:
    assert "packets on the wire" not in text_of(render_summary(summary))
    counts = dict.fromkeys(PacketFate, 0) | {PacketFate.SEEN: 1200, PacketFate.DELIVERED: 1188}
    summary["wire"] = {
        "client": counts | {PacketFate.LOST: 12},
        "server": counts,
        "rules": {"drop any, once": 1},
    }
    text = text_of(render_summary(summary))
    assert row(text, "seen") == ["seen", "1,200", "1,200"]
    assert row(text, "lost") == ["lost", "12", "0"]
    assert row(text, "rule 'drop any, once'") == ["rule 'drop any, once'", "", "1 in all"]
    with pytest.raises(AssertionError, match="no row 'refused'"):
        row(text, "refused")


def test_runs_stand_side_by_side_a_column_each(summary: Summary) -> None:
    other = copy.deepcopy(summary)
    other["scenario"] |= {"name": "other", "ending": {"kind": "server-fin"}}
    other["scenario"]["client"]["pool"] = {"size": 5}
    other["outcomes"]["errors"] = {}
    other["hosts"]["client-2"] = other["hosts"].pop("client")
    unbalance(other)
    text = text_of(render_comparison([summary, other]))
    assert "told" in text
    assert row(text, "who closes first")[1:] == ["client", "keep-alive, then server"]
    assert row(text, "peak TIME_WAIT, client")[1:] == ["64", "0"]
    assert row(text, "peak TIME_WAIT, client-2")[1:] == ["0", "64"]
    assert row(text, "ports in use, client")[1:] == ["64 of 64", ""]
    assert row(text, "ok of attempted")[1:] == ["64 of 100"] * 2
    assert row(text, "errors")[1:] == ["36 connect:EADDRNOTAVAIL", "none"]
    assert row(text, "audit")[1:] == ["balanced", "NOT BALANCED"]


def test_lines_alone_give_the_same_sums(run: Run) -> None:
    text = text_of(render_partial(run))
    assert f"{run.run_id}: the run was ended before its summary" in text
    assert "attempted 100, ok 64" in text
    assert f"36 {EXHAUSTED}" in text
    assert "peak TIME_WAIT, client: 64" in text
    assert "peak TIME_WAIT, server: 0" in text
    assert "missing" not in text


FOREIGN: Summary = {
    "foreign": True,
    "rates": {
        "requests_per_s": 1234.5,
        "connections_per_s": 20.0,
        "connections_per_request": 0.0162,
        "client_cpu_us_per_request": 119.2,
    },
}


def test_crawl_is_told_in_pages_with_what_each_cost(summary: Summary) -> None:
    summary |= FOREIGN
    summary["outcomes"]["silent_retries"] = 37
    text = text_of(render_summary(summary))
    assert "the client closes as it likes" in text
    assert row(text, "100") == [
        *("100", "64", "36", "0", "37"),
        *("1,234.5", "119.2", "20.0", "0.0162", "0.5"),
    ]
    assert "CPU µs/page" in text
    # nobody can foretell it
    assert "sustainable" not in text
    assert row(text, "TIME_WAIT, peak of this load") == ["TIME_WAIT, peak of this load", "64"]
    assert row(text, "ports in use towards one destination, peak")[1] == "64 of 64"


def test_program_is_named_with_its_end_and_nothing_is_said_of_what_it_alone_knows(
    summary: Summary,
) -> None:
    summary |= FOREIGN | {
        "program": {
            "argv": ["wrk", "-H", "Connection: close"],
            "exit_status": 143,
            "cpu_s": 1.257,
            "elapsed_s": 8.004,
            "ended_by": "duration",
        }
    }
    summary["outcomes"]["silent_retries"] = None
    summary["latency_ms"] = dict.fromkeys(summary["latency_ms"])
    text = text_of(render_summary(summary))
    assert "program: wrk -H 'Connection: close'\n" in text.replace(" \n", "\n").replace(" " * 8, "")
    assert "ended by duration, status 143, after 8.00 s, of the processor 1.26 s" in text
    assert "CPU µs/request" in text
    assert row(text, "1,234.5")[:2] == ["1,234.5", "119.2"]
    assert "attempted" not in text.split("hosts")[0]
    assert "latency" not in text


def test_figures_that_nobody_knows_are_called_unknown(summary: Summary) -> None:
    summary |= FOREIGN
    summary["rates"] = FOREIGN["rates"] | dict.fromkeys(
        ("connections_per_request", "client_cpu_us_per_request")
    )
    summary["outcomes"]["silent_retries"] = None
    assert row(text_of(render_summary(summary)), "100")[4:10] == [
        *("unknown", "1,234.5", "unknown", "20.0", "unknown", "0.5"),
    ]


def test_foreign_run_stands_beside_others_without_a_forecast(summary: Summary) -> None:
    text = text_of(render_comparison([summary, summary | FOREIGN]))
    assert row(text, "who closes first")[1:] == ["client", "whoever likes"]
    assert row(text, "ports exhausted: forecast")[2] == "unknown"
