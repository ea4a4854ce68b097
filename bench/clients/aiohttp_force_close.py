"""What most Python programs would take: one aiohttp session on uvloop, `force_close=True`.

Speaks a fleet worker's protocol (twbench/fleet/worker.py) on standard input and output, and uses
nothing of twbench.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus

import aiohttp
import uvloop


async def user(session: aiohttp.ClientSession, urls: Iterator[str], end_ns: int) -> list[bool]:
    """Make one request after another until `end_ns`; return of each whether its status was 200."""
    good = []
    while time.monotonic_ns() < end_ns:
        async with session.get(next(urls)) as answer:
            await answer.read()
            good.append(answer.status == HTTPStatus.OK)
    return good


async def main() -> None:
    """Carry a fleet plan's closed load."""
    plan = json.loads(sys.stdin.readline())
    load = plan["scenario"]["load"]
    urls = itertools.cycle([f"http://{a}:{p}/" for a, p in plan["destinations"]])
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        print(json.dumps({"ready": {"engine": "aiohttp"}}), flush=True)
        start_ns = int(sys.stdin.readline().split()[1])
        time.sleep(max(0, start_ns - time.monotonic_ns()) / 1e9)  # noqa: ASYNC251 - nothing else runs
        end_ns = start_ns + round(load["duration_s"] * 1e9)
        users = [user(session, urls, end_ns) for _ in range(load["concurrency"])]
        good = list(itertools.chain(*await asyncio.gather(*users)))
        report = {"t_ns": time.monotonic_ns(), "attempted": len(good), "ok": sum(good)}
        print(json.dumps(report))
        print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
