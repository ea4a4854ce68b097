"""`twbench watch`: the sampler alone."""

import asyncio
import contextlib
import json as json_module
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from twbench.cli.options import Json, Plain
from twbench.cli.show import stderr, stdout
from twbench.kernel.choose import open_readers
from twbench.lab.sysctls import read_sysctls
from twbench.process.loop import run_loop
from twbench.run.interrupts import on_interrupt
from twbench.run.planning import DEFAULT_PORT_RANGE, PORT_RANGE
from twbench.sampler.sampler import Sampler, Stack
from twbench.sampler.samples import LookSample, Sample, TickSample

_SHOWN_DESTINATIONS = 8
_RATES = ("TcpActiveOpens", "TcpPassiveOpens", "TcpExtTW", "TcpOutRsts", "TcpRetransSegs")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "watch",
        help="Watch this machine's TCP, or that of a process's network namespace; read-only.",
        epilog="Examples: twbench watch · twbench watch --pid 4711 --seconds 60 --json",
    )(watch)


def watch(
    pid: Annotated[int | None, typer.Option(help="watch the namespace of this process")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="end after so long; else at Ctrl-C")
    ] = None,
    looks_per_s: Annotated[
        float, typer.Option(min=0.01, max=20, help="dumps of all sockets a second")
    ] = 1.0,
    *,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Watch until Ctrl-C."""
    with open_readers(pid=pid) as readers:
        for warning in readers.warnings:
            stderr().print(f"! {warning}")
        ports = _port_range(pid)
        if ports is None:
            ports = DEFAULT_PORT_RANGE
            stderr().print("! local ports: the kernel's default range is assumed,", _span(ports))
        stack = Stack(name="watched", ticks=readers.ticks, looks=readers.looks, port_range=ports)
        run_loop(_watch(stack, seconds, looks_per_s, json=json, plain=plain))


def _port_range(pid: int | None) -> tuple[int, int] | None:
    """Return the ephemeral ports of what is watched; None where they cannot be read.

    /proc/sys shows the reader's own namespace, whosever folder it is read in.
    """
    if pid is not None and not _shares_our_namespace(pid):
        return None
    low, _, high = read_sysctls([PORT_RANGE]).get(PORT_RANGE, "").partition(" ")
    return (int(low), int(high)) if low and high else None


def _shares_our_namespace(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/ns/net").samefile("/proc/self/ns/net")
    return False


def _span(ports: tuple[int, int]) -> str:
    return f"{ports[0]}-{ports[1]}"


async def _watch(
    stack: Stack, seconds: float | None, looks_per_s: float, *, json: bool, plain: bool
) -> None:
    start_ns = time.monotonic_ns()
    view = _View(stack.port_range)
    console = stdout()
    live = None if json or plain or not console.is_terminal else Live(console=console)

    def emit(sample: Sample) -> None:
        if json:
            sys.stdout.write(json_module.dumps(sample.as_json(start_ns)) + "\n")
            sys.stdout.flush()
            return
        view.hear(sample)
        if isinstance(sample, LookSample):
            if live is None:
                _print_line(console, view, sample, start_ns)
            else:
                live.update(view.draw())

    stop = asyncio.Event()
    with (
        on_interrupt(stop.set),
        Sampler([stack], emit, looks_per_s=looks_per_s) as sampler,
        live or contextlib.nullcontext(),
    ):
        sampling = asyncio.create_task(sampler.run())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait(
            {sampling, stopping}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        stopping.cancel()
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling


class _View:
    """The latest tick and look, and the rates between the last two looks' ticks."""

    def __init__(self, port_range: tuple[int, int]) -> None:
        self.port_range = port_range
        self.tick: TickSample | None = None
        self.look: LookSample | None = None
        self.rates: dict[str, float] = {}
        self._before: TickSample | None = None

    def hear(self, sample: Sample) -> None:
        if isinstance(sample, LookSample):
            self.look = sample
            if self.tick and self._before and self.tick.t_ns > self._before.t_ns:
                span_s = (self.tick.t_ns - self._before.t_ns) / 1e9
                self.rates = {
                    name: (self.tick.counters.get(name, 0) - self._before.counters.get(name, 0))
                    / span_s
                    for name in _RATES
                }
            self._before = self.tick
        else:
            self.tick = sample

    def states(self) -> dict[str, int]:
        """Return sockets by state, both sides together."""
        total: dict[str, int] = {}
        for states in (self.look.states_by_side if self.look else {}).values():
            for state, count in states.items():
                total[state] = total.get(state, 0) + count
        return total

    def draw(self) -> RenderableType:
        """Return what a terminal shows."""
        low, high = self.port_range
        states = Table("state", "sockets", title="states", header_style="dim", title_justify="left")
        for state, count in sorted(self.states().items(), key=lambda item: -item[1]):
            states.add_row(state, f"{count:,}")
        ports = Table("destination", "local ports in use", header_style="dim", title_justify="left")
        ports.title = f"towards each destination, of {high - low + 1:,}"
        used = sorted(self.look.ports_in_use.items(), key=lambda i: -i[1]) if self.look else []
        for destination, count in used[:_SHOWN_DESTINATIONS]:
            ports.add_row(destination, f"{count:,}")
        source = f"{self.tick.source} and {self.look.source}" if self.tick and self.look else ""
        rates = "   ".join(f"{name} {rate:,.0f}/s" for name, rate in self.rates.items())
        return Group(Text(rates), states, ports, Text(f"read from {source}", style="dim"))


def _print_line(console: Console, view: _View, look: LookSample, start_ns: int) -> None:
    states = "  ".join(f"{state} {count:,}" for state, count in sorted(view.states().items()))
    fullest = max(look.ports_in_use.items(), key=lambda item: item[1], default=None)
    ports = f"  ports {fullest[1]:,} to {fullest[0]}" if fullest else ""
    at_s = (look.t_ns - start_ns) / 1e9
    console.print(f"{at_s:7.1f} s  {states or 'no sockets'}{ports}", soft_wrap=True)
