"""What a look amounts to, on rows made by hand and against a plain count."""

import socket
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.kernel.sockdiag import SOCKETS, Sockets
from twbench.kernel.summary import Summary, endpoint_text, summarise
from twbench.model.states import TcpState

Row = tuple[TcpState | int, str, int, str, int]


def table(*rows: Row, **columns: list[int]) -> Sockets:
    made = np.zeros(len(rows), SOCKETS)
    for row, (state, src, sport, dst, dport) in zip(made, rows, strict=True):
        family = socket.AF_INET6 if ":" in src else socket.AF_INET
        row["family"], row["state"], row["sport"], row["dport"] = family, state, sport, dport
        row["src"] = socket.inet_pton(family, src).ljust(16, b"\0")
        row["dst"] = socket.inet_pton(family, dst).ljust(16, b"\0")
    for name, values in columns.items():
        made[name] = values
    return made


WAIT, OPEN, LISTEN = TcpState.TIME_WAIT, TcpState.ESTABLISHED, TcpState.LISTEN


def test_no_sockets_count_as_nothing() -> None:
    assert summarise(table()) == Summary(
        states_by_side={"client": {}, "server": {}},
        listening=0,
        ports_in_use={},
        accept_queue={},
        time_wait_left_s={},
    )


def test_sockets_are_counted_by_the_side_of_their_local_port() -> None:
    rows = table(
        (LISTEN, "0.0.0.0", 80, "0.0.0.0", 0),
        (OPEN, "198.19.0.1", 80, "198.18.0.1", 40001),
        (OPEN, "198.18.0.1", 40001, "198.19.0.1", 80),
        (WAIT, "198.18.0.1", 40002, "198.19.0.1", 80),
        (WAIT, "198.18.0.1", 40003, "198.19.0.1", 80),
        (99, "198.18.0.1", 40004, "198.19.0.1", 80),
    )
    by_side = {
        "client": {"ESTABLISHED": 1, "TIME_WAIT": 2, "STATE_99": 1},
        "server": {"ESTABLISHED": 1},
    }
    for servers in (None, {80}):
        found = summarise(rows, servers=servers)
        assert found.states_by_side == by_side
        assert found.listening == 1


def test_server_named_by_address_and_port_is_that_end_alone() -> None:
    rows = table(
        (OPEN, "127.0.0.1", 8080, "127.0.0.1", 40001),
        (OPEN, "127.0.0.2", 8080, "127.0.0.1", 40001),
        (OPEN, "::ffff:127.0.0.1", 8080, "::ffff:127.0.0.1", 40002),
        (OPEN, "::1", 8080, "::1", 40003),
        (OPEN, "127.0.0.1", 8081, "127.0.0.1", 40001),
    )
    assert summarise(rows, servers={("127.0.0.1", 8080)}).states_by_side == {
        "client": {"ESTABLISHED": 3},
        "server": {"ESTABLISHED": 2},
    }
    assert summarise(rows, servers={("::1", 8080), 8081}).states_by_side == {
        "client": {"ESTABLISHED": 3},
        "server": {"ESTABLISHED": 2},
    }


def test_ports_in_use_are_distinct_local_ends_towards_each_destination() -> None:
    rows = table(
        (WAIT, "198.18.0.1", 40001, "198.19.0.1", 80),
        (OPEN, "198.18.0.1", 40001, "198.19.0.1", 80),  # seen twice while it changed
        (WAIT, "198.18.0.2", 40001, "198.19.0.1", 80),
        (WAIT, "198.18.0.1", 40001, "198.19.0.2", 80),
        (WAIT, "198.18.0.1", 40001, "198.19.0.1", 81),
        (WAIT, "198.18.0.1", 39999, "198.19.0.1", 80),  # below the range
        (WAIT, "198.18.0.1", 40011, "198.19.0.1", 80),  # above the range
        (WAIT, "198.18.0.1", 40010, "198.19.0.1", 80),
        (WAIT, "2001:2::1", 40001, "2001:2::80", 80),
        (WAIT, "::ffff:198.18.0.1", 40002, "::ffff:198.19.0.2", 80),
        (OPEN, "198.18.0.1", 80, "198.19.0.9", 5000),
        (LISTEN, "198.18.0.1", 40005, "0.0.0.0", 0),
    )
    assert summarise(rows, servers={80}, port_range=(40000, 40010)).ports_in_use == {
        "198.19.0.1:80": 3,
        "198.19.0.2:80": 2,
        "198.19.0.1:81": 1,
        "[2001:2::80]:80": 1,
    }


def test_more_remote_ends_than_there_are_ports_are_told_apart() -> None:
    remotes = 66_000
    rows = np.zeros(2 * remotes, SOCKETS)
    addresses = np.zeros((2 * remotes, 4), ">u4")
    addresses[:, 0] = 0xC6120000 + np.arange(2 * remotes) // 2
    rows["family"], rows["state"], rows["sport"], rows["dport"] = socket.AF_INET, OPEN, 40001, 80
    rows["src"] = rows["dst"] = addresses.view("V16")[:, 0]
    rows["sport"][-1] = 40002
    found = summarise(rows, servers={80}).ports_in_use
    assert len(found) == remotes
    assert (found["198.18.0.0:80"], found["198.19.1.207:80"]) == (1, 2)
    assert sum(found.values()) == remotes + 1


def test_accept_queue_is_summed_over_sockets_that_share_an_end() -> None:
    rows = table(
        (LISTEN, "0.0.0.0", 80, "0.0.0.0", 0),
        (LISTEN, "0.0.0.0", 80, "0.0.0.0", 0),
        (LISTEN, "::1", 80, "::", 0),
        rqueue=[3, 4, 5],
    )
    assert summarise(rows).accept_queue == {"0.0.0.0:80": 7, "[::1]:80": 5}


def test_time_left_is_counted_in_whole_buckets_of_five_seconds() -> None:
    rows = table(
        *[(WAIT, "127.0.0.1", port, "127.0.0.1", 80) for port in range(40000, 40006)],
        (TcpState.FIN_WAIT2, "127.0.0.1", 40010, "127.0.0.1", 80),
        expires_ms=[0, 4999, 5000, 59999, 60000, 61999, 30000],
    )
    assert summarise(rows).time_wait_left_s == {0: 2, 5: 1, 55: 1, 60: 2}


@pytest.mark.parametrize(
    ("family", "address", "text"),
    [
        (socket.AF_INET, socket.inet_aton("192.0.2.1") + bytes(12), "192.0.2.1:80"),
        (socket.AF_INET6, bytes(15) + b"\1", "[::1]:80"),
        (socket.AF_INET6, bytes(10) + b"\xff\xff\xc0\0\2\1", "192.0.2.1:80"),
    ],
)
def test_endpoint_is_written_as_people_write_it(family: int, address: bytes, text: str) -> None:
    assert endpoint_text(family, address, 80) == text


ADDRESSES = st.sampled_from(
    ["198.18.0.1", "198.18.0.2", "2001:2::1", "2001:3::1", "2001:2:0:0:1::", "c612:1::"]
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([WAIT, OPEN, LISTEN]),
            ADDRESSES,
            st.integers(0, 65535),
            ADDRESSES,
            st.sampled_from([80, 81, 65535]),
        ).filter(lambda row: (":" in row[1]) == (":" in row[3])),
        max_size=30,
    )
)
def test_counts_equal_a_plain_count(rows: list[Row]) -> None:
    expected = defaultdict(set)
    for state, src, sport, dst, dport in rows:
        if state != LISTEN and sport != 80 and 1000 <= sport <= 60000:
            expected[f"[{dst}]:{dport}" if ":" in dst else f"{dst}:{dport}"].add((src, sport))
    found = summarise(table(*rows), servers={80}, port_range=(1000, 60000))
    assert found.ports_in_use == {remote: len(ends) for remote, ends in expected.items()}
    counted = sum(sum(states.values()) for states in found.states_by_side.values())
    assert counted + found.listening == len(rows)
