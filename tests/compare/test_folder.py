"""The folder of a comparison."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from twbench.compare import folder
from twbench.model.errors import RecordError, UsageError
from twbench.record.reader import latest

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_folder_is_named_by_time_and_comparison_and_found_as_the_latest(tmp_path: Path) -> None:
    path = folder.make(tmp_path, "pools", started=STARTED)
    assert path.name.startswith("20260102T030405Z-pools-")
    assert (path / folder.RUNS).is_dir()
    assert latest(tmp_path) == path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = folder.make(tmp_path, "pools", started=STARTED)
    assert not folder.is_comparison(path)
    folder.write_document(path, {"schema": 1, "name": "pools"})
    folder.write_text(path, "pools\n")
    assert folder.is_comparison(path)
    assert folder.read_document(path) == {"schema": 1, "name": "pools"}
    assert (path / folder.TEXT).read_text() == "pools\n"
    assert {each.name for each in path.iterdir()} == {"runs", "compare.json", "compare.txt"}


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"schema": 999}', '{"schema": "1"}'])
def test_what_is_no_comparison_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / folder.COMPARISON).write_text(content)
    with pytest.raises(UsageError, match=r"compare\.json"):
        folder.read_document(tmp_path)


def test_folder_that_cannot_be_made_or_written_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out DIR"):
        folder.make(tmp_path / "file", "pools", started=STARTED)
    with pytest.raises(RecordError, match="--out DIR"):
        folder.write_text(tmp_path / "gone", "")


def test_empty_folder_is_removed_and_one_with_runs_is_not(tmp_path: Path) -> None:
    path = folder.make(tmp_path, "pools", started=STARTED)
    (path / folder.RUNS / "run").mkdir()
    folder.remove_empty(path)
    assert path.is_dir()
    (path / folder.RUNS / "run").rmdir()
    folder.remove_empty(path)
    assert not path.exists()


def test_document_is_json_that_others_can_read(tmp_path: Path) -> None:
    folder.write_document(tmp_path, {"schema": 1, "share": 0.5})
    assert json.loads((tmp_path / folder.COMPARISON).read_text()) == {"schema": 1, "share": 0.5}
