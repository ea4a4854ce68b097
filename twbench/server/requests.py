"""Recognising requests at the pace of a load generator: by comparing bytes. Pure.

A client sends the same request over and over. Only the first is parsed (by httptools), and only
what can be answered at once is recognised: whole, alone, and without any wish.
"""

import httptools

_MOST_KNOWN = 64


class Recogniser:
    """Remembers the requests that it has read, as long as they are few."""

    def __init__(self) -> None:
        """Begin with none."""
        self.known: dict[bytes, bool] = {}
        """For the bytes of a request, whether it announces the end of its connection."""

    def read(self, data: bytes) -> bool | None:
        """Return whether this request announces the end, or None for what is no plain request.

        Plain is one whole request, with its body, that is no HEAD, expects no 100 and offers no
        upgrade.
        """
        known = self.known.get(data)
        if known is not None:
            return known
        ends = _Reading(data).ends
        if ends is not None:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known[data] = ends
        return ends


class _Reading:
    """What httptools tells about some bytes."""

    def __init__(self, data: bytes) -> None:
        self.ends: bool | None = None
        self._begun = 0
        self._plain = True
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.ends = None

    def on_message_begin(self) -> None:
        self._begun += 1
        self.ends = None

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() == b"expect":
            self._plain = False

    def on_message_complete(self) -> None:
        if self._plain and self._begun == 1 and self._parser.get_method() != b"HEAD":
            self.ends = not self._parser.should_keep_alive()
