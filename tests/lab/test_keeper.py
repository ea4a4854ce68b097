"""The keeper: what dies with the lab's owner, in whatever way the owner dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from twbench.lab.keeper import processes_in
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan
from twbench.model.errors import LabError

pytestmark = pytest.mark.namespaces

DEADLINE_S = 10.0
OWNER = """
import json, os, subprocess, sys, time
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan

with Lab(LabPlan(client_hosts=2)) as lab:
    shells = []
    for host in lab.hosts:
        argv, descriptors = lab.command(host, ["sh", "-c", "sleep 1000 & echo $!; wait"])
        shells.append(subprocess.Popen(argv, pass_fds=descriptors, stdout=subprocess.PIPE))
    sleepers = [int(shell.stdout.readline()) for shell in shells]
    if "stop" in sys.argv:
        argv, descriptors = lab.command("server", ["sh", "-c", "trap '' TERM INT; sleep 1000"])
        shells.append(subprocess.Popen(argv, pass_fds=descriptors, start_new_session=True))
    held = lab.socket("server", 2, 1)
    held.listen()
    forked = os.fork() if "fork" in sys.argv else 0
    if "fork" in sys.argv and forked == 0:
        time.sleep(1000)
    print(json.dumps({
        "keeper": lab._keeper.pid,
        "children": [shell.pid for shell in shells],
        "sleepers": sleepers,
        "forked": forked,
        "inodes": [os.fstat(lab.network(stack)).st_ino for stack in lab.stacks],
    }), flush=True)
    time.sleep(1000)
"""


def gone(process: int) -> bool:
    """Say whether a process is no more, or a zombie nobody has collected yet."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def owner(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Start a program that owns a lab with programs in it; yield it and what it made."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", OWNER, *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        made: dict[str, Any] = {}
        try:
            assert program.stdout is not None
            made = json.loads(program.stdout.readline())
            yield program, made
        finally:
            program.kill()
            for left in (*made.get("children", ()), *made.get("sleepers", ())):
                if not gone(left):
                    os.kill(left, signal.SIGKILL)


def inodes_in_use() -> set[int]:
    """Return the network namespaces of all processes that may be looked at."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found.add((entry / "ns/net").stat().st_ino)
            except OSError:
                continue
    return found


def test_kill_9_of_the_owner_leaves_no_process_no_namespace_and_no_link() -> None:
    links = socket.if_nameindex()
    with owner("stop") as (program, made):
        family = [made["keeper"], *made["children"], *made["sleepers"]]
        assert not any(gone(process) for process in family)
        assert set(made["inodes"]) <= inodes_in_use()
        program.kill()
        program.wait()
        assert wait_until(lambda: all(gone(process) for process in family))
    assert not set(made["inodes"]) & inodes_in_use()
    assert socket.if_nameindex() == links


def test_a_forked_copy_of_the_owner_does_not_keep_the_lab_alive() -> None:
    with owner("fork") as (program, made):
        family = [made["keeper"], *made["children"], *made["sleepers"]]
        try:
            program.kill()
            program.wait()
            assert wait_until(lambda: all(gone(process) for process in family))
            assert not gone(made["forked"])
        finally:
            os.kill(made["forked"], signal.SIGKILL)
            assert wait_until(lambda: gone(made["forked"]))


def test_an_interrupted_owner_leaves_nothing() -> None:
    with owner() as (program, made):
        program.send_signal(signal.SIGTERM)
        program.wait()
        family = [made["keeper"], *made["children"], *made["sleepers"]]
        assert wait_until(lambda: all(gone(process) for process in family))


def test_a_keeper_killed_from_outside_is_a_lab_error() -> None:
    lab = Lab(LabPlan())
    lab.__enter__()
    keeper = lab._keeper  # noqa: SLF001 - the process to kill has no public name
    assert keeper is not None
    keeper.kill()
    keeper.wait()
    with pytest.raises(LabError, match="keeper has ended"):
        lab.open("server", "/proc/net/snmp")
    with pytest.raises(LabError, match="keeper has ended"):
        lab.__exit__(None, None, None)


def test_only_processes_inside_the_given_namespaces_are_found() -> None:
    with Lab(LabPlan()) as lab:
        network = lab.network("client")
        assert network is not None
        argv, descriptors = lab.command("client", ["sh", "-c", "echo in; exec sleep 1000"])
        with subprocess.Popen(argv, pass_fds=descriptors, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"in\n"
            inode = os.fstat(network).st_ino
            assert processes_in([inode], spare=[]) == [child.pid]
            assert processes_in([inode], spare=[child.pid]) == []
            assert processes_in([0], spare=[]) == []
            child.kill()
