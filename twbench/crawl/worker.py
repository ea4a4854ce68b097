"""A crawling worker's process: it speaks as `twbench.fleet.worker` does, line for line.

A crawler that raises ends the process with status 1, once its last report is out.
"""

import asyncio
import os
import sys
import time
from typing import Any

from twbench.crawl.engines import NoEngineError, engine_of
from twbench.crawl.engines.surroundings import forget_proxies
from twbench.crawl.own import told
from twbench.crawl.pages import Crawl, CrawlerError, Pages
from twbench.fleet import part
from twbench.fleet.ledger import Ledger
from twbench.model.plans import FleetPlan
from twbench.model.scenario import ClientSpec
from twbench.process.lines import (
    prepare_process,
    read_input,
    say,
    set_lines_apart,
    settle_memory,
)
from twbench.process.loop import loop_name, run_loop

_TICK_S = 0.1
_TO_CLEAN_UP_S = 2.0


def main() -> None:
    """Run one worker to its end."""
    prepare_process()
    set_lines_apart()
    # what a crawler prints comes in order with its errors
    sys.stdout = sys.stderr
    forget_proxies()
    run_loop(_main())


async def _main() -> None:
    status = await _carry_out_plan()
    sys.stderr.flush()
    # to leave the loop is to wait for its threads, and one of a crawler's may hang
    os._exit(status)


async def _carry_out_plan() -> int:
    lines = await read_input()
    plan = FleetPlan.from_line(await lines.readline())
    try:
        engine = engine_of(_own_part(plan))
    except NoEngineError as failure:
        say({"failed": str(failure), "error": failure.error})
        return 0
    ledger = Ledger()
    pages = Pages(plan, ledger)
    settle_memory()
    say({"ready": {"engine": engine.name, "loop": loop_name(), "why": engine.why}})
    command = (await lines.readline()).split()
    if command[:1] != [b"start"]:
        return 0
    ledger.cpu_ns = time.process_time_ns()
    ticker = asyncio.create_task(_tick(pages))
    stopped = asyncio.create_task(lines.readline())
    error = await carry(engine.crawl, pages, int(command[1]), stopped)
    ticker.cancel()
    stopped.cancel()
    say(pages.report().as_json())
    if error is not None:
        what = f"{type(error).__name__}: {error}"
        sys.stderr.write(f"{told(error, engine.path)}the crawler {engine.name} failed: {what}\n")
        return 1
    say({"done": True})
    return 0


def _own_part(plan: FleetPlan) -> ClientSpec:
    """Return the client with this worker's share of what the whole fleet has."""
    client = plan.scenario.client
    if client.pool is None:
        return client
    bounds = {"size": client.pool.size, "idle": client.pool.idle}
    own = {key: max(1, part.own_share(plan, most)) for key, most in bounds.items() if most}
    return client.model_copy(update={"pool": client.pool.model_copy(update=own)})


async def carry(
    crawl: Crawl, pages: Pages, start_ns: int, stopped: asyncio.Future[bytes]
) -> BaseException | None:
    """Let a crawler crawl from `start_ns` until the load is over, or `stopped` is done.

    What is under way then has a grace, and is cut off after it. Return what the crawler raised.
    """
    await asyncio.wait({stopped}, timeout=_left_s(start_ns))
    pages.start(start_ns)
    task = asyncio.create_task(_run(crawl, pages))
    either: set[asyncio.Future[Any]] = {task, stopped}
    if not stopped.done():
        await asyncio.wait(
            either, timeout=_left_s(pages.end_ns), return_when=asyncio.FIRST_COMPLETED
        )
    early = task.done() and not stopped.done() and pages.are_left
    pages.stop()
    await asyncio.wait({task}, timeout=pages.grace_s)
    cut_off = task.cancel()
    if cut_off:
        await asyncio.wait({task}, timeout=_TO_CLEAN_UP_S)
    forgotten = pages.cut_off()
    if not task.done() or task.cancelled():
        return None
    if task.exception() or cut_off:
        return task.exception()
    if forgotten:
        return CrawlerError(
            f"{forgotten} pages were taken and not visited: `with visit:` is missing"
        )
    if early:
        return CrawlerError(
            "it returned while there were pages left: `async for visit in pages` ends with them"
        )
    return None


async def _run(crawl: Crawl, pages: Pages) -> None:
    try:
        await crawl(pages)
    except SystemExit as error:
        # it would leave the loop, and this process without a last report
        raise CrawlerError("a crawler ends by returning: it called sys.exit()") from error


def _left_s(at_ns: int) -> float:
    return max(0, at_ns - time.monotonic_ns()) / part.SECOND_NS


async def _tick(pages: Pages) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        say(pages.report().as_json())


if __name__ == "__main__":
    main()
