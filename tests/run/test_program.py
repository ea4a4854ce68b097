"""A program in the fleet's place: started, signalled, waited for, and never left behind."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from twbench.lab.lab import Lab
from twbench.lab.names import hosts_text
from twbench.lab.plan import LabPlan
from twbench.model.errors import LabError, ScenarioError
from twbench.model.parse import build_scenario
from twbench.model.scenario import Scenario
from twbench.run import program as module
from twbench.run.planning import lab_plan
from twbench.run.program import EndedBy, NoProgramError, Program, check_program, urls

WITHIN_S = 20
ENVIRONMENT = {"TWBENCH_URL": "http://server.test/"}
STUBBORN = (
    "import signal, time\n"
    "for number in (signal.SIGTERM, signal.SIGINT):\n"
    "    signal.signal(number, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "time.sleep(1000)\n"
)
TOLD = (
    "import signal, sys, time\n"
    "def told(number, _):\n"
    "    print(number, flush=True)\n"
    "    if number in map(int, sys.argv[1:]): raise SystemExit(4)\n"
    "for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, told)\n"
    "print('up', flush=True)\n"
    "print('ready', file=sys.stderr, flush=True)\n"
    "while True: time.sleep(1000)\n"
)
LEAVES = (
    "import subprocess, sys\n"
    "told, *before = sys.argv[1:]\n"
    "child = [*before, sys.executable, '-c', told, '15']\n"
    "said = subprocess.Popen(child, stderr=subprocess.PIPE).stderr.readline()\n"
    "assert said == b'ready\\n'\n"
)
"""Ends when its child has said on its standard error that it is up."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabPlan()) as lab:
        yield lab


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text(hosts_text({"server.test": "198.19.0.1"}))
    return path


class Said:
    """What a program writes to its standard output."""

    def __init__(self) -> None:
        self._ear, self.mouth = os.pipe()

    async def line(self) -> str:
        """Return the next line, without its end; empty where there is none any more."""
        text = b""
        while byte := await asyncio.to_thread(os.read, self._ear, 1):
            if byte == b"\n":
                break
            text += byte
        return text.decode()

    def close(self) -> None:
        os.close(self._ear)


@asynccontextmanager
async def started(lab: Lab, hosts: Path, *argv: str) -> AsyncIterator[tuple[Program, Said]]:
    said = Said()
    program = Program(argv, stdout=said.mouth)
    try:
        await program.start(lab, "client", hosts=hosts, environment=ENVIRONMENT)
        os.close(said.mouth)
        yield program, said
    finally:
        await program.kill()
        said.close()


async def ended(program: Program) -> None:
    await asyncio.wait_for(asyncio.shield(program.ended), WITHIN_S)


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


async def until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while runs(pid):
        assert time.monotonic() < deadline_s, f"{pid} still runs"
        await asyncio.sleep(0.02)


@pytest.mark.namespaces
async def test_program_keeps_its_arguments_environment_and_status(lab: Lab, hosts: Path) -> None:
    script = 'echo "$1 $TWBENCH_URL $HOME"; exit 7'
    async with started(lab, hosts, "sh", "-c", script, "sh", "two words") as (program, said):
        assert await said.line() == f"two words http://server.test/ {os.environ.get('HOME', '')}"
        await ended(program)
    account = program.account()
    assert account["argv"] == ["sh", "-c", script, "sh", "two words"]
    assert (account["exit_status"], account["ended_by"]) == (7, "itself")
    assert account["elapsed_s"] > 0


@pytest.mark.namespaces
async def test_processor_time_is_counted_with_that_of_its_children(lab: Lab, hosts: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    async with started(lab, hosts, "sh", "-c", f'{sys.executable} -c "{busy}"; true') as (
        program,
        _,
    ):
        await ended(program)
    assert program.account()["exit_status"] == 0
    assert program.account()["cpu_s"] >= 0.3


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("by", "ends_at", "told"),
    [
        (EndedBy.DURATION, signal.SIGTERM, [signal.SIGTERM]),
        (EndedBy.RUN, signal.SIGTERM, [signal.SIGTERM]),
        (EndedBy.INTERRUPT, signal.SIGINT, [signal.SIGINT]),
        (EndedBy.INTERRUPT, signal.SIGTERM, [signal.SIGINT, signal.SIGTERM]),
    ],
)
async def test_program_is_asked_before_it_is_killed(
    lab: Lab,
    hosts: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    by: EndedBy,
    ends_at: signal.Signals,
    told: list[signal.Signals],
) -> None:
    # one that is not to answer need not be waited for long
    both = (signal.SIGINT, signal.SIGTERM)
    graces = {number: WITHIN_S if number == ends_at else 0.3 for number in both}
    monkeypatch.setattr(module, "_GRACE_S", graces)
    argv = (sys.executable, "-c", TOLD, str(ends_at.value))
    async with started(lab, hosts, *argv) as (program, said):
        assert await said.line() == "up"
        ending = asyncio.create_task(program.end(by))
        assert [await said.line() for _ in told] == [str(number.value) for number in told]
        assert not await ending
    account = program.account()
    assert (account["exit_status"], account["ended_by"]) == (4, by.value)


@pytest.mark.namespaces
async def test_program_that_will_not_end_is_killed(
    lab: Lab, hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE_S", {signal.SIGINT: 0.1, signal.SIGTERM: 0.1})
    async with started(lab, hosts, sys.executable, "-c", STUBBORN) as (program, said):
        assert await said.line() == "up"
        assert await program.end(EndedBy.INTERRUPT)
    assert program.account()["exit_status"] == 128 + signal.SIGKILL


@pytest.mark.namespaces
async def test_ending_a_program_ends_its_whole_process_group(lab: Lab, hosts: Path) -> None:
    script = "sleep 1000 & echo $!; wait"
    async with started(lab, hosts, "sh", "-c", script) as (program, said):
        child = int(await said.line())
        assert not await program.end(EndedBy.DURATION)
        await until_gone(child)
    assert program.account()["exit_status"] == 128 + signal.SIGTERM


@pytest.mark.namespaces
@pytest.mark.parametrize("started_by", ["", "setsid ", "setsid sh -c 'sleep 1000 & wait' & "])
async def test_what_a_program_leaves_running_is_ended(
    lab: Lab, hosts: Path, started_by: str
) -> None:
    script = f"{started_by}sleep 1000 & echo $!; exit 3"
    async with started(lab, hosts, "sh", "-c", script) as (program, said):
        child = int(await said.line())
        await ended(program)
        assert not runs(child)
    account = program.account()
    assert (account["exit_status"], account["ended_by"]) == (3, "itself")


@pytest.mark.namespaces
@pytest.mark.parametrize("session", ["", "setsid "])
async def test_what_a_program_leaves_running_is_asked_before_it_is_killed(
    lab: Lab, hosts: Path, session: str
) -> None:
    argv = (sys.executable, "-c", LEAVES, TOLD, *session.split())
    async with started(lab, hosts, *argv) as (program, said):
        assert await said.line() == "up"
        assert await said.line() == "15"
        await ended(program)
    assert program.account()["exit_status"] == 0


@pytest.mark.namespaces
@pytest.mark.parametrize("session", ["", "setsid "])
async def test_what_will_not_end_is_killed_when_the_grace_is_over(
    lab: Lab, hosts: Path, monkeypatch: pytest.MonkeyPatch, session: str
) -> None:
    monkeypatch.setattr(module, "_GRACE_S", {signal.SIGINT: 0.1, signal.SIGTERM: 0.1})
    script = f'{session}"$@" & echo $!; wait'
    argv = ("sh", "-c", script, "sh", sys.executable, "-c", STUBBORN)
    async with started(lab, hosts, *argv) as (program, said):
        child = int(await said.line())
        assert await said.line() == "up"
        assert await program.end(EndedBy.DURATION)
        assert not runs(child)
    assert program.account()["exit_status"] == 128 + signal.SIGTERM


@pytest.mark.namespaces
async def test_processor_time_of_a_child_that_nobody_waited_for_is_counted(
    lab: Lab, hosts: Path
) -> None:
    busy = (
        "import time\nwhile time.process_time() < 0.3: pass\n"
        "print('up', flush=True)\nwhile True: time.sleep(1)"
    )
    script = f'{sys.executable} -c "{busy}"; true'
    async with started(lab, hosts, "sh", "-c", script) as (program, said):
        assert await said.line() == "up"
        assert not await program.end(EndedBy.DURATION)
    assert program.account()["exit_status"] == 128 + signal.SIGTERM
    assert program.account()["cpu_s"] >= 0.3


@pytest.mark.namespaces
async def test_program_that_cannot_be_brought_onto_its_host_is_no_program_that_failed(
    lab: Lab, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match="cannot run true: /etc/hosts: No such file"):
        async with started(lab, tmp_path / "missing", "true"):
            pass


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("first_line", "status", "why"),
    [("#!/no/such/shell", 127, "No such file"), ("\0", 126, "Exec format error")],
)
async def test_program_that_the_kernel_does_not_run_is_told_as_a_shell_does(
    lab: Lab, hosts: Path, tmp_path: Path, *, first_line: str, status: int, why: str
) -> None:
    file = tmp_path / "odd"
    file.write_text(first_line)
    file.chmod(0o755)
    with pytest.raises(NoProgramError, match=f"odd: {why}") as caught:
        async with started(lab, hosts, str(file)):
            pass
    assert caught.value.exit_status == status


@pytest.mark.namespaces
async def test_program_knows_of_no_proxy(
    lab: Lab, hosts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "all_proxy", "no_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with started(lab, hosts, "sh", "-c", "env | grep -i _proxy= | xargs") as (_, said):
        assert sorted((await said.line()).split()) == ["NO_PROXY=*", "no_proxy=*"]


@pytest.mark.namespaces
async def test_program_that_has_ended_cannot_be_ended_again(lab: Lab, hosts: Path) -> None:
    async with started(lab, hosts, "true") as (program, _):
        await ended(program)
        assert not await program.end(EndedBy.DURATION)
    assert program.account()["ended_by"] == "itself"


async def test_program_that_was_never_started_has_nothing_to_end() -> None:
    program = Program(["true"])
    assert not await program.end(EndedBy.RUN)
    await program.kill()


def test_program_that_is_not_there_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    no_program = tmp_path / "no-program"
    no_program.touch(mode=0o644)
    for name, why, status in (
        ("no-such-program-anywhere", "there is no such program", 127),
        ("./nothing", "there is no such program", 127),
        (str(no_program), "permission denied", 126),
        ("no-program", "permission denied", 126),
        ("/", "permission denied", 126),
    ):
        with pytest.raises(NoProgramError) as caught:
            Program([name, "-x"])
        assert (str(caught.value), caught.value.exit_status) == (
            f"cannot run {name}: {why}",
            status,
        )


# where programs find what they are to ask


def scenario(**tables: object) -> Scenario:
    load = {"concurrency": 1, "duration_s": 1}
    return build_scenario({"name": "exec", "load": load, **tables}, source="test")


def test_urls_are_those_of_the_server_and_of_every_site_with_its_port() -> None:
    asked = scenario(web={"sites": 3}, lab={"server": {"ports": [8080, 8081]}})
    assert urls(asked, lab_plan(asked)) == {
        "TWBENCH_URL": "http://server.test:8080/",
        "TWBENCH_SITES": (
            "http://site-1.test:8080/ http://site-2.test:8081/ http://site-3.test:8080/"
        ),
    }


def test_without_sites_every_port_of_the_server_is_one() -> None:
    asked = scenario(lab={"server": {"ports": [8080, 8081], "addresses": 2}})
    assert urls(asked, lab_plan(asked))["TWBENCH_SITES"] == (
        "http://server.test:8080/ http://server.test:8081/"
    )


def test_scenario_without_a_host_for_the_program_is_refused_with_every_reason() -> None:
    with pytest.raises(ScenarioError, match="'host'; a program finds the server by its name"):
        check_program(scenario(lab={"link": "host"}))
    with pytest.raises(ScenarioError, match="allowed is 1"):
        check_program(scenario(lab={"client": {"hosts": 2}}))
    check_program(scenario())
