"""The event loop: uvloop where it is installed, asyncio's own where it is not."""

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def has_uvloop() -> bool:
    """Return whether uvloop is installed."""
    return importlib.util.find_spec("uvloop") is not None


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on the best loop there is."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if has_uvloop():
        import uvloop  # noqa: PLC0415 - optional

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def loop_name() -> str:
    """Return `uvloop` or `asyncio`: the kind of the running loop."""
    return type(asyncio.get_running_loop()).__module__.split(".")[0]
