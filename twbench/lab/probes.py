"""What this machine lets a program do, found by trying it, and the settings that explain it.

The attempts change namespaces, so they run in a process of their own:
`python -m twbench.lab.probes` prints them as one JSON object, ability to error ("" = it works).
"""

import importlib.metadata
import json
import os
import platform
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from twbench.lab.enter import HOSTS, cover_hosts, lock_sysctls, own_mounts
from twbench.lab.namespaces import effective_capabilities, leave_machine, own_user_namespace
from twbench.lab.sysctls import path_of, read_sysctls, write_sysctls
from twbench.model.errors import LabError
from twbench.uring.probe import probe

PROBED_SYSCTLS = (
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_userns_clone",
    "kernel.io_uring_disabled",
    "user.max_user_namespaces",
    "user.max_net_namespaces",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_max_tw_buckets",
)
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
_CLOCKSOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_TIMEOUT_S = 20.0
_ATTEMPTED_SYSCTL = "net.ipv4.tcp_fin_timeout"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything the doctor judges by. `attempts`: ability to error text, "" where it worked."""

    attempts: Mapping[str, str]
    sysctls: Mapping[str, str]
    uid: int
    capabilities: int
    seccomp: int
    container: bool
    descriptors_soft: int
    descriptors_hard: int
    clock_resolution_s: float
    clocksource: str
    kernel: str
    python: str
    uvloop: str
    cpus: int


def gather() -> Facts:
    """Try and read everything; takes about a fifth of a second and leaves nothing behind."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = sys.maxsize
    return Facts(
        attempts=attempt_apart(),
        sysctls=read_sysctls(PROBED_SYSCTLS),
        uid=os.geteuid(),
        capabilities=effective_capabilities(),
        seccomp=_seccomp(),
        container=any(Path(mark).exists() for mark in _CONTAINER_MARKS),
        descriptors_soft=unlimited if soft == resource.RLIM_INFINITY else soft,
        descriptors_hard=unlimited if hard == resource.RLIM_INFINITY else hard,
        clock_resolution_s=time.clock_getres(time.CLOCK_MONOTONIC),
        clocksource=_first_line(_CLOCKSOURCE),
        kernel=platform.release(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        uvloop=_version("uvloop"),
        cpus=len(os.sched_getaffinity(0)),
    )


def attempt_apart() -> dict[str, str]:
    """Run `attempt_all` in a process of its own; every ability failed if that process does."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "twbench.lab.probes"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            capture_output=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
        attempts: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return dict.fromkeys(ATTEMPTS, f"the probe itself failed: {error}")
    return attempts


def attempt_all() -> dict[str, str]:
    """Try each ability in turn in this process; later ones build on the namespace before them."""
    machine = _network_inode()
    results = {}
    for name, attempt in ATTEMPTS.items():
        if name in _INSIDE and _network_inode() == machine:
            results[name] = "not tried: no network namespace"
            continue
        try:
            attempt()
        except LabError as error:
            results[name] = error.what
        except OSError as error:
            results[name] = error.strerror or str(error)
        except Exception as error:  # noqa: BLE001 - pyroute2's errors share no base
            results[name] = f"{type(error).__name__}: {error}"
        else:
            results[name] = ""
    return results


def _user_namespace() -> None:
    """Try a user namespace in a fork, so that root's direct way is tried apart from it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            own_user_namespace()
        except LabError as error:
            os.write(writer, error.what.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        if refused := pipe.read():
            raise LabError(refused)


def _network_namespace() -> None:
    leave_machine()


def _sysctl() -> None:
    name = _ATTEMPTED_SYSCTL
    write_sysctls("a host", {name: path_of(name).read_text(encoding="ascii").strip()})


def _veth() -> None:
    from pyroute2 import IPRoute  # noqa: PLC0415 - slow to import, and only needed here

    with IPRoute() as route:
        route.link("add", kind="veth", ifname="probe0", peer={"ifname": "probe1"})


def _packet_socket() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def _own_names() -> None:
    own_mounts()
    cover_hosts(HOSTS)
    lock_sysctls()


def _sock_diag() -> None:
    """Ask for a dump of IPv4 TCP sockets (sock_diag(7)) and read the type of the first answer."""
    netlink_sock_diag, by_family, request_dump, error_type = 4, 20, 0x301, 2
    header = struct.pack("=IHHII", 72, by_family, request_dump, 1, 0)
    query = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netlink_sock_diag) as diag:
        diag.settimeout(1.0)
        diag.send(header + query)
        answer = diag.recv(65536)
    if struct.unpack_from("=IH", answer)[1] == error_type:
        number = -struct.unpack_from("=i", answer, 16)[0]
        raise OSError(number, os.strerror(number))


def _io_uring() -> None:
    if refusal := probe().refusal:
        raise LabError(refusal)


ATTEMPTS: dict[str, Callable[[], None]] = {
    "io_uring": _io_uring,
    "sock_diag": _sock_diag,
    "user_namespace": _user_namespace,
    "network_namespace": _network_namespace,
    "sysctl": _sysctl,
    "veth": _veth,
    "packet_socket": _packet_socket,
    "own_names": _own_names,
}
"""Each ability and how it is tried, in this order."""

_INSIDE = {"sysctl", "veth", "packet_socket", "own_names"}
"""What would leave something behind if it were tried in the machine's own namespace."""


def _network_inode() -> int:
    return Path("/proc/self/ns/net").stat().st_ino


def _seccomp() -> int:
    """Return this process's seccomp mode: 0 none, 1 strict, 2 a filter (proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("Seccomp:"):
            return int(line.split()[1])
    return 0


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _version(package: str) -> str:
    """Return the installed version of `package`, "" where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def main() -> None:
    """Print the attempts of this process as JSON."""
    sys.stdout.write(json.dumps(attempt_all()))


if __name__ == "__main__":
    main()
