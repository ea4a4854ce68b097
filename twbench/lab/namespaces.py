"""Making and entering namespaces: a user namespace where one is needed, network namespaces."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from twbench.lab.enter import CLONE_NEWNET, CLONE_NEWUSER, setns, unshare
from twbench.model.errors import LabError

_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21
_NEEDED = 1 << _CAP_NET_ADMIN | 1 << _CAP_SYS_ADMIN
_TOO_MANY = (
    "sudo sysctl -w user.max_user_namespaces=15000 user.max_net_namespaces=15000"
    "  (one of the two limits of user_namespaces(7) is reached)"
)
_REMEDY = "run `twbench doctor`, which names the setting that refuses; or run with sudo"
_BY_ERRNO = {errno.ENOSPC: _TOO_MANY, errno.EUSERS: _TOO_MANY}


def effective_capabilities() -> int:
    """Return this process's effective capabilities as a bit mask (CapEff, proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def needs_user_namespace(capabilities: int) -> bool:
    """Say whether these capabilities are too few to make and wire network namespaces directly."""
    return capabilities & _NEEDED != _NEEDED


def leave_machine() -> bool:
    """Move this single-threaded process into a new network namespace; True if also into a user's.

    The user namespace maps the caller to 0 and nobody else. Raises LabError where the machine
    refuses both ways.
    """
    if not needs_user_namespace(effective_capabilities()):
        # Refused with every capability, say by a seccomp filter, the other way may still work.
        with suppress(OSError):
            unshare(CLONE_NEWNET)
            return False
    own_user_namespace()
    return True


def own_user_namespace() -> None:
    """Move into a new user and network namespace as its root; LabError where it is refused."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        # AppArmor lets the namespace be made and refuses what is done with it.
        write_text("/proc/self/setgroups", "deny")
        write_text("/proc/self/uid_map", f"0 {uid} 1")
        write_text("/proc/self/gid_map", f"0 {gid} 1")
    except OSError as error:
        raise LabError(
            f"a user namespace with its own network: {error.strerror}",
            remedy=_BY_ERRNO.get(error.errno or 0, _REMEDY),
        ) from None


def write_text(path: str, text: str) -> None:
    """Write `text` in one unbuffered write, so that the kernel's refusal is an OSError here."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def open_namespace(kind: str) -> int:
    """Return a descriptor of this process's own "net" or "user" namespace."""
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def new_network(parent: int) -> int:
    """Make a network namespace as a child of the one behind `parent`; stay in it, return it.

    The child's own socket table is sized by the parent's `tcp_child_ehash_entries`
    (net/ipv4/tcp_ipv4.c, tcp_set_hashinfo).
    """
    setns(parent, CLONE_NEWNET)
    unshare(CLONE_NEWNET)
    return open_namespace("net")


def enter_network(descriptor: int) -> None:
    """Move this process into the network namespace behind `descriptor`."""
    setns(descriptor, CLONE_NEWNET)
