"""Why there is no ring: in words, and as a seccomp filter makes it so in a process of its own."""

import errno
import subprocess
import sys

import pytest

from twbench.uring.setup import SETUPS, why_refused

# A BPF filter in which io_uring_setup (425 everywhere but alpha and mips) fails with a given errno:
# load the number; if it is 425, return SECCOMP_RET_ERRNO | errno; else SECCOMP_RET_ALLOW.
UNDER_SECCOMP = """
import ctypes, struct, sys
code = int(sys.argv[1])
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (6, 0, 0, 0x00050000 | code), (6, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
filter = struct.pack("@HP", len(steps), ctypes.addressof(program))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, 2, filter, 0, 0) == 0, ctypes.get_errno()
from twbench.uring.probe import probe
from twbench.uring.sqe import Op
here = probe()
assert here.missing(Op) == tuple(op.name for op in Op), here
print(here.refusal)
"""


@pytest.mark.parametrize(
    ("code", "disabled", "words"),
    [
        (errno.EPERM, 0, "seccomp"),
        (errno.EPERM, 1, "kernel.io_uring_disabled is 1"),
        (errno.EPERM, 2, "switched off for everyone"),
        (errno.ENOSYS, 0, "does not exist"),
        (errno.ENOMEM, 0, "RLIMIT_MEMLOCK"),
        (errno.EMFILE, 0, "Too many open files"),
    ],
)
def test_refusal_is_one_sentence(code: int, disabled: int, words: str) -> None:
    sentence = why_refused(code, disabled)
    assert words in sentence
    assert "\n" not in sentence


def test_setups_go_from_the_best_to_the_plainest() -> None:
    assert len(set(SETUPS)) == len(SETUPS)
    assert all(SETUPS[-1] & each == SETUPS[-1] for each in SETUPS)


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize(
    ("code", "words"), [(errno.EPERM, "permitted"), (errno.ENOSYS, "does not exist")]
)
def test_container_that_forbids_io_uring_is_told_from_a_fault(code: int, words: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", UNDER_SECCOMP, str(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # where io_uring is switched off for the machine, that is the reason given
    assert words in result.stdout or "io_uring_disabled" in result.stdout
