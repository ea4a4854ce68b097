"""The ladders of all endings as files: what `docs/ladders` is made by."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twbench.model.endings import Ending
from twbench.trace.trace import Trace, trace_ending
from twbench.wire.drawing import draw_text
from twbench.wire.errors import StageError
from twbench.wire.svg import draw_svg

INDEX = "README.md"
_HEAD = """# How connections end

Each ladder is one connection between two hosts, seen in stop-motion: after every call and every
packet both kernels were quiet, and told their states. Made on Linux {kernel} by
`twbench trace --all --out {folder}`; `twbench trace ENDING` shows one with its times, and
`--save FILE.pcapng` keeps its packets.
"""


def trace_all(
    endings: Iterable[Ending], *, observe: Callable[[Ending], None] = lambda _ending: None
) -> list[Trace]:
    """Trace endings side by side, each on hosts of its own; `observe` is told of each that is done.

    Raises what `trace_ending` raises, and StageError where one was not played to its end.
    """

    def one(ending: Ending) -> Trace:
        traced = trace_ending(ending)
        if traced.broken_off:
            raise StageError(f"{ending.name}: {traced.broken_off}")
        observe(ending)
        return traced

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, endings))


def pages(traces: Iterable[Trace], *, folder: str, kernel: str) -> dict[str, str]:
    """Return the files of an album by name, the same in every run: no times are in them.

    `folder` and `kernel`, a version as in "6.18", stand in the index alone.
    """
    files = {}
    index = [_HEAD.format(folder=folder, kernel=kernel)]
    for each in traces:
        ladder = each.ladder
        files[f"{ladder.title}.txt"] = draw_text(ladder, times=False) + "\n"
        files[f"{ladder.title}.svg"] = draw_svg(ladder, times=False)
        index.append(f"## {ladder.title}\n\n{ladder.sentence} ([text]({ladder.title}.txt))\n")
        index.append(f"![the ladder of {ladder.title}]({ladder.title}.svg)\n")
    files[INDEX] = "\n".join(index)
    return files


def write(folder: Path, files: dict[str, str]) -> None:
    """Write an album. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
