"""`twbench compare`: its tables, its folder, its exit statuses."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from twbench.cli import compare
from twbench.compare.runner import Comparison

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
Write = Callable[..., str]

TWO = '[[contestant]]\nname = "short"\n[[contestant]]\nname = "kept"\nclient.pool.size = 4\n'
WITHIN_S = 40.0


@pytest.fixture
def contest(tmp_path: Path) -> Write:
    """Return what writes a comparison of a hundred requests a run, and more TOML."""

    def write(
        more: str = TWO, *, name: str = "c", load: str = "requests = 100", repeats: int = 1
    ) -> str:
        path = tmp_path / f"{name}.toml"
        path.write_text(
            f'name = "pools"\n[load]\nconcurrency = 4\nduration_s = 20\n{load}\n'
            f"[compare]\nrepeats = {repeats}\n{more}"
        )
        return path.name

    return write


def test_presets_are_listed_without_a_comparison(twbench: Twbench) -> None:
    done = twbench("compare", "--presets")
    assert (done.returncode, done.stderr) == (0, "")
    assert "scrapy-like" in done.stdout
    listed = json.loads(twbench("compare", "--presets", "--json").stdout)["presets"]
    assert {"name", "sentence", "tables"} == set(listed[0])
    assert len(listed) >= 7


def test_what_is_no_comparison_is_told_with_what_is_missing(
    twbench: Twbench, contest: Write, scenario: Write
) -> None:
    for arguments, said in (
        ((), "which comparison?"),
        ((scenario(),), "takes at least two tables [[contestant]]"),
        ((contest(TWO + 'lab.link = "host"\n', name="host"),), "contestant[1].lab.link"),
        ((contest(), "--set", "load.concurrency=0"), "c.toml: 1 problem"),
    ):
        done = twbench("compare", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    done = twbench("run", contest())
    assert done.returncode == 2
    assert "twbench compare" in done.stderr


@pytest.mark.namespaces
def test_table_and_folder_and_report_say_the_same(
    twbench: Twbench, contest: Write, tmp_path: Path
) -> None:
    done = twbench("compare", contest(), "--out", "made")
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "made").iterdir()
    assert f"results: made/{folder.name}" in done.stdout
    again = twbench("report", str(folder))
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == done.stdout.partition("results: ")[0]
    assert (folder / "compare.txt").read_text().splitlines()[0] == again.stdout.splitlines()[0]
    assert "1 of 2, round 1 of 1" in done.stderr
    assert len([*(folder / "runs").iterdir()]) == 2


@pytest.mark.namespaces
def test_json_is_the_folders_document_and_a_missed_threshold_is_the_status(
    twbench: Twbench, contest: Write, tmp_path: Path
) -> None:
    path = contest(f'[thresholds]\n"outcomes.ok" = "== 1"\n{TWO}')
    done = twbench("compare", path, "--json", "--out", "made")
    assert done.returncode == 4, done.stderr
    [folder] = (tmp_path / "made").iterdir()
    assert json.loads(done.stdout) == json.loads((folder / "compare.json").read_text())


@pytest.mark.namespaces
def test_interrupt_ends_it_with_the_rounds_that_are_whole(
    start: Start, contest: Write, tmp_path: Path
) -> None:
    path = contest(load="", repeats=2)
    process = start("compare", path, "--out", "made")
    deadline_s = time.monotonic() + WITHIN_S
    while not [*tmp_path.glob("made/*/runs/*/outcomes.jsonl")]:
        assert time.monotonic() < deadline_s
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130
    assert "ended early: interrupted after 0 of 4 runs" in out
    [document] = tmp_path.glob("made/*/compare.json")
    assert json.loads(document.read_text())["rounds"] == 0


@pytest.mark.parametrize(
    ("clean", "sound", "missed", "status"),
    [(True, 2, 0, None), (False, 2, 0, 5), (True, 1, 1, 5), (True, 2, 1, 4)],
)
def test_status_tells_whether_the_figures_can_be_trusted(
    tmp_path: Path, *, clean: bool, sound: int, missed: int, status: int | None
) -> None:
    row = {"sound": sound, "runs": ["a-1", "a-2"], "thresholds_missed": missed}
    document = {"contestants": [row], "gate": {"clean": clean}}
    made = Comparison(path=tmp_path, document=document, interrupted=False)
    if status is None:
        compare._leave(made)  # noqa: SLF001 - no fresh host has TIME_WAIT
        return
    with pytest.raises(typer.Exit) as left:
        compare._leave(made)  # noqa: SLF001
    assert left.value.exit_code == status


def test_schema_of_a_comparison_is_printed(twbench: Twbench) -> None:
    done = twbench("schema", "--compare")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"compare", "contestant", "load"} <= set(json.loads(done.stdout)["properties"])
