"""A fleet worker's process: a plan comes in on standard input, reports go out on standard output.

The first line in is the plan, the second says when to start (`start <CLOCK_MONOTONIC ns>`), a later
`stop` or the end of the input ends the load. Out go `{"ready": …}`, or `{"failed": …}` where the
engine that was asked for cannot be had, then one report a tick, and last `{"done": true}`.
"""

import asyncio
import time

from twbench.fleet import uring
from twbench.fleet.ledger import Ledger
from twbench.fleet.streams import Streams
from twbench.model.plans import FleetPlan
from twbench.process.lines import prepare_process, read_input, say, settle_memory
from twbench.process.loop import loop_name, run_loop

_TICK_S = 0.1


def main() -> None:
    """Run one worker to its end."""
    prepare_process()
    run_loop(_main())


async def _main() -> None:
    lines = await read_input()
    plan = FleetPlan.from_line(await lines.readline())
    asked = plan.scenario.client.engine
    refusal = None if asked == "streams" else uring.why_not(plan)
    if refusal and asked == "uring":
        say({"failed": refusal, "error": "uring"})
        return
    ledger = Ledger()
    by_ring = asked != "streams" and not refusal
    engine = uring.Uring(plan, ledger) if by_ring else Streams(plan, ledger)
    settle_memory()
    name = "uring" if by_ring else "streams"
    say({"ready": {"engine": name, "loop": loop_name(), "why": _why(asked, refusal)}})
    command = (await lines.readline()).split()
    if command[:1] != [b"start"]:
        return
    ticker = asyncio.create_task(_tick(ledger))
    stopper = asyncio.create_task(_stop_on_command(lines, engine))
    await engine.run(int(command[1]))
    ticker.cancel()
    stopper.cancel()
    say(ledger.take(time.monotonic_ns()).as_json())
    say({"done": True})


def _why(asked: str, refusal: str | None) -> str:
    """Return why this engine was taken."""
    if asked == "auto":
        return refusal or "this kernel's io_uring can do all that the scenario asks for"
    return f"client.engine is {asked!r}"


async def _tick(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        say(ledger.take(time.monotonic_ns()).as_json())


async def _stop_on_command(lines: asyncio.StreamReader, engine: Streams | uring.Uring) -> None:
    await lines.readline()
    engine.stop()


if __name__ == "__main__":
    main()
