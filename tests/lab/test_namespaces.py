"""Which way into a namespace is taken, and what is said where there is none."""

import ctypes
import os
import platform
import struct
import subprocess
import sys

import pytest

from twbench.lab.namespaces import effective_capabilities, needs_user_namespace

SYS_ADMIN, NET_ADMIN = 1 << 21, 1 << 12


@pytest.mark.parametrize(
    ("capabilities", "needed"),
    [
        (0, True),
        (SYS_ADMIN, True),
        (NET_ADMIN, True),
        (SYS_ADMIN | NET_ADMIN, False),
        (0xA80425FB, True),  # what Docker grants root by default
        (0x1FFFFFFFFFF, False),
    ],
)
def test_a_user_namespace_is_needed_without_both_capabilities(
    capabilities: int, *, needed: bool
) -> None:
    assert needs_user_namespace(capabilities) is needed


def test_an_ordinary_user_has_no_capabilities() -> None:
    assert needs_user_namespace(effective_capabilities()) or os.geteuid() == 0


UNSHARE = {"x86_64": 272, "aarch64": 97}
IO_URING_SETUP = 425
REFUSED_BY_FILTER = """
import sys
from twbench.lab.doctor import links
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan
from twbench.lab.probes import gather
from twbench.model.errors import LabError
try:
    Lab(LabPlan()).__enter__()
except LabError as error:
    print(error.exit_status, error)
facts = gather()
print({str(link): lacks for link, lacks in links(facts).items()})
print("seccomp", facts.seccomp, "io_uring", facts.attempts["io_uring"])
"""


def refuse_calls(*calls: int) -> None:
    """Have the kernel answer these system calls with EPERM from now on (seccomp(2), mode 2)."""
    load, equal, give = 0x20, 0x15, 0x06
    allow, eperm = 0x7FFF0000, 0x00050001
    steps = [(load, 0, 0, 0)]
    steps += [(equal, len(calls) - i, 0, call) for i, call in enumerate(calls)]
    steps += [(give, 0, 0, allow), (give, 0, 0, eperm)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, program, 0, 0) == 0


@pytest.mark.skipif(platform.machine() not in UNSHARE, reason="number of unshare not known here")
def test_a_container_filter_that_refuses_unshare_is_told_with_a_remedy() -> None:
    calls = (UNSHARE[platform.machine()], IO_URING_SETUP)
    done = subprocess.run(
        [sys.executable, "-P", "-c", REFUSED_BY_FILTER],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: refuse_calls(*calls),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    refused, remedy, links, last = done.stdout.splitlines()
    assert refused == "3 a user namespace with its own network: Operation not permitted"
    assert "twbench doctor" in remedy
    assert "'host': ()" in links
    assert "'veth': ('network_namespace', 'sysctl', 'veth')" in links
    assert last.startswith("seccomp 2 io_uring io_uring_setup is not permitted")
