"""The examples of docs/your-own-crawler.md: each crawls the sites of configs/crawl.toml."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "your-own-crawler.md"
CRAWL = ["configs/crawl.toml", "--set", "load.duration_s=3", "--json"]


def summary_of(command: str, *arguments: str, after: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the summary of a command of twbench that ended as it should."""
    done = subprocess.run(
        [sys.executable, "-m", "twbench", command, *CRAWL, *arguments, *after],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


PROGRAMS = {
    "curl": ("sh", "-c", "while :; do curl -s $TWBENCH_SITES >/dev/null; done"),
    "wrk": ("sh", "-c", "wrk -c 16 -d 60 $TWBENCH_URL"),
    "scrapy": ("scrapy", "runspider", "-L", "ERROR", "docs/examples/spider.py"),
    "node": ("node", "docs/examples/crawl.mjs"),
}


@pytest.mark.slow
@pytest.mark.namespaces
@pytest.mark.parametrize("tool", PROGRAMS)
def test_program_crawls_until_it_is_ended(tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    program = PROGRAMS[tool]
    summary = summary_of("exec", "--out", str(tmp_path), after=("--", *program))
    assert summary["rates"]["requests_per_s"] > 0
    assert summary["audit"]["balanced"]
    assert summary["program"]["ended_by"] == "duration"


@pytest.mark.slow
@pytest.mark.namespaces
def test_coroutine_crawls_in_the_fleet_s_place(tmp_path: Path) -> None:
    engine = "docs/examples/my_crawler.py:crawl"
    summary = summary_of("run", "--engine", engine, "--out", str(tmp_path))
    assert summary["outcomes"]["ok"] > 0
    kinds = {key.rpartition(":")[2] for key in summary["outcomes"]["errors"]}
    assert kinds <= {"keepalive_race", "run_ended"}
    assert summary["audit"]["balanced"]


def code_of(text: str) -> str:
    """Return what a Python text does: without its comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node) is not None
        ):
            del node.body[0]
    return ast.dump(tree)


def test_page_shows_the_examples_as_they_are() -> None:
    page = PAGE.read_text()
    [shown] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert code_of(shown) == code_of((PAGE.parent / "examples" / "my_crawler.py").read_text())
    for linked in re.findall(r"\(examples/([^)]+)\)", page):
        assert (PAGE.parent / "examples" / linked).is_file()
    for command in re.findall(r"^ +twbench \w+ (configs/\S+)", page, re.MULTILINE):
        assert (ROOT / command).is_file()
