"""The yardstick: the same exchange on uvloop with nothing around it but a look at the status.

Speaks a fleet worker's protocol (twbench/fleet/worker.py) on standard input and output, and uses
nothing of twbench.
"""

import asyncio
import functools
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import cast

import uvloop

Route = tuple[str, int, bytes]
"""Address and port of a destination, and the request it is sent."""


class Exchange(asyncio.Protocol):
    """One connection: sends the request, reads to the end, and closes after the server."""

    __slots__ = ("_good", "_request", "over")

    def __init__(self, request: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self._request = request
        self._good = False
        self.over: asyncio.Future[bool] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Look at how the answer begins."""
        self._good = self._good or data.startswith(b"HTTP/1.1 200")

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the user go on."""
        self.over.set_result(self._good and exc is None)


async def user(routes: Iterator[Route], end_ns: int) -> list[bool]:
    """Make one connection after another until `end_ns`; return of each whether it went well."""
    loop = asyncio.get_running_loop()
    good = []
    while time.monotonic_ns() < end_ns:
        address, port, request = next(routes)
        make = functools.partial(Exchange, request, loop)
        _, exchange = await loop.create_connection(make, address, port)
        good.append(await exchange.over)
    return good


async def main() -> None:
    """Carry a fleet plan's closed load."""
    plan = json.loads(sys.stdin.readline())
    load = plan["scenario"]["load"]
    routes = itertools.cycle([(a, p, request(a, p)) for a, p in plan["destinations"]])
    print(json.dumps({"ready": {"engine": "bare"}}), flush=True)
    start_ns = int(sys.stdin.readline().split()[1])
    time.sleep(max(0, start_ns - time.monotonic_ns()) / 1e9)  # noqa: ASYNC251 - nothing else runs
    end_ns = start_ns + round(load["duration_s"] * 1e9)
    users = (user(routes, end_ns) for _ in range(load["concurrency"]))
    good = list(itertools.chain(*await asyncio.gather(*users)))
    print(json.dumps({"t_ns": time.monotonic_ns(), "attempted": len(good), "ok": sum(good)}))
    print(json.dumps({"done": True}), flush=True)


def request(address: str, port: int) -> bytes:
    """Return the bytes that the engine `streams` sends on a connection with one request."""
    head = f"GET / HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: twbench\r\n"
    return f"{head}Connection: close\r\n\r\n".encode()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
