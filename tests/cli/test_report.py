"""`twbench report`: a results folder as text, whatever became of its run."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from twbench.model.parse import build_scenario
from twbench.run.course import run_scenario

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that came to its end."""
    load = {"mode": "open", "rate_per_s": 200, "duration_s": 1.2}
    scenario = build_scenario({"name": "told", "load": load}, source="test")
    return run_scenario(scenario, results_dir=tmp_path_factory.mktemp("results")).path


@pytest.fixture
def killed(finished: Path, tmp_path: Path) -> Path:
    """Return what a kill in the middle of a line leaves of the same run."""
    folder = tmp_path / finished.name
    shutil.copytree(finished, folder)
    (folder / "summary.json").unlink()
    outcomes = folder / "outcomes.jsonl"
    outcomes.write_bytes(outcomes.read_bytes()[:-20])
    return folder


@pytest.mark.namespaces
def test_finished_run_is_told_in_full_and_each_time_the_same(
    twbench: Twbench, finished: Path
) -> None:
    done = twbench("report", str(finished))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"told   {finished.name}\n")
    assert "audit: balanced" in done.stdout
    assert twbench("report", str(finished)).stdout == done.stdout


@pytest.mark.namespaces
def test_killed_run_is_told_as_far_as_it_came(twbench: Twbench, killed: Path) -> None:
    done = twbench("report", str(killed))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{killed.name}: the run was ended before its summary" in done.stdout
    assert "attempted 240, ok 240" in done.stdout
    assert "peak TIME_WAIT, client: 240" in done.stdout
    assert "missing: summary.json" in done.stdout
    assert "last line cut off: outcomes.jsonl" in done.stdout


@pytest.mark.namespaces
def test_without_a_folder_the_latest_of_results_is_told(
    twbench: Twbench, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "results" / finished.name)
    older = finished.name.replace(finished.name[:4], "1999")
    (tmp_path / "results" / older).mkdir()
    assert finished.name in twbench("report").stdout


def test_there_may_be_nothing_to_tell(twbench: Twbench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((), "no run in results yet"),
        (("missing",), "missing is no results folder: No such file or directory"),
        (("empty",), "empty is no results folder: it has no scenario.toml"),
    ):
        done = twbench("report", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
