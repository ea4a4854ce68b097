"""The commands together: help, mistakes, and readers that go away."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from twbench.cli.app import app

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    *("demo", "run", "exec", "compare", "trace", "forecast", "watch", "serve", "doctor"),
    *("report", "diff", "schema", "claims"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_says_what_it_does_and_how_to_call_it(
    twbench: Twbench, command: str
) -> None:
    done = twbench(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"twbench {command} " in done.stdout.partition("Usage:")[2]
    assert f"twbench {command}" in done.stdout.partition("Options:")[2], "no example"
    assert "\x1b" not in done.stdout


def test_help_lists_every_command_and_every_exit_status(twbench: Twbench) -> None:
    done = twbench("--help")
    assert done.returncode == 0
    listed = re.findall(r"^  ([a-z]+) ", done.stdout.partition("Commands:")[2], re.MULTILINE)
    assert listed[: len(COMMANDS)] == list(COMMANDS)
    statuses = " ".join(done.stdout.partition("Exit status:")[2].split())
    for status in ("0 done", "2 wrong", "3 no lab", "4 a threshold", "5 the audit", "130 a run"):
        assert status in statuses


def test_files_that_the_examples_name_are_there() -> None:
    examples = " ".join(command.epilog or "" for command in app.registered_commands)
    files = re.findall(r"(?<!\S)[\w.-]+/[\w./-]+", examples)
    assert len(files) >= 3
    # whoever follows them makes results of their own
    ours = [file for file in files if not file.startswith("results/")]
    assert [file for file in ours if not (ROOT / file).exists()] == []


def test_unknown_command_is_a_wrong_argument(twbench: Twbench) -> None:
    done = twbench("nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'nothing'" in done.stderr


def test_script_and_module_are_the_same_program(twbench: Twbench) -> None:
    script = [sys.executable, "-c", "from twbench.cli import main; main()", "schema"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert done.stdout == twbench("schema").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("schema",),
        ("doctor",),
        ("forecast", "s.toml", "--json"),
        ("watch", "--seconds", "2", "--json"),
        ("watch", "--seconds", "2", "--plain"),
    ],
    ids=" ".join,
)
def test_reader_that_goes_away_gets_no_traceback(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "s.toml").write_text('name = "s"\n[load]\nconcurrency = 1\nduration_s = 1\n')
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "twbench", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        # gone before the first byte
        os.close(reader)
        os.close(writer)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 1
    assert complaint == ""
