"""Reading HTTP answers at the pace of a load generator.

A server sends the same head over and over. A head that was seen before is recognised by comparing
bytes; only a new one is parsed (by httptools), so the cost of HTTP is one `startswith` per answer.
"""

from dataclasses import dataclass

import httptools

_END = b"\r\n\r\n"
_LONGEST_HEAD = 65_536
_FAILURE = 400


class MalformedAnswerError(Exception):
    """The bytes are no HTTP/1.1 answer of a known length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The head of an answer, and what it says about the whole."""

    raw: bytes
    status: int
    body_bytes: int
    closes: bool
    """Whether the server announces that this is the connection's last answer."""

    @property
    def failed(self) -> bool:
        """Return whether the status reports a failure."""
        return self.status >= _FAILURE


class _Collector:
    """What httptools tells about one head."""

    def __init__(self) -> None:
        self.length: int | None = None
        self.chunked = False
        self.closes = True
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length":
                self.length = int(value)
            case b"transfer-encoding":
                self.chunked = True

    def on_headers_complete(self) -> None:
        # after an empty body the parser has forgotten it
        self.closes = not self.parser.should_keep_alive()


class HeadReader:
    """Turns the first bytes of an answer into its head; remembers the last one."""

    def __init__(self) -> None:
        """Start with no head known."""
        self._known = Head(raw=_END, status=0, body_bytes=0, closes=True)

    def read(self, data: bytes) -> Head | None:
        """Return the head that `data` begins with, or None while it is incomplete.

        Raises:
            MalformedAnswerError: it is no answer, or one without a Content-Length.
        """
        if data.startswith(self._known.raw) and self._known.status:
            return self._known
        end = data.find(_END)
        if end < 0:
            if len(data) > _LONGEST_HEAD:
                raise MalformedAnswerError
            return None
        self._known = _parse(data[: end + len(_END)])
        return self._known


def _parse(raw: bytes) -> Head:
    collector = _Collector()
    try:
        collector.parser.feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        raise MalformedAnswerError from None
    if collector.chunked or collector.length is None:
        raise MalformedAnswerError
    return Head(
        raw=raw,
        status=collector.parser.get_status_code(),
        body_bytes=collector.length,
        closes=collector.closes,
    )
