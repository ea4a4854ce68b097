"""A slot told its completions one by one: races that no server can be made to lose on demand."""

import errno
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from twbench.fleet.answers import HeadReader
from twbench.fleet.ledger import Ledger
from twbench.fleet.lives import (
    BY_ROAD,
    PIECE_BYTES,
    STEP_BITS,
    Lives,
    Step,
    lives_of,
    option_values,
)
from twbench.fleet.part import NEVER_NS
from twbench.fleet.slot import STEPS, Attempt, Road, Slot
from twbench.model.plans import FleetPlan
from twbench.uring.memory import Memory
from twbench.uring.sqe import SQE_BYTES, Op, unpack

Plan = Callable[..., FleetPlan]

NUMBER = 5
TO = ("127.0.0.1", 80)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CANCELLED = -errno.ECANCELED


@dataclass
class Pushed:
    """In the place of a ring: keeps the chains, as lists of (opcode, step)."""

    chains: list[list[tuple[Op, Step]]] = field(default_factory=list)

    def push(self, chain: bytearray) -> None:
        raw = bytes(chain)
        each = [unpack(raw[at : at + SQE_BYTES]) for at in range(0, len(raw), SQE_BYTES)]
        tokens = [e.user_data for e in each if isinstance(e.user_data, int)]
        assert {token >> STEP_BITS for token in tokens} == {NUMBER}
        steps = [Step(token & ((1 << STEP_BITS) - 1)) for token in tokens]
        self.chains.append(list(zip([e.opcode for e in each], steps, strict=True)))


class Owner:
    """In the place of an engine, with one slot."""

    def __init__(self, plan: FleetPlan) -> None:
        self.ring: Any = Pushed()
        self.memory = Memory(1 << 16)
        self.lives: Lives = lives_of(plan, dict.fromkeys(option_values(plan), 4096))
        self.ledger = Ledger()
        self.heads = HeadReader()
        self.ending = plan.scenario.ending.kind
        self.half_closes = self.ending == "client-half-close"
        self.hold_ns = self.idle_ns = self.request_timeout_ns = self.connect_timeout_ns = 10**12
        self.rest_bytes = 4096
        self.rest_at = self.memory.reserve(self.rest_bytes)
        self.heard: list[bool | None] = []
        self.slot = Slot(self, NUMBER, self.memory.reserve(2 * PIECE_BYTES))
        ends = {"to": 1, "source": 2, "request": 3, "request_bytes": 4}
        values = {
            name: {hole: at for hole, at in ends.items() if hole in self.lives.chains[name].places}
            for name in BY_ROAD
        }
        writes = {name: self.lives.chains[name].writes(**values[name]) for name in BY_ROAD}
        self.road = Road(destination=TO, values=values, writes=writes)

    def answered(self, slot: Slot, *, ok: bool | None) -> None:
        assert slot is self.slot
        self.heard.append(ok)

    # what a test does

    def begin(self, *, last: bool = True, connected: bool = True) -> None:
        self.slot.begin(Attempt(), self.road, last=last)
        if connected:
            self.tell((Step.CONNECT, 0))

    def tell(self, *completions: tuple[Step, int]) -> None:
        for step, result in completions:
            STEPS[step](self.slot, result)

    def arrives(self, content: bytes, step: Step = Step.FIRST) -> None:
        at = self.slot.second if step is Step.SECOND else self.slot.first
        self.memory.view(at, len(content))[:] = content
        self.tell((step, len(content)))

    @property
    def last_chain(self) -> list[Op]:
        return [op for op, _ in self.ring.chains[-1]]

    def check_over(self, **booked: object) -> None:
        """The life is over, its socket closed, and the books have this."""
        assert self.slot.over
        assert self.slot.deadline_ns == NEVER_NS
        assert self.last_chain[-1] is Op.CLOSE
        report = self.ledger.take(0)
        assert {name: getattr(report, name) for name in booked} == booked


@pytest.fixture
def owner(plan: Plan) -> Callable[[str], Owner]:
    return lambda ending: Owner(plan(TO, ending=ending))


Owners = Callable[[str], Owner]


def test_whole_life_is_one_chain_and_a_close(owner: Owners) -> None:
    one = owner("client-fin")
    one.begin()
    one.arrives(ANSWER)
    assert [len(chain) for chain in one.ring.chains] == [4, 1]
    assert one.heard == [True]
    one.check_over(ok=1, departures={"active_close": 1}, closed_early=0)


def test_answer_and_fin_take_the_two_receives_of_the_chain(owner: Owners) -> None:
    one = owner("server-fin")
    one.begin()
    one.arrives(ANSWER[:9])
    one.arrives(ANSWER[9:], Step.SECOND)
    assert one.last_chain == [Op.RECV]
    one.tell((Step.FIRST, 0))
    one.check_over(ok=1, departures={"passive_close": 1})


def test_connect_that_fails_is_booked_when_all_that_hangs_on_it_has_said_so(owner: Owners) -> None:
    one = owner("server-fin")
    one.begin(connected=False)
    one.tell((Step.CONNECT, -errno.ECONNREFUSED), (Step.SEND, CANCELLED), (Step.FIRST, CANCELLED))
    assert not one.slot.over
    one.tell((Step.SECOND, CANCELLED))
    assert one.heard == [None]
    one.check_over(errors={"connect:ECONNREFUSED:refused": 1}, established=0)


@pytest.mark.parametrize("step", [Step.OPEN, Step.BIND])
def test_socket_that_is_not_made_or_bound_says_one_thing(step: Step, owner: Owners) -> None:
    one = owner("client-fin")
    one.begin(connected=False)
    one.tell((step, -errno.EADDRINUSE))
    phase = "bind" if step is Step.BIND else "connect"
    report = one.ledger.report
    assert [key.split(":")[:2] for key in report.errors] == [[phase, "EADDRINUSE"]]
    assert one.slot.over


def test_connection_made_while_it_was_given_up_is_left(owner: Owners) -> None:
    one = owner("client-fin")
    one.begin(connected=False)
    one.slot.expire()
    assert set(one.last_chain) == {Op.ASYNC_CANCEL}
    # the cancel found the receive alone
    one.tell((Step.CONNECT, 0), (Step.FIRST, CANCELLED))
    assert one.last_chain == [Op.FIXED_FD_INSTALL]
    one.tell((Step.INSTALL, -errno.EMFILE))
    errors = {"read:TIMEOUT:request_timeout": 1}
    one.check_over(established=1, errors=errors, departures={"active_close": 1})


@pytest.mark.parametrize(("give_up", "error"), [("expire", "TIMEOUT"), ("cut_off", "CANCELLED")])
def test_first_reason_to_give_up_a_connect_is_the_one_that_counts(
    give_up: str, error: str, owner: Owners
) -> None:
    one = owner("client-fin")
    one.begin(connected=False)
    getattr(one.slot, give_up)()
    one.slot.cut_off()
    one.slot.expire()
    assert one.slot.deadline_ns < NEVER_NS
    one.tell((Step.CONNECT, CANCELLED), (Step.SEND, CANCELLED), (Step.FIRST, CANCELLED))
    report = one.ledger.report
    assert [key.split(":")[1] for key in report.errors] == [error]


def test_refusal_that_comes_before_the_cancel_is_what_it_is(owner: Owners) -> None:
    one = owner("client-fin")
    one.begin(connected=False)
    one.slot.expire()
    one.tell((Step.CONNECT, -errno.ECONNREFUSED), (Step.SEND, CANCELLED), (Step.FIRST, CANCELLED))
    one.check_over(errors={"connect:ECONNREFUSED:refused": 1})


def test_request_that_left_in_part_is_judged_by_what_comes_next(owner: Owners) -> None:
    one = owner("client-fin")
    one.begin()
    one.tell((Step.SEND, 7))
    assert one.last_chain == [Op.RECV]
    one.tell((Step.FIRST, -errno.ECONNRESET))
    one.check_over(errors={"write:ECONNRESET:reset_by_peer": 1}, departures={"reset_by_peer": 1})


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ECONNRESET])
def test_request_that_did_not_leave_ends_a_life_without_receives(
    number: int, owner: Owners
) -> None:
    one = owner("server-fin")
    one.begin()
    one.tell((Step.SEND, -number))
    (key,) = one.ledger.report.errors
    assert key.startswith(f"write:{errno.errorcode[number]}:")
    one.check_over(departures={"reset_by_peer": 1}, ok=0)


def idle(one: Owner) -> None:
    """Bring a connection to where it lies idle, and a receive waits."""
    one.begin(last=False)
    one.arrives(ANSWER)
    assert one.slot.usable
    assert one.last_chain == [Op.RECV]


def test_request_behind_a_waiting_receive_is_sent_alone(owner: Owners) -> None:
    one = owner("client-fin")
    idle(one)
    one.slot.exchange(Attempt(), one.road, last=True)
    assert one.last_chain == [Op.SEND]
    one.tell((Step.SEND_ALONE, 4))
    one.arrives(ANSWER)
    assert one.heard == [True, True]
    one.check_over(ok=2, departures={"active_close": 1})


def test_request_that_meets_a_reset_waits_for_its_receive_to_be_cancelled(owner: Owners) -> None:
    one = owner("client-fin")
    idle(one)
    one.slot.exchange(Attempt(), one.road, last=False)
    one.tell((Step.SEND_ALONE, -errno.EPIPE))
    assert not one.slot.over
    assert set(one.last_chain) == {Op.ASYNC_CANCEL}
    one.tell((Step.FIRST, CANCELLED))
    assert one.heard == [True, False]
    one.check_over(errors={"write:EPIPE:keepalive_race": 1}, departures={"reset_by_peer": 1})


def test_fin_that_comes_while_the_client_leaves_decides_who_was_first(owner: Owners) -> None:
    one = owner("client-fin")
    idle(one)
    one.slot.leave()
    assert one.last_chain == [Op.FIXED_FD_INSTALL]
    assert not one.slot.usable
    one.tell((Step.FIRST, 0), (Step.INSTALL, -errno.EMFILE))
    one.check_over(departures={"passive_close": 1}, closed_early=0, crossed=0)


def test_without_a_descriptor_nobody_can_tell_whose_fin_was_first(owner: Owners) -> None:
    one = owner("client-fin")
    idle(one)
    one.slot.leave()
    one.tell((Step.INSTALL, -errno.EMFILE))
    assert set(one.last_chain) == {Op.ASYNC_CANCEL}
    one.tell((Step.FIRST, CANCELLED))
    one.check_over(departures={"active_close": 1}, closed_early=1, crossed=1)


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def test_with_a_descriptor_the_client_sends_its_fin_and_knows(
    owner: Owners, connected: tuple[socket.socket, socket.socket]
) -> None:
    near, far = connected
    one = owner("client-fin")
    idle(one)
    one.slot.leave()
    one.tell((Step.INSTALL, near.detach()), (Step.FIRST, CANCELLED))
    assert far.recv(1) == b""
    one.check_over(departures={"active_close": 1}, closed_early=1, crossed=0)


def test_leaving_twice_is_leaving_once(
    owner: Owners, connected: tuple[socket.socket, socket.socket]
) -> None:
    near, _ = connected
    one = owner("client-fin")
    idle(one)
    one.slot.leave()
    one.slot.leave()
    one.tell((Step.INSTALL, near.dup().detach()), (Step.INSTALL, near.detach()))
    one.tell((Step.FIRST, CANCELLED))
    one.check_over(departures={"active_close": 1}, closed_early=1)


def test_cancel_that_found_nothing_is_repeated_until_the_life_is_over(owner: Owners) -> None:
    one = owner("server-fin")
    one.begin()
    one.tell((Step.FIRST, -errno.ECONNRESET))
    for _ in range(3):
        pushed = len(one.ring.chains)
        one.slot.expire()
        assert len(one.ring.chains) == pushed + 1
        assert set(one.last_chain) == {Op.ASYNC_CANCEL}
    one.tell((Step.SECOND, CANCELLED))
    one.check_over(errors={"read:ECONNRESET:reset_by_peer": 1})


def test_reset_sets_its_option_and_closes_at_once(owner: Owners) -> None:
    one = owner("client-rst")
    one.begin()
    one.arrives(ANSWER)
    assert one.last_chain == [Op.URING_CMD, Op.CLOSE]
    one.check_over(ok=1, departures={"active_reset": 1})


def test_reset_gives_way_to_a_fin_that_came_first(owner: Owners) -> None:
    one = owner("client-rst")
    one.begin(last=False)
    one.tell((Step.FIRST, 0))
    assert one.last_chain == [Op.CLOSE]
    one.check_over(departures={"passive_close": 1}, errors={"read:EOF:closed_unanswered": 1})


def test_socket_is_closed_before_the_slot_lives_again(owner: Owners) -> None:
    one = owner("client-fin")
    begun: list[bool | None] = []

    def begin_again(slot: Slot, *, ok: bool | None) -> None:
        begun.append(ok)
        if len(begun) == 1:
            slot.begin(Attempt(), one.road, last=True)

    one.answered = begin_again  # type: ignore[method-assign]
    one.begin()
    one.arrives(ANSWER)
    assert not one.slot.over
    assert [chain[0][0] for chain in one.ring.chains] == [Op.SOCKET, Op.CLOSE, Op.SOCKET]
    one.tell((Step.CONNECT, 0))
    one.arrives(ANSWER)
    assert begun == [True, True]
    one.check_over(ok=2, departures={"active_close": 2})


def test_body_larger_than_a_piece_is_received_by_its_length_alone(owner: Owners) -> None:
    one = owner("client-fin")
    one.begin()
    one.arrives(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    for size in (4096, 4096, 10_000 - 2 * 4096):
        assert one.ring.chains[-1] == [(Op.RECV, Step.REST)]
        one.tell((Step.REST, size))
    one.check_over(ok=1, errors={})


def test_answer_that_overtakes_the_word_of_its_request_is_not_the_last_receive(
    owner: Owners,
) -> None:
    one = owner("client-fin")
    idle(one)
    one.slot.exchange(Attempt(), one.road, last=False)
    one.arrives(ANSWER)
    one.tell((Step.SEND_ALONE, 4))
    assert one.slot.usable
    one.slot.exchange(Attempt(), one.road, last=True)
    one.tell((Step.SEND_ALONE, 4))
    one.arrives(ANSWER)
    one.check_over(ok=3, departures={"active_close": 1})


def test_half_close_behind_a_waiting_receive_is_waited_for(owner: Owners) -> None:
    one = owner("client-half-close")
    idle(one)
    one.slot.exchange(Attempt(), one.road, last=True)
    assert one.last_chain == [Op.SEND, Op.SHUTDOWN]
    one.tell((Step.SEND_ALONE, 4), (Step.SHUT, 0))
    one.arrives(ANSWER)
    one.tell((Step.FIRST, 0))
    one.check_over(ok=2, departures={"active_close": 1})
