"""What a look amounts to, on rows made by hand and against a plain count."""

import socket
from collections import Counter, defaultdict

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


def plain_text(address: str, port: int) -> str:
    address = address.removeprefix("::ffff:")
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def plain_count(rows: list[Row], left_ms: list[int], servers: set[int]) -> Summary:
    """Count the same in plain Python, from port 1000 to 60000."""
    by_side: dict[str, Counter[str]] = {"client": Counter(), "server": Counter()}
    ends = defaultdict(set)
    left: Counter[int] = Counter()
    for (state, src, sport, dst, dport), ms in zip(rows, left_ms, strict=True):
        if state == LISTEN:
            continue
        by_side["server" if sport in servers else "client"][TcpState(state).name] += 1
        if sport not in servers and 1000 <= sport <= 60000:
            ends[plain_text(dst, dport)].add((src, sport))
        if state == WAIT:
            left[ms // 5000 * 5] += 1
    listening = [(src, sport) for state, src, sport, _, _ in rows if state == LISTEN]
    return Summary(
        states_by_side={side: dict(counts) for side, counts in by_side.items()},
        listening=len(listening),
        ports_in_use={remote: len(local) for remote, local in ends.items()},
        accept_queue={plain_text(*end): 0 for end in listening},
        time_wait_left_s=dict(left),
    )


FEW = st.sampled_from(["198.18.0.1", "198.18.0.2", "198.18.0.7"])
MIXED = st.sampled_from(
    [
        "198.18.0.1",
        "240.0.0.2",
        "::ffff:198.18.0.1",
        "2001:2::1",
        "2001:3::1",
        "2001:2:0:0:1::",
        "c612:1::",
    ]
)
FEW_PORTS, ALL_PORTS = st.integers(40000, 40003), st.integers(0, 65535)
STATES = st.sampled_from([WAIT, OPEN, LISTEN])


def lists_of(
    addresses: st.SearchStrategy[str], ports: st.SearchStrategy[int]
) -> st.SearchStrategy[list[Row]]:
    """Rows, each of one family, that are many enough for a table of ends, or too few."""
    row = st.tuples(STATES, addresses, ports | st.just(80), addresses, ports)
    return st.lists(row.filter(lambda row: (":" in row[1]) == (":" in row[3])), max_size=40)


@given(
    rows=lists_of(FEW, FEW_PORTS) | lists_of(MIXED, FEW_PORTS) | lists_of(MIXED, ALL_PORTS),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    block_rows=st.integers(1, 50),
    data=st.data(),
)
def test_counts_equal_a_plain_count(
    rows: list[Row], cuts: list[int], block_rows: int, data: st.DataObject
) -> None:
    left_ms = data.draw(
        st.lists(st.integers(0, 65_000), min_size=len(rows), max_size=len(rows)), "left_ms"
    )
    parts = np.split(table(*rows, expires_ms=left_ms), sorted(cuts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twbench.kernel.summary._BLOCK_ROWS", block_rows)
        for servers in ({80}, {80, 40001}):
            found = summarise(*parts, servers=servers, port_range=(1000, 60000))
            assert found == plain_count(rows, left_ms, servers)


@pytest.mark.parametrize("sources", [1, 3])
def test_many_rows_in_a_dump_are_counted_over_all_blocks(sources: int) -> None:
    ports, spread = 28_000, 2
    count = sources * ports * spread
    dump = np.zeros(count * (SOCKETS.itemsize + 16), np.uint8)
    rows = np.ndarray((count,), SOCKETS, dump.data, 16, (SOCKETS.itemsize + 16,))
    numbers = np.random.default_rng(1).permutation(count)
    rows["family"], rows["state"], rows["expires_ms"] = socket.AF_INET, WAIT, numbers % 60_000
    rows["sport"], rows["dport"] = 32768 + numbers % ports, 8079 + numbers // ports % spread
    addresses = np.zeros((count, 4), ">u4")
    addresses[:, 0] = 0xC61200FF + numbers // ports // spread
    rows["src"] = addresses.view("V16")[:, 0]
    rows["dst"] = socket.inet_aton("198.19.0.1") + bytes(12)
    assert summarise(rows, servers={80}) == Summary(
        states_by_side={"client": {"TIME_WAIT": count}, "server": {}},
        listening=0,
        ports_in_use={"198.19.0.1:8079": count // 2, "198.19.0.1:8080": count // 2},
        accept_queue={},
        time_wait_left_s={
            5 * n: int(c) for n, c in enumerate(np.bincount(numbers % 60_000 // 5000)) if c
        },
    )


def test_times_beyond_the_last_bucket_count_in_it() -> None:
    ends = [(WAIT, "127.0.0.1", port, "127.0.0.1", 80) for port in (40000, 40001, 40002)]
    rows = table(*ends, expires_ms=[314_999, 315_000, 2**32 - 1])
    assert summarise(rows).time_wait_left_s == {310: 1, 315: 2}
