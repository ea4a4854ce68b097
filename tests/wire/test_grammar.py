"""A rule's line and its data, there and back; what is no rule is refused in the user's terms."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twbench.model.errors import UsageError
from twbench.model.states import Side
from twbench.wire.grammar import (
    CERTAIN_PPM,
    MAX_COUNT,
    MAX_DELAY_NS,
    Action,
    Event,
    Kind,
    Rule,
    RuleError,
)

CLIENT, SERVER = Side.CLIENT, Side.SERVER

LINES = [
    ("drop any", Rule(action=Action.DROP, kind=Kind.ANY)),
    (
        "drop client→server ACK after server FIN, once",
        Rule(
            action=Action.DROP,
            origin=CLIENT,
            kind=Kind.ACK,
            after=Event(side=SERVER, kind=Kind.FIN),
            times=1,
        ),
    ),
    (
        "drop server→client any after 2nd client DATA",
        Rule(
            action=Action.DROP,
            origin=SERVER,
            kind=Kind.ANY,
            after=Event(nth=2, side=CLIENT, kind=Kind.DATA),
        ),
    ),
    ("drop any 1%", Rule(action=Action.DROP, kind=Kind.ANY, chance_ppm=10_000)),
    ("duplicate any 0.5%", Rule(action=Action.DUPLICATE, kind=Kind.ANY, chance_ppm=5_000)),
    (
        "hold FIN until FIN from the other side",
        Rule(action=Action.HOLD, kind=Kind.FIN, until=Event(side=None, kind=Kind.FIN)),
    ),
    (
        "hold ACK until 3rd DATA from the other side",
        Rule(action=Action.HOLD, kind=Kind.ACK, until=Event(nth=3, side=None, kind=Kind.DATA)),
    ),
    (
        "hold server→client DATA",
        Rule(action=Action.HOLD, origin=SERVER, kind=Kind.DATA),
    ),
    (
        "delay client→server DATA by 200 ms, twice",
        Rule(action=Action.DELAY, origin=CLIENT, kind=Kind.DATA, by_ns=200_000_000, times=2),
    ),
    (
        "duplicate FIN by 0.000001 ms",
        Rule(action=Action.DUPLICATE, kind=Kind.FIN, by_ns=1),
    ),
    (
        "reorder 12th client→server DATA",
        Rule(action=Action.REORDER, nth=12, origin=CLIENT, kind=Kind.DATA),
    ),
    ("reset client→server SYN", Rule(action=Action.RESET, origin=CLIENT, kind=Kind.SYN)),
    (
        "refuse client→server SYN with icmp 3/13",
        Rule(action=Action.REFUSE, origin=CLIENT, kind=Kind.SYN, icmp=(3, 13)),
    ),
    (
        "refuse SYN+ACK with icmp 0/0",
        Rule(action=Action.REFUSE, kind=Kind.SYN_ACK, icmp=(0, 0)),
    ),
    (
        "pass RST after 22nd server any 0.0001%, 3 times, once in all",
        Rule(
            action=Action.PASS,
            kind=Kind.RST,
            after=Event(nth=22, side=SERVER, kind=Kind.ANY),
            chance_ppm=1,
            times=3,
            times_in_all=1,
        ),
    ),
]


@pytest.mark.parametrize(("line", "rule"), LINES, ids=[line for line, _ in LINES])
def test_line_stands_for_its_rule_and_is_written_back(line: str, rule: Rule) -> None:
    assert Rule.parse(line) == rule
    assert str(rule) == line


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("drop client->server SYN", "drop client→server SYN"),
        ("drop client -> server SYN", "drop client→server SYN"),
        ("  DROP\tClient→Server  syn+ack  ", "drop client→server SYN+ACK"),
        ("drop any once", "drop any, once"),
        ("drop any, 1 times", "drop any, once"),
        ("drop any, 2 times IN ALL", "drop any, twice in all"),
        ("drop any, once, after 1st server FIN", "drop any after server FIN, once"),
        ("drop any 50 %", "drop any 50%"),
        ("drop any 100%", "drop any"),
        ("drop any 0.50%", "drop any 0.5%"),
        ("delay any by 200ms", "delay any by 200 ms"),
        ("delay any by 1.5 s", "delay any by 1500 ms"),
        ("delay any by 250us", "delay any by 0.25 ms"),
        ("delay any 10% by 010 ms", "delay any by 10 ms 10%"),
        ("drop 2th any", "drop 2nd any"),
    ],
)
def test_other_spellings_are_written_canonically(written: str, canonical: str) -> None:
    assert str(Rule.parse(written)) == canonical


@pytest.mark.parametrize(
    ("number", "word"),
    [
        *((1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (10, "10th"), (11, "11th"), (12, "12th")),
        *((13, "13th"), (21, "21st"), (102, "102nd"), (111, "111th"), (113, "113th")),
    ],
)
def test_ordinals_end_as_people_say_them(number: int, word: str) -> None:
    assert str(Rule(action=Action.DROP, nth=number, kind=Kind.ANY)) == f"drop {word} any"


@pytest.mark.parametrize(
    ("line", "found", "allowed"),
    [
        ("", "nothing", "pass, drop, hold, delay, duplicate, reorder, reset, refuse"),
        (" , ", "nothing", "pass, drop, hold"),
        ("dropp any", "'dropp'", "pass, drop, hold"),
        ("drop", "its end", "any, SYN, SYN+ACK, ACK, DATA, FIN, RST"),
        ("drop ACKK", "'ACKK'", "any, SYN, SYN+ACK, ACK, DATA, FIN, RST"),
        ("drop client→client SYN", "'client→client'", "client→server, server→client, any, SYN"),
        ("drop 2nd", "its end", "client→server, server→client, any, SYN"),
        ("drop 0th SYN", "'0th'", "1st to 1000000th"),
        ("drop any quickly", "'quickly'", "by, with, until, after, P%, once, twice, N times"),
        ("drop any; drop SYN", "'any;'", "any, SYN"),
        ("drop any after", "its end", "client, server, a kind 'from the other side'"),
        ("drop any after nobody FIN", "'nobody'", "client, server"),
        ("drop any after server", "its end", "any, SYN"),
        ("drop any after FIN", "its end", "from"),
        ("drop any after FIN from the server", "'server'", "other"),
        ("drop any 0%", "'0%'", "0.0001% to 100%"),
        ("drop any 101%", "'101%'", "0.0001% to 100%"),
        ("drop any 0.00001%", "'0.00001%'", "in steps of 0.0001%"),
        ("drop any x%", "'x%'", "0.0001% to 100%"),
        ("drop any, 0 times", "'0'", "1 to 1000000 times"),
        ("drop any, 1.5 times", "'1.5'", "1 to 1000000 times"),
        ("drop any, 3", "its end", "times"),
        ("drop any, once in total", "'total'", "all"),
        ("drop any, once, twice", "'twice'", "each modifier once"),
        ("delay any by", "its end", "as in 200 ms"),
        ("delay any by much", "'much'", "as in 200 ms"),
        ("delay any by 3 days", "'days'", "us, ms, s"),
        ("delay any by 3", "its end", "us, ms, s"),
        ("delay any by 0 ms", "'0'", "up to an hour"),
        ("delay any by 3601 s", "'3601'", "up to an hour"),
        ("delay any by 0.0000001 ms", "'0.0000001'", "whole nanoseconds"),
        ("delay any", "delay alone", "'delay … by 200 ms'"),
        ("refuse SYN", "refuse alone", "'refuse … with icmp 3/13'"),
        ("refuse SYN with tcp reset", "'tcp'", "icmp"),
        ("refuse SYN with icmp 3", "'3'", "type/code, each 0 to 255, as in 3/13"),
        ("refuse SYN with icmp 3/256", "'3/256'", "each 0 to 255"),
        ("drop any by 3 ms", "'by' with drop", "delay, duplicate"),
        ("drop any with icmp 3/1", "'with icmp' with drop", "refuse"),
        ("drop any until server FIN", "'until' with drop", "hold"),
    ],
)
def test_mistake_is_named_with_what_is_allowed(line: str, found: str, allowed: str) -> None:
    with pytest.raises(RuleError) as caught:
        Rule.parse(line)
    message = str(caught.value)
    assert message.startswith(f"rule '{line}")
    assert f": found {found}; allowed is " in message
    assert allowed in message.partition("; allowed is ")[2]


def test_direction_that_was_read_is_not_asked_for_again() -> None:
    with pytest.raises(RuleError) as caught:
        Rule.parse("drop client→server")
    assert (caught.value.found, caught.value.allowed.partition(", SYN")[0]) == (
        "its end",
        "allowed is any",
    )


def test_a_bad_rule_is_the_users_mistake_and_a_bad_value() -> None:
    assert issubclass(RuleError, UsageError)
    assert issubclass(RuleError, ValueError)


def test_rule_made_without_a_line_is_checked_too() -> None:
    with pytest.raises(RuleError, match="delay alone"):
        Rule(action=Action.DELAY, kind=Kind.ANY)


# there and back

numbers = st.integers(1, MAX_COUNT)
events = st.builds(
    Event,
    kind=st.sampled_from(Kind),
    side=st.none() | st.sampled_from(Side),
    nth=st.just(1) | numbers,
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    action = draw(st.sampled_from(Action))
    delays = st.integers(1, MAX_DELAY_NS)
    by = {Action.DELAY: delays, Action.DUPLICATE: st.none() | delays}.get(action, st.none())
    byte = st.integers(0, 255)
    return Rule(
        action=action,
        kind=draw(st.sampled_from(Kind)),
        origin=draw(st.none() | st.sampled_from(Side)),
        nth=draw(st.none() | numbers),
        by_ns=draw(by),
        icmp=draw(st.tuples(byte, byte)) if action is Action.REFUSE else None,
        until=draw(st.none() | events) if action is Action.HOLD else None,
        after=draw(st.none() | events),
        chance_ppm=draw(st.integers(1, CERTAIN_PPM)),
        times=draw(st.none() | numbers),
        times_in_all=draw(st.none() | numbers),
    )


@given(rule=rules())
def test_rule_written_and_read_is_the_same_rule(rule: Rule) -> None:
    assert Rule.parse(str(rule)) == rule


WORDS = [
    *("pass", "drop", "hold", "delay", "refuse", "client→server", "->", "any", "FIN", "SYN+ACK"),
    *("2nd", "0th", "by", "200", "ms", "with", "icmp", "3/13", "until", "after", "server", "from"),
    *("the", "other", "side", "1%", "%", "once", "3", "times", "in", "all", ",", "", "٣", "²"),
]


@given(line=st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
@example(line="drop any ² times")
@example(line="drop any 9" + "9" * 5000 + " times")
@example(line="delay any by 999999999.999999999 s")
@example(line="drop \x00any")
def test_any_line_is_a_rule_or_a_rule_error(line: str) -> None:
    try:
        rule = Rule.parse(line)
    except RuleError:
        return
    assert Rule.parse(str(rule)) == rule
