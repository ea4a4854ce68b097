"""Our own engine with its accounting off: a linked chain of operations per connection, and a count.

Socket, connect, send, receive to the server's FIN, close: one copy starts all of them. It stops at
the first error and checks nothing else. Speaks a fleet worker's protocol
(twbench/fleet/worker.py), and uses the room `twbench.uring` alone.
"""

import json
import socket
import sys
import time

from twbench.uring import operations as do
from twbench.uring.errors import RingRefusedError
from twbench.uring.memory import Memory
from twbench.uring.operations import Slot
from twbench.uring.ring import Ring
from twbench.uring.sqe import Flag, Hole
from twbench.uring.structs import sockaddr
from twbench.uring.template import Template, chain

ANSWER_BYTES = 4096
SILENT = Flag.CQE_SKIP_SUCCESS


def request(address: str, port: int) -> bytes:
    """Return the bytes that twbench's engines send on a connection with one request."""
    head = f"GET / HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: twbench\r\n"
    return f"{head}Connection: close\r\n\r\n".encode()


def lifetime(memory: Memory, address: str, port: int) -> Template:
    """Return a connection's chain towards a destination; holes for slot, buffer and token."""
    slot = Slot(Hole("slot"))
    where, asked = sockaddr(address, port), request(address, port)
    return chain(
        do.socket(slot, family=socket.AF_INET, kind=socket.SOCK_STREAM, flags=SILENT),
        do.connect(slot, addr=memory.place(where), addr_bytes=len(where), flags=SILENT),
        do.send(slot, addr=memory.place(asked), length=len(asked), flags=SILENT),
        # the answer is shorter than its buffer, which would break a soft link
        do.recv(
            slot,
            addr=Hole("buffer"),
            length=ANSWER_BYTES,
            msg_flags=socket.MSG_WAITALL,
            flags=Flag.IO_HARDLINK,
        ),
        do.close(slot, user_data=Hole("token")),
    )


def carry(ring: Ring, chains: list[bytearray], end_ns: int) -> int:
    """Make one connection after another in every slot until `end_ns`; return how many.

    Raises OSError for the first that fails.
    """
    made, left = 0, len(chains)
    for each in chains:
        ring.push(each)
    while left:
        over = time.monotonic_ns() >= end_ns
        for token, result, _ in ring.turn(wait=1):
            if result < 0:
                raise OSError(-result, "a connection failed")
            if token:
                made += 1
                if over:
                    left -= 1
                else:
                    ring.push(chains[token - 1])
    return made


def main() -> None:
    """Carry a fleet plan's closed load."""
    plan = json.loads(sys.stdin.readline())
    load, destinations = plan["scenario"]["load"], plan["destinations"]
    users = load["concurrency"]
    memory = Memory(users * ANSWER_BYTES + 4096 * len(destinations))
    try:
        ring = Ring()
        ring.register_files(users)
    except RingRefusedError as refused:
        print(json.dumps({"failed": str(refused)}), flush=True)
        return
    with ring:
        towards = [lifetime(memory, *destination) for destination in destinations]
        chains = [
            towards[n % len(towards)].fill(slot=n, buffer=memory.reserve(ANSWER_BYTES), token=n + 1)
            for n in range(users)
        ]
        print(json.dumps({"ready": {"engine": "bare uring"}}), flush=True)
        start_ns = int(sys.stdin.readline().split()[1])
        time.sleep(max(0, start_ns - time.monotonic_ns()) / 1e9)
        made = carry(ring, chains, start_ns + round(load["duration_s"] * 1e9))
        print(json.dumps({"t_ns": time.monotonic_ns(), "attempted": made, "ok": made}))
        print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main()
