"""The server's process: a plan comes in, it listens or says why not, and reports go out."""

import contextlib
import functools
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from twbench.model.crawling import Web
from twbench.model.plans import ServerPlan
from twbench.model.reports import ServerReport
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.model.sites import Sites
from twbench.server.uring import NEEDED
from twbench.uring.probe import Abilities, probe

ROOT = Path(__file__).resolve().parent.parent.parent
MODULE = ("-m", "twbench.server.worker")
WITHOUT_UVLOOP = (
    "-c",
    "import sys; sys.modules['uvloop'] = None\nfrom twbench.server.worker import main\nmain()",
)
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
Start = Callable[..., "Worker"]


class Worker:
    """A server's process and what it has said."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.total = ServerReport()

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        message: dict[str, Any] = json.loads(line) if line else {}
        if message.keys().isdisjoint(("ready", "failed", "done")):
            self.total.add(ServerReport.from_json(message))
        return message

    def hear_until(self, enough: Callable[[ServerReport], bool]) -> None:
        end_s = time.monotonic() + 5
        while not enough(self.total):
            assert self.hear()
            assert time.monotonic() < end_s, self.total


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a server's process with these arguments and a plan."""
    workers: list[Worker] = []

    def make(
        plan: ServerPlan, *arguments: str, preexec_fn: Callable[[], None] | None = None
    ) -> Worker:
        process = subprocess.Popen(
            [sys.executable, *(arguments or MODULE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            preexec_fn=preexec_fn,  # noqa: PLW1509 - a limit, set before any thread
        )
        workers.append(Worker(process))
        workers[-1].say(plan.as_line())
        return workers[-1]

    yield make
    for worker in workers:
        worker.process.kill()
        with worker.process:
            pass


@functools.cache
def abilities() -> Abilities:
    return probe()


@pytest.fixture(params=["streams", "uring"])
def engine(request: pytest.FixtureRequest) -> str:
    """Give one engine after the other; a machine that refuses io_uring is expected to."""
    if request.param == "uring":
        if reason := abilities().refusal:
            pytest.xfail(reason)
        if reason := abilities().why_not(NEEDED):
            pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def port() -> Iterator[int]:
    """Give a port that only sockets with SO_REUSEPORT can take while the test runs."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def plan_of(*ports: int, ending: str = "server-fin", **server: object) -> ServerPlan:
    return ServerPlan(
        server=ServerSpec.model_validate(server),
        ending=EndingSpec(kind=ending),
        family="ipv4",
        endpoints=tuple(("127.0.0.1", each) for each in ports),
    )


def fetch(port: int, path: str = "/", *, host: str = "x") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        while piece := sock.recv(65536):
            answer += piece
        return bytes(answer)


@pytest.mark.parametrize(("arguments", "loop"), [(MODULE, "uvloop"), (WITHOUT_UVLOOP, "asyncio")])
def test_server_serves_and_reports_and_stops(
    arguments: tuple[str, ...], loop: str, engine: str, start: Start, port: int
) -> None:
    worker = start(plan_of(port, engine=engine), *arguments)
    why = "the scenario asks for it"
    assert worker.hear() == {"ready": {"engine": engine, "loop": loop, "why": why}}
    for _ in range(5):
        assert fetch(port).startswith(b"HTTP/1.1 200 OK\r\n")
    worker.hear_until(lambda total: total.departures.total() == 5)
    worker.say(b"stop\n")
    while "done" not in worker.hear():
        pass
    assert worker.hear() == {}
    assert worker.process.wait(5) == 0
    assert (worker.total.accepted, worker.total.requests) == (5, 5)
    assert worker.total.departures == {"active_close": 5}


def test_server_of_sites_plays_them_and_counts_its_redirects(start: Start, port: int) -> None:
    web = Web(sites=2, pages=40, redirects=0.5)
    sites = Sites(web, median_bytes=300, seed=9)
    plan = plan_of(port, response_bytes=300).model_copy(update={"web": web, "seed": 9})
    worker = start(plan)
    why = "sites are played one by one"
    assert worker.hear() == {"ready": {"engine": "streams", "loop": "uvloop", "why": why}}
    redirects = 0
    for number in range(20):
        answer = fetch(port, f"/{number}", host="site-2.test")
        goal = sites.page(1, number).redirects_to
        if goal is None:
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert len(answer.partition(b"\r\n\r\n")[2]) == 300
        else:
            assert answer.startswith(b"HTTP/1.1 302 Found\r\n")
            assert b"\r\nLocation: /%d\r\n" % goal in answer
            redirects += 1
    worker.hear_until(lambda total: total.departures.total() == 20)
    assert (worker.total.requests, worker.total.redirected) == (20, redirects)
    assert redirects


def test_best_engine_is_chosen_and_the_reason_told(start: Start, port: int) -> None:
    ready = start(plan_of(port)).hear()["ready"]
    lacking = abilities().why_not(NEEDED)
    assert ready["engine"] == ("streams" if lacking else "uring")
    assert ready["why"] == (lacking or "the kernel has io_uring")


@pytest.mark.parametrize("ending", ["server-unread", "crash"])
def test_ring_that_does_not_fit_is_refused_where_it_is_insisted_on(
    ending: str, start: Start, port: int
) -> None:
    worker = start(plan_of(port, ending=ending, engine="uring"))
    assert worker.hear() == {
        "failed": f"the ending '{ending}' takes sockets that are never read",
        "error": "uring",
    }
    assert worker.process.wait(5) == 0
    assert start(plan_of(port, ending=ending)).hear()["ready"]["engine"] == "streams"


@pytest.mark.parametrize(("engine", "told"), [("uring", "failed"), ("auto", "ready")])
def test_want_of_descriptors_for_a_ring_is_told(
    engine: str, told: str, start: Start, port: int
) -> None:
    if reason := abilities().why_not(NEEDED):
        pytest.xfail(reason)
    worker = start(
        plan_of(port, engine=engine),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)),
    )
    message = worker.hear()
    assert told in message
    assert "60 descriptors (RLIMIT_NOFILE) are too few" in json.dumps(message)


def test_killed_server_leaves_no_socket(engine: str, start: Start, port: int) -> None:
    worker = start(plan_of(port, engine=engine, ending="client-fin"))
    assert "ready" in worker.hear()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.sendall(LAST)
        assert sock.recv(65536)
        worker.process.kill()
        worker.process.wait(5)
        assert sock.recv(65536) == b""
    end_s = time.monotonic() + 20
    listening = ["ss", "-Hltn", "sport", "=", f":{port}"]
    while subprocess.run(listening, capture_output=True, check=True).stdout:
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_stopped_ring_has_booked_the_connections_that_sent_nothing(
    engine: str, start: Start, port: int
) -> None:
    worker = start(plan_of(port, engine=engine))
    assert "ready" in worker.hear()
    silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(5)]
    assert fetch(port)
    worker.say(b"stop\n")
    while "done" not in worker.hear():
        pass
    assert (worker.total.accepted, worker.total.requests) == (6, 1)
    assert worker.total.departures == {"active_close": 1}
    for sock in silent:
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        sock.close()


def test_server_ends_with_its_input(engine: str, start: Start, port: int) -> None:
    worker = start(plan_of(port, engine=engine))
    assert "ready" in worker.hear()
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    while "done" not in worker.hear():
        pass
    assert worker.process.wait(5) == 0


def test_server_leaves_ctrl_c_to_its_parent(engine: str, start: Start, port: int) -> None:
    worker = start(plan_of(port, engine=engine))
    assert "ready" in worker.hear()
    worker.process.send_signal(signal.SIGINT)
    assert fetch(port)


def test_server_listens_on_every_endpoint(engine: str, start: Start, port: int) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        second = held.getsockname()[1]
        worker = start(plan_of(port, second, engine=engine))
        assert "ready" in worker.hear()
        assert fetch(port)
        assert fetch(second)


def test_processes_share_a_port(engine: str, start: Start, port: int) -> None:
    workers = [start(plan_of(port, engine=engine)) for _ in range(2)]
    for worker in workers:
        assert "ready" in worker.hear()
    for _ in range(40):
        assert fetch(port)
    for worker in workers:
        worker.hear_until(lambda total: total.accepted > 0)
        worker.say(b"stop\n")
        while "done" not in worker.hear():
            pass
    assert sum(worker.total.accepted for worker in workers) == 40


def test_taken_port_is_told_and_ends_the_process(engine: str, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = start(plan_of(port, engine=engine))
        why = f"cannot listen on 127.0.0.1 port {port}: EADDRINUSE"
        assert worker.hear() == {"failed": why, "error": "EADDRINUSE"}
        assert worker.process.wait(5) == 0


def test_address_that_is_not_local_is_told(start: Start) -> None:
    plan = plan_of(8080).model_copy(update={"endpoints": (("192.0.2.1", 8080),)})
    why = "cannot listen on 192.0.2.1 port 8080: EADDRNOTAVAIL"
    assert start(plan).hear() == {"failed": why, "error": "EADDRNOTAVAIL"}


@pytest.mark.parametrize("ending", ["server-unread", "crash"])
def test_abrupt_endings_are_served_too(ending: str, start: Start, port: int) -> None:
    worker = start(plan_of(port, ending=ending))
    assert "ready" in worker.hear()
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            fetch(port)
    worker.hear_until(lambda total: total.departures == {"active_reset": 3})


@pytest.mark.parametrize("ending", ["server-unread", "crash"])
@pytest.mark.parametrize(
    ("linger", "departure"), [(False, "passive_close"), (True, "reset_by_peer")]
)
def test_client_that_sends_no_request_is_booked_by_how_it_left(
    ending: str, linger: bool, departure: str, start: Start, port: int
) -> None:
    worker = start(plan_of(port, ending=ending))
    assert "ready" in worker.hear()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        worker.hear_until(lambda total: total.accepted == 1)
        if linger:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    worker.hear_until(lambda total: total.departures == {departure: 1})


@pytest.mark.parametrize("how", ["told", "killed"])
def test_processes_of_crash_end_with_their_server_however_it_ends(
    how: str, start: Start, port: int
) -> None:
    worker = start(plan_of(port, ending="crash"))
    assert "ready" in worker.hear()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as sock,
        socket.create_connection(("127.0.0.1", port), timeout=5) as other,
    ):
        worker.hear_until(lambda total: total.accepted == 2)
        assert len(psutil.Process(worker.process.pid).children()) == 2
        if how == "killed":
            worker.process.kill()
        else:
            worker.say(b"stop\n")
            while "done" not in worker.hear():
                pass
            assert worker.total.departures == {"active_close": 2}
        # the victims held no copy of its output, and their connections are closed
        assert worker.process.stdout is not None
        worker.process.stdout.read()
        assert sock.recv(1) == other.recv(1) == b""
        worker.process.wait(5)


def test_backlog_is_the_plans(engine: str, start: Start, port: int) -> None:
    worker = start(plan_of(port, backlog=7, engine=engine))
    assert "ready" in worker.hear()
    shown = subprocess.run(
        ["ss", "-Hltn", "sport", "=", f":{port}"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split()[2] == "7"


def test_want_of_descriptors_delays_and_does_not_lose_connections(start: Start, port: int) -> None:
    worker = start(
        plan_of(port, ending="server-unread"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)),
    )
    assert "ready" in worker.hear()
    silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(40)]
    worker.hear_until(lambda total: total.not_accepted > 0)
    for sock in silent:
        sock.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        sock.close()
    worker.hear_until(lambda total: total.departures == {"active_reset": 40})
    assert worker.total.accepted == 40


def test_server_without_a_parent_does_not_live_on(port: int) -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, *MODULE], stdin=reading, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        os.close(reading)
        os.write(writing, plan_of(port).as_line())
        assert process.stdout is not None
        assert b"ready" in process.stdout.readline()
        os.close(writing)
        process.stdout.close()
        process.wait(5)
