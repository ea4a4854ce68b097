"""`twbench claims`: textbook claims put to this kernel, each with a verdict and its evidence."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from types import FrameType
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from twbench.claims import folder
from twbench.claims.catalogue import CLAIMS, find
from twbench.claims.claim import Claim, Judgement, Verdict
from twbench.claims.runner import AT_ONCE, Observer, Result, State, Take
from twbench.claims.runner import run as run_claims
from twbench.cli.exits import Exit
from twbench.cli.options import RESULTS, Json, Out, Plain
from twbench.cli.show import print_json, stderr, stdout
from twbench.model.errors import UsageError
from twbench.process.lines import raise_descriptor_limit

_STYLES = {
    Verdict.CONFIRMED: "green",
    Verdict.REFUTED: "red",
    Verdict.NUANCED: "yellow",
    Verdict.UNSUPPORTED: "dim",
    Verdict.INCONCLUSIVE: "magenta",
}
_MARKS = {State.PLAYING: "·", State.PLAYED: "✓", State.FAILED: "✗", State.NOT_HERE: "-"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    claims = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
    claims.callback(invoke_without_command=True)(_list_unless_told)
    claims.command("list", help="Show every claim: what it says, its source, the time it needs.")(
        list_claims
    )
    claims.command(
        "run",
        help="Put claims to this kernel, each on hosts of its own: a verdict, with evidence.",
        epilog=(
            "Examples: twbench claims run --all · twbench claims run 3 lost-last-ack --json · "
            "twbench claims run 3 --expect lifetime_s=30 (your own expectation: refuted)"
        ),
    )(run)
    app.add_typer(
        claims,
        name="claims",
        help="Textbook claims put to this kernel, each with a verdict.",
        epilog="Examples: twbench claims · twbench claims run --all",
    )


def _list_unless_told(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_claims()


def list_claims(*, json: Json = False) -> None:
    """Show every claim."""
    if json:
        print_json(
            {
                "claims": [
                    {
                        "id": claim.id,
                        "sentence": claim.sentence,
                        "sources": list(claim.sources),
                        "needs_s": claim.needs_s,
                        "expected": dict(claim.expected),
                        "refuted_by": claim.refuted_by,
                    }
                    for claim in CLAIMS.values()
                ]
            }
        )
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("", justify="right")
    table.add_column("id", no_wrap=True)
    table.add_column("claim", ratio=3)
    table.add_column("source", ratio=2)
    table.add_column("time", justify="right", no_wrap=True)
    for number, claim in enumerate(CLAIMS.values(), start=1):
        sources = "; ".join(claim.sources)
        table.add_row(str(number), claim.id, claim.sentence, sources, f"{claim.needs_s:.0f} s")
    stdout().print(table)


def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="CLAIM...", help="ids or numbers")
    ] = None,
    out: Out = RESULTS,
    repeat: Annotated[
        int, typer.Option(min=1, max=1000, help="play each so often: do they agree?")
    ] = 1,
    expect: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="expect this instead of what --json lists"),
    ] = None,
    at_once: Annotated[
        int, typer.Option(min=1, max=500, help="experiments side by side")
    ] = AT_ONCE,
    *,
    every: Annotated[bool, typer.Option("--all", help="every claim")] = False,
    json: Json = False,
    plain: Plain = False,
) -> None:
    """Put claims to this kernel."""
    claims = _chosen(names or [], every=every)
    expected = _expectations(expect or [], claims)
    results_folder = folder.folder_for(out)
    folder.make(results_folder)
    raise_descriptor_limit()
    stop = threading.Event()
    with _stopped_by_ctrl_c(stop), _watching(claims, repeat, plain=plain or json) as observe:
        results = run_claims(
            claims,
            results=results_folder,
            repeats=repeat,
            expected=expected,
            at_once=at_once,
            stop=stop,
            observe=observe,
        )
    document = folder.write(results_folder, results)
    if json:
        print_json(document)
    else:
        console = stdout()
        console.print(_verdicts(results, repeat))
        console.print(f"evidence and reasoning: {results_folder}", soft_wrap=True)
    for result in results:
        for crash in result.crashed:
            stderr().print(Text(f"{result.claim.id}: this is a bug of twbench\n{crash}"))
    if stop.is_set():
        raise typer.Exit(Exit.INTERRUPTED)
    if any(_harness_failed(result) for result in results):
        raise typer.Exit(Exit.HARNESS_FAILED)


def _chosen(names: Sequence[str], *, every: bool) -> list[Claim]:
    if every and names:
        raise UsageError("--all and names: allowed is one of both")
    if not every and not names:
        raise UsageError("which claims? Name some (`twbench claims list`), or take --all")
    return list(CLAIMS.values()) if every else find(names)


def _expectations(words: Sequence[str], claims: Sequence[Claim]) -> dict[str, float]:
    known = sorted({name for claim in claims for name in claim.expected})
    expected = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            expected[name] = float(value)
        except ValueError:
            raise UsageError(f"--expect {word}: allowed is NAME=NUMBER") from None
        if not isfinite(expected[name]):
            raise UsageError(f"--expect {word}: allowed is a finite number")
        if name not in known:
            allowed = ", ".join(known) or "none, these claims expect no figures"
            raise UsageError(f"--expect: unknown name {name!r}; allowed: {allowed}")
    return expected


def _harness_failed(result: Result) -> bool:
    return bool(result.crashed) or result.judgement.verdict is Verdict.INCONCLUSIVE


@contextmanager
def _stopped_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """Make Ctrl-C end the experiments in order, so that what was judged is kept."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _watching(claims: Sequence[Claim], repeats: int, *, plain: bool) -> Iterator[Observer]:
    """Give an observer: a live table of the claims on a terminal, else a line an experiment."""
    console = stderr()
    total = repeats * sum(len(claim.scenes) for claim in claims)
    ended: list[Take] = []
    if plain or not console.is_terminal:

        def tell(take: Take, state: State, why: str) -> None:
            if state is not State.PLAYING:
                ended.append(take)
                line = f"{_MARKS[state]} {len(ended)}/{total} {take.claim.id}: {take.scene.name}"
                reason = why.strip().rpartition("\n")[2]
                console.print(Text(f"{line}{reason and f' ({reason})'}"), soft_wrap=True)

        yield tell
        return
    states: dict[Take, State] = {}
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def update(take: Take, state: State, _why: str) -> None:
            states[take] = state
            live.update(_progress(claims, states))

        yield update


def _progress(claims: Sequence[Claim], states: dict[Take, State]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for claim in claims:
        of_it = {take: state for take, state in states.items() if take.claim is claim}
        playing = [take.scene.name for take, state in of_it.items() if state is State.PLAYING]
        marks = "".join(_MARKS[state] for state in of_it.values())
        waits = ", ".join(dict.fromkeys(playing)) if playing else ""
        table.add_row(claim.id, marks, Text(waits, style="dim", overflow="ellipsis", no_wrap=True))
    return table


def _verdicts(results: Sequence[Result], repeats: int) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    if repeats > 1:
        table.add_column("agree", justify="right")
    table.add_column("what is so here", ratio=1)
    counts = folder.agreement(results)
    for result in results:
        if result.repeat > 1:
            continue
        verdict = result.judgement.verdict
        row: list[str | Text] = [result.claim.id, Text(str(verdict), style=_STYLES[verdict])]
        if repeats > 1:
            row.append(f"{counts[result.claim.id][str(verdict)]}/{repeats}")
        lines = [result.claim.sentence, f"→ {result.judgement.finding}", _why(result.judgement)]
        table.add_row(*row, Text("\n".join(filter(None, lines))))
    return table


def _why(judgement: Judgement) -> str:
    """Return the check that keeps a claim from being confirmed, as a line."""
    failed = [c for c in (*judgement.controls, *judgement.claimed) if not c.holds]
    caveats = [check for check in judgement.caveats if check.holds]
    if failed:
        return f"✗ {failed[0].text}"
    return f"! {caveats[0].text}" if caveats else ""
