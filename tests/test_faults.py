"""What is left when something is killed, full or missing in the middle of a run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from twbench.lab.keeper import processes_in
from twbench.record.reader import Run, read_run

pytestmark = pytest.mark.namespaces

ROOT = Path(__file__).resolve().parents[1]
WITHIN_S = 60.0
SCENARIO = """
name = "fault"
[load]
mode = "open"
rate_per_s = 200
duration_s = {duration_s}
"""

CARRIER = "twbench.wire.carrier"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts `twbench run` on a load of 200 connections a second, into `made`."""
    started = []

    def begin(
        *overrides: str,
        duration_s: float = 60,
        before: tuple[str, ...] = (),
        path: tuple[Path, ...] = (),
    ) -> subprocess.Popen[str]:
        (tmp_path / "fault.toml").write_text(SCENARIO.format(duration_s=duration_s))
        program = [sys.executable, "-m", "twbench", "run", "fault.toml", "--json", "--out", "made"]
        for override in overrides:
            program += ["--set", override]
        process = subprocess.Popen(
            [*before, *program],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def only_run(folder: Path) -> Run:
    (path,) = (folder / "made").iterdir()
    return read_run(path)


def reached_s(run: Run) -> float:
    """Return up to when the recorded lines of the load go."""
    return max((line["t_s"] for line in run.outcomes), default=0.0)


def until_recorded(folder: Path, process: subprocess.Popen[str], t_s: float = 0.1) -> Run:
    """Wait until the lines on the disk go up to `t_s`."""
    deadline_s = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if (folder / "made").is_dir() and any((folder / "made").iterdir()):
            run = only_run(folder)
            if reached_s(run) >= t_s:
                return run
        time.sleep(0.02)
    raise AssertionError(f"nothing recorded; the program says {process.communicate()}")


def family(process: subprocess.Popen[str], *more: str) -> dict[str, psutil.Process]:
    """Return the processes that a run has started, by the module each of them runs."""
    found = psutil.Process(process.pid).children(recursive=True)
    modules = {next(a for a in p.cmdline() if a.startswith("twbench.")): p for p in found}
    usual = {"twbench.lab.keeper", "twbench.server.worker", "twbench.fleet.worker"}
    assert modules.keys() == usual | {*more}
    return modules


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, complaint = process.communicate(timeout=WITHIN_S)
    assert "Traceback" not in complaint
    return process.returncode, output, complaint


def held_open(namespaces: set[int]) -> list[str]:
    """Return the descriptors, of whatever process, that keep one of these namespaces alive."""
    names = {f"net:[{inode}]" for inode in namespaces}
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in names:
                found.append(str(link))
        except OSError:
            # gone meanwhile, or another user's
            continue
    return found


def test_killed_run_reads_up_to_its_last_second_and_leaves_nothing_behind(
    start: Start, tmp_path: Path
) -> None:
    process = start()
    before = until_recorded(tmp_path, process)
    seen = time.monotonic()
    relatives = family(process)
    namespaces = {Path(f"/proc/{p.pid}/ns/net").stat().st_ino for p in relatives.values()}
    assert Path("/proc/self/ns/net").stat().st_ino not in namespaces
    time.sleep(1.5)
    lasted_s = time.monotonic() - seen
    process.kill()
    assert process.wait() == -signal.SIGKILL
    run = only_run(tmp_path)
    # lines are flushed each second; the rest is for a busy machine
    assert reached_s(run) >= reached_s(before) + lasted_s - 1.5
    assert run.missing == ("summary.json",)
    assert run.environment is not None
    assert run.samples
    gone, alive = psutil.wait_procs(list(relatives.values()), timeout=10)
    assert (len(gone), alive) == (3, [])
    assert processes_in(namespaces, spare=()) == []
    assert held_open(namespaces) == []


def test_killed_server_ends_the_run_with_an_event_and_its_results(
    start: Start, tmp_path: Path
) -> None:
    process = start()
    until_recorded(tmp_path, process)
    family(process)["twbench.server.worker"].kill()
    status, output, complaint = ended(process)
    assert status == 5
    assert "! server process 1 ended with status -9" in complaint
    summary = json.loads(output)
    assert summary["ended_early"] == "every server process has ended"
    run = only_run(tmp_path)
    assert run.summary == summary
    assert [line["event"] for line in run.events] == ["server process 1 ended with status -9"]
    assert run.events[0]["t_s"] == pytest.approx(summary["load_s"], abs=1)


def test_killed_fleet_worker_ends_the_run_with_an_event_and_its_results(
    start: Start, tmp_path: Path
) -> None:
    process = start()
    until_recorded(tmp_path, process)
    family(process)["twbench.fleet.worker"].kill()
    status, output, complaint = ended(process)
    assert status == 5
    assert "! fleet worker 1 ended with status -9" in complaint
    summary = json.loads(output)
    assert summary["ended_early"] == "fleet worker 1 ended with status -9"
    assert summary["outcomes"]["ok"] > 0
    run = only_run(tmp_path)
    assert run.summary == summary
    assert len(run.events) == 1


def test_killed_keeper_is_told_and_what_was_recorded_is_kept(start: Start, tmp_path: Path) -> None:
    process = start(duration_s=1.5)
    until_recorded(tmp_path, process)
    family(process)["twbench.lab.keeper"].kill()
    status, _, complaint = ended(process)
    assert status == 3
    assert "the lab's keeper has ended" in complaint
    assert reached_s(only_run(tmp_path)) > 1


def test_killed_carrier_ends_the_run_with_an_event_and_its_results(
    start: Start, tmp_path: Path
) -> None:
    process = start('lab.link="wire"', "ending.hold_s=1")
    until_recorded(tmp_path, process)
    family(process, CARRIER)[CARRIER].kill()
    status, output, complaint = ended(process)
    assert status == 5
    assert "! the wire's carrier ended with status -9" in complaint
    summary = json.loads(output)
    assert summary["ended_early"] == "the wire's carrier has ended"
    assert summary["outcomes"]["ok"] > 0
    run = only_run(tmp_path)
    assert run.summary == summary
    assert [line["event"] for line in run.events] == ["the wire's carrier ended with status -9"]
    assert (run.path / "capture.pcapng").stat().st_size > 0


def test_killed_run_over_a_wire_leaves_nothing_behind(start: Start, tmp_path: Path) -> None:
    process = start('lab.link="wire"')
    until_recorded(tmp_path, process)
    relatives = family(process, CARRIER)
    own = Path("/proc/self/ns/net").stat().st_ino
    namespaces = {Path(f"/proc/{p.pid}/ns/net").stat().st_ino for p in relatives.values()} - {own}
    process.kill()
    gone, alive = psutil.wait_procs(list(relatives.values()), timeout=WITHIN_S)
    assert (len(gone), alive) == (4, [])
    assert held_open(namespaces) == []
    assert only_run(tmp_path).missing == ("summary.json",)


def test_full_disk_ends_the_run_in_order_and_keeps_what_it_took(
    start: Start, tmp_path: Path
) -> None:
    # the disk is gone with its mount namespace, so what is on it is copied out at the end
    shell = (
        "mkdir made kept && mount -t tmpfs -o size=40k none made && { "
        '"$@"; status=$?; cp -r made/. kept; exit $status; }'
    )
    apart = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh")
    process = start(before=apart)
    status, output, complaint = ended(process)
    assert (status, output) == (2, "")
    assert "ENOSPC, No space left on device" in complaint
    assert "remedy: free some space, or record to another disk: --out DIR" in complaint
    (folder,) = (tmp_path / "kept").iterdir()
    run = read_run(folder)
    assert run.truncated == ()
    assert reached_s(run) > 0.5
    assert not run.complete


@pytest.mark.parametrize("hidden", [True, False], ids=["without uvloop", "with uvloop"])
def test_loop_is_named_whichever_it_is(start: Start, tmp_path: Path, *, hidden: bool) -> None:
    pytest.importorskip("uvloop")
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text('import sys\nsys.modules["uvloop"] = None\n')
    process = start(duration_s=0.3, path=(hiding,) if hidden else ())
    status, output, _ = ended(process)
    assert status == 0
    engines = json.loads(output)["environment"]["engines"]
    loop = "asyncio" if hidden else "uvloop"
    assert {engines["fleet"]["loop"], engines["server"]["loop"]} == {loop}
