"""Holds the room table of docs/architecture.md true: who may import whom, at what cost."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "twbench"
PICTURE = ROOT / "docs" / "architecture.md"

# What each room may import, in the order of docs/architecture.md.
ROOMS: dict[str, set[str]] = {
    "model": set(),
    "forecast": {"model"},
    "kernel": {"model"},
    "process": {"model"},
    "uring": set(),
    "lab": {"model", "uring"},
    "wire": {"model", "kernel", "process"},
    "server": {"model", "process", "uring"},
    "fleet": {"model", "process", "uring"},
    "crawl": {"model", "process", "fleet"},
    "sampler": {"model", "kernel"},
    "record": {"model"},
    "audit": {"model", "record"},
    "run": {
        *(
            "model",
            "forecast",
            "kernel",
            "process",
            "uring",
            "lab",
            "wire",
            "server",
            "fleet",
            "crawl",
            "sampler",
        ),
        *("record", "audit"),
    },
    "trace": {"model", "lab", "wire"},
    "claims": {"model", "kernel", "lab", "wire", "record", "trace"},
    "compare": {"model", "run", "record"},
    "report": {"model", "record", "audit"},
    "cli": {
        *(
            "model",
            "forecast",
            "kernel",
            "process",
            "uring",
            "lab",
            "wire",
            "server",
            "fleet",
            "crawl",
            "sampler",
        ),
        *("record", "audit", "run", "trace", "claims", "compare", "report"),
    },
}
# The two modules above the rooms: the library's verbs, loaded on first use, and `python -m`.
TOP = {"twbench": set(ROOMS), "twbench.__main__": {"cli"}}

HEAVY = ("typer", "rich", "pydantic", "numpy", "psutil", "pyroute2", "uvloop", "asyncio")

# One fresh interpreter; before each module, everything of ours is forgotten, so that each is
# imported first once. Circular imports and names that only exist by luck show.
IMPORT_EACH = """
import importlib, json, sys, traceback
failures = {}
for name in json.load(sys.stdin):
    for loaded in [m for m in sys.modules if m == "twbench" or m.startswith("twbench.")]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except BaseException:
        failures[name] = traceback.format_exc()
print(json.dumps(failures))
"""


def modules() -> dict[str, Path]:
    """Return every module of the package, by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the full names of ours that `source` imports, at any depth of the code."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "twbench")


def room_of(name: str) -> str:
    """Return the room a dotted name lies in; the package's own top level is `twbench`."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else "twbench"


def rooms_in(markdown: str) -> dict[str, set[str]]:
    """Return the table `| room | what it is | may import |` of a page, by room."""
    table: dict[str, set[str]] = {}
    for line in markdown.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        names = re.findall(r"`(\w+)/`", cells[0])
        if len(cells) != 3 or not names:
            continue
        above = set(table)
        for name in names:
            match cells[2]:
                case "nothing of ours":
                    table[name] = set()
                case "all above" | "everything":
                    table[name] = above
                case listed:
                    table[name] = {room.strip(" `/") for room in listed.split(",")}
    return table


def test_picture_and_test_give_the_same_table() -> None:
    assert PICTURE.is_file(), f"{PICTURE.relative_to(ROOT)} is missing: it holds the room table"
    drawn = rooms_in(PICTURE.read_text())
    assert drawn, f"{PICTURE.relative_to(ROOT)} has no line `| \\`room/\\` | what | may import |`"
    assert drawn == ROOMS


def test_every_room_on_disk_is_in_the_table() -> None:
    on_disk = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert on_disk == set(ROOMS)


@pytest.mark.parametrize("module", modules())
def test_room_imports_only_what_the_table_allows(module: str) -> None:
    path = modules()[module]
    room = room_of(module)
    allowed = TOP[module] if room == "twbench" else ROOMS[room] | {room}
    reached = set(imported(path.read_text(), module, is_package=path.name == "__init__.py"))
    strangers = sorted(name for name in reached if room_of(name) not in allowed)
    assert not strangers, f"{module} imports {', '.join(strangers)}; it may import {allowed}"


def test_each_module_can_be_imported_first() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_EACH],
        input=json.dumps(list(modules())),
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    failures = json.loads(result.stdout)
    assert not failures, "\n".join(failures.values())


@pytest.mark.parametrize(
    "module", [name for name, path in modules().items() if path.name == "__init__.py"]
)
def test_package_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(ast.parse(modules()[module].read_text()))


def test_top_of_the_package_imports_nothing_heavy() -> None:
    script = f"import twbench, sys; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert (PACKAGE / "__init__.py").is_file()
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import twbench.model.states", {"twbench.model.states"}),
        ("from twbench import lab", {"twbench.lab"}),
        ("from . import rows", {"twbench.kernel.rows"}),
        ("from ..lab import plan", {"twbench.lab.plan"}),
        ("def f():\n    from twbench.run import go", {"twbench.run.go"}),
        ("import os, json", set()),
    ],
)
def test_imports_are_found_however_they_are_written(source: str, expected: set[str]) -> None:
    assert set(imported(source, "twbench.kernel.codec", is_package=False)) == expected


def test_room_table_is_read_from_markdown() -> None:
    page = "| room | what it is | may import |\n|---|---|---|\n| `a/` | data | nothing of ours |\n"
    page += "| `b/`, `c/` | two | a |\n| `d/` | wiring | all above |\n"
    assert rooms_in(page) == {"a": set(), "b": {"a"}, "c": {"a"}, "d": {"a", "b", "c"}}
