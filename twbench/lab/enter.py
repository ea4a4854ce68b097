"""Starts any program on a host: enters its namespaces, ties its life to the starter's, execs it.

Run as a file, with nothing but the standard library, so that it costs milliseconds:
`python -I -S enter.py --user FD|- --net FD|- --parent PID -- COMMAND ARGUMENT…`
"""

import ctypes
import os
import signal
import sys

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127
_NOT_RUN = 126
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


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


def main(arguments: list[str]) -> None:
    """Enter the given namespaces and become the command; leaves with 126 or 127 if it cannot."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    command = arguments[split + 1 :]
    try:
        # The user namespace first: it brings the right to enter the other (user_namespaces(7)).
        for option, kind in (("--user", CLONE_NEWUSER), ("--net", CLONE_NEWNET)):
            if options[option] != "-":
                descriptor = int(options[option])
                setns(descriptor, kind)
                os.close(descriptor)
        die_with_parent(int(options["--parent"]), signal.SIGKILL)
        # Python ignores these two at its start, and an ignored signal stays ignored through exec.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.execvp(command[0], command)  # noqa: S606 - the user's command, and no shell
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        sys.stderr.write(f"twbench: cannot run {command[0]}: {error.strerror}\n")
        raise SystemExit(_NOT_FOUND if missing else _NOT_RUN) from None


if __name__ == "__main__":
    main(sys.argv[1:])
