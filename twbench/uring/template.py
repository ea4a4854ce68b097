"""Chains: several operations as one bytes object with a few places left to fill. Pure.

A chain is described once and filled for every slot; to start it is then one copy.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from twbench.uring.sqe import FIELDS, SQE_BYTES, Flag, Sqe

_LINKS = Flag.IO_LINK | Flag.IO_HARDLINK


class Place(NamedTuple):
    """One spot of a template: its offset in bytes, its format, and what is added to the value."""

    offset: int
    format: struct.Struct
    plus: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A chain with holes: `raw` has zeros in them, `places` says where each name goes."""

    raw: bytes
    places: Mapping[str, tuple[Place, ...]]

    def fill(self, **values: int) -> bytearray:
        """Return the chain with every hole filled.

        Raises ValueError for a hole without a value or a value without a hole, struct.error for a
        value that does not fit its field.
        """
        if values.keys() != self.places.keys():
            wanted = ", ".join(sorted(self.places)) or "nothing"
            raise ValueError(f"wants {wanted}; given {', '.join(sorted(values)) or 'nothing'}")
        chain = bytearray(self.raw)
        self.patch(chain, **values)
        return chain

    def patch(self, chain: bytearray | memoryview, **values: int) -> None:
        """Fill these holes alone, in a chain that `fill` made. Raises KeyError, struct.error."""
        for name, value in values.items():
            for offset, packer, plus in self.places[name]:
                packer.pack_into(chain, offset, value + plus)

    def writes(self, **values: int) -> tuple[tuple[slice, bytes], ...]:
        """Return what `patch` would write, to be written often. Raises KeyError, struct.error."""
        return tuple(
            (slice(offset, offset + packer.size), packer.pack(value + plus))
            for name, value in values.items()
            for offset, packer, plus in self.places[name]
        )


def chain(*operations: Sqe) -> Template:
    """Return operations that run one after the other.

    Each is linked to the next with IO_LINK unless it has IO_HARDLINK already; the last to none.
    Raises ValueError for no operation, or a link on the last.
    """
    if not operations or operations[-1].flags & _LINKS:
        raise ValueError("a chain has operations, and the last is linked to none")
    linked = [each if each.flags & _LINKS else each.with_flags(Flag.IO_LINK) for each in operations]
    return batch(*linked[:-1], operations[-1])


def batch(*operations: Sqe) -> Template:
    """Return operations that are begun in this order, and none waits for another.

    Those that never wait are over before the next begins; of a chain, only the first is.
    """
    places: dict[str, tuple[Place, ...]] = {}
    for number, operation in enumerate(operations):
        for field, hole in operation.holes().items():
            offset, code = FIELDS[field]
            place = Place(number * SQE_BYTES + offset, struct.Struct("=" + code), hole.plus)
            places[hole.name] = (*places.get(hole.name, ()), place)
    return Template(raw=b"".join(each.pack() for each in operations), places=places)
