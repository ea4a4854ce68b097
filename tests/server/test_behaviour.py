"""What a plan, and where allowed a URL, make a server do."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.endings import ENDINGS
from twbench.model.plans import ServerPlan
from twbench.model.scenario import EndingSpec, ServerSpec
from twbench.server.behaviour import BY_URL, Behaviour, answer, chosen_by_url, without_body

USUAL = Behaviour.of(
    ServerPlan(
        server=ServerSpec(response_bytes=10, delay_ms=20, keepalive_timeout_s=3),
        ending=EndingSpec(kind="server-rst", hold_s=4),
        family="ipv4",
        endpoints=(("127.0.0.1", 80),),
        by_url=True,
    )
)
GOES_ON, LAST = False, True


def body_of(whole: bytes) -> bytes:
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 ")
    return body


def test_plan_becomes_behaviour() -> None:
    assert (USUAL.ending, USUAL.hold_s, USUAL.delay_s) == ("server-rst", 4, 0.02)
    assert (USUAL.keepalive_timeout_s, USUAL.keepalive_requests) == (3, 1000)
    assert len(body_of(USUAL.answer(GOES_ON))) == len(body_of(USUAL.answer(LAST))) == 10
    assert b"\r\nConnection: keep-alive\r\n" in USUAL.answer(GOES_ON)
    assert b"\r\nConnection: close\r\n" in USUAL.answer(LAST)
    assert USUAL.answer(LAST) is USUAL.answer(LAST)


@given(st.integers(0, 100_000), st.booleans())
def test_answer_has_the_length_that_it_announces(size: int, last: bool) -> None:
    whole = answer(size, last)
    assert len(body_of(whole)) == size
    assert f"\r\nContent-Length: {size}\r\n".encode() in whole
    assert without_body(whole) == whole[: len(whole) - size]


def test_url_may_choose_every_ending_that_answers() -> None:
    assert {name for name, e in ENDINGS.items() if e.answered and not e.needs_wire} == BY_URL
    for name in BY_URL:
        assert chosen_by_url(USUAL, f"/{name}".encode()).ending == name


def test_url_chooses_size_and_delay_and_leaves_the_rest() -> None:
    chosen = chosen_by_url(USUAL, b"/server-fin?bytes=77&delay_ms=1.5")
    assert (chosen.ending, chosen.delay_s) == ("server-fin", 0.0015)
    assert len(body_of(chosen.answer(GOES_ON))) == len(body_of(chosen.answer(LAST))) == 77
    assert (chosen.hold_s, chosen.keepalive_timeout_s) == (4, 3)
    only_delay = chosen_by_url(USUAL, b"/?delay_ms=5")
    assert (only_delay.ending, only_delay.delay_s) == ("server-rst", 0.005)
    assert only_delay.answer is USUAL.answer


def test_url_chooses_a_body_that_is_made_when_it_is_needed_and_not_before() -> None:
    tracemalloc.start()
    try:
        chosen = chosen_by_url(USUAL, b"/?bytes=10000000")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert len(body_of(chosen.answer(LAST))) == 10_000_000


def test_absolute_url_chooses_too() -> None:
    assert chosen_by_url(USUAL, b"http://127.0.0.1:8080/client-fin").ending == "client-fin"


@pytest.mark.parametrize(
    "url",
    [
        *(b"/favicon.ico", b"/server-unread", b"/crash", b"/simultaneous", b"*", b"http://[/"),
        *(b"/?bytes=x", b"/?bytes=-1", b"/?bytes=1.5", b"/?bytes=nan", b"/?bytes=inf", b"/?bytes="),
        *(b"/?bytes=10000001", b"/?delay_ms=600001", b"/?delay_ms=-1", b"/?size=3", b"/\xff"),
    ],
)
def test_what_the_url_may_not_ask_for_is_not_found(url: bytes) -> None:
    chosen = chosen_by_url(USUAL, url)
    for last, connection in ((GOES_ON, b"keep-alive"), (LAST, b"close")):
        whole = chosen.answer(last)
        assert whole.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert b"\r\nConnection: " + connection + b"\r\n" in whole
        assert body_of(whole) == b""
    assert (chosen.ending, chosen.delay_s) == (USUAL.ending, USUAL.delay_s)


@given(st.binary(max_size=40))
def test_any_url_is_answered(path: bytes) -> None:
    chosen = chosen_by_url(USUAL, b"/" + path)
    assert chosen.answer(LAST).startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 Not Found\r\n"))


def test_named_ending_makes_the_request_the_connections_last() -> None:
    assert chosen_by_url(USUAL, b"/server-rst").keepalive_requests == 1
    assert chosen_by_url(USUAL, b"/?bytes=5").keepalive_requests == USUAL.keepalive_requests
    # the idle time-out of an ended connection could not be seen
    assert chosen_by_url(USUAL, b"/server-idle").keepalive_requests == USUAL.keepalive_requests
