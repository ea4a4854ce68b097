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
    ledger = Ledger()
    asked = plan.scenario.client.engine
    engine: Streams | uring.Uring | None = None
    why = f"client.engine is {asked!r}"
    if asked != "streams":
        engine, found = _on_ring(plan, ledger)
        if engine is None and asked == "uring":
            say({"failed": found, "error": "uring"})
            return
        why = found if asked == "auto" else why
    engine = engine or Streams(plan, ledger)
    settle_memory()
    name = "streams" if isinstance(engine, Streams) else "uring"
    say({"ready": {"engine": name, "loop": loop_name(), "why": why}})
    command = (await lines.readline()).split()
    if command[:1] != [b"start"]:
        return
    ledger.cpu_ns = time.process_time_ns()
    ticker = asyncio.create_task(_tick(ledger))
    stopper = asyncio.create_task(_stop_on_command(lines, engine))
    await engine.run(int(command[1]))
    ticker.cancel()
    stopper.cancel()
    say(ledger.take(time.monotonic_ns(), cpu_ns=time.process_time_ns()).as_json())
    say({"done": True})


def _on_ring(plan: FleetPlan, ledger: Ledger) -> tuple[uring.Uring | None, str]:
    """Return the engine `uring`, or none, and why."""
    if refusal := uring.why_not(plan):
        return None, refusal
    try:
        engine = uring.Uring(plan, ledger)
    except OSError as error:
        return None, f"io_uring: {error.strerror}"
    return engine, "this kernel's io_uring can do all that the scenario asks for"


async def _tick(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        say(ledger.take(time.monotonic_ns(), cpu_ns=time.process_time_ns()).as_json())


async def _stop_on_command(lines: asyncio.StreamReader, engine: Streams | uring.Uring) -> None:
    await lines.readline()
    engine.stop()


if __name__ == "__main__":
    main()
