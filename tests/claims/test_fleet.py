"""Runs of whole scenarios: what they leave, and how they end before their time."""

import threading
import time
from pathlib import Path

import pytest

from twbench.claims.claim import SetUpError
from twbench.claims.fleet import run_scenario
from twbench.claims.scenery import Scenery
from twbench.wire.errors import StoppedError

SCENARIO = """\
name = "short"
[load]
mode = "open"
rate_per_s = 20
duration_s = {duration_s}
"""


def scenery(folder: Path) -> Scenery:
    return Scenery(folder=folder, stop=threading.Event(), own_lab=None, own_stage=None)


@pytest.mark.namespaces
def test_run_is_read_from_the_folder_of_the_scene_and_takes_the_place_of_the_one_before(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        run = run_scenario(scenery(tmp_path), SCENARIO.format(duration_s=0.5), takes_s=1)
    assert run.path == tmp_path / "run"
    assert run.summary is not None
    assert run.summary["outcomes"]["ok"] == 10
    assert {path.name for path in tmp_path.iterdir()} == {"run", "scenario.toml", "progress.txt"}


def test_scenario_with_a_mistake_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(SetUpError, match=r"left with 2.*progress\.txt"):
        run_scenario(scenery(tmp_path), "name = 'broken'", takes_s=1)
    assert "load" in (tmp_path / "progress.txt").read_text(encoding="utf-8")


@pytest.mark.namespaces
def test_run_that_is_to_stop_ends_long_before_its_time(tmp_path: Path) -> None:
    at = scenery(tmp_path)
    timer = threading.Timer(2, at.stop.set)
    timer.start()
    began_s = time.monotonic()
    with pytest.raises(StoppedError):
        run_scenario(at, SCENARIO.format(duration_s=300), takes_s=300)
    assert time.monotonic() - began_s < 200
    timer.join()
