"""`twbench trace`: how a connection ends, packet by packet, in stop-motion."""

import difflib
import errno
import os
import platform
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from twbench.cli.options import Json
from twbench.cli.show import print_json, stderr, stdout
from twbench.model.endings import ENDINGS, Ending
from twbench.model.errors import UsageError
from twbench.trace.album import pages, trace_all, write
from twbench.trace.trace import Trace, trace_ending
from twbench.wire.drawing import NARROWEST, draw_text
from twbench.wire.errors import StageError
from twbench.wire.svg import draw_svg

_FAMILIES = {"ipv4": 4, "ipv6": 6}
_WIDEST = 120
_WRITERS: dict[str, Callable[[Trace], bytes]] = {
    ".svg": lambda traced: draw_svg(traced.ladder).encode(),
    ".pcapng": lambda traced: traced.capture,
    ".txt": lambda traced: draw_text(traced.ladder).encode() + b"\n",
    ".json": lambda traced: dumps(traced.ladder.as_json(), indent=2).encode() + b"\n",
}
_KEPT = ", ".join(_WRITERS)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "trace",
        help=(
            "Play how a connection ends in stop-motion: calls, packets, and both ends' states."
            f" Endings: {', '.join(ENDINGS)}."
        ),
        epilog=(
            "Examples: twbench trace client-fin · twbench trace simultaneous --save crossed.svg · "
            "twbench trace client-fin --rule 'drop client→server ACK after server FIN, once'. "
            "All rules: docs/rules.md"
        ),
    )(trace)


def trace(
    ending: Annotated[str, typer.Argument(metavar="ENDING", help="one ending")] = "",
    family: Annotated[Literal["ipv4", "ipv6"], typer.Option(help="of the addresses")] = "ipv4",
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="RULE", help="what the wire does; can be given many times"),
    ] = None,
    save: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help=f"keep it too, as {_KEPT}; can be given many times"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="with --all: text and picture of each")
    ] = None,
    *,
    to_the_end: Annotated[
        bool, typer.Option("--to-the-end", help="watch TIME_WAIT until it is over, a minute")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="every ending, side by side")] = False,
    json: Json = False,
) -> None:
    """Play an ending and print its ladder."""
    if every:
        if ending or out is None or rule or save or to_the_end or json or family != "ipv4":
            raise UsageError("--all takes --out DIR to write the ladders to, and nothing else")
        _all(out)
        return
    if out is not None:
        raise UsageError("--out goes with --all; for one ending there is --save FILE")
    known = _known(ending)
    for path in save or ():
        _check(path)
    traced = trace_ending(known, family=_FAMILIES[family], rules=rule or (), to_the_end=to_the_end)
    if json:
        print_json(traced.ladder.as_json())
    else:
        console = stdout()
        width = min(max(console.width, NARROWEST), _WIDEST)
        console.print(Text(draw_text(traced.ladder, width=width)), soft_wrap=True)
    for path in save or ():
        _keep(path, _WRITERS[path.suffix](traced))
    if traced.broken_off:
        raise StageError(traced.broken_off)


def _known(name: str) -> Ending:
    if name in ENDINGS:
        return ENDINGS[name]
    near = difflib.get_close_matches(name, ENDINGS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    found = f"unknown ending {name!r}" if name else "no ending given"
    raise UsageError(f"{found}; {hint}allowed: {', '.join(ENDINGS)}, or --all")


def _all(out: Path) -> None:
    if fault := _fault_of_folder(out):
        raise UsageError(f"--out: {out}: {fault}")
    progress = stderr()
    kernel = ".".join(platform.release().split(".")[:2])
    traces = trace_all(ENDINGS.values(), observe=lambda done: progress.print(f"✓ {done.name}"))
    try:
        write(out, pages(traces, folder=str(out), kernel=kernel))
    except OSError as error:
        raise UsageError(f"--out: {out}: {error.strerror}") from None
    stdout().print(f"ladders: {out}", soft_wrap=True)


def _fault_of_folder(out: Path) -> str:
    """Make a folder; return why files cannot be written there, empty where they can."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)
    return "" if os.access(out, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def _check(path: Path) -> None:
    """Refuse, before anything is played, a file that could not be kept."""
    if path.suffix not in _WRITERS:
        raise UsageError(f"--save {path}: found suffix {path.suffix!r}; allowed: {_KEPT}")
    code = 0
    if not path.parent.exists():
        code = errno.ENOENT
    elif not path.parent.is_dir():
        code = errno.ENOTDIR
    elif path.is_dir():
        code = errno.EISDIR
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        code = errno.EACCES
    if code:
        raise _unwritable(path, os.strerror(code))


def _keep(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _unwritable(path, error.strerror) from None


def _unwritable(path: Path, fault: str | None) -> UsageError:
    return UsageError(f"--save {path}: {fault}; name a file that can be written")
