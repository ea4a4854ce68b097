"""Openers that reach into the network namespace of another process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from twbench.kernel.process import open_file_of, open_socket_of
from twbench.model.errors import LabError, UsageError


def namespace_of(fd_or_pid: str) -> str:
    return str(Path(f"/proc/{fd_or_pid}/ns/net").readlink())


@pytest.mark.namespaces
def test_files_and_sockets_are_those_of_the_other_namespace(pid: int) -> None:
    assert namespace_of(str(pid)) != namespace_of("self")
    fd = open_file_of(pid)("/proc/net/dev")
    try:
        interfaces = os.read(fd, 65536).decode()
    finally:
        os.close(fd)
    assert [line.split(":")[0].strip() for line in interfaces.splitlines()[2:]] == ["lo"]
    with open_socket_of(pid)(socket.AF_INET, socket.SOCK_STREAM, 0) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        table = Path(f"/proc/{pid}/net/tcp").read_text()
        assert f":{listener.getsockname()[1]:04X}" in table
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener.getsockname(), timeout=5)


@pytest.mark.namespaces
def test_opening_leaves_the_caller_where_it_was(pid: int) -> None:
    before = namespace_of("thread-self")
    open_socket_of(pid)(socket.AF_INET, socket.SOCK_STREAM, 0).close()
    assert namespace_of("thread-self") == before


def test_own_namespace_needs_no_entering() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        open_socket_of(os.getpid())(socket.AF_INET, socket.SOCK_STREAM, 0) as client,
    ):
        client.connect(listener.getsockname())


def test_process_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no process"):
        open_file_of(2**31 - 1)


def test_process_that_has_ended_is_a_usage_error() -> None:
    with subprocess.Popen(["true"]) as program:
        opener = open_socket_of(program.pid)
    with pytest.raises(UsageError, match="no process"):
        opener(socket.AF_INET, socket.SOCK_STREAM, 0)


@pytest.mark.namespaces
def test_closed_namespace_is_one_clear_error() -> None:
    # Not dumpable and never executed anew: even its own user may not look into it.
    script = (
        "import ctypes, sys; libc = ctypes.CDLL(None);"
        "failed = libc.unshare(0x50000000) or libc.prctl(4, 0);"
        "print(failed, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"0\n"
        # Root may enter every namespace, so a child without its privileges tries.
        child = os.fork()
        if not child:
            os._exit(tried_without_privileges(holder.pid))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        holder.kill()


def tried_without_privileges(pid: int) -> int:
    if not os.geteuid():
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
    try:
        open_socket_of(pid)(socket.AF_INET, socket.SOCK_STREAM, 0)
    except LabError as error:
        return 0 if "closed to this user" in str(error) else 2
    except BaseException:  # noqa: BLE001 - a forked child must not return into the tests
        return 3
    return 1
