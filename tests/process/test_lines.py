"""Lines between a parent and its child: a real process at the other end of real pipes."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ENOUGH_S = 20

PRELUDE = """
import asyncio, resource, sys
from twbench.process.lines import prepare_process, read_input, say

def run(main, loop):
    if loop == "uvloop":
        import uvloop
        factory = uvloop.new_event_loop
    else:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
"""
ECHO = """
async def main():
    lines = await read_input()
    say({"ready": True})
    async for line in lines:
        say({"length": len(line), "echo": line.decode()[:20].rstrip()})
    say({"end": True})

prepare_process()
run(main, sys.argv[1])
"""
# Says one thing each time it is asked, from a task in the background, as the workers' tickers do.
TICKER = """
async def tick(asked):
    while True:
        await asked.wait()
        asked.clear()
        say({"tick": True})

async def main():
    lines = await read_input()
    asked = asyncio.Event()
    ticker = asyncio.create_task(tick(asked))
    say({"ready": True})
    async for _ in lines:
        asked.set()
    say({"end": True})

run(main, sys.argv[1])
"""
LARGE = """
say({"large": "x" * 1_000_000})
"""
LIMITS = """
before = resource.getrlimit(resource.RLIMIT_NOFILE)
prepare_process()
say({"before": before, "after": resource.getrlimit(resource.RLIMIT_NOFILE)})
"""

Child = subprocess.Popen[bytes]
on_each_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@contextlib.contextmanager
def child(script: str, *args: str) -> Iterator[Child]:
    """Start Python on a script, its three streams on pipes; nothing of it remains afterwards."""
    command = [sys.executable, "-c", PRELUDE + script, *args]
    if args and args[-1] == "uvloop":
        pytest.importorskip("uvloop")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process: Child, line: bytes) -> None:
    assert process.stdin
    process.stdin.write(line + b"\n")
    process.stdin.flush()


def hear(process: Child) -> Any:  # noqa: ANN401 - whatever JSON holds
    assert process.stdout
    assert process.stderr
    line = process.stdout.readline()
    return json.loads(line) if line else pytest.fail(process.stderr.read().decode())


def stop_listening(process: Child) -> None:
    assert process.stdout
    process.stdout.close()


def hang_up(process: Child) -> None:
    assert process.stdin
    process.stdin.close()


def errors(process: Child) -> bytes:
    assert process.stderr
    return process.stderr.read()


@on_each_loop
def test_each_line_in_is_heard_at_once_and_each_message_out_is_a_line(loop: str) -> None:
    with child(ECHO, loop) as process:
        assert hear(process) == {"ready": True}
        for word in (b"one", b"two"):
            tell(process, word)
            assert hear(process) == {"length": 4, "echo": word.decode()}


@on_each_loop
def test_parent_that_hangs_up_is_the_end_of_the_input(loop: str) -> None:
    with child(ECHO, loop) as process:
        assert hear(process) == {"ready": True}
        hang_up(process)
        assert hear(process) == {"end": True}
        assert process.wait(ENOUGH_S) == 0
        assert errors(process) == b""


@on_each_loop
def test_line_of_four_million_bytes_comes_whole(loop: str) -> None:
    with child(ECHO, loop) as process:
        assert hear(process) == {"ready": True}
        tell(process, b"y" * 4_000_000)
        assert hear(process) == {"length": 4_000_001, "echo": "y" * 20}


@on_each_loop
def test_ctrl_c_is_left_to_the_parent(loop: str) -> None:
    with child(ECHO, loop) as process:
        assert hear(process) == {"ready": True}
        os.kill(process.pid, signal.SIGINT)
        tell(process, b"still there")
        assert hear(process)["echo"] == "still there"


@on_each_loop
def test_parent_that_does_not_listen_any_more_ends_the_process_from_any_task(loop: str) -> None:
    with child(TICKER, loop) as process:
        assert hear(process) == {"ready": True}
        tell(process, b"tick")
        assert hear(process) == {"tick": True}
        stop_listening(process)
        tell(process, b"tick")
        assert process.wait(ENOUGH_S) == 1
        assert errors(process) == b""


def test_message_larger_than_a_pipe_comes_whole() -> None:
    with child(LARGE) as process:
        assert hear(process) == {"large": "x" * 1_000_000}
        assert process.wait(ENOUGH_S) == 0


def test_descriptor_limit_is_lifted_as_far_as_it_goes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(256, hard // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        with child(LIMITS) as process:
            assert hear(process) == {"before": [low, hard], "after": [hard, hard]}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
