"""Exchanges without anything that carries them: each course of events, and what is booked."""

import errno
from dataclasses import dataclass, field

import pytest

from twbench.fleet.answers import HeadReader
from twbench.fleet.exchanges import Exchanges
from twbench.fleet.ledger import Ledger
from twbench.fleet.part import NEVER_NS
from twbench.model.endings import ENDINGS
from twbench.model.outcomes import Phase
from twbench.model.reports import FleetReport
from twbench.process.sockets import Fin

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CLOSES = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
REFUSES = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Owner:
    ending: str = "client-fin"
    ledger: Ledger = field(default_factory=Ledger)
    heads: HeadReader = field(default_factory=HeadReader)
    hold_ns: int = 1
    idle_ns: int = 2
    request_timeout_ns: int = 3


class Course(Exchanges):
    """Notes what the carrier of the bytes was told to do."""

    def __init__(self, ending: str = "client-fin", *, last: bool = True) -> None:
        self._owner = Owner(ending)
        self.did: list[str] = []
        self.resolved: list[bool] = []
        self.fin = Fin.FIRST
        self.unsent = False
        self._open(intended_ns=0, last=last)

    def established(self) -> None:
        self._established()

    def again(self, *, last: bool = True) -> None:
        self._begin(0, last=last)

    def leave(self) -> None:
        self.did.append("leave")
        if self._departure is None:
            self._left(self.fin)
        self.connection_lost(None)

    def _close(self) -> None:
        self.did.append("close")
        self.connection_lost(None)

    def _reset(self) -> None:
        self.did.append("reset")
        self.connection_lost(None)

    def _has_unsent(self) -> bool:
        return self.unsent

    def _resolve(self) -> None:
        self.resolved.append(self._ok)

    @property
    def books(self) -> FleetReport:
        return self._owner.ledger.report

    def booked(self) -> dict[str, object]:
        """Return what the books have, without zeros."""
        report = self.books
        names = ("ok", "closed_early", "crossed", "errors", "connection_errors", "departures")
        return {name: getattr(report, name) for name in names if getattr(report, name)}


def booked(**what: object) -> dict[str, object]:
    return what


@pytest.mark.parametrize(
    ("ending", "did", "departures"),
    [
        ("client-fin", ["close"], {"active_close": 1}),
        ("simultaneous", ["close"], {"active_close": 1}),
        ("client-rst", ["reset"], {"active_reset": 1}),
        ("client-half-close", [], None),
        *((ending, [], None) for ending in ENDINGS if ending.startswith("server-")),
    ],
)
def test_first_closer_moves_after_the_last_answer_and_no_other(
    ending: str, did: list[str], departures: dict[str, int] | None
) -> None:
    course = Course(ending)
    course.data_received(ANSWER)
    assert (course.did, course.over) == (did, bool(did))
    assert course.resolved == ([True] if did else [])
    if departures:
        assert course.booked() == booked(ok=1, departures=departures)
    else:
        course.eof_received()
        course.connection_lost(None)
        assert course.booked() == booked(ok=1, departures={"passive_close": 1})


def test_every_ending_of_the_table_is_one_where_the_client_moves_or_waits() -> None:
    assert set(Exchanges.MOVES) < set(ENDINGS)


@pytest.mark.parametrize("piece", range(1, len(ANSWER) + 1))
def test_answer_in_pieces_of_any_size_is_one_answer(piece: int) -> None:
    course = Course(last=False)
    for start in range(0, len(ANSWER), piece):
        course.data_received(ANSWER[start : start + piece])
    assert (course.resolved, course.awaiting) == ([True], False)
    assert course.booked() == booked(ok=1)


def test_answer_that_closes_is_the_last_though_it_was_not_asked_to_be() -> None:
    course = Course(last=False)
    course.data_received(CLOSES)
    assert course.did == ["close"]


def test_failed_status_is_an_answer_all_the_same() -> None:
    course = Course()
    course.data_received(REFUSES)
    assert course.resolved == [False]
    assert course.booked() == booked(
        errors={"read:STATUS:http_error": 1}, departures={"active_close": 1}
    )


@pytest.mark.parametrize(
    ("before", "reused", "number", "key"),
    [
        (b"", False, errno.ECONNRESET, "read:ECONNRESET:reset_by_peer"),
        (b"", True, errno.ECONNRESET, "read:ECONNRESET:keepalive_race"),
        (ANSWER[:9], True, errno.ECONNRESET, "read:ECONNRESET:reset_by_peer"),
        (ANSWER[:-1], True, errno.ECONNRESET, "read:ECONNRESET:reset_by_peer"),
        (b"", True, errno.EPIPE, "write:EPIPE:keepalive_race"),
        (b"", False, 0, "read:EOF:closed_unanswered"),
        (b"", True, 0, "read:EOF:keepalive_race"),
        (ANSWER[:9], True, 0, "read:SHORT:truncated_answer"),
        (ANSWER[:-1], False, 0, "read:SHORT:truncated_answer"),
    ],
)
def test_end_before_the_answer_is_named_by_how_and_when_it_came(
    before: bytes, reused: bool, number: int, key: str
) -> None:
    course = Course(last=not reused)
    if reused:
        course.data_received(ANSWER)
        course.again()
    if before:
        course.data_received(before)
    if number:
        course.connection_lost(OSError(number, ""))
    else:
        course.eof_received()
        course.connection_lost(None)
    departure = "reset_by_peer" if number else "passive_close"
    expected = booked(errors={key: 1}, departures={departure: 1})
    assert course.booked() == ({"ok": 1} if reused else {}) | expected
    assert course.resolved[-1] is False


@pytest.mark.parametrize(
    ("ending", "last", "key"),
    [
        ("server-fin", True, "close:ECONNRESET:reset_at_close"),
        ("client-fin", False, "idle:ECONNRESET:reset_while_idle"),
    ],
)
def test_reset_after_the_answer_fails_no_attempt(ending: str, last: bool, key: str) -> None:
    course = Course(ending, last=last)
    course.data_received(ANSWER)
    course.connection_lost(ConnectionResetError(errno.ECONNRESET, ""))
    expected = booked(ok=1, connection_errors={key: 1}, departures={"reset_by_peer": 1})
    assert course.booked() == expected


@pytest.mark.parametrize(
    ("unsent", "phase"), [(False, Phase.READ), (True, Phase.WRITE)], ids=["sent", "unsent"]
)
def test_time_out_is_of_the_write_while_a_part_is_unsent(unsent: bool, phase: Phase) -> None:
    course = Course()
    course.unsent = unsent
    course.expire()
    (key,) = course.books.errors
    assert key.startswith(f"{phase.value}:TIMEOUT:")
    assert course.did == ["leave"]


def test_hold_that_is_over_is_told_and_idleness_is_not() -> None:
    holding, idle = Course("server-fin"), Course(last=False)
    for course in (holding, idle):
        course.data_received(ANSWER)
        course.expire()
    alike = booked(ok=1, closed_early=1, departures={"active_close": 1})
    assert idle.booked() == alike
    assert holding.booked() == alike | {
        "connection_errors": {"close:TIMEOUT:peer_did_not_close": 1}
    }


@pytest.mark.parametrize(
    ("fin", "expected"),
    [
        (Fin.FIRST, booked(closed_early=1, departures={"active_close": 1})),
        (Fin.CROSSED, booked(closed_early=1, crossed=1, departures={"active_close": 1})),
        (Fin.SECOND, booked(departures={"passive_close": 1})),
    ],
)
def test_leaving_is_booked_by_whose_fin_was_the_first(
    fin: Fin, expected: dict[str, object]
) -> None:
    course = Course(last=False)
    course.data_received(ANSWER)
    course.fin = fin
    course.leave()
    assert course.booked() == {"ok": 1} | expected


@pytest.mark.parametrize("content", [b"SSH-2.0-x\r\n\r\n", ANSWER + b"!", b"x" * 70_000])
def test_what_is_no_answer_ends_the_connection(content: bytes) -> None:
    course = Course()
    course.data_received(content)
    assert course.booked()["errors"] == {"read:PROTOCOL:malformed_answer": 1}
    assert course.did == ["leave"]


def test_bytes_for_an_idle_connection_end_it_and_fail_nothing() -> None:
    course = Course(last=False)
    course.data_received(ANSWER)
    course.data_received(b"more")
    assert course.booked() == booked(ok=1, closed_early=1, departures={"active_close": 1})


def test_cut_off_fails_only_what_is_still_due() -> None:
    waiting, idle = Course(), Course(last=False)
    idle.data_received(ANSWER)
    for course in (waiting, idle):
        course.cut_off()
    assert waiting.booked()["errors"] == {"read:CANCELLED:run_ended": 1}
    assert "errors" not in idle.booked()


def test_deadline_is_of_the_answer_then_of_the_other_sides_close_or_of_idleness() -> None:
    holding, idle = Course("server-fin"), Course(last=False)
    assert holding.deadline_ns == NEVER_NS
    holding.established()
    assert holding.deadline_ns == holding.began_ns + 3
    for course in (holding, idle):
        course.data_received(ANSWER)
    assert holding.deadline_ns > holding.began_ns + 1
    assert idle.deadline_ns > idle.began_ns + 2
