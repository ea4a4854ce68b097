"""The bundled server alone, for clients that are not ours."""

import asyncio
import contextlib
from collections.abc import Callable

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.errors import LabError
from twbench.model.plans import ServerPlan
from twbench.model.reports import ServerReport
from twbench.model.states import Side
from twbench.process.loop import run_loop
from twbench.run.children import Child, Message, refuse_taken_endpoints
from twbench.run.interrupts import on_interrupt

_TELL_EVERY_S = 1.0
_END_WITHIN_S = 5.0
_REMEDY = "find out what ended them: status -9 is a kill, the OOM killer's shows in `dmesg`"


def serve_alone(
    plan: ServerPlan,
    *,
    processes: int,
    ready: Callable[[], None],
    tell: Callable[[ServerReport], None],
    warn: Callable[[str], None] = lambda _: None,
) -> ServerReport:
    """Serve on this machine until Ctrl-C; return all that was counted.

    `ready` is called once the server listens, `tell` every second with the counts so far,
    `warn` for each process that ended without being asked to.

    Raises:
        LabError: the address is taken, or is not this machine's; or no process is left to serve.
    """
    refuse_taken_endpoints(plan)
    with Lab(LabPlan(link=Link.HOST)) as lab:
        return run_loop(_serve(lab, plan, processes, ready, tell, warn))


async def _serve(
    lab: Lab,
    plan: ServerPlan,
    processes: int,
    ready: Callable[[], None],
    tell: Callable[[ServerReport], None],
    warn: Callable[[str], None],
) -> ServerReport:
    total = ServerReport()

    def hear(_: Child, message: Message) -> None:
        total.add(ServerReport.from_json(message))

    stop = asyncio.Event()
    children = [Child(f"server process {n + 1}", Side.SERVER, hear) for n in range(processes)]
    with on_interrupt(stop.set):
        try:
            for child in children:
                await child.start(lab, "twbench.server.worker", plan.as_line())
            ready()
            serving = children
            while serving and not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _TELL_EVERY_S)
                tell(total)
                for child in [each for each in serving if each.ended.done()]:
                    warn(_last_words(child))
                serving = [each for each in serving if not each.ended.done()]
            if not serving:
                raise LabError("every server process has ended by itself", remedy=_REMEDY)
        finally:
            for child in children:
                if child.started:
                    await child.say(b"stop\n")
                    await child.finish(within_s=_END_WITHIN_S)
    return total


def _last_words(child: Child) -> str:
    words = child.complaint.strip().splitlines()[-1:]
    return ": ".join([f"{child.name} ended with status {child.ended.result()}", *words])
