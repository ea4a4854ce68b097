"""What can become of an attempt: (phase, errno, fresh or reused connection) to a kind, as a table.

Beside the kernel's errno names stand some of our own for what is no system call's error: `EOF`
(the peer's FIN came where an answer was due), `SHORT` (it came in the middle of one), `TIMEOUT`
(our own limit, not the kernel's ETIMEDOUT), `PROTOCOL` (bytes that are no HTTP answer), `STATUS`
(an answer that reports a failure), `REDIRECTS` (one redirect after the other), `LIMIT` (our own
bound on attempts in flight), `LATE` (due, and not begun by the end of the load) and `CANCELLED`
(cut off by the end of the run). A pair that the table does not list is `unknown`: counted and shown
like any other, never swallowed.
"""

import errno as errno_numbers
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Phase(StrEnum):
    """What a connection was doing when it failed."""

    RESOLVE = "resolve"
    BIND = "bind"
    CONNECT = "connect"
    WRITE = "write"
    READ = "read"
    IDLE = "idle"
    CLOSE = "close"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A named cause of failure."""

    name: str
    meaning: str
    syn_left: bool = True
    """False where the attempt failed before any SYN left the host (connect phase only)."""


UNKNOWN = Kind(name="unknown", meaning="a failure that twbench has no name for")

_LOCAL = {"syn_left": False}
_FRESH_OR_REUSED: tuple[tuple[str, str, Kind], ...] = (
    ("resolve", "EAI_NONAME", Kind(name="name_not_found", meaning="no such host", **_LOCAL)),
    ("bind", "EADDRINUSE", Kind(name="ports_exhausted", meaning="no port left to bind", **_LOCAL)),
    ("bind", "EADDRNOTAVAIL", Kind(name="not_local", meaning="no such address here", **_LOCAL)),
    ("bind", "EACCES", Kind(name="not_permitted", meaning="a privileged port", **_LOCAL)),
    (
        "connect",
        "EADDRNOTAVAIL",
        Kind(
            name="ports_exhausted",
            meaning="every port towards this destination is in use",
            **_LOCAL,
        ),
    ),
    ("connect", "EADDRINUSE", Kind(name="port_in_use", meaning="the four-tuple lives", **_LOCAL)),
    ("connect", "EMFILE", Kind(name="descriptors_exhausted", meaning="RLIMIT_NOFILE", **_LOCAL)),
    ("connect", "ENFILE", Kind(name="descriptors_exhausted", meaning="fs.file-max", **_LOCAL)),
    ("connect", "ENOBUFS", Kind(name="out_of_memory", meaning="no socket memory", **_LOCAL)),
    ("connect", "ENOMEM", Kind(name="out_of_memory", meaning="no memory", **_LOCAL)),
    ("connect", "EPERM", Kind(name="not_permitted", meaning="a local firewall", **_LOCAL)),
    ("connect", "EACCES", Kind(name="not_permitted", meaning="a local rule", **_LOCAL)),
    ("connect", "EINVAL", Kind(name="option_refused", meaning="a socket option", **_LOCAL)),
    ("connect", "ENOPROTOOPT", Kind(name="option_refused", meaning="unknown option", **_LOCAL)),
    ("connect", "ENETUNREACH", Kind(name="unreachable", meaning="no route", **_LOCAL)),
    ("connect", "LIMIT", Kind(name="in_flight_limit", meaning="load.max_in_flight", **_LOCAL)),
    (
        "connect",
        "LATE",
        Kind(name="fleet_too_slow", meaning="not begun by the load's end", **_LOCAL),
    ),
    ("connect", "EHOSTUNREACH", Kind(name="unreachable", meaning="ICMP said so")),
    ("connect", "ECONNREFUSED", Kind(name="refused", meaning="nobody listens there")),
    ("connect", "ECONNRESET", Kind(name="reset_in_handshake", meaning="reset before accept")),
    ("connect", "ECONNABORTED", Kind(name="aborted", meaning="the own socket was destroyed")),
    ("connect", "ETIMEDOUT", Kind(name="syn_unanswered", meaning="tcp_syn_retries used up")),
    ("connect", "TIMEOUT", Kind(name="connect_timeout", meaning="client.connect_timeout_s")),
    ("connect", "CANCELLED", Kind(name="run_ended", meaning="cut off by the end of the run")),
    ("write", "ETIMEDOUT", Kind(name="unacknowledged", meaning="retransmissions used up")),
    ("write", "TIMEOUT", Kind(name="request_timeout", meaning="client.request_timeout_s")),
    ("write", "CANCELLED", Kind(name="run_ended", meaning="cut off by the end of the run")),
    ("read", "ETIMEDOUT", Kind(name="unacknowledged", meaning="retransmissions used up")),
    ("read", "TIMEOUT", Kind(name="request_timeout", meaning="client.request_timeout_s")),
    ("read", "CANCELLED", Kind(name="run_ended", meaning="cut off by the end of the run")),
    ("read", "SHORT", Kind(name="truncated_answer", meaning="FIN in the middle of an answer")),
    ("read", "PROTOCOL", Kind(name="malformed_answer", meaning="not the HTTP that was due")),
    ("read", "REDIRECTS", Kind(name="redirect_loop", meaning="more redirects than are followed")),
    ("read", "STATUS", Kind(name="http_error", meaning="a status of 400 or above")),
    ("idle", "EOF", Kind(name="closed_while_idle", meaning="the server ended a pooled connection")),
    ("idle", "ECONNRESET", Kind(name="reset_while_idle", meaning="RST on a pooled connection")),
    ("close", "ECONNRESET", Kind(name="reset_at_close", meaning="RST after a complete answer")),
    ("close", "EPIPE", Kind(name="reset_at_close", meaning="RST after a complete answer")),
    ("close", "TIMEOUT", Kind(name="peer_did_not_close", meaning="ending.hold_s ran out")),
)
_RACE = Kind(name="keepalive_race", meaning="the server closed a kept connection as it was used")
_FRESH = (
    ("write", "EPIPE", Kind(name="broken_pipe", meaning="written after the peer's RST")),
    ("write", "ECONNRESET", Kind(name="reset_by_peer", meaning="RST while writing")),
    ("read", "ECONNRESET", Kind(name="reset_by_peer", meaning="RST where an answer was due")),
    ("read", "EPIPE", Kind(name="broken_pipe", meaning="RST after the peer's FIN")),
    ("read", "EOF", Kind(name="closed_unanswered", meaning="FIN where an answer was due")),
)
_REUSED = tuple((phase, error, _RACE) for phase, error, _ in _FRESH)

KINDS: Mapping[tuple[str, str, bool], Kind] = MappingProxyType(
    {(phase, error, reused): k for phase, error, k in _FRESH_OR_REUSED for reused in (False, True)}
    | {(phase, error, False): kind for phase, error, kind in _FRESH}
    | {(phase, error, True): kind for phase, error, kind in _REUSED}
)
"""The whole table: (phase, errno name, whether the connection was reused) to its kind."""


def errno_name(number: int | None) -> str:
    """Return the kernel's name of an errno, or `E<number>` where Python knows none."""
    return errno_numbers.errorcode.get(number or 0, f"E{number}")


def kind_of(phase: Phase, error: str, *, reused: bool = False) -> Kind:
    """Return the kind of a failure; `UNKNOWN` where the table lists none."""
    return KINDS.get((phase.value, error, reused), UNKNOWN)


def error_key(phase: Phase, error: str, *, reused: bool = False) -> str:
    """Return the key `phase:errno:kind` under which a failure is counted."""
    return f"{phase.value}:{error}:{kind_of(phase, error, reused=reused).name}"


def kind_of_key(key: str) -> Kind:
    """Return the kind that an `error_key` names, whichever connection it was."""
    phase, error, name = key.split(":")
    found = (KINDS.get((phase, error, reused), UNKNOWN) for reused in (False, True))
    return next((kind for kind in found if kind.name == name), UNKNOWN)
