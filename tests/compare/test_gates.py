"""`--fail-if`: what it means, and what it refuses."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.compare.diff import Change, Figure, Kind, Subject
from twbench.compare.gates import judge, parse_gate
from twbench.model.errors import UsageError

KEY = "hosts.client.time_wait.peak"


def met(condition: str, a: float | None, b: float | None) -> bool:
    change = Change(key=KEY, a=Figure(value=a), b=Figure(value=b))
    return parse_gate(f"{KEY} {condition}").is_met(change)


@pytest.mark.parametrize(
    ("condition", "a", "b", "expected"),
    [
        ("> +10%", 100, 110, False),
        ("> +10%", 100, 111, True),
        (">= +10%", 100, 110, True),
        (">= +10%", 0.7, 0.77, True),
        ("> +10%", 0.7, 0.77, False),
        ("< -5%", 100, 95, False),
        ("< -5%", 100, 94.9, True),
        ("<= -5%", 100, 95, True),
        ("> +200", 1000, 1200, False),
        ("> +200", 1000, 1201, True),
        ("< -3", 10, 6, True),
        ("<=-3", 10, 7, True),
        ("> +0", 5, 5, False),
        (">= +0", 5, 5, True),
        # nothing of nothing is no change; something of it is more than any percentage
        ("> +10%", 0, 0, False),
        ("> -5%", 0, 0, True),
        ("< +10%", 0, 0, True),
        ("> +1000000%", 0, 1, True),
        ("< -1000000%", 0, -1, True),
        # what one side alone has cannot be judged, and does not pass
        ("> +10%", None, 5, True),
        ("< -10%", 5, None, True),
    ],
)
def test_gate_is_met(condition: str, a: float | None, b: float | None, expected: bool) -> None:
    assert met(condition, a, b) is expected


@given(
    a=st.integers(1, 10**6),
    b=st.integers(1, 10**6),
    percent=st.integers(-300, 300),
)
def test_one_of_two_opposite_gates_is_met(a: int, b: int, percent: int) -> None:
    change = f"{percent:+d}%"
    assert met(f"> {change}", a, b) is not met(f"<= {change}", a, b)
    assert met(f"< {change}", a, b) is not met(f">= {change}", a, b)
    assert met(f">= {change}", a, b) is (100 * (b - a) >= percent * a)


def test_difference_that_is_not_shown_counts_as_none() -> None:
    a = Figure(value=100, low=80, high=120)
    for high, expected in ((160, False), (181, True)):
        b = Figure(value=(high + 110) / 2, low=high - 50, high=high)
        assert parse_gate(f"{KEY} > +10%").is_met(Change(key=KEY, a=a, b=b)) is expected


def test_grammar_takes_no_more_spaces_than_there_are_and_keys_with_signs_in_them() -> None:
    gate = parse_gate("audit.identities.fleet: attempted = ok + errors.residual>=+1.5")
    assert gate.key == "audit.identities.fleet: attempted = ok + errors.residual"
    assert (gate.sign, gate.change, gate.relative) == (">=", Fraction(3, 2), False)
    relative = parse_gate("  outcomes.ok < -2.5 % ")
    assert (relative.key, relative.change, relative.relative) == (
        "outcomes.ok",
        Fraction(-1, 40),
        True,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "outcomes.ok",
        "outcomes.ok >",
        "outcomes.ok > 5",
        "outcomes.ok > +5 percent",
        "outcomes.ok > +1e3",
        "outcomes.ok > +%",
        "outcomes.ok > +-5",
        "outcomes.ok == +5",
        "> +5",
    ],
)
def test_other_grammar_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="allowed is KEY OP CHANGE") as refused:
        parse_gate(text)
    assert repr(text) in str(refused.value)


@given(text=st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        gate = parse_gate(text)
    except UsageError:
        return
    assert gate.key
    assert gate.key in text


def subject(**figures: float | None) -> Subject:
    known = {key.replace("__", "."): Figure(value=value) for key, value in figures.items()}
    return Subject(kind=Kind.RUN, name="run", figures=known)


def test_key_that_neither_side_has_is_refused_with_the_nearest() -> None:
    gate = parse_gate("outcomes.okay > +1")
    with pytest.raises(UsageError, match=r"did you mean 'outcomes.ok'\? allowed is") as refused:
        judge(gate, subject(outcomes__ok=5), subject(outcomes__ok=6))
    assert "'outcomes.okay'" in str(refused.value)


def test_figure_that_was_measured_on_neither_side_is_refused() -> None:
    gate = parse_gate("latency_ms.request.p99 > +10%")
    nowhere, once = subject(latency_ms__request__p99=None), subject(latency_ms__request__p99=3)
    with pytest.raises(UsageError, match="measured neither in A nor in B") as refused:
        judge(gate, nowhere, nowhere)
    assert "'latency_ms.request.p99'" in str(refused.value)
    assert gate.is_met(judge(gate, once, nowhere))
    assert gate.is_met(judge(gate, nowhere, once))


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("outcomes.errors.read:EOF:keepalive_race", True),
        ("outcomes.connection_errors.idle:EOF:closed_while_idle", True),
        ("outcomes.errors.read:EOF:keepalive_rice", False),
        ("contestants.pool.totals.errors.read:EOF:keepalive_race", True),
        ("contestants.pond.totals.errors.read:EOF:keepalive_race", False),
        ("contestants.pool.totals.errors.read:EOF:keepalive_rice", False),
        ("hosts.client.counters.TcpExtPAWSEstab", True),
        ("hosts.clint.counters.TcpExtPAWSEstab", False),
    ],
)
def test_count_that_never_came_up_is_known_where_its_table_is(key: str, known: bool) -> None:
    side = subject(
        outcomes__ok=5, hosts__client__counters__TcpExtTW=5, contestants__pool__totals__ok=5
    )
    gate = parse_gate(f"{key} > +0")
    if not known:
        with pytest.raises(UsageError, match="allowed is"):
            judge(gate, side, side)
        return
    change = judge(gate, side, side)
    assert (change.a.value, change.b.value) == (0, 0)
    assert not gate.is_met(change)
