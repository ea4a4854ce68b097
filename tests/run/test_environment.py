"""What is told of the machine, the versions and the sysctls that a run's figures depend on."""

import json
import os
import platform
import sys
from importlib.metadata import version

from twbench.run.environment import describe_environment

BEFORE = {"client": {"net.ipv4.tcp_tw_reuse": "2"}}
SOURCES = {"client": {"ticks": "proc", "looks": "sock_diag"}}
ENGINES = {"server": {"engine": "asyncio", "loop": "uvloop"}}


def test_machine_kernel_and_versions_are_this_ones() -> None:
    found = describe_environment(before={}, engines={}, sources={})
    assert found["kernel"] == platform.release()
    assert found["python"] == platform.python_version()
    assert found["python"] in sys.version
    assert found["cpus"] == os.cpu_count()
    assert found["privileged"] is (os.geteuid() == 0)
    assert found["packages"]["pydantic"] == version("pydantic")


def test_sysctls_after_the_run_are_empty_while_it_goes_on() -> None:
    found = describe_environment(before=BEFORE, engines=ENGINES, sources=SOURCES)
    assert found["sysctls"] == {"client": {"before": BEFORE["client"], "after": {}}}
    assert (found["engines"], found["sources"]) == (ENGINES, SOURCES)


def test_sysctls_stand_before_and_after() -> None:
    after = {"client": {"net.ipv4.tcp_tw_reuse": "1"}}
    found = describe_environment(before=BEFORE, after=after, engines={}, sources={})
    expected = {"client": {"before": BEFORE["client"], "after": after["client"]}}
    assert found["sysctls"] == expected
    assert json.loads(json.dumps(found)) == found
