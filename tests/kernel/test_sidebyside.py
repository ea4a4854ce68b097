"""When two dumps are worth it, and where their threads run."""

import os
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from twbench.kernel.netlink import DiagSocket
from twbench.kernel.openers import open_socket_here
from twbench.kernel.portfilter import PortFilter, PortTest
from twbench.kernel.sidebyside import SideBySide, dumps_run_at_once, side_by_side_pays
from twbench.model.states import TcpState

HALVES = (
    PortFilter(test=PortTest.LOCAL_AT_MOST, port=999),
    PortFilter(test=PortTest.LOCAL_AT_LEAST, port=1000),
)


def cpus_of_threads() -> list[set[int]]:
    return [
        os.sched_getaffinity(thread.native_id)
        for thread in threading.enumerate()
        if thread.name.startswith("twbench-half") and thread.native_id
    ]


def test_each_half_has_processors_of_its_own_and_the_caller_keeps_all() -> None:
    ours = os.sched_getaffinity(0)
    first, second = DiagSocket(open_socket_here), DiagSocket(open_socket_here)
    pair = SideBySide(first, second)
    assert len(pair.dump(states=1 << TcpState.LISTEN, halves=HALVES)) == 2
    one, other = cpus_of_threads()
    assert one | other == ours
    assert not one & other or len(ours) == 1
    assert os.sched_getaffinity(0) == ours
    pair.close()
    pair.close()
    assert cpus_of_threads() == []
    for diag in (first, second):
        diag.close()


@pytest.mark.parametrize(
    ("release", "cpus", "running", "at_once"),
    [
        ("6.9.0", 2, 1, True),
        ("6.18.44-cloud", 64, 63, True),
        ("7.0-rc1", 2, 1, True),
        ("6.18.44-cloud", 1, 1, False),
        ("6.18.44-cloud", 2, 2, False),
        ("6.18.44-cloud", 8, 100, False),
        ("6.8.0-45-generic", 64, 1, False),
        ("5.14.0-427.el9.x86_64", 8, 1, False),
    ],
)
def test_dumps_run_at_once_without_the_mutex_and_with_a_processor_idle(
    release: str, cpus: int, running: int, at_once: bool
) -> None:
    assert dumps_run_at_once(release=release, cpus=cpus, running=running) is at_once


def test_second_dump_does_not_pay_while_every_processor_is_busy() -> None:
    busy = [sys.executable, "-c", "print('ready', flush=True)\nwhile True: pass"]
    with ExitStack() as started:
        for _ in os.sched_getaffinity(0):
            process = started.enter_context(subprocess.Popen(busy, stdout=subprocess.PIPE))
            started.callback(process.kill)
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
        assert not side_by_side_pays()
