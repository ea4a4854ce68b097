"""Offloads of an interface, on the real kernel."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from twbench.lab.lab import Lab
from twbench.lab.offloads import OFFLOADS, still_on, switch_off
from twbench.lab.plan import LabPlan, Link

ROOT = Path(__file__).resolve().parents[2]


def on_client(lab: Lab, program: str) -> object:
    """Run `program` on the client host and return the JSON that it prints."""
    head = f"import json, sys; sys.path[:0] = {[str(ROOT), *sys.path]}\n"
    head += "from twbench.lab.offloads import still_on, switch_off\n"
    argv, descriptors = lab.command("client", [sys.executable, "-P", "-c", head + program])
    done = subprocess.run(argv, pass_fds=descriptors, capture_output=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.namespaces
def test_all_offloads_that_a_veth_has_are_switched_off() -> None:
    with Lab(LabPlan()) as lab:
        before = on_client(lab, "print(json.dumps(still_on('eth0')))")
        after = on_client(lab, "switch_off('eth0'); print(json.dumps(still_on('eth0')))")
    assert isinstance(before, list)
    assert {"tso", "gso", "tx checksum", "rx checksum"} <= set(before) <= set(OFFLOADS)
    assert after == []


@pytest.mark.namespaces
def test_a_wires_interfaces_have_none() -> None:
    with Lab(LabPlan(link=Link.WIRE)) as lab:
        assert on_client(lab, "print(json.dumps(still_on('eth0')))") == []
        lab.reboot("client")
        assert on_client(lab, "print(json.dumps(still_on('eth0')))") == []


@pytest.mark.namespaces
def test_an_offload_that_is_fixed_to_on_is_an_error() -> None:
    # The loopback interface's checksums are.
    program = "try: switch_off('lo')\nexcept OSError as error: print(json.dumps(error.errno))\n"
    with Lab(LabPlan()) as lab:
        assert on_client(lab, program) == errno.EOPNOTSUPP


def test_an_offload_that_stays_on_without_a_word_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("twbench.lab.offloads._ethtool", lambda *_: 1)
    with pytest.raises(OSError, match="tx checksum, rx checksum stayed on"):
        switch_off("any0")


@pytest.mark.parametrize("act", [still_on, switch_off])
def test_an_interface_that_is_not_there_is_an_error(act: object) -> None:
    assert callable(act)
    with pytest.raises(OSError, match="No such device"):
        act("nosuch0")
