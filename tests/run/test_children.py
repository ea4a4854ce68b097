"""The processes of a run: ready or refused, heard line by line, and never left behind."""

import asyncio
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from twbench.lab.lab import Lab
from twbench.lab.names import hosts_text
from twbench.lab.plan import LabPlan, Link
from twbench.model.errors import LabError
from twbench.model.plans import ServerPlan
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.process.listening import listen
from twbench.run import children
from twbench.run.children import Child, Message, refuse_taken_endpoints

SERVER = "twbench.server.worker"
Script = Callable[[str], int]
READY = 'import json, sys, time; print(json.dumps({"ready": {"pid": 0}}), flush=True)\n'


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabPlan(link=Link.HOST)) as lab:
        yield lab


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Return what writes the module `scripted`, which children can be told to run."""
    monkeypatch.syspath_prepend(tmp_path)
    return (tmp_path / "scripted.py").write_text


class Heard(list[Message]):
    def hear(self, _: Child, message: Message) -> None:
        self.append(message)


@asynccontextmanager
async def started(lab: Lab, heard: Heard, name: str = "scripted") -> AsyncIterator[Child]:
    child = Child("a process", "server", heard.hear)
    try:
        await child.start(lab, name, b"plan\n")
        yield child
    finally:
        child.kill()
        await child.finish(within_s=5)


def listening_on(port: int) -> bytes:
    return ServerPlan(
        server=ServerSpec(),
        ending=EndingSpec(),
        family="ipv4",
        endpoints=(("127.0.0.1", port),),
    ).as_line()


async def test_server_says_what_it_runs_on_and_ends_in_order_when_told(lab: Lab) -> None:
    heard = Heard()
    child = Child("the server", "server", heard.hear)
    ready = await child.start(lab, SERVER, listening_on(0))
    assert ready["engine"] in {"streams", "uring"}
    assert ready["loop"] in {"asyncio", "uvloop"}
    await child.say(b"stop\n")
    await child.finish(within_s=5)
    assert child.done
    assert child.ended.result() == 0
    assert child.complaint == ""
    assert "t_ns" in heard[-1]


async def test_taken_port_is_refused_with_its_name_and_a_remedy(lab: Lab) -> None:
    child = Child("the server", "server", Heard().hear)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        expected = rf"the server: cannot listen on 127\.0\.0\.1 port {port}: EADDRINUSE"
        with pytest.raises(LabError, match=expected) as caught:
            await child.start(lab, SERVER, listening_on(port))
    assert "another port" in caught.value.remedy
    await child.finish(within_s=5)


def test_endpoint_that_could_be_shared_is_refused_all_the_same() -> None:
    with listen(("127.0.0.1", 0), family="ipv4", backlog=1) as taken:
        plan = ServerPlan.from_line(listening_on(taken.getsockname()[1]))
        with pytest.raises(LabError, match=r"^cannot listen on .*: EADDRINUSE") as caught:
            refuse_taken_endpoints(plan)
    assert "another port" in caught.value.remedy
    refuse_taken_endpoints(plan)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("EADDRINUSE", "end what listens there"),
        ("EACCES", "net.ipv4.ip_unprivileged_port_start"),
        ("EADDRNOTAVAIL", "an address that this machine has"),
        ("ENOBUFS", "run `twbench doctor`"),
    ],
)
async def test_remedy_fits_the_refusal(lab: Lab, script: Script, error: str, remedy: str) -> None:
    script(f"import json; print(json.dumps({{'failed': 'no', 'error': '{error}'}}))")
    child = Child("the server", "server", Heard().hear)
    with pytest.raises(LabError, match="the server: no") as caught:
        await child.start(lab, "scripted", b"plan\n")
    assert remedy in caught.value.remedy
    await child.finish(within_s=5)


async def test_process_that_ends_before_it_is_ready_is_told_with_its_last_words(
    lab: Lab, script: Script
) -> None:
    script("raise SystemExit('no disk, no cheese')")
    child = Child("the worker", "client", Heard().hear)
    with pytest.raises(LabError, match="the worker ended at once: no disk, no cheese"):
        await child.start(lab, "scripted", b"plan\n")
    assert await child.ended == 1


async def test_process_that_never_gets_ready_is_refused(
    lab: Lab, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_READY_WITHIN_S", 0.3)
    script("import time; time.sleep(1000)")
    child = Child("the worker", "client", Heard().hear)
    with pytest.raises(LabError, match=r"the worker was not ready within 0\.3 s"):
        await child.start(lab, "scripted", b"plan\n")
    await child.finish(within_s=0)
    assert child.ended.result() == -9


async def test_plan_goes_in_and_messages_come_out_in_order(lab: Lab, script: Script) -> None:
    script(
        READY + "for i in range(1000): print(json.dumps({'i': i, 'plan': sys.stdin.isatty()}))\n"
        "print(json.dumps({'said': sys.stdin.readline()}))\n"
        "print(json.dumps({'done': True}))\n"
    )
    heard = Heard()
    async with started(lab, heard) as child:
        await child.finish(within_s=10)
        assert [message["i"] for message in heard[:-1]] == list(range(1000))
        assert heard[-1] == {"said": "plan\n"}
        assert child.done


async def test_process_that_is_killed_is_not_done(lab: Lab, script: Script) -> None:
    script(READY + "time.sleep(1000)")
    async with started(lab, Heard()) as child:
        child.kill()
        await child.finish(within_s=5)
        assert not child.done
        assert child.ended.result() == -9


async def test_line_cut_off_by_a_kill_is_left_out(lab: Lab, script: Script) -> None:
    script(
        READY + "print('{\"i\": 1}', flush=True)\n"
        "print('{\"i\": 2, \"cut', end='', flush=True)\n"
        "import os; os.kill(os.getpid(), 9)"
    )
    heard = Heard()
    async with started(lab, heard) as child:
        assert await child.ended == -9
        assert heard == [{"i": 1}]


async def test_last_words_are_kept_up_to_a_limit(lab: Lab, script: Script) -> None:
    script(READY + "sys.stderr.write('x' * 100_000 + 'the end'); sys.exit(3)")
    async with started(lab, Heard()) as child:
        assert await child.ended == 3
        assert child.complaint.endswith("the end")
        assert len(child.complaint) == 4000


async def test_last_words_beyond_the_limit_take_no_memory(lab: Lab, script: Script) -> None:
    script(READY + "for _ in range(640): sys.stderr.write('x' * 100_000)")
    tracemalloc.start()
    try:
        async with started(lab, Heard()) as child:
            assert await child.ended == 0
            assert tracemalloc.get_traced_memory()[1] < 32_000_000
            assert child.complaint == "x" * 4000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("write", "cause"),
    [
        ("print('no json at all')", "no json at all"),
        ("print('[1, 2]')", "no JSON object, of the line [1, 2]"),
        ("sys.stdout.buffer.write(bytes([0xff, 10]))", "UnicodeDecodeError"),
        ("print('y' * (5 << 20))", f"a line longer than {1 << 22} bytes: {'y' * 200}"),
        ("print('y' * (50 << 20), end='')", f"a line longer than {1 << 22} bytes: {'y' * 200}"),
        ("print(json.dumps({'bad': 'z' * 100_000}))", "KeyError: 't_ns', of the line"),
    ],
)
async def test_process_that_says_what_cannot_be_heard_is_ended_and_the_line_told(
    lab: Lab, script: Script, write: str, cause: str
) -> None:
    script(
        READY + "print('{\"t_ns\": 1}')\nprint('{\"done\": true}')\n"
        "sys.stderr.write('a warning')\n" + write + "\nsys.stdout.flush()\n"
        "while True: print('{\"t_ns\": 2}')"
    )
    heard: list[int] = []

    def hear(_: Child, message: Message) -> None:
        heard.append(message["t_ns"])

    child = Child("the worker", "client", hear)
    await child.start(lab, "scripted", b"plan\n")
    try:
        assert await asyncio.wait_for(asyncio.shield(child.ended), 30) == -9
    finally:
        child.kill()
    assert heard == [1]
    assert not child.done
    assert cause in child.complaint.splitlines()[-1]
    assert len(child.complaint) < 500


async def test_first_line_that_is_no_message_is_a_refusal_with_the_line(
    lab: Lab, script: Script
) -> None:
    script("import time; print('what plan?', flush=True); time.sleep(1000)")
    child = Child("the worker", "client", Heard().hear)
    with pytest.raises(LabError, match=r"the worker ended at once: .*what plan\?"):
        await child.start(lab, "scripted", b"plan\n")
    assert await child.ended == -9


async def test_saying_something_to_a_process_that_has_ended_is_no_error(
    lab: Lab, script: Script
) -> None:
    script(READY)
    async with started(lab, Heard()) as child:
        await child.ended
        await child.say(b"stop\n")


async def test_process_that_will_not_end_is_killed_after_its_time(lab: Lab, script: Script) -> None:
    script(READY + "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)")
    async with started(lab, Heard()) as child:
        begun = asyncio.get_running_loop().time()
        await child.finish(within_s=0.3)
        assert 0.2 < asyncio.get_running_loop().time() - begun < 5
        assert child.ended.result() == -9


async def test_terminals_ctrl_c_does_not_reach_the_processes(lab: Lab, script: Script) -> None:
    script(READY.replace("0", "__import__('os').getpgid(0)"))
    child = Child("the worker", "client", Heard().hear)
    ready = await child.start(lab, "scripted", b"plan\n")
    await child.finish(within_s=5)
    assert ready["pid"] != os.getpgid(0)


@pytest.mark.namespaces
async def test_crawling_worker_has_names_of_its_own_and_no_rights_over_the_lab(
    script: Script, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(hosts_text({"site-1.test": "198.19.0.1"}))
    script(
        "import json, socket; from pathlib import Path\n"
        "status = dict(l.split(':', 1) for l in Path('/proc/self/status').open())\n"
        "at = socket.getaddrinfo('site-1.test', 80)[0][4][0]\n"
        "print(json.dumps({'ready': {'at': at, 'rights': int(status['CapEff'], 16) >> 12 & 1}}))\n"
    )
    with Lab(LabPlan()) as lab:
        child = Child("the worker", "client", Heard().hear)
        ready = await child.start(lab, "scripted", b"plan\n", hosts=hosts)
        await child.finish(within_s=5)
    assert ready == {"at": "198.19.0.1", "rights": 0}


async def test_process_that_was_never_started_has_nothing_to_finish() -> None:
    child = Child("the worker", "client", Heard().hear)
    assert not child.started
    await child.finish(within_s=0)
