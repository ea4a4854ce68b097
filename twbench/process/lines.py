"""JSON lines between the run and the processes it starts: standard input and standard output."""

import asyncio
import gc
import json
import os
import resource
import signal
import sys
from typing import Any

_LONGEST_LINE = 1 << 22


def prepare_process() -> None:
    """Leave Ctrl-C to the parent and lift the descriptor limit as far as it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_descriptor_limit()


def raise_descriptor_limit() -> None:
    """Lift the soft limit of open descriptors to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settle_memory() -> None:
    """Take everything made so far out of the garbage collector's sight.

    A worker's own modules outnumber its connections by far; looking through them again and again
    would cost each connection several microseconds.
    """
    gc.collect()
    gc.freeze()


async def read_input() -> asyncio.StreamReader:
    """Return a reader of standard input; its end means that the parent is gone."""
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def say(message: dict[str, Any]) -> None:
    """Write one message for the parent, all of it before anything else happens.

    A parent that is gone ends the process at once and in silence: nobody is left to tell.
    """
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    try:
        while line:
            line = line[os.write(1, line) :]
    except BrokenPipeError:
        # an exception would end the loop's current task alone
        os._exit(1)
