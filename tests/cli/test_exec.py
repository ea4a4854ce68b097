"""`twbench exec`: whose output is whose, what ends a program, and whose exit status is told."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from twbench.record.reader import Run, read_run

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
Write = Callable[..., str]

WITHIN_S = 30.0
pytestmark = pytest.mark.namespaces


@pytest.fixture
def short(scenario: Write) -> str:
    """Return a scenario whose load would go on for ten minutes."""
    return scenario(duration_s=600)


def program(name: str) -> str:
    """Return where a program is, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def only_run(folder: Path) -> Run:
    (path,) = folder.iterdir()
    return read_run(path)


def summary_of(done: Done) -> dict[str, Any]:
    """Return the summary of a run that went well in every respect."""
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while runs(pid):
        assert time.monotonic() < deadline_s, f"{pid} still runs"
        time.sleep(0.02)


# whose output is whose


def test_program_owns_standard_output_and_the_tables_go_to_standard_error(
    twbench: Twbench, short: str, tmp_path: Path
) -> None:
    done = twbench("exec", short, "--", "sh", "-c", "echo from the program")
    assert (done.returncode, done.stdout) == (0, "from the program\n")
    assert re.search(r"^hosts", done.stderr, re.MULTILINE)
    run = only_run(tmp_path / "results")
    assert done.stderr.endswith(f"results: results/{run.run_id}\n")
    # nothing is shown while it runs
    assert "starting" not in done.stderr


def test_with_json_the_summary_has_standard_output_to_itself(
    twbench: Twbench, short: str, tmp_path: Path
) -> None:
    done = twbench("exec", short, "--json", "--out", "made", "--", "sh", "-c", "echo hello")
    summary = summary_of(done)
    assert done.stderr == "hello\n"
    assert summary == only_run(tmp_path / "made").summary
    program = summary["program"]
    assert program["argv"] == ["sh", "-c", "echo hello"]
    assert (program["exit_status"], program["ended_by"]) == (0, "itself")
    assert summary["scenario"]["ending"]["kind"] == "server-fin"


def test_plain_gives_a_line_every_two_seconds(twbench: Twbench, short: str) -> None:
    done = twbench("exec", short, "--plain", "--", "true")
    assert re.search(r"^short +\d\.\d/600 s", done.stderr, re.MULTILINE)


def test_program_has_our_standard_input_folder_and_environment(
    twbench: Twbench, short: str, tmp_path: Path
) -> None:
    script = 'twbench() { "$@"; }; echo over | "$@"'
    command = ("sh", "-c", 'read word; echo "$word $PWD $TERM $0"')
    done = twbench("exec", short, "--", *command, before=("sh", "-c", script, "sh"))
    assert done.stdout == f"over {tmp_path} xterm sh\n"


def test_options_after_the_dashes_are_the_programs(twbench: Twbench, short: str) -> None:
    done = twbench("exec", short, "--", "echo", "--json", "--set", "-x", "--", "end")
    assert done.stdout == "--json --set -x -- end\n"


def test_names_that_the_program_has_are_kept_with_the_results(
    twbench: Twbench, short: str, tmp_path: Path
) -> None:
    done = twbench("exec", short, "--", "cat", "/etc/hosts")
    run = only_run(tmp_path / "results")
    assert done.stdout == (run.path / "hosts").read_text()
    assert "\tserver.test\n" in done.stdout


# whose exit status


def test_exit_status_is_the_programs_even_where_a_threshold_was_missed(
    twbench: Twbench, scenario: Write
) -> None:
    missed = scenario('[thresholds]\n"outcomes.ok" = ">= 1000000"\n', duration_s=600)
    assert twbench("exec", missed, "--", "sh", "-c", "exit 17").returncode == 17
    assert twbench("exec", missed, "--", "true").returncode == 4


def test_program_killed_by_a_signal_is_told_as_a_shell_does(twbench: Twbench, short: str) -> None:
    assert twbench("exec", short, "--", "sh", "-c", "kill -SEGV $$").returncode == 128 + 11


def test_program_that_is_not_there_leaves_nothing(
    twbench: Twbench, short: str, tmp_path: Path
) -> None:
    done = twbench("exec", short, "--", "no-such-program", "-x")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "twbench: cannot run no-such-program: there is no such program\n"
    assert not (tmp_path / "results").exists()


def test_file_that_is_not_executable_is_told_as_a_shell_does(
    twbench: Twbench, short: str, tmp_path: Path
) -> None:
    (tmp_path / "script").touch(mode=0o644)
    done = twbench("exec", short, "--", "./script")
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == "twbench: cannot run ./script: permission denied\n"
    assert not (tmp_path / "results").exists()


def test_file_that_the_kernel_does_not_run_leaves_nothing(
    twbench: Twbench, short: str, tmp_path: Path
) -> None:
    (tmp_path / "script").write_text("#!/no/such/shell\n")
    (tmp_path / "script").chmod(0o755)
    done = twbench("exec", short, "--", "./script")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "twbench: cannot run ./script: No such file or directory\n"
    assert list((tmp_path / "results").iterdir()) == []


def test_host_that_the_program_cannot_enter_is_our_failure_and_leaves_nothing(
    twbench: Twbench, short: str, tmp_path: Path
) -> None:
    without_etc = ("unshare", "-Urm", "sh", "-c", 'mount -t tmpfs none /etc && exec "$@"', "sh")
    done = twbench("exec", short, "--", "true", before=without_etc)
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot run true: /etc/hosts: No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "lab.link=host", "--", "true"), "lab.link: found 'host'; a program finds"),
        (("--set", "lab.client.hosts=2", "--", "true"), "lab.client.hosts: found 2; "),
        (("--set", "load.duration=2", "--", "true"), "did you mean 'duration_s'"),
        ((), "Missing argument"),
    ],
)
def test_mistake_in_the_arguments_is_told_without_a_run(
    twbench: Twbench, short: str, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = twbench("exec", short, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not (tmp_path / "results").exists()


# what ends a program


def test_program_is_ended_when_the_load_is_over_and_that_is_no_failure(
    twbench: Twbench, scenario: Write
) -> None:
    done = twbench(
        *("exec", scenario(duration_s=0.5), "--json"), "--", "sh", "-c", "sleep 1000 & wait"
    )
    summary = summary_of(done)
    assert summary["program"]["ended_by"] == "duration"
    assert summary["program"]["exit_status"] == 128 + signal.SIGTERM
    assert summary["load_s"] == 0.5
    assert summary["ended_early"] == ""


def test_processor_time_counts_of_whoever_runs_when_the_load_is_over(
    twbench: Twbench, scenario: Write
) -> None:
    busy = f"{sys.executable} -c 'while True: pass'; true"
    done = twbench("exec", scenario(duration_s=2), "--json", "--", "sh", "-c", busy)
    program = summary_of(done)["program"]
    assert program["ended_by"] == "duration"
    # of two seconds, on however busy a machine
    assert program["cpu_s"] > 0.2


def begun(start: Start, short: str, tmp_path: Path, *command: str) -> tuple[Any, int]:
    """Start a program that tells its process id in a file; return ours and its."""
    told = tmp_path / "told"
    script = f'echo $$ >{told}.part && mv {told}.part {told} && exec "$@"'
    process = start("exec", short, "--json", "--", "sh", "-c", script, "sh", *command)
    deadline_s = time.monotonic() + WITHIN_S
    while not told.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, "it did not start"
        time.sleep(0.02)
    return process, int(told.read_text())


def test_interrupt_goes_to_the_program_first(start: Start, short: str, tmp_path: Path) -> None:
    process, pid = begun(start, short, tmp_path, "sleep", "1000")
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 130
    assert "Traceback" not in complaint
    assert not runs(pid)
    summary = json.loads(output)
    assert summary["ended_early"] == "interrupted"
    assert summary["program"]["ended_by"] == "interrupt"
    assert summary["program"]["exit_status"] == 128 + signal.SIGINT


def test_second_interrupt_ends_a_stubborn_program_at_once(
    start: Start, short: str, tmp_path: Path
) -> None:
    stubborn = "import signal, time\nfor n in 2, 15: signal.signal(n, signal.SIG_IGN)\n"
    ready = tmp_path / "ready"
    wait = f"open({str(ready)!r}, 'w').close()\ntime.sleep(1000)"
    process, pid = begun(start, short, tmp_path, sys.executable, "-c", stubborn + wait)
    deadline_s = time.monotonic() + WITHIN_S
    while not ready.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in complaint
    assert not runs(pid)


def test_program_dies_with_us(start: Start, short: str, tmp_path: Path) -> None:
    process, pid = begun(start, short, tmp_path, "sleep", "1000")
    process.kill()
    process.wait(WITHIN_S)
    until_gone(pid)


def test_what_a_program_has_started_dies_with_us_too(
    start: Start, short: str, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    script = f"setsid sleep 1000 & echo $! >{kept}.part && mv {kept}.part {kept}; wait"
    process, pid = begun(start, short, tmp_path, "sh", "-c", script)
    deadline_s = time.monotonic() + WITHIN_S
    while not kept.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    process.kill()
    process.wait(WITHIN_S)
    until_gone(pid)
    until_gone(int(kept.read_text()))


# programs of other people


def served(summary: dict[str, Any], at_least: int) -> None:
    """Check that the server answered, and that every connection is accounted for."""
    assert summary["program"]["exit_status"] == 0
    assert summary["program"]["ended_by"] == "itself"
    answered = summary["rates"]["requests_per_s"] * summary["load_s"]
    assert answered >= at_least * 0.99
    assert summary["audit"]["balanced"], summary["audit"]
    assert summary["rates"]["client_cpu_us_per_request"] > 0


def test_curl_in_a_loop(twbench: Twbench, short: str) -> None:
    program("curl")
    loop = "for i in 1 2 3 4 5; do curl -fsS -o /dev/null $TWBENCH_URL || exit; done"
    summary = summary_of(twbench("exec", short, "--json", "--", "sh", "-c", loop))
    served(summary, 5)
    assert summary["rates"]["connections_per_request"] == 1


def test_proxy_of_the_machine_is_not_asked_for_the_server(twbench: Twbench, short: str) -> None:
    program("curl")
    proxy = ("env", "http_proxy=http://127.0.0.1:9", "all_proxy=http://127.0.0.1:9")
    ask = ("sh", "-c", "curl -fsS -o /dev/null $TWBENCH_URL")
    served(summary_of(twbench("exec", short, "--json", "--", *ask, before=proxy)), 1)


def test_wrk(twbench: Twbench, short: str) -> None:
    program("wrk")
    load = ("wrk", "-t", "1", "-c", "4", "-d", "1", "http://server.test:8080/")
    done = twbench("exec", short, "--json", "--", *load)
    served(summary_of(done), 10)
    assert "Requests/sec" in done.stderr


NODE = """
const http = require('http');
const agent = new http.Agent({ keepAlive: true, maxSockets: 2 });
const get = (url) => new Promise((done, failed) => http.get(url, { agent }, (answer) => {
  answer.resume(); answer.on('end', done);
}).on('error', failed));
(async () => {
  for (let i = 0; i < 10; i++) await get(process.env.TWBENCH_URL);
  agent.destroy();
})();
"""


def test_node(twbench: Twbench, short: str) -> None:
    program("node")
    kept = ("--set", "ending.kind=server-idle", "--set", "client.pool.size=10")
    summary = summary_of(twbench("exec", short, "--json", *kept, "--", "node", "-e", NODE))
    served(summary, 10)
    assert summary["rates"]["connections_per_request"] < 1


SPIDER = """
import os
import scrapy

class Spider(scrapy.Spider):
    name = "spider"
    start_urls = os.environ["TWBENCH_SITES"].split()
    custom_settings = {"ROBOTSTXT_OBEY": False, "TELNETCONSOLE_ENABLED": False, "RETRY_TIMES": 0}

    def parse(self, response):
        yield {"url": response.url}
        yield from response.follow_all(css="a")
"""


def test_scrapy(twbench: Twbench, tmp_path: Path) -> None:
    program("scrapy")
    (tmp_path / "spider.py").write_text(SPIDER)
    (tmp_path / "sites.toml").write_text(
        'name = "sites"\n[load]\nconcurrency = 1\nduration_s = 600\n'
        "[web]\nsites = 5\npages = 20\nlinks = 5\n"
    )
    crawl = ("scrapy", "runspider", "spider.py", "-o", "found.jsonl", "-L", "WARNING")
    done = twbench("exec", "sites.toml", "--json", "--", *crawl)
    assert (done.returncode, (tmp_path / "found.jsonl").exists()) == (0, True), done.stderr
    with (tmp_path / "found.jsonl").open() as lines:
        found = {json.loads(line)["url"] for line in lines}
    assert len({re.sub(r"/\d*$", "", url) for url in found}) == 5
    assert len(found) > 5, "it followed no link"
    served(summary_of(done), len(found))
