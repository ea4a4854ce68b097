"""Starts any program on a host: enters its namespaces, ties its life to the starter's, execs it.

Run as a file, with nothing but the standard library, so that it costs milliseconds:
`python -I -S enter.py --user FD|- --net FD|- [--hosts FILE] [--privileges none]
--parent PID -- COMMAND ARGUMENT…`
"""

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Mapping

CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
HOSTS = "/etc/hosts"
_NAME_SERVICES = ("/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket")
"""Sockets of services that answer for names before that file is read, from the machine's own."""
_SYSCTLS = "/proc/sys"
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MS_REMOUNT_READ_ONLY = 0x2F
"""MS_REMOUNT, RDONLY, and NOSUID, NODEV, NOEXEC, which a user namespace may not take away."""
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522
_CAPABILITIES = range(64)
_KEPT = (0, 1, 3, 4, 5, 6, 7, 10)
"""CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE: root's rights
over files, its own processes and low ports, of which none reaches a namespace."""
_NOT_FOUND = 127
_NOT_RUN = 126
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, about: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace behind `descriptor`; OSError where it is refused (setns(2)).

    ctypes on every version: `os.setns` came with Python 3.12, and prctl never came.
    """
    _check(_libc.setns(descriptor, kind))


def unshare(kinds: int) -> None:
    """Leave namespaces of these `kinds` for new ones; OSError where it is refused (unshare(2))."""
    _check(_libc.unshare(kinds))


def die_with_parent(parent: int, number: int) -> None:
    """Have the kernel send signal `number` when the parent's starting thread ends (prctl(2)).

    Call it after the last change of credentials: that clears it (kernel/cred.c, commit_creds).
    Raises SystemExit if `parent` is gone already.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0))
    if os.getppid() != parent:
        raise SystemExit(_NOT_RUN)


def own_mounts() -> None:
    """Enter a mount namespace whose mounts show nowhere else (mount_namespaces(7))."""
    unshare(CLONE_NEWNS)
    _mount("none", "/", _MS_REC | _MS_PRIVATE)


def cover_hosts(file: str) -> None:
    """Have `file` seen as /etc/hosts, after `own_mounts`, and nobody else asked before it."""
    _mount(file, HOSTS, _MS_BIND)
    for service in filter(os.path.exists, _NAME_SERVICES):
        # connect() to what is no socket is refused, and the C library reads the file
        _mount(os.devnull, service, _MS_BIND)


def lock_sysctls() -> None:
    """Make sysctls read-only, after `own_mounts`: to write them root needs no capability."""
    _mount(_SYSCTLS, _SYSCTLS, _MS_BIND)
    _mount("none", _SYSCTLS, _MS_BIND | _MS_REMOUNT_READ_ONLY)


def _mount(source: str, target: str, flags: int) -> None:
    names = (os.fsencode(source), os.fsencode(target), None)
    _check(_libc.mount(*names, ctypes.c_ulong(flags), None), target)


def take_identity(uid: int, gid: int) -> None:
    """Enter a user namespace in which this process is `uid` and `gid`, with no right outside it.

    Its rights inside end with execve, unless `uid` is 0 (capabilities(7)).
    """
    unshare(CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} 0 1"),
        ("gid_map", f"{gid} 0 1"),
    ):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def drop_capabilities() -> None:
    """Give up all capabilities but `_KEPT`, in every set, the bounding set included."""
    for number in _CAPABILITIES:
        # refused to whoever has no CAP_SETPCAP, and PR_SET_NO_NEW_PRIVS is as good then
        if number not in _KEPT and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, sets))
    _, low, _, _, high, _ = struct.unpack("=6I", sets.raw)
    kept = (low | high << 32) & sum(1 << number for number in _KEPT)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    _check(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)))


def _prepare(options: Mapping[str, str]) -> None:
    """Do all that `options` ask for; OSError with what was refused."""
    ids = os.geteuid(), os.getegid()
    # The user namespace first: it brings the right to enter the other (user_namespaces(7)).
    for option, kind in (("--user", CLONE_NEWUSER), ("--net", CLONE_NEWNET)):
        if options[option] != "-":
            descriptor = int(options[option])
            setns(descriptor, kind)
            os.close(descriptor)
    unprivileged = options.get("--privileges") == "none"
    locked = unprivileged and options["--net"] != "-"
    # The mounts before the privileges that they need are gone.
    if locked or "--hosts" in options:
        own_mounts()
    if "--hosts" in options:
        cover_hosts(options["--hosts"])
    if locked:
        lock_sysctls()
    if unprivileged:
        if options["--user"] == "-":
            drop_capabilities()
        else:
            take_identity(*ids)
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    die_with_parent(int(options["--parent"]), signal.SIGKILL)
    # Python ignores these two at its start, and an ignored signal stays ignored through exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def main(arguments: list[str]) -> None:
    """Enter the given namespaces and become the command; leaves with 126 or 127 if it cannot."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    command = arguments[split + 1 :]
    try:
        _prepare(options)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        _give_up(command[0], what, _NOT_RUN)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the user's command, and no shell
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        _give_up(command[0], error.strerror, _NOT_FOUND if missing else _NOT_RUN)


def _give_up(command: str, why: str | None, status: int) -> None:
    sys.stderr.write(f"twbench: cannot run {command}: {why}\n")
    raise SystemExit(status) from None


if __name__ == "__main__":
    main(sys.argv[1:])
