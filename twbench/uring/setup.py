"""Making a ring in the best way the kernel allows, and saying why it allows none."""

import errno
import os
import platform
import resource
import sys
from pathlib import Path

from twbench.uring import params, syscalls
from twbench.uring.errors import RingRefusedError
from twbench.uring.params import Feature, Layout, Setup

NEEDED = (
    Feature.SINGLE_MMAP
    | Feature.NODROP
    | Feature.SUBMIT_STABLE
    | Feature.EXT_ARG
    | Feature.CQE_SKIP
)

_ALWAYS = Setup.CQSIZE | Setup.CLAMP | Setup.SUBMIT_ALL
SETUPS = (
    _ALWAYS | Setup.TASKRUN_FLAG | Setup.DEFER_TASKRUN | Setup.SINGLE_ISSUER,
    _ALWAYS | Setup.COOP_TASKRUN | Setup.SINGLE_ISSUER,
    _ALWAYS | Setup.COOP_TASKRUN,
    _ALWAYS,
)
"""Tried in this order: Linux 6.1, 6.0, 5.19, 5.18. TASKRUN_FLAG is for deferred work alone."""

_ORDERED = {"x86_64", "i386", "i686", "s390x"}
"""Where plain loads and stores suffice even if completions come from another processor."""

_TOO_OLD = "this kernel's io_uring is too old: Linux 5.18 is needed, and 6.1 but on x86 and s390"
_NO_SUCH_CALL = (
    "the system call io_uring_setup does not exist: the kernel was built without io_uring,"
    " or a seccomp filter hides it"
)
_SECCOMP = (
    "io_uring_setup is not permitted although kernel.io_uring_disabled is 0: a seccomp filter"
    " (containers have one) or a security module refuses it"
)
_DISABLED = {
    1: "kernel.io_uring_disabled is 1: io_uring is for CAP_SYS_ADMIN and the group"
    " kernel.io_uring_group alone",
    2: "kernel.io_uring_disabled is 2: io_uring is switched off for everyone",
}


def open_ring(entries: int, completions: int) -> tuple[int, Layout]:
    """Return a new ring's descriptor (close-on-exec) and layout. Raises RingRefusedError."""
    if sys.platform != "linux":
        raise RingRefusedError(errno.ENOSYS, f"io_uring is Linux's, and this is {sys.platform}")
    ordered = platform.machine() in _ORDERED
    usable = [each for each in SETUPS if ordered or each & Setup.DEFER_TASKRUN]
    for setup in usable:
        raw = params.encode(setup=setup, completions=completions)
        try:
            fd = syscalls.setup(entries, raw)
        except OSError as error:
            if error.errno == errno.EINVAL:
                continue
            number = error.errno or errno.EIO
            raise RingRefusedError(number, why_refused(number, _disabled())) from error
        layout = params.decode(raw)
        if lacking := NEEDED & ~layout.features:
            os.close(fd)
            raise RingRefusedError(errno.EOPNOTSUPP, f"{_TOO_OLD} (it lacks {lacking!r})")
        return fd, layout
    raise RingRefusedError(errno.EOPNOTSUPP, _TOO_OLD)


def why_refused(code: int, disabled: int) -> str:
    """Return, as one sentence, why io_uring_setup failed with this errno.

    `disabled` is kernel.io_uring_disabled, 0 where there is no such setting (before Linux 6.6).
    """
    if code == errno.EPERM:
        return _DISABLED.get(disabled, _SECCOMP)
    if code == errno.ENOSYS:
        return _NO_SUCH_CALL
    if code == errno.ENOMEM:
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        return f"there is no memory for a ring (RLIMIT_MEMLOCK is {soft} bytes)"
    return f"io_uring_setup: {os.strerror(code)}"


def _disabled() -> int:
    try:
        return int(Path("/proc/sys/kernel/io_uring_disabled").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
