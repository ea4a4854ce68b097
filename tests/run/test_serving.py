"""The bundled server alone, until Ctrl-C."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from twbench.model.errors import LabError
from twbench.model.plans import ServerPlan
from twbench.model.reports import ServerReport
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.run.serving import serve_alone


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as finder:
        port: int = finder.getsockname()[1]
        return port


def plan(port: int, kind: str = "server-fin") -> ServerPlan:
    return ServerPlan(
        server=ServerSpec(response_bytes=10),
        ending=EndingSpec(kind=kind),
        family="ipv4",
        endpoints=(("127.0.0.1", port),),
    )


def get(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        received = b""
        while chunk := connection.recv(4096):
            received += chunk
        return received


def serving(client: Callable[[], None]) -> Callable[[], None]:
    """Return what starts a client thread that interrupts this process when it is done."""

    def work() -> None:
        try:
            client()
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    return threading.Thread(target=work).start


@pytest.mark.parametrize("processes", [1, 2])
def test_serves_until_interrupted_and_returns_all_that_was_counted(processes: int) -> None:
    port = free_port()
    answers: list[bytes] = []
    told: list[int] = []

    def client() -> None:
        answers.extend(get(port) for _ in range(8))

    total = serve_alone(
        plan(port),
        processes=processes,
        ready=serving(client),
        tell=lambda counts: told.append(counts.accepted),
    )
    assert len(answers) == 8
    assert all(answer.endswith(b"\r\n\r\ntwbench se") for answer in answers)
    assert (total.accepted, total.requests) == (8, 8)
    assert dict(total.departures) == {"active_close": 8}
    assert told == sorted(told)
    assert told


def test_interrupt_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    serve_alone(plan(free_port()), processes=1, ready=serving(lambda: None), tell=_nobody)
    assert signal.getsignal(signal.SIGTERM) == before


def servers() -> list[psutil.Process]:
    """Return the server processes of this test, in the order of their start."""
    return sorted(psutil.Process().children(), key=lambda each: each.pid)


def test_process_that_was_killed_is_told_and_the_others_serve_on() -> None:
    port = free_port()
    warned: list[str] = []
    answers: list[bytes] = []

    def client() -> None:
        servers()[0].kill()
        limit_s = time.monotonic() + 10
        while not warned and time.monotonic() < limit_s:
            time.sleep(0.01)
        answers.append(get(port))

    serve_alone(plan(port), processes=2, ready=serving(client), tell=_nobody, warn=warned.append)
    assert warned == ["server process 1 ended with status -9"]
    assert answers[0].startswith(b"HTTP/1.1 200 OK")


def test_end_of_the_last_process_is_an_error() -> None:
    warned: list[str] = []

    def kill_all() -> None:
        for each in servers():
            each.kill()

    with pytest.raises(LabError, match="every server process has ended by itself"):
        serve_alone(
            plan(free_port()), processes=2, ready=kill_all, tell=_nobody, warn=warned.append
        )
    assert sorted(warned) == [f"server process {n} ended with status -9" for n in (1, 2)]


@pytest.mark.parametrize("reuse_port", [False, True])
def test_taken_port_is_refused_before_anybody_is_told_that_it_listens(reuse_port: bool) -> None:
    listening: list[bool] = []
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=reuse_port) as taken,
        pytest.raises(LabError, match="EADDRINUSE"),
    ):
        serve_alone(
            plan(taken.getsockname()[1]),
            processes=1,
            ready=lambda: listening.append(True),
            tell=_nobody,
        )
    assert not listening


def _nobody(_: ServerReport) -> None:
    """Be told, and do nothing."""
