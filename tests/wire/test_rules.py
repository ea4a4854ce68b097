"""What the rulebook decides: each action, the memory of a connection, chance, and what is held."""

from collections.abc import Iterable

import pytest

from twbench.model.states import Side
from twbench.wire.packet import Flag, Packet, echo_request, tcp_packet, unreachable_for
from twbench.wire.rules import (
    Action,
    Decision,
    Kind,
    Rule,
    Rulebook,
    RuleError,
    answer_to,
    check_icmp,
    flow_of,
    kinds_of,
)

CLIENT, SERVER = Side.CLIENT, Side.SERVER
ADDRESSES = {CLIENT: "198.18.1.1", SERVER: "198.19.0.1"}
SIX = {CLIENT: "2001:2:0:1::1", SERVER: "2001:2:0:ffff::1"}

SYN, SYN_ACK, ACK = Flag.SYN, Flag.SYN | Flag.ACK, Flag.ACK
DATA, FIN, RST = Flag.PSH | Flag.ACK, Flag.FIN | Flag.ACK, Flag.RST
Sent = tuple[Side, Flag]


def packet(
    origin: Side,
    flags: Flag,
    *,
    port: int = 40_000,
    seq: int = 1,
    addresses: dict[Side, str] = ADDRESSES,
) -> Packet:
    """Return a packet of one connection; DATA (PSH) carries a byte, the others none."""
    ports = {CLIENT: port, SERVER: 80}
    return tcp_packet(
        source=addresses[origin],
        destination=addresses[origin.other],
        source_port=ports[origin],
        destination_port=ports[origin.other],
        seq=seq,
        flags=flags,
        payload=b"x" if Flag.PSH in flags else b"",
    )


def decisions(book: Rulebook, sent: Iterable[Sent], *, port: int = 40_000) -> list[Decision]:
    return [book.decide(side, packet(side, flags, port=port)) for side, flags in sent]


def touched(book: Rulebook, sent: Iterable[Sent], *, port: int = 40_000) -> list[int]:
    """Return the places, from 0, of the packets that a rule decided about."""
    made = decisions(book, sent, port=port)
    return [place for place, decision in enumerate(made) if decision.rule]


PASSIVE_CLOSE_LATER = [
    (CLIENT, SYN),
    (SERVER, SYN_ACK),
    (CLIENT, ACK),
    (CLIENT, DATA),
    (SERVER, DATA),
    (CLIENT, ACK),
    (CLIENT, FIN),
    (SERVER, ACK),
    (SERVER, FIN),
    (CLIENT, ACK),
]
"""A whole connection; the client closes first, four segments."""


# kinds


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [
        (Flag(0), set()),
        (SYN, {Kind.SYN}),
        (SYN | Flag.ECE | Flag.CWR, {Kind.SYN}),
        (SYN | Flag.PSH, {Kind.SYN, Kind.DATA}),
        (SYN_ACK, {Kind.SYN_ACK}),
        (ACK, {Kind.ACK}),
        (ACK | Flag.URG | Flag.ECE, {Kind.ACK}),
        (DATA, {Kind.DATA}),
        (FIN, {Kind.FIN}),
        (Flag.FIN, {Kind.FIN}),
        (FIN | DATA, {Kind.FIN, Kind.DATA}),
        (RST, {Kind.RST}),
        (RST | ACK, {Kind.RST}),
    ],
)
def test_flags_and_payload_make_the_kinds(flags: Flag, kinds: set[Kind]) -> None:
    assert kinds_of(packet(CLIENT, flags)) == {Kind.ANY, *kinds}


def test_packet_without_tcp_is_of_the_kind_any_alone() -> None:
    ping = echo_request(
        source=ADDRESSES[CLIENT], destination=ADDRESSES[SERVER], identifier=1, sequence=1
    )
    assert kinds_of(ping) == {Kind.ANY}
    assert Rulebook(["drop DATA", "drop ACK"]).decide(CLIENT, ping).action is Action.PASS
    assert Rulebook(["drop 1st any"]).decide(CLIENT, ping).action is Action.DROP


@pytest.mark.parametrize("addresses", [ADDRESSES, SIX])
def test_both_directions_are_of_one_flow(addresses: dict[Side, str]) -> None:
    there, back = (flow_of(side, packet(side, ACK, addresses=addresses)) for side in Side)
    assert there == back
    assert there != flow_of(CLIENT, packet(CLIENT, ACK, port=40_001, addresses=addresses))
    # the same ports and addresses from the other end are another connection
    assert there != flow_of(SERVER, packet(CLIENT, ACK, addresses=addresses))


# decisions


@pytest.mark.parametrize(
    ("line", "action", "by_ns", "icmp"),
    [
        ("pass SYN", Action.PASS, 0, None),
        ("drop SYN", Action.DROP, 0, None),
        ("hold SYN", Action.HOLD, 0, None),
        ("delay SYN by 200 ms", Action.DELAY, 200_000_000, None),
        ("duplicate SYN", Action.DUPLICATE, 0, None),
        ("duplicate SYN by 50 ms", Action.DUPLICATE, 50_000_000, None),
        ("reorder SYN", Action.REORDER, 0, None),
        ("reset SYN", Action.RESET, 0, None),
        ("refuse SYN with icmp 3/13", Action.REFUSE, 0, (3, 13)),
    ],
)
def test_each_action_is_decided(
    line: str, action: Action, by_ns: int, icmp: tuple[int, int] | None
) -> None:
    rule = Rule.parse(line)
    book = Rulebook([line])
    assert book.hits == {rule: 0}
    made = book.decide(CLIENT, packet(CLIENT, SYN))
    assert made == Decision(action=action, rule=rule, by_ns=by_ns, icmp=icmp)
    assert book.decide(CLIENT, packet(CLIENT, ACK)) == Decision(action=Action.PASS)
    assert book.hits == {rule: 1}


def test_no_rule_lets_everything_pass() -> None:
    assert touched(Rulebook([]), PASSIVE_CLOSE_LATER) == []


def test_direction_tells_who_sent() -> None:
    assert touched(Rulebook(["drop client→server FIN"]), PASSIVE_CLOSE_LATER) == [6]
    assert touched(Rulebook(["drop server→client FIN"]), PASSIVE_CLOSE_LATER) == [8]
    assert touched(Rulebook(["drop FIN"]), PASSIVE_CLOSE_LATER) == [6, 8]


def test_first_rule_that_matches_decides() -> None:
    book = Rulebook(["pass SYN, once", "drop SYN", "reset any"])
    made = decisions(book, [(CLIENT, SYN), (CLIENT, SYN), (CLIENT, ACK)])
    assert [each.action for each in made] == [Action.PASS, Action.DROP, Action.RESET]
    assert [*book.hits.values()] == [1, 1, 1]


def test_the_same_rule_twice_counts_as_two() -> None:
    book = Rulebook(["drop SYN, once", "drop SYN, once"])
    assert touched(book, [(CLIENT, SYN)] * 3) == [0, 1]
    assert [*book.hits.values()] == [2]


@pytest.mark.parametrize(("addresses", "icmp"), [(ADDRESSES, (3, 13)), (SIX, (1, 4))])
def test_refused_packet_is_answered_with_the_icmp_error_of_the_rule(
    addresses: dict[Side, str], icmp: tuple[int, int]
) -> None:
    syn = packet(CLIENT, SYN, addresses=addresses)
    refuse = Decision(action=Action.REFUSE, icmp=icmp)
    answer = answer_to(refuse, syn)
    assert answer == unreachable_for(syn, kind=icmp[0], code=icmp[1])
    assert answer_to(refuse, answer) is None
    assert answer_to(refuse, packet(CLIENT, RST, addresses=addresses)) is not None


def test_reset_packet_is_answered_with_a_reset_unless_it_is_one_or_no_tcp() -> None:
    reset = Decision(action=Action.RESET)
    answer = answer_to(reset, packet(CLIENT, SYN))
    assert answer
    assert answer.tcp
    assert answer.tcp.flags == RST | Flag.ACK
    assert answer_to(reset, answer) is None
    ping = echo_request(source="198.18.1.1", destination="198.19.0.1", identifier=1, sequence=1)
    assert answer_to(reset, ping) is None


@pytest.mark.parametrize("action", set(Action) - {Action.RESET, Action.REFUSE})
def test_other_actions_answer_nothing(action: Action) -> None:
    assert answer_to(Decision(action=action), packet(CLIENT, SYN)) is None


@pytest.mark.parametrize(
    ("icmp", "family", "allowed"),
    [("8/0", 4, "IPv4: 3, 4, 5, 11, 12"), ("1/4", 4, "IPv4: 3, 4"), ("128/0", 6, "IPv6: 0 to 127")],
)
def test_icmp_type_that_tells_no_error_is_refused(icmp: str, family: int, allowed: str) -> None:
    line = f"refuse SYN with icmp {icmp}"
    Rulebook([line])
    with pytest.raises(RuleError) as caught:
        Rulebook([line], family=family)
    found = f"found ICMP type {icmp.partition('/')[0]}; "
    allowed = f"allowed is the type of an ICMP error of {allowed}"
    assert str(caught.value).startswith(f"rule '{line}': {found}{allowed}")


@pytest.mark.parametrize(("line", "family"), [("refuse SYN with icmp 3/1", 4), ("drop SYN", 6)])
def test_rule_without_such_a_type_is_not(line: str, family: int) -> None:
    check_icmp(Rule.parse(line), family=family)


def test_bad_line_is_refused_when_the_book_is_made() -> None:
    with pytest.raises(RuleError, match="dropp"):
        Rulebook(["drop any", "dropp any"])


# the memory of a connection


def test_count_ends_a_rule_in_each_connection() -> None:
    book = Rulebook(["drop client→server any, twice"])
    assert touched(book, PASSIVE_CLOSE_LATER) == [0, 2]
    assert touched(book, PASSIVE_CLOSE_LATER, port=40_001) == [0, 2]


def test_count_in_all_ends_a_rule_for_every_connection() -> None:
    book = Rulebook(["drop any, once, 3 times in all"])
    assert [touched(book, [(CLIENT, SYN)] * 2, port=port) for port in range(1, 6)] == [
        *([0], [0], [0]),
        *([], []),
    ]


def test_after_waits_for_the_event() -> None:
    book = Rulebook(["drop client→server ACK after server FIN, once"])
    assert touched(book, [*PASSIVE_CLOSE_LATER, (CLIENT, ACK)]) == [9]


def test_packet_does_not_come_after_itself() -> None:
    assert touched(Rulebook(["drop FIN after client FIN"]), PASSIVE_CLOSE_LATER) == [8]
    assert touched(Rulebook(["drop any after server FIN"]), PASSIVE_CLOSE_LATER) == [9]
    four = [(CLIENT, DATA)] * 4
    assert touched(Rulebook(["drop client→server DATA after 2nd client DATA"]), four) == [2, 3]


def test_what_was_dropped_has_been_seen() -> None:
    book = Rulebook(["drop client→server ACK after server FIN", "drop server→client FIN"])
    assert touched(book, PASSIVE_CLOSE_LATER) == [8, 9]


def test_the_other_side_is_seen_from_the_packet() -> None:
    book = Rulebook(["drop ACK after FIN from the other side"])
    assert touched(book, PASSIVE_CLOSE_LATER) == [7, 9]


def test_nth_counts_from_the_first_packet_and_takes_retransmissions_as_packets() -> None:
    assert touched(Rulebook(["drop 2nd client→server ACK"]), PASSIVE_CLOSE_LATER) == [5]
    assert touched(Rulebook(["drop 2nd DATA"]), PASSIVE_CLOSE_LATER) == [4]
    assert touched(Rulebook(["drop 2nd client→server SYN"]), [(CLIENT, SYN)] * 3) == [1]


def test_connections_do_not_see_each_other() -> None:
    book = Rulebook(["drop client→server ACK after server FIN"])
    assert touched(book, [(SERVER, FIN)], port=1) == []
    assert touched(book, [(CLIENT, ACK)], port=2) == []
    assert touched(book, [(CLIENT, ACK)], port=1) == [0]


@pytest.mark.parametrize(
    ("before", "seq", "anew"),
    [
        ([(CLIENT, SYN)], 1, False),
        ([(CLIENT, SYN)], 2, True),
        ([(CLIENT, SYN), (CLIENT, FIN)], 1, False),
        ([(CLIENT, SYN), (CLIENT, FIN), (SERVER, FIN)], 1, True),
        ([(CLIENT, SYN), (SERVER, RST)], 1, True),
        ([(SERVER, SYN)], 2, False),
    ],
    ids=[
        *("retransmission", "other ISN", "half closed", "closed", "reset"),
        "simultaneous open",
    ],
)
def test_syn_begins_the_next_connection_of_a_four_tuple(
    before: list[Sent], seq: int, anew: bool
) -> None:
    book = Rulebook(["drop client→server DATA, once"])
    assert touched(book, [*before, (CLIENT, DATA)]) == [len(before)]
    book.decide(CLIENT, packet(CLIENT, SYN, seq=seq))
    assert touched(book, [(CLIENT, DATA)]) == ([0] if anew else [])


def test_connections_that_sent_long_ago_are_forgotten() -> None:
    book = Rulebook(["drop any, once", "hold any until RST from the other side"], max_connections=2)
    for port in (1, 2, 1, 3):
        decisions(book, [(CLIENT, ACK)], port=port)
    assert decisions(book, [(CLIENT, ACK)], port=1)[0].action is Action.HOLD
    assert decisions(book, [(CLIENT, ACK)], port=2)[0].action is Action.DROP


# chance


def test_chance_is_as_frequent_as_it_says() -> None:
    book = Rulebook(["drop any 1%", "duplicate any 50%"], seed=7)
    decisions(book, [(CLIENT, DATA)] * 20_000)
    dropped, duplicated = book.hits.values()
    # five standard deviations
    assert abs(dropped - 200) < 5 * 14.1
    assert abs(duplicated - 9_900) < 5 * 70.4


def test_same_seed_and_packets_make_the_same_decisions() -> None:
    sent = PASSIVE_CLOSE_LATER * 20
    rules = ["drop any 10%", "duplicate FIN 50%"]
    one, same, other = (decisions(Rulebook(rules, seed=seed), sent) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_packets_out_of_question_roll_no_dice() -> None:
    alone = decisions(Rulebook(["drop FIN 50%"], seed=3), [(CLIENT, FIN)] * 50)
    book = Rulebook(["drop FIN 50%"], seed=3)
    mixed = decisions(book, [(CLIENT, ACK), (CLIENT, FIN)] * 50)
    assert mixed[1::2] == alone


# hold


def test_hold_without_until_is_never_freed() -> None:
    book = Rulebook(["hold server→client DATA"])
    made = decisions(book, [*PASSIVE_CLOSE_LATER, (SERVER, DATA)])
    assert [each.hold for each in made if each.action is Action.HOLD] == [None, None]
    assert book.freed() == ()


def test_fins_wait_for_each_other_in_each_connection() -> None:
    book = Rulebook(["hold FIN until FIN from the other side"])
    first = book.decide(CLIENT, packet(CLIENT, FIN, port=1))
    second = book.decide(SERVER, packet(SERVER, FIN, port=2))
    assert (first.action, second.action) == (Action.HOLD, Action.HOLD)
    assert first.hold != second.hold
    assert book.freed() == ()
    assert book.decide(CLIENT, packet(CLIENT, FIN, port=2)).action is Action.PASS
    assert book.freed() == (second.hold,)
    assert book.decide(SERVER, packet(SERVER, FIN, port=1)).action is Action.PASS
    assert book.freed() == (first.hold,)
    assert book.freed() == ()


def test_all_that_waits_for_an_event_is_freed_in_order_and_holding_ends() -> None:
    book = Rulebook(["hold server→client ACK until 2nd server FIN"])
    sent = [(SERVER, ACK), (SERVER, FIN), (SERVER, ACK), (SERVER, FIN), (SERVER, ACK)]
    made = decisions(book, sent)
    assert [each.action is Action.HOLD for each in made] == [True, False, True, False, False]
    assert book.freed() == (made[0].hold, made[2].hold)


def test_holding_counts_and_leaves_later_packets_to_later_rules() -> None:
    book = Rulebook(["hold client→server ACK until server FIN, once", "drop client→server ACK"])
    made = decisions(book, [(CLIENT, ACK), (CLIENT, ACK), (SERVER, FIN), (CLIENT, ACK)])
    assert [each.action for each in made] == [
        *(Action.HOLD, Action.DROP, Action.PASS, Action.DROP),
    ]


def test_a_connection_that_is_replaced_or_forgotten_frees_what_it_held() -> None:
    book = Rulebook(["hold FIN until FIN from the other side"], max_connections=1)
    held = decisions(book, [(CLIENT, SYN), (CLIENT, FIN)])[1].hold
    book.decide(CLIENT, packet(CLIENT, SYN, seq=2))
    assert book.freed() == (held,)
    held = decisions(book, [(CLIENT, FIN)])[0].hold
    decisions(book, [(CLIENT, SYN)], port=2)
    assert book.freed() == (held,)
