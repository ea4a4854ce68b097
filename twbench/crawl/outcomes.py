"""What an exception of an HTTP client says of a page: phase and errno name, as the fleet books it.

Libraries wrap what the kernel said in errors of their own, each in its way. So an error is looked
through to its causes, and what a class means stands in a table under its name, which is known
without importing the library.
"""

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from twbench.model.outcomes import Phase, errno_name
from twbench.model.scenario import ClientSpec


class PageError(Exception):
    """What a crawler raises that knows by itself what has become of a page."""

    def __init__(self, phase: Phase, error: str, *, reused: bool | None = None) -> None:
        """Keep the phase and the errno's name, or one of twbench.model.outcomes' own.

        `reused` says whether the connection had served before and no part of this answer came;
        None: it is not known.
        """
        self.phase = phase
        self.error = error
        self.reused = reused
        super().__init__(f"{phase}: {error}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Means:
    """What a class of error tells by itself."""

    phase: Phase | None = None
    error: str | None = None
    words: str = ""
    """A regular expression for its text; the first line of the table that fits is it."""


def _means(phase: Phase | None = None, error: str | None = None, words: str = "") -> _Means:
    return _Means(phase=phase, error=error, words=words)


_CONNECT, _READ, _WRITE = Phase.CONNECT, Phase.READ, Phase.WRITE
_HTTPX: Mapping[str, tuple[_Means, ...]] = {
    "ConnectTimeout": (_means(_CONNECT, "TIMEOUT"),),
    # a wait for a connection of the pool is one for a connection
    "PoolTimeout": (_means(_CONNECT, "TIMEOUT"),),
    "ReadTimeout": (_means(_READ, "TIMEOUT"),),
    "WriteTimeout": (_means(_WRITE, "TIMEOUT"),),
    "ConnectError": (_means(_CONNECT),),
    "ReadError": (_means(_READ),),
    "WriteError": (_means(_WRITE),),
    "RemoteProtocolError": (
        _means(_READ, "EOF", "without sending a response"),
        _means(_READ, "SHORT", "peer (unexpectedly )?closed connection"),
        _means(_READ, "PROTOCOL"),
    ),
    "DecodingError": (_means(_READ, "PROTOCOL"),),
    "TooManyRedirects": (_means(_READ, "REDIRECTS"),),
    "HTTPStatusError": (_means(_READ, "STATUS"),),
}
_TABLE: Mapping[str, tuple[_Means, ...]] = {
    "aiohttp.ClientConnectorError": (_means(_CONNECT),),
    "aiohttp.ConnectionTimeoutError": (_means(_CONNECT, "TIMEOUT"),),
    "aiohttp.ServerTimeoutError": (_means(_READ, "TIMEOUT"),),
    "aiohttp.ServerDisconnectedError": (
        # it brings what it has of the head
        _means(_READ, "SHORT", "RawResponseMessage"),
        _means(_READ, "EOF"),
    ),
    "aiohttp.ClientConnectionResetError": (_means(_WRITE, "ECONNRESET"),),
    "aiohttp.ClientPayloadError": (
        # the kernel's errno is in the text alone
        _means(_READ, "ECONNRESET", "ConnectionResetError"),
        _means(_READ, "SHORT", "Not enough data|not completed"),
        _means(_READ, "PROTOCOL"),
    ),
    "aiohttp.TooManyRedirects": (_means(_READ, "REDIRECTS"),),
    "aiohttp.ClientResponseError": (
        # 400 is also what it calls an answer that it cannot read
        _means(_READ, "STATUS", r"^(?!400)[45]\d\d|message='Bad Request'"),
        _means(_READ, "PROTOCOL"),
    ),
    **{f"{root}.{name}": means for root in ("httpx", "httpcore") for name, means in _HTTPX.items()},
    "requests.ConnectTimeout": (_means(_CONNECT, "TIMEOUT"),),
    "requests.ReadTimeout": (_means(_READ, "TIMEOUT"),),
    "requests.TooManyRedirects": (_means(_READ, "REDIRECTS"),),
    "requests.ContentDecodingError": (_means(_READ, "PROTOCOL"),),
    "requests.HTTPError": (_means(_READ, "STATUS"),),
    "urllib3.NewConnectionError": (_means(_CONNECT),),
    "urllib3.ConnectTimeoutError": (_means(_CONNECT, "TIMEOUT"),),
    "urllib3.EmptyPoolError": (_means(_CONNECT, "TIMEOUT"),),
    "urllib3.ReadTimeoutError": (_means(_READ, "TIMEOUT"),),
    "urllib3.InvalidChunkLength": (
        _means(_READ, "SHORT", "got length b''"),
        _means(_READ, "PROTOCOL"),
    ),
    "urllib3.IncompleteRead": (_means(_READ, "SHORT"),),
    "urllib3.ProtocolError": (_means(_READ, "SHORT", "ended prematurely"), _means()),
    "urllib3.DecodeError": (_means(_READ, "PROTOCOL"),),
    "urllib3.ResponseError": (
        _means(_READ, "REDIRECTS", "too many redirects"),
        _means(_READ, "STATUS"),
    ),
    "http.RemoteDisconnected": (_means(_READ, "EOF"),),
    "http.IncompleteRead": (_means(_READ, "SHORT"),),
    "http.HTTPException": (_means(_READ, "PROTOCOL"),),
    "asyncio.IncompleteReadError": (_means(_READ, "EOF", "^0 bytes"), _means(_READ, "SHORT")),
    "asyncio.CancelledError": (_means(_READ, "CANCELLED"),),
    "anyio.EndOfStream": (_means(_READ, "EOF"),),
    "builtins.ConnectionRefusedError": (_means(_CONNECT, "ECONNREFUSED"),),
    "builtins.ConnectionResetError": (_means(None, "ECONNRESET"),),
    "builtins.ConnectionAbortedError": (_means(None, "ECONNABORTED"),),
    "builtins.BrokenPipeError": (_means(_WRITE, "EPIPE"),),
    "builtins.TimeoutError": (_means(None, "TIMEOUT"),),
}
"""By the top-level module of a class and its name; a class that is not here means its base's."""

_OF_CONNECT = frozenset(
    {
        *("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL", "EADDRINUSE"),
        *("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EPERM", "EACCES", "EINVAL", "ENOPROTOOPT"),
    }
)
"""What only socket(2), bind(2) or connect(2) says to a client, where no class tells the phase."""
_RESOLVER = {getattr(socket, name): name for name in sorted(dir(socket)) if name.startswith("EAI_")}


def classify(error: BaseException) -> tuple[Phase, str]:
    """Return in which phase a page has failed, and the errno's name or one of our own.

    What nothing tells anything about is of phase `read`, under the name of its class.
    """
    if isinstance(error, PageError):
        return error.phase, error.error
    causes = tuple(_causes(error))
    for each in causes:
        if isinstance(each, socket.gaierror):
            return Phase.RESOLVE, _RESOLVER.get(each.errno, f"EAI{each.errno}")
    told = tuple(means for each in causes if (means := _meaning(each)))
    numbers = (each.errno for each in causes if isinstance(each, OSError) and each.errno)
    if number := next(numbers, None):
        name = errno_name(number)
    else:
        name = next((means.error for means in told if means.error), type(error).__name__)
    phase = next((means.phase for means in told if means.phase), None)
    if name == "EPIPE":
        return _WRITE, name
    return phase or (_CONNECT if name in _OF_CONNECT else _READ), name


def keeps(client: ClientSpec) -> bool:
    """Return whether a crawler keeps connections, so that a server can close one as it is used.

    A coroutine of the user's is taken to keep them, as most clients do.
    """
    match client.engine:
        case "aiohttp":
            return client.aiohttp.session == "shared" and not client.aiohttp.force_close
        case "httpx":
            return client.httpx.session == "shared" and client.httpx.max_keepalive_connections > 0
        case "requests":
            return client.requests.session == "shared"
        case "urllib3":
            return client.urllib3.session == "shared"
        case _:
            return client.is_own or client.pool is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and all that it was made from, each once, the outer before the inner."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = [
            each.__cause__,
            getattr(each, "os_error", None),  # aiohttp
            getattr(each, "reason", None),  # urllib3
            *each.args,
            *getattr(each, "exceptions", ()),  # a group, as anyio's connect raises
            None if each.__suppress_context__ else each.__context__,
        ]
        waiting.extend(it for it in reversed(inner) if isinstance(it, BaseException))


def _meaning(error: BaseException) -> _Means | None:
    """Return what the first of an error's classes that is in the table means."""
    for each in type(error).__mro__:
        key = f"{each.__module__.partition('.')[0]}.{each.__name__}"
        for means in _TABLE.get(key, ()):
            if re.search(means.words, str(error)):
                return means
    return None
