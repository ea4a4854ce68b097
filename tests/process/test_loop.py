"""The loop is uvloop where it is installed and asyncio's own where it is not."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from twbench.process.loop import has_uvloop, loop_name, run_loop

ROOT = Path(__file__).parents[2]

# None in sys.modules is how Python itself says that a module is not to be had.
WITHOUT_UVLOOP = """
import sys
sys.modules["uvloop"] = None
from twbench.process.loop import has_uvloop, loop_name, run_loop

async def name():
    return loop_name()

print(has_uvloop(), run_loop(name()))
"""


async def test_loop_says_its_name(request: pytest.FixtureRequest) -> None:
    assert loop_name() in request.node.callspec.id


async def name_after(value: int) -> tuple[int, str]:
    return value, loop_name()


async def fail() -> None:
    raise LookupError("from within")


def test_best_loop_there_is_runs_the_coroutine_and_returns_what_it_returns() -> None:
    installed = importlib.util.find_spec("uvloop") is not None
    assert has_uvloop() is installed
    assert run_loop(name_after(5)) == (5, "uvloop" if installed else "asyncio")


def test_without_uvloop_asyncio_runs_it() -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_UVLOOP],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (result.stdout, result.stderr) == ("False asyncio\n", "")


def test_exception_comes_out_of_the_loop() -> None:
    with pytest.raises(LookupError, match="from within"):
        run_loop(fail())
