"""A comparison of the same with itself is counted by what it shows, in whichever figure."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import same
from twbench.compare.figures import JUDGED

REPEATS = 3


def document(*shown: str, sound: int = REPEATS, change: float | None = 0.1) -> dict[str, Any]:
    figures = {figure: {"values": [1.0, 2.0, 3.0]} for figure in JUDGED}
    return {
        "repeats": REPEATS,
        "contestants": [
            {"name": name, "sound": sound, "figures": figures} for name in ("one", "other")
        ],
        "differences": {
            figure: [{"shown": figure in shown, "change": change}] for figure in JUDGED
        },
    }


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The documents of the comparisons to come, first the last."""
    documents: list[dict[str, Any]] = []

    def compare(_contest: object, *, results_dir: Path) -> SimpleNamespace:
        assert results_dir.is_dir()
        return SimpleNamespace(document=documents.pop())

    monkeypatch.setattr(same, "compare_scenarios", compare)
    yield documents
    assert not documents, "not all were played"


def run(monkeypatch: pytest.MonkeyPatch, times: int, *more: str) -> int:
    monkeypatch.setattr("sys.argv", ["same.py", f"--times={times}", *more])
    return same.main()


def test_contestants_differ_in_nothing_but_their_names(tmp_path: Path) -> None:
    arguments = argparse.Namespace(repeats=REPEATS, seconds=1.0)
    one, other = same.contest_of(arguments, 1, tmp_path).contestants
    assert one.name != other.name
    assert one.scenario.model_copy(update={"name": other.scenario.name}) == other.scenario


@pytest.mark.parametrize(("false", "status"), [(0, 0), (1, 0), (2, 1)])
def test_one_false_difference_in_twenty_is_allowed(
    monkeypatch: pytest.MonkeyPatch, played: list[dict[str, Any]], false: int, status: int
) -> None:
    played += [document(figure) for figure in list(JUDGED)[:false]]
    played += [document() for _ in range(20 - false)]
    assert run(monkeypatch, 20) == status


def test_comparison_that_compared_nothing_is_no_success(
    monkeypatch: pytest.MonkeyPatch,
    played: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    played += [document(sound=REPEATS - 1), document()]
    assert run(monkeypatch, 2) == 1
    assert "compared nothing" in capsys.readouterr().out


def test_what_was_measured_is_written_after_each_comparison(
    monkeypatch: pytest.MonkeyPatch, played: list[dict[str, Any]], tmp_path: Path
) -> None:
    played += [document(change=None), document("latency_p99_ms")]
    assert run(monkeypatch, 2, f"--out={tmp_path / 'out'}") == 1
    told = json.loads((tmp_path / "out" / "same.json").read_text())["comparisons"]
    assert [each["shown"] for each in told] == [["latency_p99_ms"], []]
    assert told[0]["values"]["one"]["latency_p99_ms"] == [1.0, 2.0, 3.0]
