"""A server process: a plan comes in on standard input, reports go out on standard output.

Out go `{"ready": …}` or `{"failed": …, "error": …}` with what the kernel refused, then a report a
tick. The end of the input, or the line `stop`, ends the process.
"""

import asyncio
import time

from twbench.model.plans import Endpoint, ServerPlan
from twbench.process.lines import prepare_process, read_input, say, settle_memory
from twbench.process.listening import CannotListenError, listen
from twbench.process.loop import loop_name, run_loop
from twbench.server.abrupt import AbruptListener
from twbench.server.behaviour import Behaviour
from twbench.server.http import Listener
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
        listeners = [await _listen(plan, endpoint, ledger) for endpoint in plan.endpoints]
    except CannotListenError as failure:
        say({"failed": str(failure), "error": failure.error})
        return
    settle_memory()
    say({"ready": {"engine": "asyncio", "loop": loop_name()}})
    ticker = asyncio.create_task(_tick(ledger, listeners))
    await lines.readline()
    ticker.cancel()
    for listener in listeners:
        listener.close()
    say(ledger.take(time.monotonic_ns()).as_json())
    say({"done": True})


async def _listen(
    plan: ServerPlan, endpoint: Endpoint, ledger: Ledger
) -> Listener | AbruptListener:
    sock = listen(endpoint, family=plan.family, backlog=plan.server.backlog)
    if plan.ending.kind in ("server-unread", "crash"):
        crash = plan.ending.kind == "crash"
        return AbruptListener(sock, ledger, crash=crash, hold_s=plan.ending.hold_s)
    listener = Listener(Behaviour.of(plan), ledger)
    loop = asyncio.get_running_loop()
    await loop.create_server(listener, sock=sock, backlog=plan.server.backlog)
    return listener


async def _tick(ledger: Ledger, listeners: list[Listener | AbruptListener]) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        for listener in listeners:
            listener.reap()
        say(ledger.take(time.monotonic_ns()).as_json())


if __name__ == "__main__":
    main()
