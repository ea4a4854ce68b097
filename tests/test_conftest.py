"""The rules of conftest.py, each tried in a pytest of its own."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SKIPPING = """
import pytest

def test_that_skips():
    pytest.skip("no hardware")

@pytest.mark.xfail(strict=True)
def test_that_is_known_to_fail():
    assert False
"""


def run_pytest(folder: Path, test: str, **env: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (folder / "test_it.py").write_text(test)
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull),
            *("--rootdir", str(folder), "-o", "asyncio_mode=auto", "-rA"),
            str(folder / "test_it.py"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "TWBENCH_TEST_NO_SKIPS"} | env,
    )


def test_skip_is_a_skip_by_default(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, SKIPPING)
    assert result.returncode == 0, result.stdout
    assert "1 skipped, 1 xfailed" in result.stdout


def test_skip_is_a_failure_that_gives_its_reason_where_skips_are_refused(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, SKIPPING, TWBENCH_TEST_NO_SKIPS="1")
    assert result.returncode == 1, result.stdout
    assert "1 failed, 1 xfailed" in result.stdout
    assert "no hardware" in result.stdout


def test_module_skipped_whole_is_an_error_where_skips_are_refused(tmp_path: Path) -> None:
    module = 'import pytest\npytest.importorskip("no_such_module_anywhere")\n'
    result = run_pytest(tmp_path, module, TWBENCH_TEST_NO_SKIPS="1")
    assert result.returncode == 2, result.stdout
    assert "no_such_module_anywhere" in result.stdout


async def test_async_test_runs_on_both_loops(request: pytest.FixtureRequest) -> None:
    loop_module = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    assert loop_module in request.node.callspec.id
