"""The shipped scenarios and comparisons: each explains itself, and balances its audits."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twbench.model.contest import Contest, load_contest
from twbench.model.parse import load_scenario
from twbench.model.presets import PRESETS
from twbench.model.scenario import Scenario
from twbench.model.sites import Sites

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").glob("*.toml"))
COMPARISONS = [path for path in FILES if "\n[[contestant]]" in path.read_text()]
CONFIGS = [path for path in FILES if path not in COMPARISONS]
AT_ONCE = 4
TWBENCH = (sys.executable, "-m", "twbench")


def load(config: Path, overrides: Sequence[str] = ()) -> Scenario | Contest:
    """Return what a file holds."""
    loader = load_contest if config in COMPARISONS else load_scenario
    return loader(config, overrides=overrides)


def comment_of(config: Path) -> str:
    """Return the comment at the top as one text."""
    head, _, _ = config.read_text().partition("\nname = ")
    assert all(line.startswith("#") for line in head.splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in head.splitlines())


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 10
    assert {path.stem for path in COMPARISONS} >= {"compare-pools", "compare-knobs"}


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.stem)
def test_config_says_what_it_shows_and_where_to_look(config: Path) -> None:
    found = load(config)
    assert found.name == config.stem
    assert found.description
    comment = comment_of(config)
    assert re.search(r"^Shows: \w", comment, re.MULTILINE)
    assert re.search(r"^Look at: \w", comment, re.MULTILINE)


@pytest.mark.parametrize("config", FILES, ids=lambda path: path.stem)
def test_overrides_that_a_config_suggests_are_valid(config: Path) -> None:
    for quoted in re.findall(r"`(--set [^`]+)`", comment_of(config)):
        words = shlex.split(quoted.replace("\n", " "))
        assert words[::2] == ["--set"] * (len(words) // 2)
        assert load(config, words[1::2]) != load(config)


@pytest.mark.parametrize("config", COMPARISONS, ids=lambda path: path.stem)
def test_contestants_of_a_comparison_differ_and_say_in_what(config: Path) -> None:
    contest = load_contest(config)
    assert contest.repeats >= 5
    assert len(contest.contestants) >= 8
    assert all(each.description for each in contest.contestants)
    whole = [
        each.scenario.model_dump_json(exclude={"name", "description"})
        for each in contest.contestants
    ]
    assert len(set(whole)) == len(whole)


def test_every_preset_takes_part_in_the_comparison_of_pools() -> None:
    contest = load_contest(ROOT / "configs" / "compare-pools.toml")
    assert {each.preset for each in contest.contestants} >= set(PRESETS)


def test_kinds_of_sites_are_all_met_and_the_most_popular_site_is_ordinary() -> None:
    scenario = load_contest(ROOT / "configs" / "compare-pools.toml").contestants[0].scenario
    assert scenario.web
    sites = Sites(scenario.web, median_bytes=1, seed=1)
    kinds = [kind and kind.name for kind in map(sites.kind, range(scenario.web.sites))]
    assert kinds[0] == "ordinary"
    assert {kind.name for kind in scenario.web.kinds} == {*kinds}


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
            [*TWBENCH, "run", *arguments],
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


@pytest.mark.slow
@pytest.mark.namespaces
@pytest.mark.parametrize("config", COMPARISONS, ids=lambda path: path.stem)
def test_comparison_runs_and_every_contestant_balances(config: Path, tmp_path: Path) -> None:
    short = ["--set", "compare.repeats=1", "--set", "load.duration_s=1"]
    done = subprocess.run(
        [*TWBENCH, "compare", str(config), "--json", "--out", str(tmp_path), *short],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for each in json.loads(done.stdout)["contestants"]:
        assert each["sound"] == 1, each["name"]
        assert each["totals"]["attempted"] > 0, each["name"]
