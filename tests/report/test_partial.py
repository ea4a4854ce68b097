"""What is told of a run whose summary was never written."""

import io
from pathlib import Path

from rich.console import Console

from twbench.record.reader import read_run
from twbench.report.partial import render_partial


def told(folder: Path) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=140).print(render_partial(read_run(folder)))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_lines_are_added_up_and_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "outcomes.jsonl").write_text(
        '{"t_s": 0.1, "host": "client-1", "attempted": 3, "ok": 2, "errors": {"a:B:c": 1}}\n'
        '{"t_s": 0.2, "host": "client-2", "attempted": 1200, "errors": {"a:B:c": 1199, "d:E:f": 1}}'
        '\n{"t_s": 0.2, "host": "server", "accepted": 3}\n'
        '{"t_s": 0.3, "ho'
    )
    (tmp_path / "samples.jsonl").write_text(
        '{"t_s": 0.1, "stack": "client-1", "sockstat": {"tw": 5}}\n'
        '{"t_s": 1.26, "stack": "client-1", "sockstat": {"tw": 4}}\n'
    )
    assert told(tmp_path) == [
        f"{tmp_path.name}: the run was ended before its summary; its lines reach to 1.3 s",
        "attempted 1,203, ok 2",
        "1,200 a:B:c",
        "1 d:E:f",
        "peak TIME_WAIT, client-1: 5",
        "missing: scenario.toml, environment.json, summary.json, looks.jsonl, events.jsonl",
        "last line cut off: outcomes.jsonl",
    ]


def test_run_that_was_killed_before_its_load_has_nothing_to_add_up(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text('name = "nothing"\n')
    lines = told(tmp_path)
    assert lines[0].endswith("its lines reach to 0.0 s")
    assert lines[1] == "attempted 0, ok 0"
