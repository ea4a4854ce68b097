"""Starting programs on a host through the shim."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from twbench.lab import enter
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link

HEAD = [sys.executable, "-I", "-S", enter.__file__, "--user", "-", "--net", "-"]


def run(*command: str, parent: int | None = None) -> subprocess.CompletedProcess[str]:
    starter = str(os.getpid() if parent is None else parent)
    return subprocess.run(
        [*HEAD, "--parent", starter, "--", *command], capture_output=True, text=True, check=False
    )


def test_a_command_keeps_its_arguments_and_exit_status() -> None:
    done = run("sh", "-c", 'echo "$0 $1"; exit 7', "two words", "--net")
    assert (done.returncode, done.stdout) == (7, "two words --net\n")


@pytest.mark.parametrize(("command", "status"), [("/nonexistent/x", 127), ("/", 126)])
def test_a_command_that_cannot_run_says_so_as_a_shell_would(command: str, status: int) -> None:
    done = run(command)
    assert done.returncode == status
    assert done.stderr.startswith(f"twbench: cannot run {command}: ")


def test_a_command_whose_starter_is_gone_already_does_not_start() -> None:
    done = run("echo", "started", parent=os.getppid())
    assert (done.returncode, done.stdout) == (125, "")


LOCKED = """
import ctypes
from pathlib import Path
from twbench.lab.enter import lock_sysctls, own_mounts
from twbench.lab.namespaces import own_user_namespace
own_user_namespace()
own_mounts()
mount = ctypes.CDLL(None, use_errno=True).mount
assert mount(b"none", b"/proc/sys/kernel/random", b"tmpfs", 0, None) == 0
assert mount(b"/proc/sys/net", b"/proc/sys/net", None, 0x1000, None) == 0
own_user_namespace()
own_mounts()
limit = Path("/proc/sys/net/ipv4/tcp_fin_timeout")
limit.write_text("7")
lock_sysctls()
try:
    limit.write_text("8")
except OSError as error:
    print(error.strerror)
print(limit.read_text().strip(), list(Path("/proc/sys/kernel/random").iterdir()))
"""


@pytest.mark.namespaces
def test_sysctls_are_locked_with_whatever_is_mounted_below_them() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOCKED],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("Read-only file system\n7 []\n", "")


def test_broken_pipes_kill_a_command_as_they_do_outside_python() -> None:
    ignored = int(run("sh", "-c", "grep SigIgn /proc/$$/status").stdout.split()[1], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1)
    assert not ignored & 1 << (signal.SIGXFSZ - 1)


@pytest.mark.namespaces
def test_a_command_is_in_its_hosts_namespace_and_holds_no_descriptor_of_it() -> None:
    with Lab(LabPlan(client_hosts=2)) as lab:
        for host in lab.hosts.values():
            network = lab.network(host.stack)
            assert network is not None
            argv, descriptors = lab.command(
                host.name, ["sh", "-c", "stat -L -c %i /proc/self/ns/net; ls /proc/$$/fd"]
            )
            done = subprocess.run(
                argv, pass_fds=descriptors, capture_output=True, text=True, check=True
            )
            inode, *open_descriptors = done.stdout.split()
            assert int(inode) == os.fstat(network).st_ino
            assert not set(open_descriptors) & {str(each) for each in descriptors}


@pytest.mark.parametrize("link", [pytest.param(Link.VETH, marks=pytest.mark.namespaces), Link.HOST])
async def test_asyncio_starts_commands_on_a_host(link: Link) -> None:
    with Lab(LabPlan(link=link)) as lab:
        argv, descriptors = lab.command("client", ["readlink", "/proc/self/ns/net"])
        process = await asyncio.create_subprocess_exec(
            *argv, pass_fds=descriptors, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    machine = os.readlink("/proc/self/ns/net")  # noqa: PTH115 - not a path, a name
    assert (output.decode().strip() == machine) == (link is Link.HOST)
