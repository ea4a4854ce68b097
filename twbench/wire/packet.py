"""Codec of the packets on the wire: IPv4 and IPv6 with TCP or ICMP, bytes to fields and back. Pure.

A packet is its bytes; the fields are what was read from them. So packets are never changed, only
parsed or built. What else there may be (UDP, fragments, IPv6 extension headers) is carried as bytes
alone. Sources: RFC 791, 792, 4443, 8200 and 9293.
"""

import struct
from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import IntFlag
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AddressFamily, inet_ntop

ICMP = 1
TCP = 6
ICMPV6 = 58


class MalformedPacketError(ValueError):
    """Bytes that are no IP packet, or whose TCP or ICMP header is cut short."""


class Flag(IntFlag):
    """The control bits of RFC 9293 section 3.1."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32
    ECE = 64
    CWR = 128


# By the flags' byte: the enum's own arithmetic costs nearly as much as parsing a packet.
_FLAGS = tuple(map(Flag, range(256)))
_LABELS = tuple("+".join(str(flag.name) for flag in flags) or "none" for flags in _FLAGS)
_FLAGS_SPAN = tuple((Flag.SYN in flags) + (Flag.FIN in flags) for flags in _FLAGS)

_END_OF_OPTIONS = 0
_NO_OPERATION = 1
_TIMESTAMPS = 8
_OPTION_HEADER_BYTES = 2
_TIMESTAMPS_OPTION = struct.Struct(">2xII")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tcp:
    """A TCP segment; `seq` and `ack` as they stand in the header, `window` not yet scaled."""

    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: Flag
    window: int
    options: bytes
    payload: bytes

    @property
    def span(self) -> int:
        """Return how much sequence space it takes: payload, SYN and FIN (RFC 9293 section 3.4)."""
        return len(self.payload) + _FLAGS_SPAN[self.flags]

    @property
    def label(self) -> str:
        """Return its flags as people write them: `SYN+ACK`, `FIN+PSH+ACK`, `none`."""
        return _LABELS[self.flags]

    @property
    def timestamps(self) -> tuple[int, int] | None:
        """Return TSval and TSecr (RFC 7323 section 3.2), or None without or with broken options."""
        rest = self.options
        while rest and rest[0] != _END_OF_OPTIONS:
            if rest[0] == _NO_OPERATION:
                rest = rest[1:]
                continue
            length = rest[1] if len(rest) > 1 else 0
            if not _OPTION_HEADER_BYTES <= length <= len(rest):
                return None
            if rest[0] == _TIMESTAMPS and length == _TIMESTAMPS_OPTION.size:
                value, echo = _TIMESTAMPS_OPTION.unpack_from(rest)
                return value, echo
            rest = rest[length:]
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Icmp:
    """An ICMP or ICMPv6 message: `rest` is the 4 bytes after the checksum, `body` what follows."""

    kind: int
    code: int
    rest: bytes
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Packet:
    """An IP packet: `raw` as sent, without link layer or padding, and what was read from it.

    `family` is 4 or 6. At most one of `tcp` and `icmp` is not None. Equal bytes are equal packets.
    """

    raw: bytes
    family: int
    tcp: Tcp | None
    icmp: Icmp | None

    @property
    def addresses(self) -> bytes:
        """Return source and destination as they stand in the header, 8 or 32 bytes."""
        return self.raw[_VERSIONS[self.family].addresses]

    @property
    def source(self) -> str:
        """Return the sender's address as text."""
        both = self.addresses
        return inet_ntop(_VERSIONS[self.family].address_family, both[: len(both) // 2])

    @property
    def destination(self) -> str:
        """Return the receiver's address as text."""
        both = self.addresses
        return inet_ntop(_VERSIONS[self.family].address_family, both[len(both) // 2 :])


def parse(raw: bytes) -> Packet:
    """Return the packet at the start of `raw`; bytes after it (Ethernet's padding) are cut off.

    Raises MalformedPacketError. Checksums are not looked at: see `checksums_hold`.
    """
    try:
        family = raw[0] >> 4
        version = _VERSIONS[family]
        start, end, protocol = version.read(raw)
        if not version.header_bytes <= start <= end <= len(raw):
            raise MalformedPacketError(
                f"IPv{family} header of {start} bytes, packet of {end}, but {len(raw)} came"
            )
        if end < len(raw):
            raw = raw[:end]
        tcp = _parse_tcp(raw, start) if protocol == TCP else None
        icmp = _parse_icmp(raw, start) if protocol == version.icmp else None
    except (IndexError, KeyError, struct.error):
        raise MalformedPacketError(
            f"no whole packet in {len(raw)} bytes that begin with {raw[:8].hex() or 'nothing'}"
        ) from None
    return Packet(raw=raw, family=family, tcp=tcp, icmp=icmp)


def checksums_hold(packet: Packet) -> bool:
    """Return whether the checksums of its IPv4 header and of its TCP or ICMP are right."""
    version = _VERSIONS[packet.family]
    start, _, protocol = version.read(packet.raw)
    sums = [_words(packet.raw[:start])] if version.header_has_checksum else []
    if packet.tcp or packet.icmp:
        sums.append(_covered(packet.addresses, protocol, packet.raw[start:]))
    return all(total and total % _ONES == 0 for total in sums)


def tcp_packet(  # noqa: PLR0913 - the fields of a header
    *,
    source: str,
    destination: str,
    source_port: int,
    destination_port: int,
    seq: int,
    ack: int = 0,
    flags: Flag,
    window: int = 65535,
    options: bytes = b"",
    payload: bytes = b"",
) -> Packet:
    """Return a TCP packet with right checksums, of the addresses' family.

    `seq` and `ack` are taken modulo 2^32; `options` are padded to whole words. Raises ValueError
    for addresses that are none or do not match, struct.error for what does not fit its field.
    """
    options += bytes(-len(options) % 4)
    ports, offset = (source_port, destination_port), (_TCP.size + len(options)) // 4 << 4
    head = _TCP.pack(*ports, seq % _SEQUENCES, ack % _SEQUENCES, offset, flags, window, 0, 0)
    return _build(source, destination, TCP, head + options + payload)


def reset_for(packet: Packet) -> Packet:
    """Return the RST of a host that knows no such connection (RFC 9293 section 3.10.7.1).

    Raises ValueError for what gets none: another RST, or no TCP.
    """
    tcp = packet.tcp
    if tcp is None or Flag.RST in tcp.flags:
        raise ValueError(f"no RST answers {'a RST' if tcp else 'what is not TCP'}")
    acknowledges = Flag.ACK in tcp.flags
    return tcp_packet(
        source=packet.destination,
        destination=packet.source,
        source_port=tcp.destination_port,
        destination_port=tcp.source_port,
        seq=tcp.ack if acknowledges else 0,
        ack=0 if acknowledges else tcp.seq + tcp.span,
        flags=Flag.RST if acknowledges else Flag.RST | Flag.ACK,
        window=0,
    )


def is_icmp_error(kind: int, *, family: int) -> bool:
    """Return whether an ICMP (family 4) or ICMPv6 (6) type tells an error."""
    return kind in _VERSIONS[family].errors


def unreachable_for(
    packet: Packet, *, kind: int, code: int, source: str | None = None, rest: bytes = bytes(4)
) -> Packet:
    """Return the ICMP or ICMPv6 error that quotes `packet` to its sender (RFC 792, RFC 4443).

    It comes from `source`, a router or firewall on the way, or else from the packet's destination.
    `rest` is what some errors add, as the MTU in the last 2 (IPv4) or all 4 bytes (IPv6). Raises
    ValueError for a type that is no error, and for a packet that is one: no error answers it.
    """
    version = _VERSIONS[packet.family]
    if not is_icmp_error(kind, family=packet.family):
        raise ValueError(f"type {kind} is no ICMP error of IPv{packet.family}")
    if packet.icmp and packet.icmp.kind in version.errors:
        raise ValueError("no ICMP error answers an ICMP error")
    quoted = packet.raw[: version.error_bytes - version.header_bytes - _ICMP.size]
    message = _ICMP.pack(kind, code, 0, rest) + quoted
    return _build(source or packet.destination, packet.source, version.icmp, message)


def echo_request(*, source: str, destination: str, identifier: int, sequence: int) -> Packet:
    """Return an ICMP or ICMPv6 echo request without data, of the addresses' family."""
    version = _VERSIONS[ip_address(source).version]
    message = _ICMP.pack(version.echo, 0, 0, _ECHO.pack(identifier, sequence))
    return _build(source, destination, version.icmp, message)


def echo_reply_of(packet: Packet) -> tuple[int, int] | None:
    """Return identifier and sequence number of an echo reply, None for any other packet."""
    icmp = packet.icmp
    if icmp is None or icmp.kind != _VERSIONS[packet.family].echo_reply:
        return None
    identifier, sequence = _ECHO.unpack(icmp.rest)
    return identifier, sequence


_IPV4 = struct.Struct(">BBHHHBBH8s")
_IPV4_READ = struct.Struct(">2xH2xHxB10x")
_IPV6 = struct.Struct(">IHBB32s")
_IPV6_READ = struct.Struct(">4xHB33x")
_TCP = struct.Struct(">HHIIBBHHH")
_ICMP = struct.Struct(">BBH4s")
_ECHO = struct.Struct(">HH")

_FRAGMENT = 0x3FFF
"""More Fragments and the offset: all 0 in a packet that is whole."""
_DONT_FRAGMENT = 0x4000
_TTL = 64
_SEQUENCES = 1 << 32
_ONES = 0xFFFF

_IPV4_CHECKSUM_AT = 10
_CHECKSUM_AT = {TCP: 16, ICMP: 2, ICMPV6: 2}
_HAVE_PSEUDO_HEADER = {TCP, ICMPV6}


def _read_ipv4(raw: bytes) -> tuple[int, int, int]:
    """Return where the header and the packet end, and the protocol, which is -1 of a fragment."""
    total, fragment, protocol = _IPV4_READ.unpack_from(raw)
    return (raw[0] & 0xF) * 4, total, -1 if fragment & _FRAGMENT else protocol


def _read_ipv6(raw: bytes) -> tuple[int, int, int]:
    """Return where the header and the packet end, and the next header."""
    length, protocol = _IPV6_READ.unpack_from(raw)
    return _IPV6.size, _IPV6.size + length, protocol


def _parse_tcp(raw: bytes, start: int) -> Tcp:
    source, destination, seq, ack, offset, flags, window, _, _ = _TCP.unpack_from(raw, start)
    options, payload = start + _TCP.size, start + (offset >> 4) * 4
    if not options <= payload <= len(raw):
        raise MalformedPacketError(f"TCP header of {payload - start} in {len(raw) - start} bytes")
    return Tcp(
        source_port=source,
        destination_port=destination,
        seq=seq,
        ack=ack,
        flags=_FLAGS[flags],
        window=window,
        options=raw[options:payload],
        payload=raw[payload:],
    )


def _parse_icmp(raw: bytes, start: int) -> Icmp:
    kind, code, _, rest = _ICMP.unpack_from(raw, start)
    return Icmp(kind=kind, code=code, rest=rest, body=raw[start + _ICMP.size :])


def _ipv4_header(addresses: bytes, protocol: int, length: int) -> bytes:
    """Return the header before `length` bytes."""
    total = _IPV4.size + length
    header = _IPV4.pack(0x45, 0, total, 0, _DONT_FRAGMENT, _TTL, protocol, 0, addresses)
    return _put_checksum(header, _IPV4_CHECKSUM_AT, _words(header))


def _ipv6_header(addresses: bytes, protocol: int, length: int) -> bytes:
    """Return the header before `length` bytes."""
    return _IPV6.pack(6 << 28, length, protocol, _TTL, addresses)


def _build(source: str, destination: str, protocol: int, segment: bytes) -> Packet:
    """Return the packet that carries `segment`, with the checksum that it lacks."""
    sender, receiver = ip_address(source), ip_address(destination)
    if sender.version != receiver.version:
        raise ValueError(f"{source} and {destination} are of different families")
    addresses = sender.packed + receiver.packed
    total = _covered(addresses, protocol, segment)
    segment = _put_checksum(segment, _CHECKSUM_AT[protocol], total)
    return parse(_VERSIONS[sender.version].header(addresses, protocol, len(segment)) + segment)


def _words(data: bytes) -> int:
    """Return a number that equals the sum of the 16-bit words of `data` modulo 2^16 - 1.

    A checksum needs no more (RFC 1071): 2^16 is 1 there, so the bytes can be one large number.
    """
    return int.from_bytes(data) << 8 * (len(data) % 2)


def _covered(addresses: bytes, protocol: int, segment: bytes) -> int:
    """Return the sum that a segment's checksum covers, with the pseudo-header where it has one.

    The two kinds of it (RFC 9293 section 3.1, RFC 8200 section 8.1) have the same sum.
    """
    if protocol not in _HAVE_PSEUDO_HEADER:
        return _words(segment)
    return _words(addresses) + protocol + len(segment) + _words(segment)


def _put_checksum(data: bytes, at: int, total: int) -> bytes:
    """Return `data` with the checksum for the sum `total`, never 0, in the two bytes at `at`."""
    return data[:at] + (-total % _ONES).to_bytes(2) + data[at + 2 :]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Version:
    """What differs between the two versions of IP."""

    address_family: AddressFamily
    addresses: slice
    header_bytes: int
    header_has_checksum: bool
    read: Callable[[bytes], tuple[int, int, int]]
    header: Callable[[bytes, int, int], bytes]
    icmp: int
    echo: int
    echo_reply: int
    errors: Container[int]
    """The ICMP types that tell an error."""
    error_bytes: int
    """The most that an ICMP error may have in all."""


_VERSIONS = {
    4: _Version(
        address_family=AF_INET,
        addresses=slice(12, 20),
        header_bytes=_IPV4.size,
        header_has_checksum=True,
        read=_read_ipv4,
        header=_ipv4_header,
        icmp=ICMP,
        echo=8,
        echo_reply=0,
        errors={3, 4, 5, 11, 12},  # RFC 1122 section 3.2.2
        error_bytes=576,  # RFC 1812 section 4.3.2.3
    ),
    6: _Version(
        address_family=AF_INET6,
        addresses=slice(8, 40),
        header_bytes=_IPV6.size,
        header_has_checksum=False,
        read=_read_ipv6,
        header=_ipv6_header,
        icmp=ICMPV6,
        echo=128,
        echo_reply=129,
        errors=range(128),  # RFC 4443 section 2.1
        error_bytes=1280,  # RFC 4443 section 2.4
    ),
}
