"""What a kernel can do: the codec, the words, and the running kernel."""

import platform
import re
import struct
from pathlib import Path

import pytest

from twbench.uring.operations import SocketCommand
from twbench.uring.probe import SINCE, Abilities, closes_at_once, decode_probe, probe
from twbench.uring.ring import Ring
from twbench.uring.sqe import Op

FDS = Path("/proc/self/fd")


def test_probe_marks_the_supported_and_ignores_the_unknown() -> None:
    # last_op 3, 4 rows; op, reserved, flags, reserved
    rows = [(0, 1), (6, 1), (11, 0), (200, 1)]
    raw = struct.pack("=BB14x", 3, 4) + b"".join(struct.pack("=BxHxxxx", *row) for row in rows)
    raw += struct.pack("=BxHxxxx", Op.ACCEPT, 1)
    assert decode_probe(raw) == {Op.NOP, Op.POLL_ADD}


def test_missing_are_named_in_the_order_asked() -> None:
    here = Abilities(operations=frozenset({Op.CONNECT}))
    wanted = (Op.LISTEN, Op.CONNECT, SocketCommand.SETSOCKOPT, Op.BIND)
    assert here.missing(wanted) == ("LISTEN", "SETSOCKOPT", "BIND")
    why = "this kernel's io_uring lacks LISTEN (Linux 6.11), SETSOCKOPT (Linux 6.7)"
    assert here.why_not(wanted[:3]) == why


def test_operation_and_command_of_one_number_are_told_apart() -> None:
    here = Abilities(operations=frozenset({Op.NOP}))
    assert Op.NOP.value == SocketCommand.SIOCINQ.value
    assert here.missing([Op.NOP]) == ()
    assert here.missing([SocketCommand.SIOCINQ]) == ("SIOCINQ",)
    commands = Abilities(commands=frozenset({SocketCommand.SIOCINQ}))
    assert commands.why_not([Op.NOP]) == "this kernel's io_uring lacks NOP"


def test_what_was_refused_lacks_everything_and_says_why() -> None:
    nothing = Abilities(refusal="kernel.io_uring_disabled is 2")
    assert nothing.missing([Op.SEND]) == ("SEND",)
    assert nothing.why_not([]) == "kernel.io_uring_disabled is 2"


def test_every_version_belongs_to_an_ability() -> None:
    assert set(SINCE) <= {each.name for each in (*Op, *SocketCommand)}


def test_file_is_closed_beside_a_waiting_operation_since_linux_6_13() -> None:
    if reason := probe().refusal:
        pytest.xfail(reason)
    major, minor = map(int, re.findall(r"\d+", platform.release())[:2])
    assert closes_at_once(Ring(entries=8, completions=8)) == ((major, minor) >= (6, 13))


def test_kernel_that_closes_late_is_refused_with_that_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if reason := probe().refusal:
        pytest.xfail(reason)
    monkeypatch.setattr("twbench.uring.probe.closes_at_once", lambda _ring: False)
    here = probe()
    assert "closes a socket only after" in (here.why_not([]) or "")
    assert here.operations


def test_running_kernel_is_probed_and_nothing_is_left() -> None:
    before = set(FDS.iterdir())
    here = probe()
    assert set(FDS.iterdir()) == before
    if here.refusal:
        pytest.xfail(here.refusal)
    assert {Op.NOP, Op.CONNECT, Op.SEND, Op.RECV} <= here.operations
    if Op.FIXED_FD_INSTALL in here.operations:  # Linux 6.8
        assert set(SocketCommand) <= here.commands  # Linux 6.7
    assert here.why_not([Op.CONNECT]) is None
