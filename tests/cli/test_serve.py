"""`twbench serve`: the bundled server alone, endings on demand."""

import re
import signal
import socket
import subprocess
from collections.abc import Callable

import pytest

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as finder:
        port: int = finder.getsockname()[1]
        return port


def exchange(port: int, path: str) -> tuple[bytes, str]:
    """Return the answer to a request, and how the connection then ended: `fin` or `rst`."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            return received, "rst"
        return received, "fin"


def test_each_url_chooses_its_own_ending_until_interrupted(start: Start) -> None:
    port = free_port()
    process = start("serve", "--port", str(port), "--ending", "server-rst")
    assert process.stderr
    said = process.stderr.readline()
    assert said.startswith(f"listening on http://127.0.0.1:{port}/ with ending server-rst")
    assert exchange(port, "/")[1] == "rst"
    assert exchange(port, "/server-fin")[1] == "fin"
    answer, _ = exchange(port, "/server-half-close?bytes=100000&delay_ms=5")
    assert len(answer.partition(b"\r\n\r\n")[2]) == 100_000
    assert exchange(port, "/no-such-ending")[0].startswith(b"HTTP/1.1 404 ")
    process.send_signal(signal.SIGINT)
    output, said = process.communicate(timeout=10)
    assert (process.returncode, output) == (0, "")
    # the unknown ending leaves as usual, by a reset
    left = {"active close": "2", "active reset": "2"}
    last = said.splitlines()[-1]
    assert last.startswith("ended; accepted 4, requests 4, left: ")
    assert {how: n for n, how in re.findall(r"(\d+) (active \w+)", last)} == left


def test_address_that_others_can_reach_has_to_be_asked_for(twbench: Twbench) -> None:
    for address in ("0.0.0.0", "::"):
        done = twbench("serve", "--address", address)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--address: found '{address}'" in done.stderr
        assert "--expose" in done.stderr


@pytest.mark.namespaces
def test_exposed_server_listens_on_every_address(start: Start) -> None:
    apart = ("unshare", "--user", "--map-root-user", "--net")
    process = start("serve", "--address", "0.0.0.0", "--expose", before=apart)
    assert process.stderr
    assert process.stderr.readline().startswith("listening on http://0.0.0.0:8080/")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--address", "localhost"), "--address: found 'localhost'"),
        (("--ending", "bang"), "ending.kind: found 'bang'"),
        (("--port", "70000"), "lab.server.ports"),
        (("--processes", "0", "--delay-ms", "-1"), "2 problems"),
    ],
)
def test_mistake_in_the_arguments_is_told(
    twbench: Twbench, arguments: tuple[str, ...], said: str
) -> None:
    done = twbench("serve", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_taken_port_is_told_with_a_remedy(twbench: Twbench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = twbench("serve", "--port", str(port))
    assert (done.returncode, done.stdout) == (3, "")
    assert f"cannot listen on 127.0.0.1 port {port}: EADDRINUSE" in done.stderr
    assert "remedy: choose another port" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_of_crash_is_left_when_serve_ends(start: Start, number: signal.Signals) -> None:
    port = free_port()
    process = start("serve", "--port", str(port), "--ending", "crash", "--hold-s", "300")
    assert process.stderr
    process.stderr.readline()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        while "accepted 1," not in process.stderr.readline():
            pass
        process.send_signal(number)
        process.wait(10)
        assert connection.recv(1) == b""
    # nobody is left to listen, nor any copy of the listener
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_server_of_the_same_user_has_the_port_to_itself(start: Start, twbench: Twbench) -> None:
    port = free_port()
    process = start("serve", "--port", str(port))
    assert process.stderr
    process.stderr.readline()
    done = twbench("serve", "--port", str(port))
    assert done.returncode == 3
    assert f"cannot listen on 127.0.0.1 port {port}: EADDRINUSE" in done.stderr
