"""Ctrl-C and SIGTERM, which end what runs in order."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_interrupt(answer: Callable[[], None]) -> Iterator[None]:
    """Have the running loop call `answer` at each SIGINT and SIGTERM inside the block.

    Only the main thread has signals; in any other they stay with whoever called.
    """
    loop = asyncio.get_running_loop()
    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, answer)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
