"""The shipped scenarios: each explains itself, and each balances its audit."""

import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twbench.model.parse import load_scenario

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
AT_ONCE = 4


def comment_of(config: Path) -> str:
    """Return the comment at the top as one text."""
    head, _, _ = config.read_text().partition("\nname = ")
    assert all(line.startswith("#") for line in head.splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in head.splitlines())


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 10


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_says_what_it_shows_and_where_to_look(config: Path) -> None:
    scenario = load_scenario(config)
    assert scenario.name == config.stem
    assert scenario.description
    comment = comment_of(config)
    assert re.search(r"^Shows: \w", comment, re.MULTILINE)
    assert re.search(r"^Look at: \w", comment, re.MULTILINE)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_overrides_that_a_config_suggests_are_valid(config: Path) -> None:
    for quoted in re.findall(r"`(--set [^`]+)`", comment_of(config)):
        words = shlex.split(quoted.replace("\n", " "))
        assert words[::2] == ["--set"] * (len(words) // 2)
        assert load_scenario(config, overrides=words[1::2]) != load_scenario(config)


def shortened(config: Path) -> list[str]:
    """Return the overrides that make a run of a second of it, at its own rate."""
    load = load_scenario(config).load
    if load.stages:
        rate = load.stages[-1].rate_per_s
        return ["--set", f"load.stages=[{{duration_s = 1, rate_per_s = {rate}}}]"]
    return ["--set", "load.duration_s=1", "--set", "sampling.after_s=0"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    """Return every config's shortened run."""
    folder = tmp_path_factory.mktemp("configs")

    def run(config: Path) -> subprocess.CompletedProcess[str]:
        arguments = [str(config), "--json", "--out", str(folder), *shortened(config)]
        return subprocess.run(
            [sys.executable, "-m", "twbench", "run", *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip((c.stem for c in CONFIGS), pool.map(run, CONFIGS), strict=True))


@pytest.mark.slow
@pytest.mark.namespaces
@pytest.mark.parametrize("name", [config.stem for config in CONFIGS])
def test_config_runs_and_balances(
    runs: dict[str, subprocess.CompletedProcess[str]], name: str
) -> None:
    done = runs[name]
    # 4: cut short, it may miss the thresholds of its full length
    assert done.returncode in {0, 4}, done.stderr
    summary = json.loads(done.stdout)
    residuals = [each for each in summary["audit"]["identities"] if each["residual"]]
    assert residuals == [] or not summary["audit"]["promised"]
    assert summary["outcomes"]["attempted"] > 0
    # every figure that a threshold is on is there, as long as it can be so early
    missing = [each["expression"] for each in summary["thresholds"] if each["value"] is None]
    assert all("exhausted_after_s" in expression for expression in missing)
