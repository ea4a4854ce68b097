"""Reading the heads of answers, whole, in pieces, and what is none."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.fleet.answers import Head, HeadReader, MalformedAnswerError

PLAIN = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n"
ANSWERS = [
    pytest.param(PLAIN, 200, 5, False, id="kept"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", 200, 0, False, id="empty"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n",
        *(200, 7, True),
        id="last",
    ),
    pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", 200, 1, True, id="HTTP/1.0"),
    pytest.param(
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
        *(200, 1, False),
        id="HTTP/1.0-kept",
    ),
    pytest.param(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n", 503, 2, False, id="failed"),
]


@pytest.mark.parametrize(("raw", "status", "body_bytes", "closes"), ANSWERS)
def test_head_tells_status_length_and_whether_it_is_the_last(
    raw: bytes, status: int, body_bytes: int, closes: bool
) -> None:
    head = HeadReader().read(raw + b"body and more")
    assert head == Head(raw=raw, status=status, body_bytes=body_bytes, closes=closes)
    assert head.failed == (status >= 400)


@pytest.mark.parametrize(("raw", "status", "body_bytes", "closes"), ANSWERS)
def test_head_is_awaited_through_every_split(
    raw: bytes, status: int, body_bytes: int, closes: bool
) -> None:
    for end in range(len(raw)):
        reader = HeadReader()
        assert reader.read(raw[:end]) is None
        head = reader.read(raw)
        assert head is not None
        assert (head.status, head.body_bytes, head.closes) == (status, body_bytes, closes)


def test_head_seen_before_is_recognised_and_a_different_one_is_read() -> None:
    reader = HeadReader()
    first = reader.read(PLAIN + b"12345")
    assert reader.read(PLAIN) is first
    other = reader.read(PLAIN.replace(b"5", b"6"))
    assert other is not None
    assert other.body_bytes == 6
    assert reader.read(PLAIN[:20]) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_answer_of_known_length_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        HeadReader().read(raw)


def test_head_without_end_is_malformed_in_the_end() -> None:
    reader = HeadReader()
    assert reader.read(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000) is None
    with pytest.raises(MalformedAnswerError):
        reader.read(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 66_000)


fragments = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"Content-Length: ", b"5", b"\r\n", b"\r\n\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n"),
        *(b"Connection: upgrade\r\n", b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 999\r\n", b":", b"\x00"),
    ]
)
garbage = st.lists(st.one_of(fragments, st.binary(max_size=8)), max_size=12).map(b"".join)


@given(st.lists(garbage, min_size=1, max_size=3))
def test_garbage_is_a_head_or_incomplete_or_malformed_and_nothing_else(chunks: list[bytes]) -> None:
    reader = HeadReader()
    for data in chunks:
        with contextlib.suppress(MalformedAnswerError):
            head = reader.read(data)
            assert head is None or (data.startswith(head.raw) and head.body_bytes >= 0)
