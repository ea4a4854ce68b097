import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.errors import UsageError
from twbench.record import SAMPLES, RunWriter, latest, read_run

STARTED = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def make_run(folder: Path, *, lines: int = 3, started: datetime = STARTED) -> Path:
    with RunWriter(folder, "test", started=started) as run:
        run.write_toml({"load": {"rate_per_s": 5}})
        run.write_json("environment.json", {"kernel": "6.18"})
        for i in range(lines):
            run.append(SAMPLES, {"i": i}, now_s=i)
        run.write_json("summary.json", {"outcomes": {}})
    return run.path


def test_whole_run_is_complete_and_misses_nothing(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path))
    assert run.complete
    assert (run.missing, run.truncated) == ((), ())
    assert run.scenario == {"load": {"rate_per_s": 5}}
    assert run.environment == {"schema": 1, "run_id": run.run_id, "kernel": "6.18"}
    assert run.samples == ({"i": 0}, {"i": 1}, {"i": 2})
    assert run.looks == run.outcomes == run.events == ()


def test_run_without_a_summary_is_not_complete(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    (path / "summary.json").unlink()
    (path / "looks.jsonl").unlink()
    run = read_run(path)
    assert not run.complete
    assert run.missing == ("summary.json", "looks.jsonl")


@given(st.data())
def test_stream_cut_at_any_byte_reads_up_to_there(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = make_run(tmp_path_factory.mktemp("results"), lines=12)
    content = (path / SAMPLES).read_bytes()
    kept = content[: data.draw(st.integers(0, len(content)))]
    (path / SAMPLES).write_bytes(kept)
    run = read_run(path)
    # A line that only lost its newline is whole.
    count = kept.count(b"\n") + kept.endswith(b"}")
    assert [sample["i"] for sample in run.samples] == list(range(count))
    assert run.truncated == ((SAMPLES,) if kept and kept[-1:] not in b"\n}" else ())


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"7", b"\xff\xfe"])
def test_spoilt_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = make_run(tmp_path)
    (path / SAMPLES).write_bytes(b'{"i":0}\n' + line + b'\n{"i":2}\n')
    with pytest.raises(UsageError, match=r"samples\.jsonl, line 2: "):
        read_run(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("scenario.toml", b"= 1", "is no TOML"),
        ("scenario.toml", b"\xff", "is no TOML"),
        ("summary.json", b"{", "is no JSON"),
        ("summary.json", b"[]", "holds no JSON object"),
        ("summary.json", b"{}", "has schema None"),
        ("environment.json", b'{"schema": 2}', "has schema 2, and this twbench reads up to 1"),
    ],
)
def test_spoilt_document_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = make_run(tmp_path)
    (path / name).write_bytes(content)
    with pytest.raises(UsageError, match=said) as refusal:
        read_run(path)
    assert name in str(refusal.value)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no scenario\.toml"):
        read_run(tmp_path)
    with pytest.raises(UsageError, match="Not a directory"):
        read_run(tmp_path / "holiday.jpg")
    with pytest.raises(UsageError, match="No such file"):
        read_run(tmp_path / "nowhere")


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = make_run(tmp_path)
    (path / "summary.json").unlink()
    (path / "summary.json").mkdir()
    with pytest.raises(UsageError, match=r"cannot read .*summary\.json: Is a directory"):
        read_run(path)


def test_latest_is_the_run_started_last(tmp_path: Path) -> None:
    newest = make_run(tmp_path, started=STARTED + timedelta(hours=1))
    make_run(tmp_path)
    (tmp_path / "reference").mkdir()
    (tmp_path / "zzz").write_text("")
    assert latest(tmp_path) == newest


def test_latest_of_the_same_second_is_the_one_written_last(tmp_path: Path) -> None:
    runs = [make_run(tmp_path) for _ in range(4)]
    for age, path in enumerate(reversed(runs)):
        os.utime(path, (1_000 - age, 1_000 - age))
    assert latest(tmp_path) == runs[-1]


@pytest.mark.parametrize("there", [True, False])
def test_latest_of_none_says_how_to_make_one(tmp_path: Path, there: bool) -> None:
    folder = tmp_path if there else tmp_path / "results"
    with pytest.raises(UsageError, match="twbench run"):
        latest(folder)


def test_latest_in_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text(json.dumps({}))
    with pytest.raises(UsageError, match="Not a directory"):
        latest(tmp_path / "results")
