"""Opens /proc/net files and sockets in the network namespace of another process.

The files need no privilege at all (proc_tgid_net_lookup asks for none). A socket needs
CAP_SYS_ADMIN over the namespace: root has it, and so has whoever made the user namespace that owns
it, once inside.
"""

import array
import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twbench.kernel.openers import OpenFile, OpenSocket, open_socket_here
from twbench.model.errors import LabError, UsageError

T = TypeVar("T")

CLONE_NEWNET = 0x40000000

_ENTER = """\
import ctypes, os, socket, sys
pid, family, kind, protocol, channel = map(int, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
spaces = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), flag)
          for name, flag in (("user", 0x10000000), ("net", 0x40000000))]
for fd, flag in spaces:
    if libc.setns(fd, flag):
        code = ctypes.get_errno()
        sys.exit(f"setns: {os.strerror(code)}")
made = socket.socket(family, kind, protocol)
socket.send_fds(socket.socket(fileno=channel), [b"s"], [made.fileno()])
"""
"""A program of its own: setns to a user namespace is refused to a process with threads (EINVAL)."""


def open_file_of(pid: int) -> OpenFile:
    """Return an opener of /proc/net files in the namespace of process `pid`.

    Raises UsageError when there is no such process.
    """
    if not Path(f"/proc/{pid}/net").is_dir():
        raise _no_process(pid)

    def open_file(path: str) -> int:
        return os.open(path.replace("/proc/net/", f"/proc/{pid}/net/"), os.O_RDONLY)

    return open_file


def open_socket_of(pid: int) -> OpenSocket:
    """Return a maker of sockets in the namespace of process `pid`.

    The maker raises UsageError when there is no such process, and LabError when neither this thread
    nor a program that first enters the user namespace of `pid` may go there.
    """

    def open_socket(family: int, kind: int, protocol: int) -> socket.socket:
        try:
            if _same_namespace(pid):
                return open_socket_here(family, kind, protocol)
            return _in_thread(lambda: _made_inside(pid, family, kind, protocol))
        except FileNotFoundError as error:
            raise _no_process(pid) from error
        except PermissionError:
            return _made_by_program(pid, family, kind, protocol)

    return open_socket


def _same_namespace(pid: int) -> bool:
    """Tell whether `pid` shares the calling thread's network namespace.

    Every namespace has its own inodes under /proc/net, and unlike ns/net anyone may look at them.
    """
    ours, theirs = Path("/proc/thread-self/net/tcp").stat(), Path(f"/proc/{pid}/net/tcp").stat()
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def _made_inside(pid: int, family: int, kind: int, protocol: int) -> socket.socket:
    """Make a socket after moving the calling thread; the thread must end with it."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "setns")
        return socket.socket(family, kind, protocol)
    finally:
        os.close(namespace)


def _in_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns in a thread of its own, or raise what it raises."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="twbench-setns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _made_by_program(pid: int, family: int, kind: int, protocol: int) -> socket.socket:
    """Return a socket made by a program that entered the user namespace of `pid` first."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        numbers = map(str, (pid, family, kind, protocol, theirs.fileno()))
        try:
            done = subprocess.run(
                [sys.executable, "-S", "-c", _ENTER, *numbers],
                pass_fds=[theirs.fileno()],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise _closed(pid, str(error)) from error
        if done.returncode:
            raise _closed(pid, (done.stderr.strip().splitlines() or ["no reason given"])[-1])
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
    fds = array.array("i", ancillary[0][2])
    return socket.socket(family, kind, protocol, fileno=fds[0])


def _no_process(pid: int) -> UsageError:
    return UsageError(f"there is no process {pid} to be seen here")


def _closed(pid: int, why: str) -> LabError:
    return LabError(
        f"the network namespace of process {pid} is closed to this user ({why})",
        remedy="run as the user who started that process, or with sudo",
    )
