"""`twbench run`: its output, its exit statuses, and what a terminal shows of it."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from twbench.kernel.process import open_socket_of
from twbench.record.reader import Run, read_run

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
Write = Callable[..., str]

OWN_RANGE = '[lab.client.sysctl]\n"net.ipv4.ip_local_port_range" = "40000 40049"\n'
WITHIN_S = 20.0


def only_run(folder: Path) -> Run:
    (path,) = folder.iterdir()
    return read_run(path)


def lines_of(run: Run) -> int:
    """Return how many attempts the recorded lines tell of."""
    return sum(line.get("attempted", 0) for line in run.outcomes)


def until_recorded(folder: Path, process: subprocess.Popen[str]) -> Run:
    """Wait until the run under way has recorded outcomes, and return it as it is then."""
    deadline_s = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if folder.is_dir() and any(folder.iterdir()):
            run = only_run(folder)
            if lines_of(run):
                return run
        time.sleep(0.05)
    raise AssertionError(f"nothing recorded; the program says {process.communicate()}")


@pytest.mark.namespaces
def test_json_is_one_document_and_the_same_as_in_the_folder(
    twbench: Twbench, scenario: Write, tmp_path: Path
) -> None:
    done = twbench("run", scenario(), "--json", "--out", "made")
    assert done.returncode == 0
    summary = json.loads(done.stdout)
    run = only_run(tmp_path / "made")
    assert summary == run.summary == json.loads((run.path / "summary.json").read_text())
    assert summary["outcomes"]["ok"] == 100
    # progress goes to standard error, as lines where that is no terminal
    assert re.search(r"^short +\d\.\d/0\.5 s", done.stderr, re.MULTILINE)


@pytest.mark.namespaces
def test_run_prints_tables_and_where_its_results_are_and_missed_thresholds_are_its_status(
    twbench: Twbench, scenario: Write, tmp_path: Path
) -> None:
    more = '[thresholds]\n"outcomes.ok" = ">= 51"\n"outcomes.attempted" = "== 200"\n'
    done = twbench("run", scenario(OWN_RANGE + more), "--set", "load.rate_per_s=400")
    assert done.returncode == 4
    run = only_run(tmp_path / "results")
    assert done.stdout.endswith(f"results: results/{run.run_id}\n")
    for title in ("load", "hosts", "errors", "latency, ms", "forecast", "audit: balanced"):
        assert re.search(rf"^{title}", done.stdout, re.MULTILINE), title
    assert "connect:EADDRNOTAVAIL:ports_exhausted" in done.stdout
    assert re.search(r"outcomes\.ok >= 51 +. +50 +. +NO", done.stdout)
    assert re.search(r"outcomes\.attempted == 200 +. +200 +. +yes", done.stdout)
    assert run.summary is not None
    assert run.summary["scenario"]["load"]["rate_per_s"] == 400


@pytest.mark.namespaces
def test_engine_of_the_client_has_an_option_of_its_own(twbench: Twbench, scenario: Write) -> None:
    done = twbench("run", scenario(), "--json", "--engine", "streams")
    summary = json.loads(done.stdout)
    assert summary["scenario"]["client"]["engine"] == "streams"
    assert summary["environment"]["engines"]["fleet"]["engine"] == "streams"


# 2: the scenario or the arguments are wrong


def test_five_mistakes_are_told_at_once(twbench: Twbench, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(
        'name = "No Slug"\n'
        "[lab]\nlink = 'string'\n"
        '[load]\nconcurrency = "many"\nduration_s = 0\n'
        "[client]\nworkerz = 3\n"
    )
    done = twbench("run", "wrong.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("twbench: wrong.toml: 5 problems\n")
    for key in ("name", "lab.link", "load.concurrency", "load.duration_s", "client.workerz"):
        assert re.search(rf"^  {re.escape(key)}: found .+; ", done.stderr, re.MULTILINE), key
    assert "did you mean 'workers'?" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.toml",), "missing.toml: found No such file"),
        (("short.toml", "--set", "load.rate=5"), "did you mean 'rate_per_s'"),
        (("short.toml", "--set", "nonsense"), "allowed is key=value"),
        (("short.toml", "--engine", "curl"), "client.engine: found 'curl'; allowed is one of"),
        (("short.toml", "--set", "lab.client.sysctl.net.ipv4.ip_local_port_range=1"), "two ports"),
        (("short.toml", "--out", "short.toml/out"), "--out DIR"),
        (("short.toml", "--out", "/proc/results"), "--out DIR"),
        (("short.toml", "--nonsense"), "No such option"),
        ((), "Missing argument"),
    ],
)
def test_mistake_in_the_arguments_is_told_without_a_run(
    twbench: Twbench, scenario: Write, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    scenario()
    done = twbench("run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


# 3: no lab


def test_taken_port_is_told_with_a_remedy(twbench: Twbench, scenario: Write) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        link = ("--set", "lab.link=host", "--set", f"lab.server.ports=[{port}]")
        done = twbench("run", scenario(), *link)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"cannot listen on 127.0.0.1 port {port}: EADDRINUSE" in done.stderr
    assert "remedy: choose another port" in done.stderr
    assert "Traceback" not in done.stderr


NO_MORE = "echo 0 >/proc/sys/user/max_user_namespaces; echo 0 >/proc/sys/user/max_net_namespaces"


@pytest.mark.namespaces
def test_machine_without_namespaces_is_told_what_would_help(
    twbench: Twbench, scenario: Write
) -> None:
    limit = ("unshare", "--user", "--map-root-user", "sh", "-c", f'{NO_MORE}; exec "$@"', "sh")
    done = twbench("run", scenario(), before=limit)
    assert (done.returncode, done.stdout) == (3, "")
    assert "namespace" in done.stderr
    assert "remedy: sudo sysctl -w user.max_user_namespaces=" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.namespaces
def test_sysctl_that_the_kernel_refuses_is_told_by_its_name(
    twbench: Twbench, scenario: Write
) -> None:
    done = twbench("run", scenario(), "--set", "lab.client.sysctl.net.ipv4.tcp_tw_reuse=9")
    assert (done.returncode, done.stdout) == (3, "")
    assert "net.ipv4.tcp_tw_reuse" in done.stderr
    assert "Traceback" not in done.stderr


# 5: the audit does not balance


def worker_of(process: subprocess.Popen[str]) -> int:
    """Return the number of the run's fleet worker."""
    children = psutil.Process(process.pid).children(recursive=True)
    (worker,) = [each for each in children if each.cmdline()[-1] == "twbench.fleet.worker"]
    return worker.pid


@pytest.mark.namespaces
def test_connection_that_the_fleet_did_not_make_does_not_balance(
    start: Start, scenario: Write, tmp_path: Path
) -> None:
    process = start("run", scenario(duration_s=1.5), "--json", "--out", "made")
    until_recorded(tmp_path / "made", process)
    # a stranger on the client host: its kernel counts it, the fleet does not
    reach = open_socket_of(worker_of(process))
    with reach(socket.AF_INET, socket.SOCK_STREAM, 0) as stranger:
        stranger.settimeout(5)
        stranger.connect(("198.19.0.1", 8080))
    output, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 5
    summary = json.loads(output)
    assert not summary["audit"]["balanced"]
    residuals = {i["name"]: i["residual"] for i in summary["audit"]["identities"]}
    assert residuals["client: TcpActiveOpens = connects whose SYN left"] == 1
    assert residuals["fleet: established = server: accepted"] == -1
    assert summary["ended_early"] == ""


# 130: interrupted


@pytest.mark.namespaces
def test_interrupted_run_ends_in_order_with_its_summary(
    start: Start, scenario: Write, tmp_path: Path
) -> None:
    process = start("run", scenario(duration_s=600), "--json", "--out", "made")
    until_recorded(tmp_path / "made", process)
    process.send_signal(signal.SIGTERM)
    output, complaint = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130
    assert "Traceback" not in complaint
    summary = json.loads(output)
    assert summary["ended_early"] == "interrupted"
    assert summary["audit"]["balanced"]
    run = only_run(tmp_path / "made")
    assert run.summary == summary
    assert lines_of(run) == summary["outcomes"]["attempted"] > 0


@pytest.mark.namespaces
def test_second_interrupt_ends_at_once_and_keeps_what_was_recorded(
    start: Start, scenario: Write, tmp_path: Path
) -> None:
    # the server thinks for 20 s: the first interrupt alone would wait for its answers
    slow = "[server]\ndelay_ms = 20000\n"
    process = start("run", scenario(slow, duration_s=600), "--json", "--out", "made")
    until_recorded(tmp_path / "made", process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in complaint
    run = only_run(tmp_path / "made")
    assert (run.missing, run.truncated) == (("summary.json",), ())
    assert lines_of(run) > 0


# the terminal


def on_terminal(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit status and all that was drawn."""
    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        size = {"COLUMNS": "120", "LINES": "40", "TERM": "xterm-256color"}
        path = {"PYTHONPATH": os.pathsep.join(sys.path)}
        os.execve(  # noqa: S606 - the program itself, and no shell
            sys.executable,
            [sys.executable, "-m", "twbench", *arguments],
            {**os.environ, **size, **path},
        )
    drawn = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            # EIO: the other end is closed
            break
        if not chunk:
            break
        drawn += chunk
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), drawn.decode(errors="replace")


@pytest.mark.namespaces
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of forkpty:DeprecationWarning")
def test_terminal_shows_a_live_table_with_time_wait_and_a_bar(
    scenario: Write, tmp_path: Path
) -> None:
    more = OWN_RANGE.replace("40049", "40299") + "[sampling]\nlooks_per_s = 10\n"
    status, drawn = on_terminal(tmp_path, "run", scenario(more, duration_s=1.5))
    assert status == 0
    live = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.partition("latency, ms")[0])
    for shown in ("TIME_WAIT", "established", "ports used", "of capacity", "short  load"):
        assert shown in live
    bars: list[Any] = re.findall(r"client +([\d,]+) +\d+ +([━╸╺ ]+)([\d,]+) of 300", live)
    assert len({waiting for waiting, _, _ in bars}) > 2, "the count never moved"
    assert any("━" in bar for _, bar, _ in bars)
    # drawn over again and again, and taken away at the end
    assert "\x1b[2K" in drawn
    assert "results: results/" in drawn


@pytest.mark.namespaces
def test_run_goes_on_when_nobody_reads_its_progress(tmp_path: Path) -> None:
    scenario = tmp_path / "short.toml"
    scenario.write_text('name = "short"\n[load]\nconcurrency = 2\nduration_s = 2.5\n')
    command = f"{sys.executable} -m twbench run {scenario} --plain --out {tmp_path} 2>&1 >/dev/null"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -n 1"], check=False, capture_output=True
    )
    assert done.returncode == 0
    assert len(list(tmp_path.glob("*-short-*/summary.json"))) == 1
