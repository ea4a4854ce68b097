"""Writer of pcapng captures: IP packets, each with its time, interface and comment.

The format is draft-ietf-opsawg-pcapng, whose sections are named below. All numbers are little
endian; every block and every option is padded to 4 bytes (sections 3.1 and 3.5).
"""

import io
import platform
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION = 1
_ENHANCED_PACKET = 6

_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_VERSION = (1, 0)
_LENGTH_UNKNOWN = -1
_LINKTYPE_RAW = 101
"""The packet begins with its IPv4 or IPv6 header; the version tells which."""
_NO_SNAP_LENGTH = 0
_NANOSECONDS = b"\x09"

_END_OF_OPTIONS = 0
_COMMENT = 1
_SECTION_OS = 3
_SECTION_APPLICATION = 4
_INTERFACE_NAME = 2
_INTERFACE_TIME_RESOLUTION = 9

_BLOCK_HEAD = struct.Struct("<II")
_BLOCK_TAIL = struct.Struct("<I")
_OPTION = struct.Struct("<HH")
_SECTION = struct.Struct("<IHHq")
_INTERFACE = struct.Struct("<HHI")
_PACKET = struct.Struct("<IIIII")
_MAX_OPTION_BYTES = 0xFFFF


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One packet of a capture.

    `t_ns` counts nanoseconds since the epoch, `interface` the capture's interfaces from 0; `data`
    is an IP packet, `comment` what is to be said about it, if anything.
    """

    t_ns: int
    interface: int
    data: bytes
    comment: str = ""


class Writer:
    """Writes a capture record by record to a file that is open for bytes; its owner closes it.

    After each `write` the file holds a whole capture, as far as it has been flushed. A comment of
    more than 65,535 bytes is our own mistake and raises ValueError, as an unknown interface does.
    """

    def __init__(self, file: BinaryIO, *, interfaces: Sequence[str], comment: str = "") -> None:
        """Write the section's header with the capture's `comment`, and a name each interface."""
        self._file = file
        self._interfaces = len(interfaces)
        file.write(_section(comment) + b"".join(map(_interface, interfaces)))

    def write(self, record: Record) -> None:
        """Append one packet."""
        if not 0 <= record.interface < self._interfaces:
            raise ValueError(f"interface {record.interface} of a capture of {self._interfaces}")
        self._file.write(_packet(record))


def encode(records: Iterable[Record], *, interfaces: Sequence[str], comment: str = "") -> bytes:
    """Return a whole capture, as a `Writer` writes it."""
    file = io.BytesIO()
    writer = Writer(file, interfaces=interfaces, comment=comment)
    for record in records:
        writer.write(record)
    return file.getvalue()


def _section(comment: str) -> bytes:
    """Return the Section Header Block (section 4.1)."""
    fields = _SECTION.pack(_BYTE_ORDER_MAGIC, *_VERSION, _LENGTH_UNKNOWN)
    system = f"{platform.system()} {platform.release()}"
    return _block(
        _SECTION_HEADER,
        fields,
        (_COMMENT, comment.encode()),
        (_SECTION_OS, system.encode()),
        (_SECTION_APPLICATION, b"twbench"),
    )


def _interface(name: str) -> bytes:
    """Return an Interface Description Block (section 4.2)."""
    return _block(
        _INTERFACE_DESCRIPTION,
        _INTERFACE.pack(_LINKTYPE_RAW, 0, _NO_SNAP_LENGTH),
        (_INTERFACE_NAME, name.encode()),
        (_INTERFACE_TIME_RESOLUTION, _NANOSECONDS),
    )


def _packet(record: Record) -> bytes:
    """Return an Enhanced Packet Block (section 4.3)."""
    high, low = divmod(record.t_ns, 1 << 32)
    length = len(record.data)
    fields = _PACKET.pack(record.interface, high, low, length, length)
    return _block(
        _ENHANCED_PACKET, fields + _padded(record.data), (_COMMENT, record.comment.encode())
    )


def _block(kind: int, body: bytes, *options: tuple[int, bytes]) -> bytes:
    """Return a block: its length stands on both sides, so that files can be read backwards."""
    body += b"".join(_option(code, value) for code, value in options if value)
    body += _option(_END_OF_OPTIONS, b"")
    length = _BLOCK_HEAD.size + len(body) + _BLOCK_TAIL.size
    return _BLOCK_HEAD.pack(kind, length) + body + _BLOCK_TAIL.pack(length)


def _option(code: int, value: bytes) -> bytes:
    """Return one option (section 3.5); its length does not count the padding."""
    if len(value) > _MAX_OPTION_BYTES:
        raise ValueError(f"{len(value)} bytes do not fit an option of {_MAX_OPTION_BYTES}")
    return _OPTION.pack(code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    """Return `data` with zeros up to a whole number of 32-bit words."""
    return data + bytes(-len(data) % 4)
