"""Sysctls of the network namespace this process is in: read, write, and check what was written."""

import difflib
import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from twbench.lab.namespaces import write_text
from twbench.model.errors import LabError

_ROOT = Path("/proc/sys")

RECORDED_SYSCTLS = (
    "net.core.somaxconn",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.core.default_qdisc",
    *(
        f"net.ipv4.{name}"
        for name in (
            "ip_autobind_reuse",
            "ip_local_port_range",
            "ip_local_reserved_ports",
            "tcp_abort_on_overflow",
            "tcp_child_ehash_entries",
            "tcp_congestion_control",
            "tcp_ehash_entries",
            "tcp_fastopen",
            "tcp_fin_timeout",
            "tcp_keepalive_intvl",
            "tcp_keepalive_probes",
            "tcp_keepalive_time",
            "tcp_max_orphans",
            "tcp_max_syn_backlog",
            "tcp_max_tw_buckets",
            "tcp_mem",
            "tcp_migrate_req",
            "tcp_orphan_retries",
            "tcp_retries1",
            "tcp_retries2",
            "tcp_rfc1337",
            "tcp_rmem",
            "tcp_rto_max_ms",
            "tcp_rto_min_us",
            "tcp_sack",
            "tcp_syn_linear_timeouts",
            "tcp_syn_retries",
            "tcp_synack_retries",
            "tcp_syncookies",
            "tcp_timestamps",
            "tcp_tw_reuse",
            "tcp_tw_reuse_delay",
            "tcp_window_scaling",
            "tcp_wmem",
        )
    ),
)
"""What a run records of each stack before and after; a kernel that lacks one leaves it out."""


def path_of(name: str) -> Path:
    """Return the file of a sysctl: "net.ipv4.tcp_sack" is /proc/sys/net/ipv4/tcp_sack."""
    return _ROOT / name.replace(".", "/")


def read_sysctls(names: Iterable[str]) -> dict[str, str]:
    """Return the values here of those of `names` that exist and can be read, blanks folded."""
    values = {}
    for name in names:
        try:
            values[name] = " ".join(path_of(name).read_text(encoding="ascii").split())
        except OSError:
            continue
    return values


def write_sysctls(stack: str, wanted: Mapping[str, str]) -> None:
    """Write `wanted` here and read each back; LabError names the first that was not taken.

    A value of numbers must read back the same. Any other the kernel may write its own way (a list
    of ports, a name), and that it took the write is the check.
    """
    for name, value in wanted.items():
        before = read_sysctls([name]).get(name)
        try:
            write_text(str(path_of(name)), value)
        except OSError as error:
            what = f"{name} = {value!r} on {stack}: {error.strerror}"
            raise LabError(what, remedy=_remedy(name, before, error.errno or 0)) from None
        after = read_sysctls([name]).get(name)
        if _numbers(value) and _numbers(after or "") != _numbers(value):
            what = f"{name} = {value!r} on {stack}: the kernel took the write but holds {after!r}"
            raise LabError(what, remedy=f"use a value the kernel keeps; before it was {before!r}")


def _numbers(text: str) -> tuple[int, ...]:
    """Return the whole numbers `text` consists of; empty if there is anything else in it."""
    try:
        return tuple(int(word) for word in text.split())
    except ValueError:
        return ()


def _remedy(name: str, before: str | None, number: int) -> str:
    """Say what is possible instead of a write to `name` that failed with errno `number`."""
    if number == errno.ENOENT and before is None:
        folder = path_of(name).parent
        there = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names, not paths
        near = difflib.get_close_matches(path_of(name).name, there)
        hint = f"; near it: {', '.join(near)}" if near else ""
        return f"this kernel has no such key in a network namespace (`sysctl -a`){hint}"
    if number in {errno.EACCES, errno.EPERM}:
        return f"a network namespace may not set this key; it is {before!r}, leave it out"
    if number == errno.EROFS:
        return (
            "/proc/sys is read-only here, as containers mount it: run the container with"
            " --privileged or --security-opt systempaths=unconfined"
        )
    return f"use a value this kernel allows; it is {before!r} now"
