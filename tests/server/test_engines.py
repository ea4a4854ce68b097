"""The choice of an engine, and what is said of it."""

import ctypes
import errno
import os
import platform
import struct
import subprocess
import sys
from typing import Literal

import pytest

from twbench.model.plans import ServerPlan
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.server import engines
from twbench.server.engines import EngineRefusedError, choose

pytestmark = pytest.mark.usefixtures("ring_needed")

CHOICE = """
import asyncio, sys
from twbench.model.plans import ServerPlan
from twbench.server.engines import EngineRefusedError, choose
plan = ServerPlan.from_line(sys.stdin.buffer.readline())
async def main():
    try:
        engine = choose(plan)
        print(engine.name, engine.why)
    except EngineRefusedError as refusal:
        print("refused", refusal)
asyncio.run(main())
"""
IO_URING_ENTER, IO_URING_REGISTER = 426, 427


def refuse_call(call: int) -> None:
    """Have the kernel answer this system call with EPERM from now on (seccomp(2), mode 2)."""
    allow, eperm = 0x7FFF0000, 0x00050001
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, eperm), (0x06, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, program, 0, 0) == 0


def plan_of(engine: Literal["auto", "uring"], connections: int = 0) -> ServerPlan:
    return ServerPlan(
        server=ServerSpec(engine=engine),
        ending=EndingSpec(),
        family="ipv4",
        endpoints=(("127.0.0.1", 0),),
        connections=connections,
    )


async def test_connections_that_do_not_fit_a_ring_are_carried_by_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 1024))
    why = "1024 descriptors (RLIMIT_NOFILE) are too few for 2000 connections on 1 listeners"
    chosen = choose(plan_of("auto", 2000))
    assert (chosen.name, chosen.why) == ("streams", why)
    with pytest.raises(EngineRefusedError) as refusal:
        choose(plan_of("uring", 2000))
    assert str(refusal.value) == why
    chosen = choose(plan_of("auto", 900))
    assert chosen.name == "uring"
    chosen.close()


async def test_what_the_kernel_refuses_after_the_probe_is_a_refusal_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(engines, "UringServer", refuse)
    why = "io_uring cannot be set up: Cannot allocate memory"
    chosen = choose(plan_of("auto"))
    assert (chosen.name, chosen.why) == ("streams", why)
    with pytest.raises(EngineRefusedError, match=why):
        choose(plan_of("uring"))


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="numbers of the calls not known here"
)
@pytest.mark.parametrize("call", [IO_URING_ENTER, IO_URING_REGISTER])
@pytest.mark.parametrize(("engine", "chosen"), [("auto", "streams "), ("uring", "refused ")])
def test_filter_that_lets_a_ring_be_made_but_not_used_is_a_refusal(
    engine: Literal["auto", "uring"], chosen: str, call: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHOICE],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        preexec_fn=lambda: refuse_call(call),
        input=plan_of(engine).as_line(),
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    said = done.stdout.decode()
    assert said.startswith(chosen)
    assert "not permitted" in said
