"""Packets between two lines: each rule's effect, what is counted, and that none goes astray."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.reports import PacketFate
from twbench.model.scenario import WireSpec
from twbench.model.states import Side
from twbench.wire.packet import Flag, parse, tcp_packet
from twbench.wire.traffic import Traffic

CLIENT, SERVER = Side.CLIENT, Side.SERVER
ADDRESSES = {CLIENT: "198.18.1.1", SERVER: "198.19.0.1"}
PORTS = {CLIENT: 40_000, SERVER: 80}
MS, SECOND = 1_000_000, 1_000_000_000
FLAGS = {
    "SYN": Flag.SYN,
    "ACK": Flag.ACK,
    "DATA": Flag.ACK | Flag.PSH,
    "FIN": Flag.FIN | Flag.ACK,
    "RST": Flag.RST,
    "RST+ACK": Flag.RST | Flag.ACK,
}


def packet(origin: Side, kind: str, number: int = 0, port: int = 0) -> bytes:
    ports = {**PORTS, CLIENT: PORTS[CLIENT] + port}
    return tcp_packet(
        source=ADDRESSES[origin],
        destination=ADDRESSES[origin.other],
        source_port=ports[origin],
        destination_port=ports[origin.other],
        seq=number,
        flags=FLAGS[kind],
        payload=b"x" if kind == "DATA" else b"",
    ).raw


def traffic(*rules: str, own: tuple[str, ...] = (), hold_s: float = 10, **fields: Any) -> Traffic:  # noqa: ANN401 - of any field
    spec = WireSpec.model_validate({**fields, "rules": rules})
    return Traffic(spec, hold_ns=round(hold_s * SECOND), own_rules=own)


def out(of: Traffic, now_ns: int) -> list[tuple[Side, bytes]]:
    return list(of.due(now_ns))


def counted(of: Traffic, side: Side = CLIENT) -> dict[str, int]:
    seen: str = PacketFate.SEEN
    return {str(fate): n for fate, n in of.counts[side].items() if n and fate != seen}


def test_without_rules_everything_crosses_at_once_and_in_order() -> None:
    plain = traffic()
    sent = [packet(CLIENT, "SYN"), b"\x45 is no packet", packet(CLIENT, "FIN")]
    assert [plain.take(CLIENT, raw, 5) for raw in sent] == ["", "", ""]
    assert plain.next_due_ns == 5
    assert out(plain, 5) == [(CLIENT, raw) for raw in sent]
    assert plain.next_due_ns is None
    assert plain.counts[CLIENT][PacketFate.SEEN] == 3
    assert plain.hits == {}


def test_nothing_is_due_before_its_time() -> None:
    far = traffic(delay_ms=20)
    far.take(CLIENT, packet(CLIENT, "SYN"), 0)
    assert out(far, 20 * MS - 1) == []
    assert len(out(far, 20 * MS)) == 1


def test_dropped_packet_is_gone_and_its_rule_is_told() -> None:
    dropping = traffic("drop client→server SYN, once")
    notes = [dropping.take(CLIENT, packet(CLIENT, "SYN"), 0) for _ in range(2)]
    assert notes == ["rule: drop client→server SYN, once", ""]
    assert len(out(dropping, SECOND)) == 1
    assert counted(dropping) == {"dropped_by_rule": 1}
    assert dropping.hits == {"drop client→server SYN, once": 1}


def test_delayed_packet_enters_the_line_later() -> None:
    late = traffic("delay FIN by 200 ms", delay_ms=20)
    late.take(CLIENT, packet(CLIENT, "FIN"), 0)
    assert out(late, 220 * MS - 1) == []
    assert [side for side, _ in out(late, 220 * MS)] == [CLIENT]
    assert counted(late) == {"delayed": 1}


def test_duplicated_packet_crosses_twice_the_copy_later() -> None:
    doubled = traffic("duplicate FIN by 50 ms")
    doubled.take(CLIENT, packet(CLIENT, "FIN"), 0)
    assert [len(out(doubled, at * MS)) for at in (0, 49, 50)] == [1, 0, 1]
    assert counted(doubled) == {"duplicated": 1}


def test_held_packet_goes_before_the_one_that_frees_it() -> None:
    crossing = traffic(own=("pass DATA", "hold FIN until FIN from the other side"))
    first, second = packet(CLIENT, "FIN"), packet(SERVER, "FIN")
    assert crossing.take(CLIENT, first, 0) == "rule: hold FIN until FIN from the other side"
    assert out(crossing, SECOND) == []
    crossing.take(SERVER, second, SECOND)
    assert out(crossing, SECOND) == [(CLIENT, first), (SERVER, second)]
    assert counted(crossing) == {"held": 1}
    assert counted(crossing, SERVER) == {}


def test_packet_whose_event_never_comes_is_held_for_so_long_and_no_longer() -> None:
    crossing = traffic(own=("hold FIN until FIN from the other side",), hold_s=3)
    crossing.take(CLIENT, packet(CLIENT, "FIN"), 0)
    assert out(crossing, 3 * SECOND - 1) == []
    assert len(out(crossing, 3 * SECOND)) == 1
    # what frees it now comes too late to matter
    crossing.take(SERVER, packet(SERVER, "FIN"), 4 * SECOND)
    assert len(out(crossing, 4 * SECOND)) == 1


def test_reordered_packet_goes_behind_the_next_of_its_direction() -> None:
    shuffled = traffic("reorder 1st client→server DATA")
    first, other, second = packet(CLIENT, "DATA"), packet(SERVER, "ACK"), packet(CLIENT, "DATA", 1)
    shuffled.take(CLIENT, first, 0)
    shuffled.take(SERVER, other, 0)
    shuffled.take(CLIENT, second, 0)
    assert out(shuffled, 0) == [(SERVER, other), (CLIENT, second), (CLIENT, first)]


def test_reordered_packet_without_a_next_is_let_go_too() -> None:
    shuffled = traffic("reorder DATA", hold_s=1)
    shuffled.take(CLIENT, packet(CLIENT, "DATA"), 0)
    assert [len(out(shuffled, at)) for at in (SECOND - 1, SECOND)] == [0, 1]


@pytest.mark.parametrize(
    ("rule", "flags"),
    [("reset SYN", Flag.RST | Flag.ACK), ("refuse SYN with icmp 3/1", None)],
)
def test_answer_in_the_other_hosts_stead_comes_from_there(rule: str, flags: Flag | None) -> None:
    wall = traffic(rule)
    wall.take(CLIENT, packet(CLIENT, "SYN"), 0)
    [(side, raw)] = out(wall, 0)
    answer = parse(raw)
    assert (side, answer.source, answer.destination) == (SERVER, *reversed(ADDRESSES.values()))
    assert (answer.tcp.flags if answer.tcp else None) == flags
    assert counted(wall) == {"dropped_by_rule": 1, "answered": 1}


def test_reset_is_answered_by_nothing() -> None:
    wall = traffic("reset any")
    wall.take(CLIENT, packet(CLIENT, "RST"), 0)
    assert out(wall, SECOND) == []
    assert counted(wall) == {"dropped_by_rule": 1, "bare_reset": 1}


def test_resets_without_ack_are_counted_over_both_versions_of_ip() -> None:
    plain = traffic()
    for kind in FLAGS:
        plain.take(CLIENT, packet(CLIENT, kind), 0)
    v6 = tcp_packet(
        source="2001:2::1", destination="2001:2::2", source_port=1, destination_port=2, seq=3,
        flags=Flag.RST,
    ).raw  # fmt: skip
    plain.take(SERVER, v6, 0)
    plain.take(SERVER, v6[:45], 0)
    plain.take(SERVER, bytes([*v6[:6], 17, *v6[7:]]), 0)
    assert [plain.counts[side][PacketFate.BARE_RESET] for side in Side] == [1, 1]


def test_what_chance_does_is_noted_and_counted() -> None:
    assert traffic(loss=1).take(CLIENT, packet(CLIENT, "SYN"), 0) == "lost by chance"
    assert traffic(duplication=1).take(CLIENT, packet(CLIENT, "SYN"), 0) == "duplicated by chance"
    full = traffic(rate_mbit_per_s=0.001, queue_packets=1)
    notes = [full.take(CLIENT, packet(CLIENT, "SYN"), 0) for _ in range(2)]
    assert notes == ["", "dropped: the queue is full"]


RULES = st.sampled_from(
    [
        *("drop FIN", "hold FIN until FIN from the other side", "reorder DATA 50%"),
        *("duplicate ACK by 3 ms, once", "delay client→server DATA by 7 ms", "reset SYN 30%"),
        *("refuse SYN with icmp 3/1, twice in all", "pass DATA", "drop any 10%"),
    ]
)
SENT = st.tuples(
    st.integers(0, 30), st.sampled_from(Side), st.sampled_from([*FLAGS]), st.integers(0, 2)
)


@given(
    rules=st.lists(RULES, max_size=3),
    fields=st.fixed_dictionaries(
        {
            "loss": st.sampled_from([0, 0.2]),
            "duplication": st.sampled_from([0, 0.2]),
            "delay_ms": st.sampled_from([0, 5]),
            "queue_packets": st.integers(1, 5),
        },
        optional={"rate_mbit_per_s": st.sampled_from([0.01, 1])},
    ),
    sent=st.lists(SENT, max_size=40),
)
def test_no_packet_goes_astray(
    rules: list[str], fields: dict[str, Any], sent: list[tuple[int, Side, str, int]]
) -> None:
    anything = traffic(*rules, **fields)
    now_ns, arrived = 0, 0
    for number, (gap_ms, side, kind, port) in enumerate(sent):
        now_ns += gap_ms * MS
        anything.take(side, packet(side, kind, number, port), now_ns)
        arrived += len(out(anything, now_ns))
    arrived += len(out(anything, now_ns + 3600 * SECOND))
    # what was let go last may have taken its place on a slow line
    arrived += len(out(anything, now_ns + 7200 * SECOND))
    totals = anything.counts[CLIENT] + anything.counts[SERVER]
    came = totals[PacketFate.SEEN] + totals[PacketFate.DUPLICATED] + totals[PacketFate.ANSWERED]
    gone = (
        totals[PacketFate.LOST]
        + totals[PacketFate.DROPPED_BY_RULE]
        + totals[PacketFate.DROPPED_BY_QUEUE]
    )
    assert came == arrived + gone
    assert anything.next_due_ns is None
