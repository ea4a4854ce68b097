"""A connection's life as operations: which, in what order, linked how, and with what in them."""

import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.fleet.lives import (
    ALONE,
    BY_ROAD,
    FURTHER,
    LINGER_ZERO,
    OPENING,
    PIECE_BYTES,
    STEP_BITS,
    Lives,
    Step,
    lives_of,
    needed,
    option_values,
)
from twbench.fleet.slot import STEPS
from twbench.model.plans import FleetPlan
from twbench.uring.operations import SocketCommand
from twbench.uring.sqe import SQE_BYTES, Flag, Op, Sqe, unpack
from twbench.uring.template import Template

Plan = Callable[..., FleetPlan]

TO = ("127.0.0.1", 80)
LINKS = Flag.IO_LINK | Flag.IO_HARDLINK
ENDINGS = ("client-fin", "client-rst", "client-half-close", "simultaneous", "server-fin")
SEVERAL = ("127.0.0.1", "127.0.0.2")
RECEIVE_BOTH = [Op.RECV, Op.RECV]


def prepared(plan: FleetPlan) -> Lives:
    """Return a plan's chains, its option values lying at 1000, 2000 and so on."""
    return lives_of(plan, {name: 1000 * (n + 1) for n, name in enumerate(option_values(plan))})


def operations(template: Template) -> list[Sqe]:
    raw = template.raw
    return [unpack(raw[at : at + SQE_BYTES]) for at in range(0, len(raw), SQE_BYTES)]


def opcodes(lives: Lives, name: str) -> list[Op]:
    return [each.opcode for each in operations(lives.chains[name])]


@pytest.mark.parametrize(
    ("ending", "after_the_last_send"),
    [
        ("client-fin", [Op.RECV]),
        ("client-rst", [Op.RECV]),
        ("simultaneous", [Op.RECV]),
        ("client-half-close", [Op.SHUTDOWN, *RECEIVE_BOTH]),
        ("server-fin", RECEIVE_BOTH),
        ("server-rst", RECEIVE_BOTH),
        ("server-idle", RECEIVE_BOTH),
    ],
)
def test_last_exchange_is_what_the_ending_asks_for(
    ending: str, after_the_last_send: list[Op], plan: Plan
) -> None:
    lives = prepared(plan(TO, ending=ending))
    opening, further, alone = (
        [opcodes(lives, n) for n in both] for both in (OPENING, FURTHER, ALONE)
    )
    begin = [Op.SOCKET, Op.CONNECT, Op.SEND]
    assert opening == [[*begin, Op.RECV], [*begin, *after_the_last_send]]
    assert further == [[Op.SEND, Op.RECV], [Op.SEND, *after_the_last_send]]
    shut = [each for each in after_the_last_send if each is Op.SHUTDOWN]
    assert alone == [[Op.SEND], [Op.SEND, *shut]]
    assert lives.receives == (1, after_the_last_send.count(Op.RECV))


@pytest.mark.parametrize(
    ("sources", "client", "between"),
    [
        (SEVERAL[:1], {"bind_before_connect": True}, [Op.BIND]),
        (SEVERAL, {}, [Op.URING_CMD, Op.BIND]),
        (SEVERAL[:1], {"socket": {"TCP_NODELAY": True, "SO_LINGER": 0}}, 2 * [Op.URING_CMD]),
    ],
)
def test_options_and_the_source_come_between_socket_and_connect(
    sources: tuple[str, ...], client: dict[str, Any], between: list[Op], plan: Plan
) -> None:
    lives = prepared(plan(TO, sources=sources, client=client))
    assert opcodes(lives, "opening") == [Op.SOCKET, *between, Op.CONNECT, Op.SEND, Op.RECV]
    assert opcodes(lives, "further") == [Op.SEND, Op.RECV]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_operation_of_a_chain_is_linked_to_the_next_and_the_last_to_none(
    ending: str, plan: Plan
) -> None:
    lives = prepared(plan(TO, ending=ending, sources=SEVERAL))
    for name, template in lives.chains.items():
        *others, last = (each.flags & LINKS for each in operations(template))
        assert not last, name
        if name in {"reset", "cancel"}:
            assert not any(others), "a batch: each is done whatever became of the others"
        else:
            assert all(others), name


@pytest.mark.parametrize("ending", ENDINGS)
def test_chain_is_silent_up_to_its_connect_and_about_what_went_well(
    ending: str, plan: Plan
) -> None:
    client = {"socket": {"TCP_NODELAY": True}, "bind_before_connect": True}
    lives = prepared(plan(TO, ending=ending, client=client))
    for name in (*OPENING, *FURTHER):
        for each in operations(lives.chains[name]):
            told = each.opcode in {Op.CONNECT, Op.RECV}
            assert bool(each.flags & Flag.CQE_SKIP_SUCCESS) is not told, (name, each.opcode)
    for name in ALONE:
        assert not operations(lives.chains[name])[0].flags & Flag.CQE_SKIP_SUCCESS


def test_shutdown_lets_the_receive_behind_it_tell_of_a_reset(plan: Plan) -> None:
    lives = prepared(plan(TO, ending="client-half-close"))
    for name in (OPENING[1], FURTHER[1]):
        shutdown, *_ = (e for e in operations(lives.chains[name]) if e.opcode is Op.SHUTDOWN)
        assert shutdown.flags & Flag.IO_HARDLINK
        assert shutdown.len == socket.SHUT_WR


def test_reset_closes_with_a_linger_of_zero(plan: Plan) -> None:
    offered = plan(TO, ending="client-rst")
    lives = lives_of(offered, {LINGER_ZERO: 4096})
    option, close = operations(lives.chains["reset"])
    assert (option.opcode, option.addr3, option.file_index) == (Op.URING_CMD, 4096, 8)
    assert close.opcode is Op.CLOSE
    assert option_values(offered)[LINGER_ZERO] == (1).to_bytes(4, "little") + bytes(4)


def test_cancel_seeks_every_step_that_can_take_its_time(plan: Plan) -> None:
    lives = prepared(plan(TO, ending="client-half-close"))
    chain = lives.chains["cancel"].fill(token=7 << STEP_BITS)
    raw = bytes(chain)
    sought = {unpack(raw[at : at + SQE_BYTES]).addr for at in range(0, len(raw), SQE_BYTES)}
    slow = (Step.CONNECT, Step.SEND, Step.SEND_ALONE, Step.FIRST, Step.SECOND, Step.REST)
    assert sought == {7 << STEP_BITS | step for step in slow}


# what a kernel must be able to do


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, set()),
        ({"ending": "server-fin"}, set()),
        ({"ending": "client-half-close"}, {Op.SHUTDOWN}),
        ({"ending": "client-rst"}, {Op.URING_CMD, SocketCommand.SETSOCKOPT}),
        ({"client": {"bind_before_connect": True}}, {Op.BIND}),
        ({"client": {"socket": {"SO_LINGER": 0}}}, {Op.URING_CMD, SocketCommand.SETSOCKOPT}),
        ({"sources": SEVERAL}, {Op.BIND, Op.URING_CMD, SocketCommand.SETSOCKOPT}),
    ],
)
def test_plan_needs_what_its_chains_use(
    more: dict[str, Any], wanted: set[object], plan: Plan
) -> None:
    plain = {each.name for each in needed(plan(TO))}
    offered = plan(TO, **more)
    # by name: an Op and a SocketCommand of the same number are equal
    names = {each.name for each in needed(offered)}
    assert names - plain == {each.name for each in wanted}  # type: ignore[attr-defined]
    lives = prepared(offered)
    used = {each.name for name in BY_ROAD for each in opcodes(lives, name)}
    assert used <= names


# what goes into the holes


numbers = st.integers(0, 2**20)
addresses = st.integers(0, 2**47)


@given(
    slot=numbers,
    ending=st.sampled_from(ENDINGS),
    name=st.sampled_from(sorted(BY_ROAD)),
    data=st.data(),
)
def test_filled_chain_is_of_its_slot_and_tells_its_steps(
    slot: int, ending: str, name: str, data: st.DataObject, plan: Plan
) -> None:
    lives = prepared(plan(TO, ending=ending, client={"bind_before_connect": True}))
    template = lives.chains[name]
    values = {hole: data.draw(addresses, label=hole) for hole in template.places}
    values |= {"slot": slot, "token": slot << STEP_BITS}
    if "request_bytes" in values:
        values["request_bytes"] = data.draw(numbers, label="request_bytes")
    raw = bytes(template.fill(**values))
    for at in range(0, len(raw), SQE_BYTES):
        each = unpack(raw[at : at + SQE_BYTES])
        assert isinstance(each.user_data, int)
        assert each.user_data >> STEP_BITS == slot
        step = Step(each.user_data & ((1 << STEP_BITS) - 1))
        if each.opcode is Op.SOCKET:
            assert (each.file_index, step) == (slot + 1, Step.OPEN)
        else:
            assert each.fd == slot
            assert each.flags & Flag.FIXED_FILE
        match each.opcode:
            case Op.SEND:
                assert (each.addr, each.len) == (values["request"], values["request_bytes"])
                assert step in {Step.SEND, Step.SEND_ALONE}
            case Op.RECV:
                buffer = {Step.FIRST: "first", Step.SECOND: "second"}[step]
                assert (each.addr, each.len) == (values[buffer], PIECE_BYTES)
            case Op.CONNECT:
                assert (each.addr, step) == (values["to"], Step.CONNECT)
            case Op.BIND:
                assert (each.addr, step) == (values["source"], Step.BIND)


@given(slot=numbers, rest=addresses, rest_bytes=numbers)
def test_rest_of_a_body_goes_where_it_is_told(
    slot: int, rest: int, rest_bytes: int, plan: Plan
) -> None:
    template = prepared(plan(TO)).chains["rest"]
    chain = template.fill(slot=slot, token=slot << STEP_BITS, rest=rest, rest_bytes=1)
    template.patch(chain, rest_bytes=rest_bytes)
    receive = unpack(bytes(chain))
    assert (receive.opcode, receive.addr, receive.len) == (Op.RECV, rest, rest_bytes)
    assert receive.user_data == slot << STEP_BITS | Step.REST


@pytest.mark.parametrize(("address", "size"), [("127.0.0.1", 16), ("::1", 28)])
def test_addresses_are_as_long_as_their_family_has_them(
    address: str, size: int, plan: Plan
) -> None:
    client = {"bind_before_connect": True}
    lives = prepared(plan((address, 80), sources=(address,), client=client))
    made, bound, connected, *_ = operations(lives.chains["opening"])
    assert made.fd == (socket.AF_INET6 if ":" in address else socket.AF_INET)
    assert bound.off == connected.off == size


def test_every_step_has_its_listener() -> None:
    assert len(STEPS) == len(Step) <= 1 << STEP_BITS
    names = {Step.OPEN: "opened", Step.SEND: "unsent", Step.REST: "received_rest"}
    assert {step: STEPS[step].__name__ for step in names} == names
