"""`twbench demo`: the three acts one after another, here with a second of load each."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.namespaces

# 4,096 ports cannot run out in a second; 256 do
SHORT = """
import sys
from twbench.run import demonstration
demonstration.DURATION_S, demonstration.PORTS = 1, (32768, 33023)
from twbench.cli import main
sys.argv = ["twbench", "demo", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-c", SHORT, "--out", "made"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return folder / "made", done


Demo = tuple[Path, subprocess.CompletedProcess[str]]


def test_each_act_is_announced_with_its_forecast_and_told_as_measured(demo: Demo) -> None:
    _, done = demo
    assert done.returncode == 0
    said = done.stderr
    assert re.findall(r"^\((\d)\) ([a-z-]+): ", said, re.MULTILINE) == [
        ("1", "client-closes-first"),
        ("2", "server-closes-first"),
        ("3", "keep-alive"),
    ]
    assert "forecast: 256 ports at 300 connections/s are used up after 0.85 s" in said
    assert said.count("forecast: the client's ports never run out") == 2
    assert re.search(
        r"measured: ports used up after 0\.\d\d s; 4\d connects failed with EADDRNOTAVAIL", said
    )
    assert "measured: TIME_WAIT at most 256 on the client, 0 on the server" in said
    # fewer than 300: a port that comes again reopens the server's TIME_WAIT
    assert re.search(r"measured: TIME_WAIT at most 0 on the client, [12]\d\d on the server", said)


def test_acts_stand_side_by_side_at_the_end(demo: Demo) -> None:
    _, done = demo
    table = done.stdout
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:5]]
        for line in table.splitlines()
        if line.count("│") > 3
    }
    assert rows["who closes first"] == ["client", "server", "keep-alive, then client"]
    assert rows["peak TIME_WAIT, client"][:2] == ["256", "0"]
    assert rows["peak TIME_WAIT, server"][::2] == ["0", "0"]
    assert rows["audit"] == ["balanced"] * 3
    assert table.count("audit of ") == 3
    assert "With Linux's default range of 28,232 ports" in table
    assert "471 new connections/s" in table


def test_each_act_leaves_a_folder(demo: Demo) -> None:
    folder, done = demo
    summaries = [json.loads(path.read_text()) for path in folder.glob("*/summary.json")]
    names = {summary["scenario"]["name"] for summary in summaries}
    assert names == {"client-closes-first", "server-closes-first", "keep-alive"}
    assert done.stdout.count("results: made/") == 3
