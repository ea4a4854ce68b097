import json
import os
import signal
import subprocess
import sys
import textwrap
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.errors import RecordError, UsageError
from twbench.record import SAMPLES, STREAMS, RunWriter, read_run
from twbench.record.writer import FLUSH_AT_BYTES

STARTED = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]


def writer(folder: Path) -> RunWriter:
    return RunWriter(folder, "test", started=STARTED)


def test_run_folder_is_made_with_its_parents_and_named_after_the_run(tmp_path: Path) -> None:
    with writer(tmp_path / "deep" / "results") as run:
        assert run.path == tmp_path / "deep" / "results" / run.run_id
        assert {path.name for path in run.path.iterdir()} == set(STREAMS)
    assert run.run_id.startswith("20260301T120000Z-test-")


def test_two_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    with writer(tmp_path) as one, writer(tmp_path) as other:
        assert one.path != other.path


def test_scenario_reads_back_as_it_was_written(tmp_path: Path) -> None:
    scenario = {"lab": {"link": "veth", "client": {"sysctl": {"net.ipv4.tcp_tw_reuse": 0}}}}
    with writer(tmp_path) as run:
        run.write_toml(scenario)
    assert tomllib.loads((run.path / "scenario.toml").read_text()) == scenario


def test_document_is_headed_by_schema_and_run_id(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        written = run.write_json("summary.json", {"outcomes": {"ok": 3}})
    assert written == {"schema": 1, "run_id": run.run_id, "outcomes": {"ok": 3}}
    assert json.loads((run.path / "summary.json").read_text()) == written


def test_document_is_replaced_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        run.write_json("environment.json", {"kernel": "a" * 1_000})
        run.write_json("environment.json", {"kernel": "b"})
        run.write_text("report.html", "<p>ok")
        names = {path.name for path in run.path.iterdir()}
    assert json.loads((run.path / "environment.json").read_text())["kernel"] == "b"
    assert names == {"environment.json", "report.html", *STREAMS}


def test_number_that_json_does_not_know_is_refused(tmp_path: Path) -> None:
    with writer(tmp_path) as run, pytest.raises(ValueError, match="not JSON compliant"):
        run.append(SAMPLES, {"x": float("nan")}, now_s=0)


def test_lines_reach_the_file_after_a_second_of_the_time_given(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        samples = run.path / SAMPLES
        run.append(SAMPLES, {"i": 0}, now_s=100.0)
        run.append(SAMPLES, {"i": 1}, now_s=100.9)
        assert samples.read_bytes() == b""
        run.append(SAMPLES, {"i": 2}, now_s=101.0)
        assert samples.read_bytes() == b'{"i":0}\n{"i":1}\n{"i":2}\n'


def test_silent_stream_is_flushed_with_the_others(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        run.append("events.jsonl", {"i": 0}, now_s=5.0)
        run.flush_if_due(now_s=6.5)
        assert (run.path / "events.jsonl").read_bytes() == b'{"i":0}\n'


def test_many_lines_do_not_wait_for_the_second(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        run.append(SAMPLES, {"x": "y" * FLUSH_AT_BYTES}, now_s=0)
        assert (run.path / SAMPLES).stat().st_size > FLUSH_AT_BYTES


def test_leaving_flushes_and_closes(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the listing's own descriptor too
    with writer(tmp_path) as run:
        run.append(SAMPLES, {"i": 0}, now_s=0)
    assert (run.path / SAMPLES).read_bytes() == b'{"i":0}\n'
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("/proc/nowhere", ("ENOENT", "--out")),
        ("/dev/null/results", ("ENOTDIR", "--out")),
        ("/dev/null", ("EEXIST", "--out")),
    ],
)
def test_unwritable_place_is_refused_on_entry(place: str, names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as refusal, writer(Path(place)):
        pytest.fail("entered")
    assert all(name in str(refusal.value) for name in (*names, place))


def test_missing_descriptors_are_refused_on_entry_and_leave_nothing(tmp_path: Path) -> None:
    script = """
        import resource, os
        from twbench.model.errors import UsageError
        used = max(int(fd) for fd in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, used + 2))
        try:
            with run:
                print("entered")
        except UsageError as error:
            print(error)
    """
    assert "EMFILE" in run_script(script, tmp_path)
    assert list(tmp_path.iterdir()) == []


PRELUDE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from twbench.model.errors import RecordError
from twbench.record import RunWriter
run = RunWriter(Path(sys.argv[1]), "test", started=datetime(2026, 3, 1, tzinfo=UTC))
"""


def run_script(script: str, folder: Path, *before: str) -> str:
    result = subprocess.run(
        [*before, sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def only_run(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


# Lines of an uneven length, so that a limit falls inside one.
FILL = """
    last = None
    try:
        with run:
            run.write_json("environment.json", {"kernel": "kept"})
            for i in range(100_000):
                run.append("samples.jsonl", {"i": i, "pad": "x" * (i % 7)}, now_s=i)
                last = i
    except RecordError as error:
        print(last)
        print(error)
"""


def test_file_size_limit_is_one_clear_error_and_loses_no_line(tmp_path: Path) -> None:
    limit = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    """
    last, message = run_script(textwrap.dedent(limit) + textwrap.dedent(FILL), tmp_path).split(
        "\n", 1
    )
    assert "EFBIG" in message
    assert "samples.jsonl" in message
    assert "ulimit -f" in message
    run = read_run(only_run(tmp_path))
    assert [sample["i"] for sample in run.samples] == list(range(int(last) + 1))
    assert run.truncated == ()
    assert (run.path / SAMPLES).read_bytes().endswith(b"}\n")


# Inside mount namespace: a tmpfs of 64 KiB, filled; then what can be read, as a second process.
FULL_DISK = (
    FILL
    + """
    from twbench.record import read_run
    (folder,) = Path(sys.argv[1]).iterdir()
    back = read_run(folder)
    print([s["i"] for s in back.samples] == list(range(last + 1)), back.truncated)
    print(back.environment["kernel"], sorted(p.name for p in folder.iterdir()))
    full = RunWriter(Path(sys.argv[1]), "late", started=datetime(2026, 3, 2, tzinfo=UTC))
    try:
        with full:
            full.write_toml({"name": "x" * 70_000})
    except RecordError as error:
        print("late:", error)
        print(sorted(p.name for p in full.path.iterdir()))
"""
)


@pytest.mark.namespaces
def test_full_disk_is_one_clear_error_and_loses_no_line(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    shell = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(tmp_path))
    out = run_script(FULL_DISK, tmp_path, *shell)
    assert "ENOSPC" in out
    assert "samples.jsonl" in out
    assert "free some space" in out
    assert "True ()" in out
    assert f"kept {sorted(['environment.json', *STREAMS])}" in out
    assert "late: cannot write" in out
    assert out.endswith(f"{sorted(STREAMS)}\n")


def test_lines_refused_once_are_written_when_there_is_room_again(tmp_path: Path) -> None:
    script = """
        import resource
        with run:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            for i in range(30):
                run.append("samples.jsonl", {"i": i}, now_s=0)
            try:
                run.flush()
            except RecordError:
                print("refused")
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    """
    assert run_script(script, tmp_path) == "refused\n"
    run = read_run(only_run(tmp_path))
    assert [sample["i"] for sample in run.samples] == list(range(30))


def test_error_that_ends_the_run_is_not_hidden_by_a_full_disk(tmp_path: Path) -> None:
    script = """
        import resource
        try:
            with run:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
                for i in range(30):
                    run.append("samples.jsonl", {"i": i}, now_s=0)
                raise KeyError("the cause")
        except KeyError as error:
            print(error)
    """
    assert "the cause" in run_script(script, tmp_path)


def test_device_that_takes_nothing_is_a_record_error(tmp_path: Path) -> None:
    with writer(tmp_path) as run:
        (run.path / ".summary.json.part").symlink_to("/dev/full")
        with pytest.raises(RecordError, match="ENOSPC"):
            run.write_json("summary.json", {})


def test_killed_run_still_reads(tmp_path: Path) -> None:
    script = """
        import os, signal
        with run:
            run.write_toml({"name": "killed"})
            for i in range(1001):
                run.append("samples.jsonl", {"i": i}, now_s=i / 10)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script), str(tmp_path)],
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == -signal.SIGKILL
    run = read_run(only_run(tmp_path))
    assert not run.complete
    assert run.scenario == {"name": "killed"}
    assert [sample["i"] for sample in run.samples] == list(range(1001))


scalars = st.integers(-(2**53), 2**53) | st.booleans() | st.text(max_size=20)
tables = st.dictionaries(st.text(max_size=10), scalars | st.lists(scalars, max_size=4), max_size=4)


@given(tables)
def test_any_table_survives_the_way_through_both_formats(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, object]
) -> None:
    with writer(tmp_path_factory.mktemp("results")) as run:
        run.write_toml({"table": table})
        run.append(SAMPLES, table, now_s=0)
    back = read_run(run.path)
    assert back.scenario == {"table": table}
    assert back.samples == (table,)
