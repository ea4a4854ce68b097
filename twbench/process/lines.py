"""JSON lines between the run and the processes it starts: standard input and standard output."""

import asyncio
import gc
import json
import os
import resource
import signal
from typing import Any

_LONGEST_LINE = 1 << 22
_ends = [0, 1]
"""Descriptors: where lines come from, and where they go to."""


def prepare_process() -> None:
    """Leave Ctrl-C to the parent and lift the descriptor limit as far as it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_descriptor_limit()


def raise_descriptor_limit() -> None:
    """Lift the soft limit of open descriptors to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_lines_apart() -> None:
    """Leave the standard streams to whatever else runs in this process, and what that starts.

    They then have no input, and standard output is standard error. Nothing inherits the lines'.
    """
    _ends[:] = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)


def settle_memory() -> None:
    """Take everything made so far out of the garbage collector's sight.

    A worker's own modules outnumber its connections by far; looking through them again and again
    would cost each connection several microseconds.
    """
    gc.collect()
    gc.freeze()


async def read_input() -> asyncio.StreamReader:
    """Return a reader of the parent's lines; their end means that it is gone."""
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    lines = os.fdopen(_ends[0], "rb", buffering=0)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), lines)
    return reader


def say(message: dict[str, Any]) -> None:
    """Write one message for the parent, all of it before anything else happens.

    A parent that is gone ends the process at once and in silence: nobody is left to tell.
    """
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    try:
        while line:
            line = line[os.write(_ends[1], line) :]
    except BrokenPipeError:
        # an exception would end the loop's current task alone
        os._exit(1)
