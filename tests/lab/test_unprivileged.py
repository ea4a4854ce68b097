"""Programs on a host with names of their own, and without rights over the lab."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from twbench.lab import enter
from twbench.lab.lab import Lab
from twbench.lab.names import hosts_text
from twbench.lab.plan import LabPlan, Link
from twbench.model.errors import LabError

Done = subprocess.CompletedProcess[str]
MACHINES_HOSTS = Path("/etc/hosts")
COVERED = ("/etc/hosts", "/proc/sys")
FORBIDDEN = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_MODULE": 16, "SYS_PTRACE": 19, "SYS_ADMIN": 21}
SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")
GET_DEATH_SIGNAL = (
    "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
)
SYSCTL = "/proc/sys/net/ipv4/tcp_fin_timeout"
REFUSED = (
    "not permitted|[Dd]enied|Read-only|must be superuser|not mounted|bad option|Invalid argument"
)
"""As mount(8) and others word it; the last three stand for EINVAL, of mounts that are locked."""
ATTEMPT = """
import subprocess, sys
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan
with Lab(LabPlan()) as lab:
    command, descriptors = lab.command("client", sys.argv[1:], privileged=False)
    status = subprocess.run(command, pass_fds=descriptors).returncode
    assert status, "it was not refused"
    print(lab.sysctls("client", ["net.ipv4.tcp_fin_timeout"])["net.ipv4.tcp_fin_timeout"])
"""
"""Tries a command in a lab, by whoever runs this; prints what became of `SYSCTL`."""
LOOK_UP = "import socket; print(*sorted({a[4][0] for a in socket.getaddrinfo('site-7.test', 80)}))"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(LabPlan()) as lab:
        yield lab


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text(hosts_text({"site-7.test": "198.19.0.1"}))
    return path


def run(lab: Lab, *argv: str, hosts: Path | None = None, privileged: bool = False) -> Done:
    command, descriptors = lab.command("client", argv, hosts=hosts, privileged=privileged)
    return subprocess.run(
        command, pass_fds=descriptors, capture_output=True, text=True, check=False, timeout=30
    )


def seen_by_the_machine() -> tuple[bytes, list[str]]:
    """Return the machine's own hosts file, and the mounts over what labs cover."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return MACHINES_HOSTS.read_bytes(), [m for m in mounts if m.split()[4] in COVERED]


def status_of(text: str) -> dict[str, str]:
    """Return the fields of /proc/PID/status."""
    return dict(line.split(":\t", 1) for line in text.splitlines())


@pytest.mark.namespaces
@pytest.mark.parametrize("privileged", [True, False])
def test_program_finds_the_names_of_its_file(lab: Lab, hosts: Path, privileged: bool) -> None:
    done = run(lab, sys.executable, "-c", LOOK_UP, hosts=hosts, privileged=privileged)
    assert (done.stdout, done.stderr) == ("198.19.0.1\n", "")


@pytest.mark.namespaces
@pytest.mark.parametrize("privileged", [True, False])
def test_names_of_the_machine_stay_as_they_are(lab: Lab, hosts: Path, privileged: bool) -> None:
    before = seen_by_the_machine()
    script = "grep -c site-7.test /etc/hosts; read line"
    command, descriptors = lab.command(
        "client", ["sh", "-c", script], hosts=hosts, privileged=privileged
    )
    with subprocess.Popen(
        command, pass_fds=descriptors, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        assert seen_by_the_machine() == before
        process.communicate("\n", timeout=30)
    assert seen_by_the_machine() == before


@pytest.mark.namespaces
def test_program_without_names_of_its_own_has_the_machines(lab: Lab) -> None:
    assert run(lab, "cat", "/etc/hosts").stdout == MACHINES_HOSTS.read_text()


@pytest.mark.namespaces
def test_program_shows_itself_as_the_caller(lab: Lab, hosts: Path) -> None:
    done = run(lab, "sh", "-c", "id -u; id -g", hosts=hosts)
    assert done.stdout.split() == [str(os.geteuid()), str(os.getegid())]


@pytest.mark.namespaces
@pytest.mark.parametrize(
    "command",
    [
        "ip link add one type veth peer two",
        "ip address add 198.18.1.77/24 dev eth0",
        "ip link set lo down",
        "echo 7 >/proc/sys/net/ipv4/tcp_fin_timeout",
        "umount /proc/sys",
        "mount -t tmpfs none /mnt",
    ],
)
def test_program_can_change_nothing_of_the_lab(lab: Lab, command: str) -> None:
    refused = run(lab, "sh", "-c", command)
    assert refused.returncode != 0
    assert re.search(REFUSED, refused.stderr), refused.stderr
    shown = run(lab, "sh", "-c", f"ip -brief address; cat {SYSCTL}")
    assert "one@two" not in shown.stdout
    assert "198.18.1.77" not in shown.stdout
    assert shown.stdout.splitlines()[-1] == "60"


@pytest.mark.namespaces
@pytest.mark.parametrize("own", ["", "unshare -Urmpf", "unshare -Um --map-user=1 --keep-caps -pf"])
@pytest.mark.parametrize(
    "command",
    [
        "echo 7 >$SYSCTL",
        "umount /proc/sys && echo 7 >$SYSCTL",
        "mount -o remount,bind,rw /proc/sys && echo 7 >$SYSCTL",
        "mkdir new && mount --bind /proc new && echo 7 >new/${SYSCTL#/proc/}",
        "mkdir new && mount --rbind /proc new && echo 7 >new/${SYSCTL#/proc/}",
        "mkdir new && mount -t proc none new && echo 7 >new/${SYSCTL#/proc/}",
        "mount -t proc none /proc && echo 7 >$SYSCTL",
    ],
)
def test_sysctls_stay_locked_in_namespaces_of_the_programs_own(
    tmp_path: Path, own: str, command: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", ATTEMPT, *own.split(), "sh", "-c", command],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "SYSCTL": SYSCTL},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "60\n", done.stderr
    assert re.search(REFUSED, done.stderr), done.stderr


@pytest.mark.namespaces
def test_privileged_program_can_change_its_host(lab: Lab, hosts: Path) -> None:
    script = "ip link add one type veth peer two && ip link del one && echo done"
    assert run(lab, "sh", "-c", script, hosts=hosts, privileged=True).stdout == "done\n"


@pytest.mark.namespaces
def test_names_cannot_be_uncovered(lab: Lab, hosts: Path) -> None:
    done = run(lab, "sh", "-c", "umount /etc/hosts; cat /etc/hosts", hosts=hosts)
    assert done.stdout == hosts.read_text()


@pytest.mark.parametrize("link", [pytest.param(Link.VETH, marks=pytest.mark.namespaces), Link.HOST])
def test_program_has_no_capability_over_namespaces_and_gains_none(link: Link) -> None:
    with Lab(LabPlan(link=link)) as lab:
        fields = status_of(run(lab, "cat", "/proc/self/status").stdout)
    for name in SETS:
        held = int(fields[name], 16)
        assert [each for each, bit in FORBIDDEN.items() if held >> bit & 1] == []
    assert fields["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert int(fields["CapBnd"], 16) & sum(1 << bit for bit in FORBIDDEN.values()) == 0


@pytest.mark.namespaces
def test_privileges_are_left_alone_where_nobody_asks(lab: Lab) -> None:
    fields = status_of(run(lab, "cat", "/proc/self/status", privileged=True).stdout)
    assert fields["NoNewPrivs"] == "0"
    assert int(fields["CapEff"], 16) >> FORBIDDEN["NET_ADMIN"] & 1


@pytest.mark.parametrize("link", [pytest.param(Link.VETH, marks=pytest.mark.namespaces), Link.HOST])
def test_program_is_still_to_die_with_its_starter(link: Link, hosts: Path) -> None:
    named = None if link is Link.HOST else hosts
    with Lab(LabPlan(link=link)) as lab:
        done = run(lab, sys.executable, "-c", GET_DEATH_SIGNAL, hosts=named)
    assert int(done.stdout) == signal.SIGKILL


@pytest.mark.namespaces
def test_leaving_a_lab_kills_what_runs_without_privileges(hosts: Path) -> None:
    with Lab(LabPlan()) as lab:
        command, descriptors = lab.command(
            "client", ["sh", "-c", "echo up; sleep 1000"], hosts=hosts, privileged=False
        )
        process = subprocess.Popen(command, pass_fds=descriptors, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    with process:
        try:
            assert process.wait(10) == -signal.SIGKILL
        finally:
            process.kill()


@pytest.mark.namespaces
def test_hosts_file_that_is_not_there_is_told_and_nothing_runs(lab: Lab, tmp_path: Path) -> None:
    done = run(lab, "echo", "ran", hosts=tmp_path / "missing")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == f"twbench: cannot run echo: {enter.HOSTS}: No such file or directory\n"


def test_link_host_has_no_names_of_its_own(hosts: Path) -> None:
    with Lab(LabPlan(link=Link.HOST)) as lab, pytest.raises(LabError, match="names of its own"):
        lab.command("client", ["true"], hosts=hosts)
