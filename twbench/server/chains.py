"""What a slot's connections push onto the ring, as bytes that are made once. Pure.

A slot has one connection after another: `accept` into the slot and a first `recv` are one chain,
and the chain that answers and closes goes on with them. A successful accept or chained send is
silent; the failure of one is told and silences the rest of its chain.
"""

import socket
from dataclasses import dataclass
from enum import IntEnum

from twbench.uring import operations as do
from twbench.uring.operations import Slot
from twbench.uring.sqe import SQE_BYTES, Flag, Hole, Sqe, Value
from twbench.uring.template import chain

ATOM_BYTES = 4096
"""The most that one receive takes."""

BITS = 3
"""How many bits of a token are the step's; the others are the slot's number."""
MASK = (1 << BITS) - 1
_SILENT = Flag.CQE_SKIP_SUCCESS


class Step(IntEnum):
    """What an operation does for its connection: the lowest bits of its token."""

    RECV = 0
    ANSWER = 1
    """A send within a chain, told only if it fails."""
    CLOSE = 2
    ACCEPT = 3
    CANCEL = 4
    WRITE = 5
    """A send of its own, always told."""
    INSTALL = 6
    ASK = 7
    """A cancellation whose result is waited for."""


def token(slot: int, step: Step) -> int:
    """Return the user_data of a slot's operation."""
    return slot << BITS | step


@dataclass(frozen=True, kw_only=True, slots=True)
class Chains:
    """What a slot pushes when; `…_arm` goes on with the slot's next connection."""

    arm: bytes
    """Accept, and receive."""
    recv: bytes
    close: bytes
    close_arm: bytes
    keep: bytes
    """Give an answer that is not the last, and receive."""
    hold: bytes
    """Give the last answer, and wait for the client's FIN."""
    end: bytes
    """Give the last answer, and close."""
    end_arm: bytes


class ChainMaker:
    """Makes the chains of the slots that accept from one listener."""

    def __init__(
        self, listener: int, *, peer_bytes: int, kept: tuple[int, int], last: tuple[int, int]
    ) -> None:
        """Know what the slots have in common.

        Args:
            listener: the slot of the listening socket.
            peer_bytes: the address of a u32, the size of a sockaddr.
            kept: address and length of an answer that leaves the connection open.
            last: address and length of one that announces the end.
        """
        slot, own = Slot(Hole("slot")), Hole("token")
        close = do.close(slot, user_data=own.offset(Step.CLOSE))
        self._template = chain(
            do.accept(
                Slot(listener),
                slot,
                addr=Hole("peer"),
                addr_bytes_at=peer_bytes,
                user_data=own.offset(Step.ACCEPT),
                flags=_SILENT,
            ),
            *(
                send(slot, address, length, user_data=own.offset(Step.ANSWER), flags=_SILENT)
                for address, length in (kept, last)
            ),
            close,
            do.recv(slot, addr=Hole("buffer"), length=ATOM_BYTES, user_data=own.offset(Step.RECV)),
        )
        self._close = chain(close)

    def make(self, slot: int, *, buffer: int, peer: int) -> Chains:
        """Return a slot's chains; `buffer` and `peer`: addresses of ATOM_BYTES and a sockaddr."""
        own = token(slot, Step(0))
        raw = bytes(self._template.fill(slot=slot, token=own, buffer=buffer, peer=peer))
        accept, kept, last, then_close, recv = (
            raw[at : at + SQE_BYTES] for at in range(0, len(raw), SQE_BYTES)
        )
        close = bytes(self._close.fill(slot=slot, token=own))
        arm = accept + recv
        return Chains(
            arm=arm,
            recv=recv,
            close=close,
            close_arm=then_close + arm,
            keep=kept + recv,
            hold=last + recv,
            end=last + close,
            end_arm=last + then_close + arm,
        )


def send(slot: Slot, address: int, length: int, *, user_data: Value, flags: Flag) -> Sqe:
    """Return the operation that sends all of these bytes, or fails."""
    return do.send(
        slot,
        addr=address,
        length=length,
        msg_flags=socket.MSG_WAITALL | socket.MSG_NOSIGNAL,
        user_data=user_data,
        flags=flags,
    )


def write(slot: int, address: int, length: int) -> bytes:
    """Return what sends all of these bytes, and tells when that is over."""
    own = token(slot, Step.WRITE)
    return send(Slot(slot), address, length, user_data=own, flags=Flag.NONE).pack()


def cancel(slot: int, step: Step, heard_as: Step = Step.CANCEL) -> bytes:
    """Return what cancels an operation of a slot: 0, or minus ENOENT or EALREADY."""
    return do.cancel(token=token(slot, step), user_data=token(slot, heard_as)).pack()


def install(slot: int) -> bytes:
    """Return what gives the file of a slot an ordinary descriptor too."""
    return do.install(Slot(slot), user_data=token(slot, Step.INSTALL)).pack()
