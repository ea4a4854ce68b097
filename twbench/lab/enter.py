"""Starts any program on a host: enters its namespaces, ties its life to the starter's, execs it.

Run as a file, with nothing but the standard library, so that it costs milliseconds:
`python -I -S enter.py --user FD|- --net FD|- [--hosts FILE] [--privileges none]
[--grace SECONDS --told FD] --parent PID -- COMMAND ARGUMENT…`

With a grace it stays, as the reaper of the command and of all that the command starts. Its exit
status is then the command's, as a shell tells it, and it ends when all of them have, so that
wait4(2) counts the processor time of all. It passes SIGINT and SIGTERM on to all of them, and kills
all of them on SIGUSR1, or when its starter dies. What a command that ends by itself leaves running
gets SIGTERM, and SIGKILL when the grace is over.

What keeps the command from running goes to the pipe `told`, as "STATUS WHY"; that is closed, and
empty, once the command runs. Without it, that goes to standard error.
"""

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
HOSTS = "/etc/hosts"
_NAME_SERVICES = ("/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket")
"""Sockets of services that answer for names before that file is read, from the machine's own."""
_SYSCTLS = "/proc/sys"
_SYSCTLS_OF_STACKS = "/proc/sys/net"
_MOUNTS = "/proc/self/mountinfo"
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MS_REMOUNT_READ_ONLY = 0x2F
"""MS_REMOUNT, RDONLY, and NOSUID, NODEV, NOEXEC, which a user namespace may not take away."""
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION = 0x20080522
_CAPABILITIES = range(64)
_KEPT = (0, 1, 3, 4, 5, 6, 7, 10)
"""CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE: root's rights
over files, its own processes and low ports, of which none reaches a namespace."""
NOT_FOUND = 127
NOT_RUN = 126
NOT_ENTERED = 125
"""What env(1) leaves with too where the failure is its own, and not the command's."""
_ENDED_BY = 128
"""What a shell adds to the number of the signal that ended a command."""
KILL_ALL = signal.SIGUSR1
"""What tells a reaper to kill all it has."""
_PASSED_ON = {signal.SIGINT, signal.SIGTERM}
_KILLING = {KILL_ALL, signal.SIGALRM}
_HEARD = {signal.SIGCHLD, *_PASSED_ON, *_KILLING}
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
        raise SystemExit(NOT_ENTERED)


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
    """Make sysctls read-only, after `own_mounts`: to write them root needs no capability.

    With all that is mounted below, which a user namespace may not uncover (mount_namespaces(7)).
    Of that, systemd-nspawn and LXC have a writable mount of the sysctls of network stacks.
    """
    _mount(_SYSCTLS, _SYSCTLS, _MS_BIND | _MS_REC)
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        mounts = {line.split()[4] for line in file}
    below = (each for each in mounts if f"{each}/".startswith(f"{_SYSCTLS_OF_STACKS}/"))
    for target in (_SYSCTLS, *sorted(below)):
        _mount("none", target, _MS_BIND | _MS_REMOUNT_READ_ONLY)


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
    death = KILL_ALL if "--grace" in options else signal.SIGKILL
    die_with_parent(int(options["--parent"]), death)
    # Python ignores these two at its start, and an ignored signal stays ignored through exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _fork_and_reap(grace_s: float, told: int) -> None:
    """Return in a child, which dies with this process; this process reaps, and never returns."""
    # a SIGCHLD that is ignored, as it may be inherited, would leave nobody to wait for
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    reaper = os.getpid()
    child = os.fork()
    if child:
        os.close(told)
        raise SystemExit(_reap(child, grace_s))
    os.setsid()
    die_with_parent(reaper, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reap(command: int, grace_s: float) -> int:
    """Wait for `command` and all that it starts; return its status, as a shell tells it."""
    status = 0
    running, asked, killing = True, False, False
    while True:
        heard = signal.sigwait(_HEARD)
        killing |= heard in _KILLING
        if heard in _PASSED_ON:
            asked = True
            _pass_on(heard, command if running else None)
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == command:
                    running = False
                    status = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            return status if status >= 0 else _ENDED_BY - status
        if killing:
            # they leave us theirs, with a SIGCHLD
            for child in _offspring()[0]:
                os.kill(child, signal.SIGKILL)
        elif not running and not asked:
            asked = True
            _pass_on(signal.SIGTERM, None)
            signal.setitimer(signal.ITIMER_REAL, grace_s)


def _pass_on(number: int, group: int | None) -> None:
    """Send a signal to the process group at once, then to all others that descend from us."""
    if group is not None:
        with suppress(ProcessLookupError):
            os.killpg(group, number)
    for generation in _offspring():
        for process in generation:
            with suppress(ProcessLookupError):
                if group is None or os.getpgid(process) != group:
                    os.kill(process, number)


def _offspring() -> list[list[int]]:
    """Return our children, their children and so on, a list for each generation that has any."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
            parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    generations = []
    last = children.get(os.getpid(), [])
    while last:
        generations.append(last)
        last = [child for process in last for child in children.get(process, [])]
    return generations


def main(arguments: list[str]) -> None:
    """Enter the given namespaces and become the command; leave with 125 to 127 if it cannot."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    command = arguments[split + 1 :]
    told = int(options["--told"]) if "--told" in options else None
    try:
        _prepare(options)
        if told is not None:
            os.set_inheritable(told, False)  # noqa: FBT003 - it takes no keywords
            _fork_and_reap(float(options["--grace"]), told)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        _give_up(command[0], what, NOT_ENTERED, told)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the user's command, and no shell
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        _give_up(command[0], error.strerror, NOT_FOUND if missing else NOT_RUN, told)


def _give_up(command: str, why: str | None, status: int, told: int | None) -> NoReturn:
    if told is None:
        sys.stderr.write(f"twbench: cannot run {command}: {why}\n")
    else:
        os.write(told, f"{status} {why}".encode())
    raise SystemExit(status) from None


if __name__ == "__main__":
    main(sys.argv[1:])
