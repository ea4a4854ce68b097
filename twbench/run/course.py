"""The course of one run: make the hosts, start everything, keep the books, end in order."""

import asyncio
import contextlib
import functools
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twbench.kernel.choose import Readers, open_readers
from twbench.kernel.errors import CodecError
from twbench.lab.lab import Lab
from twbench.lab.names import hosts_text
from twbench.model.errors import LabError, RecordError
from twbench.model.scenario import Scenario
from twbench.model.states import Side
from twbench.process.loop import run_loop
from twbench.record.schema import ENVIRONMENT, SUMMARY
from twbench.record.writer import RunWriter
from twbench.run.books import Books
from twbench.run.carrying import start_carrier
from twbench.run.children import Child, refuse_taken_endpoints
from twbench.run.environment import describe_environment
from twbench.run.interrupts import on_interrupt
from twbench.run.journal import Journal
from twbench.run.planning import (
    carrier_plan,
    endpoints,
    fleet_plans,
    lab_plan,
    port_range,
    server_plan,
    site_addresses,
    worker_module,
)
from twbench.run.program import EndedBy, NoProgramError, Program, check_program, urls
from twbench.run.progress import Observer, Progress, progress_of
from twbench.run.summarise import Notes, summarise_run
from twbench.sampler.sampler import Sampler, Stack

HOSTS = "hosts"
"""The file of a results folder that a program or a crawler has for its /etc/hosts."""
_SECOND_NS = 1_000_000_000
_LEAD_NS = 200_000_000
_SHOW_EVERY_S = 0.25
_QUIET_WITHIN_S = 5.0
_AGAIN_WITHIN_S = 10.0
_REPORTS_WITHIN_S = 0.25
_GRACE_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A run that has come to its end."""

    path: Path
    """Its results folder."""
    summary: dict[str, Any]
    """What summary.json holds."""
    interrupted: bool
    """Whether it was ended before its time by whoever runs it."""


def run_scenario(
    scenario: Scenario,
    *,
    results_dir: Path,
    observe: Observer = lambda _: None,
    program: Program | None = None,
) -> Result:
    """Run a scenario, or a `program` in its fleet's place, and return the result.

    Ctrl-C (SIGINT, SIGTERM) ends the run in order, with its results; a second one ends it at once.

    Raises:
        ScenarioError: the scenario asks for what no lab can be; nothing has been written then.
        LabError: the hosts cannot be made here.
        NoProgramError: the program cannot be run.
        UsageError: the results folder cannot be used; as RecordError where that shows in mid-run.
    """
    if program is not None:
        check_program(scenario)
        scenario = scenario.for_foreign_client()
    lab = Lab(lab_plan(scenario))
    writer = RunWriter(results_dir, scenario.name, started=datetime.now(UTC))
    with lab, writer, contextlib.ExitStack() as opened:
        readers = {stack: opened.enter_context(_readers(lab, stack)) for stack in lab.stacks}
        course = Course(scenario, lab, readers, writer, observe, program)
        return run_loop(course.run())


def _readers(lab: Lab, stack: str) -> Readers:
    if lab.network(stack) is None:
        return open_readers()
    return open_readers(
        open_file=functools.partial(lab.open, stack),
        open_socket=functools.partial(lab.socket, stack),
    )


class Course:
    """Everything that lives while a run lives."""

    def __init__(
        self,
        scenario: Scenario,
        lab: Lab,
        readers: dict[str, Readers],
        writer: RunWriter,
        observe: Observer,
        program: Program | None = None,
    ) -> None:
        """Take hold of what has been made; `run` does the rest."""
        self._program = program
        self._foreign = program is not None or scenario.crawls
        self._scenario = scenario
        self._lab = lab
        self._readers = readers
        self._writer = writer
        self._observe = observe
        self._books = Books(tuple(lab.stacks), tuple(h.name for h in lab.plan.clients))
        self._carriers: list[Child] = []
        self._servers: list[Child] = []
        self._workers: list[Child] = []
        refused = functools.partial(self._stop, "the results folder takes no more")
        self._journal = Journal(writer, self._books, refused)
        self._stage = "starting"
        self._stopping = asyncio.Event()
        self._interrupted = False
        self._ended_early = ""
        self._engines: dict[str, Any] = {}
        self._sampled = False
        client = lab.plan.clients[0].stack
        sysctls = lab.sysctls_before[client]
        self._sysctls = sysctls
        self._port_range = port_range(scenario, sysctls)

    async def run(self) -> Result:
        """Go through the whole course."""
        self._writer.write_toml(self._scenario.model_dump(mode="json", exclude_none=True))
        with self._interruptible(), self._sampler() as sampler:
            try:
                engines = await self._start_children()
                self._engines = engines
                self._write_environment()
                load_s = await self._offer_load(sampler)
                await self._settle(sampler)
                await self._sample_on()
                await self._last_samples(sampler)
            except (LabError, NoProgramError):
                if self._stage == "starting":
                    self._writer.discard()
                raise
            finally:
                # a run that is cut short here waits for nobody
                await self._end_children(within_s=_GRACE_S / 2 if self._sampled else 0)
        self._journal.flush()
        environment = self._write_environment(after=True)
        summary = summarise_run(
            scenario=self._scenario,
            plan=self._lab.plan,
            books=self._books,
            start_ns=self._journal.start_ns,
            load_s=load_s,
            sysctls=self._sysctls,
            notes=Notes(
                warnings=self._warnings(),
                events=self._journal.events,
                ended_early=self._ended_early,
                program=self._program.account() if self._program else None,
            ),
            foreign=self._foreign,
        )
        if self._journal.refusal is not None:
            raise self._journal.refusal
        whole = self._writer.write_json(SUMMARY, {"environment": environment, **summary})
        return Result(path=self._writer.path, summary=whole, interrupted=self._interrupted)

    # the stages

    async def _start_children(self) -> dict[str, Any]:
        """Start the wire, then servers, then workers; return what each kind runs on."""
        engines: dict[str, Any] = {}
        if carrying := carrier_plan(self._scenario, self._lab.plan):
            child = Child("the wire's carrier", "wire", self._journal.hear_carrier)
            self._carriers.append(child)
            folder = self._writer.path
            engines["wire"] = await start_carrier(child, self._lab, carrying, folder)
            child.ended.add_done_callback(functools.partial(self._carrier_ended, child))
        serving = server_plan(self._scenario, self._lab.plan, foreign=self._foreign)
        if not self._lab_is_own:
            refuse_taken_endpoints(serving)
        server = serving.as_line()
        for number in range(self._scenario.server.processes):
            child = Child(
                f"server process {number + 1}", Side.SERVER.value, self._journal.hear_server
            )
            self._servers.append(child)
            engines["server"] = await child.start(self._lab, "twbench.server.worker", server)
            child.ended.add_done_callback(functools.partial(self._server_ended, child))
        if self._foreign:
            self._write_hosts()
        if self._program is None:
            engines |= await self._start_workers()
        return engines

    async def _start_workers(self) -> dict[str, Any]:
        engines = {}
        module = worker_module(self._scenario)
        hosts = self._hosts if self._foreign else None
        for number, (host, plan) in enumerate(fleet_plans(self._scenario, self._lab.plan)):
            child = Child(f"fleet worker {number + 1}", host, self._journal.hear_fleet)
            self._workers.append(child)
            engines["fleet"] = await child.start(self._lab, module, plan.as_line(), hosts=hosts)
            child.ended.add_done_callback(functools.partial(self._worker_ended, child))
        return engines

    async def _offer_load(self, sampler: Sampler) -> float:
        """Let the fleet or the program offer its load; return for how many seconds it did."""
        sampling = asyncio.create_task(sampler.run())
        sampling.add_done_callback(self._sampling_ended)
        showing = asyncio.create_task(self._show())
        self._background = (sampling, showing)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            if self._program is None:
                return await self._offer_by_fleet(stopping)
            return await self._offer_by_program(self._program, stopping)
        finally:
            stopping.cancel()

    async def _offer_by_fleet(self, stopping: "asyncio.Task[Any]") -> float:
        self._stage = "load"
        self._journal.start_ns = time.monotonic_ns() + _LEAD_NS
        for worker in self._workers:
            await worker.say(b"start %d\n" % self._journal.start_ns)
        everyone = asyncio.gather(*(worker.ended for worker in self._workers))
        client = self._scenario.client
        most_s = self._scenario.load.total_s + client.request_timeout_s + _GRACE_S
        most_s += self._scenario.ending.hold_s
        waited: set[asyncio.Future[Any]] = {stopping, everyone}
        await asyncio.wait(waited, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
        load_s = self._offered_s()
        for worker in self._workers:
            if not everyone.done():
                await worker.say(b"stop\n")
        if not everyone.done():
            await asyncio.wait({everyone}, timeout=_GRACE_S + self._scenario.ending.hold_s)
        for worker in self._workers:
            await worker.finish(within_s=0)
        return load_s

    async def _offer_by_program(self, program: Program, stopping: "asyncio.Task[Any]") -> float:
        plan = self._lab.plan
        self._journal.start_ns = time.monotonic_ns()
        environment = urls(self._scenario, plan)
        client = plan.clients[0].name
        await program.start(self._lab, client, hosts=self._hosts, environment=environment)
        self._stage = "load"
        waited: set[asyncio.Future[Any]] = {stopping, program.ended}
        most_s = self._scenario.load.total_s
        await asyncio.wait(waited, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
        load_s = self._offered_s()
        cause = EndedBy.RUN if stopping.done() else EndedBy.DURATION
        if await program.end(EndedBy.INTERRUPT if self._interrupted else cause):
            self._event(
                "the program, or what it had started, did not end when asked to, and was killed"
            )
        return load_s

    def _offered_s(self) -> float:
        return min(self._scenario.load.total_s, max(0.0, self._journal.seconds))

    async def _settle(self, sampler: Sampler) -> None:
        """Wait until only TIME_WAIT is left and every process has reported."""
        self._stage = "settling"
        limit_s = self._journal.seconds + _QUIET_WITHIN_S
        if any(not carrier.ended.done() for carrier in self._carriers):
            # what the wire lost is sent again, and what it holds goes on at last
            limit_s += _AGAIN_WITHIN_S + self._scenario.ending.hold_s
        await asyncio.sleep(_REPORTS_WITHIN_S)
        while True:
            looked = await self._look(sampler, "settling")
            quiet = all(stack.quiet for stack in self._books.stacks.values())
            if quiet or not looked or self._journal.seconds > limit_s or not self._lab_is_own:
                return
            await asyncio.sleep(_REPORTS_WITHIN_S)

    async def _sample_on(self) -> None:
        """Go on sampling for as long as the scenario says, then end the background tasks."""
        after_s = self._scenario.sampling.after_s
        if after_s and not self._stopping.is_set():
            self._stage = "sampling on"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), after_s)
        for task in self._background:
            task.cancel()
        await asyncio.wait(self._background)

    async def _last_samples(self, sampler: Sampler) -> None:
        self._sampled = True
        if await self._look(sampler, "end"):
            sampler.tick_now()

    async def _look(self, sampler: Sampler, label: str) -> bool:
        """Look at every stack now; return False, and record why, where that fails."""
        try:
            await sampler.look_now(label)
        except (OSError, CodecError) as error:
            self._event(f"the look '{label}' failed: {error}")
            return False
        return True

    def _sampling_ended(self, sampling: "asyncio.Task[None]") -> None:
        """A sampler that fails leaves the run blind: end it, with what there is."""
        if not sampling.cancelled() and (error := sampling.exception()) is not None:
            self._event(f"the sampler failed: {error}")
            self._stop("the sampler failed")

    async def _end_children(self, *, within_s: float) -> None:
        if self._program is not None:
            await self._program.kill()
        for together in ((*self._workers, *self._servers), self._carriers):
            children = [child for child in together if child.started]
            for child in children:
                await child.say(b"stop\n")
            await asyncio.gather(*(child.finish(within_s=within_s) for child in children))

    # who ends

    def _server_ended(self, child: Child, ended: "asyncio.Task[int]") -> None:
        if child.done:
            return
        self._event(f"{child.name} ended with status {ended.result()}", child.complaint)
        if all(server.ended.done() for server in self._servers):
            self._stop("every server process has ended")

    def _carrier_ended(self, child: Child, ended: "asyncio.Task[int]") -> None:
        if not child.done:
            self._event(f"{child.name} ended with status {ended.result()}", child.complaint)
            self._stop(f"{child.name} has ended")

    def _worker_ended(self, child: Child, ended: "asyncio.Task[int]") -> None:
        if not child.done:
            what = f"{child.name} ended with status {ended.result()}"
            self._event(what, child.complaint)
            self._ended_early = self._ended_early or what

    def _event(self, what: str, detail: str = "") -> None:
        self._journal.event(what, detail)
        self._observe(self._progress(event=what))

    def _stop(self, why: str) -> None:
        self._ended_early = self._ended_early or why
        self._stopping.set()

    # the frame

    def _interruptible(self) -> contextlib.AbstractContextManager[None]:
        """Let the first interrupt end the run in order, and the second end it at once."""
        task = asyncio.current_task()

        def interrupt() -> None:
            if self._interrupted and task is not None:
                task.cancel()
            self._interrupted = True
            self._stop("interrupted")

        return on_interrupt(interrupt)

    def _sampler(self) -> Sampler:
        servers = frozenset(endpoints(self._lab.plan))
        stacks = [
            Stack(
                name=name,
                ticks=readers.ticks,
                looks=readers.looks,
                servers=servers,
                port_range=self._port_range,
            )
            for name, readers in self._readers.items()
        ]
        sampling = self._scenario.sampling
        return Sampler(
            stacks,
            self._journal.hear_sample,
            ticks_per_s=sampling.ticks_per_s,
            looks_per_s=sampling.looks_per_s,
        )

    async def _show(self) -> None:
        while True:
            self._observe(self._progress())
            await asyncio.sleep(_SHOW_EVERY_S)
            with contextlib.suppress(RecordError):
                self._writer.flush_if_due(now_s=time.monotonic())

    def _progress(self, event: str = "") -> Progress:
        return progress_of(
            self._books,
            self._scenario,
            self._lab.plan,
            port_range=self._port_range,
            stage=self._stage,
            t_s=self._journal.seconds,
            event=event,
        )

    def _write_environment(self, *, after: bool = False) -> dict[str, Any]:
        environment = describe_environment(
            before=self._lab.sysctls_before,
            after=self._sysctls_now() if after else None,
            engines=self._engines,
            sources={
                stack: {"ticks": r.ticks.source, "looks": r.looks.source}
                for stack, r in self._readers.items()
            },
        )
        self._journal.write(ENVIRONMENT, environment)
        return environment

    @property
    def _hosts(self) -> Path:
        """The hosts file of a client that finds the server by its names."""
        return (self._writer.path / HOSTS).resolve()

    def _write_hosts(self) -> None:
        self._writer.write_text(HOSTS, hosts_text(site_addresses(self._scenario, self._lab.plan)))

    def _sysctls_now(self) -> dict[str, dict[str, str]] | None:
        before = self._lab.sysctls_before
        try:
            return {stack: self._lab.sysctls(stack, names) for stack, names in before.items()}
        except LabError as error:
            self._event(f"the sysctls at the end are not known: {error.what}")
            return None

    def _warnings(self) -> tuple[str, ...]:
        fallbacks = (f"{stack}: {w}" for stack, r in self._readers.items() for w in r.warnings)
        return (*self._lab.warnings, *fallbacks)

    @property
    def _lab_is_own(self) -> bool:
        return any(self._lab.network(stack) is not None for stack in self._lab.stacks)
