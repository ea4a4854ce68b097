"""`twbench watch`: the sampler alone."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from twbench.kernel.process import open_socket_of

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]


ASSUMED = "! local ports: the kernel's default range is assumed, 32768-60999\n"
FEW_PORTS = "echo 40000 40009 >/proc/sys/net/ipv4/ip_local_port_range; ip link set lo up"
CONNECTED = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 8080))
held = socket.create_connection(("127.0.0.1", 8080))
elsewhere = socket.create_connection(("127.0.0.1", 8080), source_address=("127.0.0.1", 50000))
for each in (listener, held, elsewhere):
    each.set_inheritable(True)
os.execvp(sys.argv[1], [word.replace("SELF", str(os.getpid())) for word in sys.argv[1:]])
"""


@pytest.mark.namespaces
@pytest.mark.parametrize("whose", [(), ("--pid", "SELF")], ids=["here", "a process of ours"])
def test_ports_in_use_are_those_of_the_range_that_is_set_here(
    twbench: Twbench, whose: tuple[str, ...]
) -> None:
    script = f'{FEW_PORTS}; exec "$@"'
    python = (sys.executable, "-c", CONNECTED)
    inside = ("unshare", "-Urn", "sh", "-c", script, "sh", *python)
    done = twbench("watch", *whose, "--seconds", "0.5", "--json", before=inside)
    assert (done.returncode, done.stderr) == (0, "")
    looks = [look for look in map(json.loads, done.stdout.splitlines()) if "ports_in_use" in look]
    assert [look["ports_in_use"] for look in looks] == [{"127.0.0.1:8080": 1}]


def test_json_has_a_line_for_each_tick_and_look(twbench: Twbench) -> None:
    done = twbench("watch", "--seconds", "1", "--looks-per-s", "5", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ticks = [line for line in lines if "sockstat" in line]
    looks = [line for line in lines if "states_by_side" in line]
    assert len(ticks) + len(looks) == len(lines)
    assert len(ticks) == pytest.approx(10, abs=3)
    assert len(looks) == pytest.approx(5, abs=2)
    times = [tick["t_s"] for tick in ticks]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] < 1.1


@pytest.mark.namespaces
def test_namespace_of_another_process_is_watched_and_no_other(
    twbench: Twbench, elsewhere: int
) -> None:
    reach = open_socket_of(elsewhere)
    with (
        reach(socket.AF_INET, socket.SOCK_STREAM, 0) as listener,
        reach(socket.AF_INET, socket.SOCK_STREAM, 0) as client,
    ):
        listener.bind(("127.0.0.1", 8080))
        listener.listen()
        client.connect(("127.0.0.1", 8080))
        accepted, _ = listener.accept()
        client.close()
        accepted.close()
        done = twbench("watch", "--pid", str(elsewhere), "--seconds", "0.5", "--json")
    assert (done.returncode, done.stderr) == (0, ASSUMED)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (look,) = [line for line in lines if "states_by_side" in line]
    assert look["states_by_side"] == {"client": {"TIME_WAIT": 1}, "server": {}}
    assert look["ports_in_use"] == {"127.0.0.1:8080": 1}
    assert look["listening"] == 1


@pytest.mark.namespaces
def test_plain_lines_come_once_a_look_until_interrupted(start: Start, elsewhere: int) -> None:
    arguments = ("--pid", str(elsewhere), "--looks-per-s", "10", "--plain")
    process = start("watch", *arguments)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=10)
    assert (process.returncode, complaint) == (0, ASSUMED)
    assert all(re.fullmatch(r" +\d+\.\d s  no sockets\n", line) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pid", "2147483647"), "no process"),
        (("--seconds", "0"), "--seconds"),
        (("--looks-per-s", "1000"), "--looks-per-s"),
    ],
)
def test_mistake_in_the_arguments_is_told(
    twbench: Twbench, arguments: tuple[str, ...], said: str
) -> None:
    done = twbench("watch", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
