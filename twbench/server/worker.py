"""A server process: a plan comes in on standard input, reports go out on standard output.

Out go `{"ready": …}`, which names the engine and why it was chosen, or `{"failed": …, "error": …}`
with what the kernel refused, then a report a tick. The end of the input, or the line `stop`, ends
the process.
"""

import asyncio
import time

from twbench.model.plans import ServerPlan
from twbench.process.lines import prepare_process, read_input, say, settle_memory
from twbench.process.listening import CannotListenError, listen
from twbench.process.loop import loop_name, run_loop
from twbench.server.engines import Engine, EngineRefusedError, choose
from twbench.server.ledger import Ledger

_TICK_S = 0.1


def main() -> None:
    """Run one server process to its end."""
    prepare_process()
    run_loop(_main())


async def _main() -> None:
    lines = await read_input()
    plan = ServerPlan.from_line(await lines.readline())
    ledger = Ledger()
    try:
        engine = choose(plan)
    except EngineRefusedError as refusal:
        say({"failed": str(refusal), "error": "uring"})
        return
    try:
        for endpoint in plan.endpoints:
            sock = listen(endpoint, family=plan.family, backlog=plan.server.backlog)
            await engine.serve(sock, ledger)
    except CannotListenError as failure:
        engine.close()
        say({"failed": str(failure), "error": failure.error})
        return
    settle_memory()
    say({"ready": {"engine": engine.name, "loop": loop_name(), "why": engine.why}})
    told = asyncio.create_task(lines.readline())
    work = [asyncio.create_task(each) for each in (_tick(ledger, engine), engine.run())]
    await asyncio.wait([told, *work], return_when=asyncio.FIRST_COMPLETED)
    for task in work:
        if task.done():
            task.result()
    work[0].cancel()
    engine.reap()
    engine.close()
    await work[1]
    say(ledger.take(time.monotonic_ns()).as_json())
    say({"done": True})


async def _tick(ledger: Ledger, engine: Engine) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        engine.reap()
        say(ledger.take(time.monotonic_ns()).as_json())


if __name__ == "__main__":
    main()
