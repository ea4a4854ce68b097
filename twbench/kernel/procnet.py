"""Parsers of /proc/net/{sockstat,sockstat6,snmp,netstat}. Pure: text of the file in, counters out.

Sources: net/ipv4/proc.c and net/ipv6/proc.c; the flat names are those nstat prints.
"""

from functools import lru_cache

from twbench.kernel.errors import CodecError

_COUNTER_GROUPS = (b"Tcp", b"TcpExt", b"MPTcpExt")


def parse_sockstat(text: bytes, text6: bytes = b"") -> dict[str, int]:
    """Return the TCP line of sockstat, and of sockstat6 as `inuse6`.

    `inuse` counts sockets, `tw` TIME_WAIT with orphaned FIN_WAIT_2, both of one namespace and `tw`
    of both families; `orphan`, `alloc` and `mem` (pages) are the machine's. Raises CodecError.
    """
    found = _pairs(_line(text, b"TCP: "))
    if text6:
        found["inuse6"] = _pairs(_line(text6, b"TCP6: "))["inuse"]
    return found


def parse_counters(*texts: bytes) -> dict[str, int]:
    """Return the TCP counters of snmp and netstat, flat: `TcpActiveOpens`, `TcpExtTW`.

    Counters of other protocols are left out. Raises CodecError when a group's names and values do
    not match, or when a text has no TCP group at all.
    """
    found: dict[str, int] = {}
    for text in texts:
        before = len(found)
        for group in _COUNTER_GROUPS:
            found.update(_group(text, group))
        if len(found) == before:
            raise CodecError(f"no TCP counters in {text[:60]!r}")
    return found


def _line(text: bytes, prefix: bytes) -> bytes:
    """Return the rest of the line that starts with `prefix`."""
    start = 0 if text.startswith(prefix) else text.find(b"\n" + prefix) + 1
    if not start and not text.startswith(prefix):
        raise CodecError(f"no {prefix.decode()!r} line in {text[:60]!r}")
    start += len(prefix)
    end = text.find(b"\n", start)
    if end < 0:
        raise CodecError(f"the {prefix.decode()!r} line is cut off")
    return text[start:end]


def _pairs(line: bytes) -> dict[str, int]:
    """Return `name value name value` as a dict that has `inuse` at least."""
    words = line.split()
    try:
        found = {
            name.decode("ascii"): int(value)
            for name, value in zip(words[::2], words[1::2], strict=True)
        }
    except ValueError as error:
        raise CodecError(f"not pairs of names and numbers: {line!r}") from error
    if "inuse" not in found:
        raise CodecError(f"no inuse among {line!r}")
    return found


def _group(text: bytes, group: bytes) -> dict[str, int]:
    """Return the counters of one group: a line of names, then a line of values, both `Group: `."""
    prefix = group + b": "
    start = 0 if text.startswith(prefix) else text.find(b"\n" + prefix) + 1
    if not start and not text.startswith(prefix):
        return {}
    names_end = text.find(b"\n", start)
    values_end = text.find(b"\n", names_end + 1)
    values = text[names_end + 1 : values_end]
    if names_end < 0 or values_end < 0 or not values.startswith(prefix):
        raise CodecError(f"the {group.decode()} counters are cut off")
    try:
        names = _names(group, text[start + len(prefix) : names_end])
        return dict(zip(names, map(int, values[len(prefix) :].split()), strict=True))
    except ValueError as error:
        raise CodecError(f"the {group.decode()} counters do not match their names") from error


@lru_cache(maxsize=16)
def _names(group: bytes, line: bytes) -> tuple[str, ...]:
    """Return the flat names of a group; a kernel's line of names never changes while it runs."""
    return tuple((group + name).decode("ascii") for name in line.split())
