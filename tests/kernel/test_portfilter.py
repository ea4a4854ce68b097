"""Filters by port: their bytes, what they accept, and how a table is best halved."""

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.kernel.portfilter import PortFilter, PortTest, encode_filter, halve
from twbench.kernel.sockdiag import SOCKETS, Sockets, encode_dump
from twbench.model.states import TcpState

LOCAL = (PortTest.LOCAL_AT_MOST, PortTest.LOCAL_AT_LEAST)
REMOTE = (PortTest.REMOTE_AT_MOST, PortTest.REMOTE_AT_LEAST)
CLIENT_PORTS = range(32768, 61000)


def table(pairs: list[tuple[int, int]]) -> Sockets:
    rows = np.zeros(len(pairs), SOCKETS)
    if pairs:
        rows["sport"], rows["dport"] = zip(*pairs, strict=True)
    return rows


@pytest.mark.parametrize(
    ("test", "code"),
    [
        (PortTest.LOCAL_AT_LEAST, "02"),
        (PortTest.LOCAL_AT_MOST, "03"),
        (PortTest.REMOTE_AT_LEAST, "04"),
        (PortTest.REMOTE_AT_MOST, "05"),
    ],
)
def test_filter_is_an_operation_and_its_port(test: PortTest, code: str) -> None:
    # yes: 8 bytes on, at the end; no: 12, beyond it; then 45000 as little endian sends it.
    assert encode_filter(PortFilter(test=test, port=45000)) == bytes.fromhex(
        code + "08 0c00 0000 c8af"
    )


def test_filter_is_an_attribute_after_the_request_for_a_dump() -> None:
    only = encode_filter(PortFilter(test=PortTest.LOCAL_AT_MOST, port=45000))
    state = 1 << TcpState.TIME_WAIT
    attribute = "0c00 0100 0308 0c00 0000 c8af"
    assert encode_dump(
        family=socket.AF_UNSPEC, states=state, bytecode=only, seq=7
    ) == bytes.fromhex(
        "58000000 1200 0103 07000000 00000000 00000000"
        + "00" * 48
        + "40000000 00000000"
        + attribute
    )
    assert encode_dump(family=socket.AF_INET, states=state, bytecode=only, seq=7) == bytes.fromhex(
        "54000000 1400 0103 07000000 00000000 02 06 00 00 40000000" + "00" * 48 + attribute
    )


@pytest.mark.parametrize(
    ("test", "accepted"),
    [
        (PortTest.LOCAL_AT_LEAST, [False, True, True]),
        (PortTest.LOCAL_AT_MOST, [True, True, False]),
        (PortTest.REMOTE_AT_LEAST, [True, True, False]),
        (PortTest.REMOTE_AT_MOST, [False, True, True]),
    ],
)
def test_filter_accepts_its_own_port_and_one_side(test: PortTest, accepted: list[bool]) -> None:
    rows = table([(255, 257), (256, 256), (257, 255)])
    assert PortFilter(test=test, port=256).accepts(rows).tolist() == accepted


@pytest.mark.parametrize(
    ("pairs", "tests", "last"),
    [
        ([(port, 80) for port in range(40000, 40100)], LOCAL, 40049),  # a client's table
        ([(80, port) for port in range(40000, 40100)], REMOTE, 40049),  # a server's
        ([(80, 40000)] * 50 + [(40000, 80)] * 50, LOCAL, 20039),  # both on one host
        ([(80, 0)] * 40 + [(80, 65535)] * 60, REMOTE, 65534),
        ([(0, 80)] * 60 + [(65535, 80)] * 40, LOCAL, 0),
        ([(80, 9)] * 30 + [(81, 9)] * 70, LOCAL, 80),  # just useful
        ([(81, 9)] * 70 + [(82, 9)] * 30, LOCAL, 81),
        ([(80, 1)] * 35 + [(80, 2)] * 15 + [(81, 2)] * 50, LOCAL, 80),  # the fairer of two
    ],
)
def test_halves_are_cut_by_the_port_that_is_fairest(
    pairs: list[tuple[int, int]], tests: tuple[PortTest, PortTest], last: int
) -> None:
    assert halve(table(pairs)) == (
        PortFilter(test=tests[0], port=last),
        PortFilter(test=tests[1], port=last + 1),
    )


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(40000, 80)],
        [(40000, 80)] * 100,
        [(40000, 80)] * 71 + [(40001, 81)] * 29,
        [(40000, 80)] * 29 + [(40001, 81)] * 71,
        [(0, 0)] * 9,
        [(65535, 65535)] * 9,
    ],
)
def test_table_that_no_port_halves_usefully_stays_whole(pairs: list[tuple[int, int]]) -> None:
    assert halve(table(pairs)) is None


def test_large_table_is_halved_by_a_sample() -> None:
    ports = np.random.default_rng(1).choice(CLIENT_PORTS, 200_000)
    rows = np.zeros(len(ports), SOCKETS)
    rows["sport"], rows["dport"] = ports, 8080
    halves = halve(rows)
    assert halves is not None
    assert 0.45 < halves[0].accepts(rows).mean() < 0.55


@given(st.lists(st.tuples(st.integers(0, 65535), st.sampled_from([0, 80, 81, 65535]))))
def test_every_row_is_in_exactly_one_half_and_neither_is_small(
    pairs: list[tuple[int, int]],
) -> None:
    rows = table(pairs)
    halves = halve(rows)
    if halves is None:
        return
    lower, upper = (half.accepts(rows) for half in halves)
    assert (lower ^ upper).all()
    assert min(lower.mean(), upper.mean()) >= 0.3
    # The kernel reads 16 bits.
    assert all(0 <= half.port <= 65535 for half in halves)
