"""Requests that are recognised by their bytes, and those that are not."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.server.requests import Recogniser

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (GET, False),
        (GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", False),
    ],
)
def test_plain_request_says_whether_it_is_the_last(data: bytes, ends: bool) -> None:
    recogniser = Recogniser()
    for _ in range(2):
        assert recogniser.read(data) is ends


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GET[:-1],
        GET * 2,
        GET + b"G",
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab",
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_anything_else_is_none(data: bytes) -> None:
    recogniser = Recogniser()
    for _ in range(2):
        assert recogniser.read(data) is None
    assert recogniser.known == {}


def test_few_are_remembered() -> None:
    recogniser = Recogniser()
    for number in range(1000):
        assert recogniser.read(GET.replace(b"/ ", b"/%d " % number)) is False
        assert len(recogniser.known) <= 64


@given(st.binary(max_size=40), st.integers(0, len(GET)))
def test_what_is_recognised_is_one_whole_request(noise: bytes, at: int) -> None:
    data = GET[:at] + noise + GET[at:]
    if Recogniser().read(data) is not None:
        whole: list[bool] = []

        class Counting:
            def on_message_complete(self) -> None:
                whole.append(True)

        httptools.HttpRequestParser(Counting()).feed_data(data)
        assert whole == [True]
