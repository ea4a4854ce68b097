"""A ring under an event loop: the loop waits on the ring's eventfd, on asyncio and on uvloop."""

import asyncio
import os
import socket
from contextlib import suppress

from twbench.uring import operations as do
from twbench.uring.memory import Memory
from twbench.uring.operations import Slot
from twbench.uring.ring import Ring
from twbench.uring.sqe import Flag, Hole
from twbench.uring.structs import sockaddr
from twbench.uring.template import chain

SILENT = Flag.CQE_SKIP_SUCCESS


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readexactly(3)
    writer.write(b"<" + request + b">")
    await writer.drain()
    writer.close()


async def test_loop_that_serves_also_carries_the_ring(ring: Ring, memory: Memory) -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(answer, "127.0.0.1", 0, family=socket.AF_INET)
    slot = Slot(Hole("slot"))
    buffers = [memory.reserve(8) for _ in range(64)]
    lifetime = chain(
        do.socket(slot, family=socket.AF_INET, kind=socket.SOCK_STREAM, flags=SILENT),
        do.connect(
            slot,
            addr=memory.place(sockaddr(*server.sockets[0].getsockname())),
            addr_bytes=16,
            flags=SILENT,
        ),
        do.send(slot, addr=memory.place(b"ask"), length=3, flags=SILENT),
        do.recv(slot, addr=Hole("buffer"), length=5, msg_flags=socket.MSG_WAITALL, flags=SILENT),
        do.close(slot, user_data=Hole("token")),
    )
    over: asyncio.Future[None] = loop.create_future()
    left = 1000
    eventfd = ring.notify()

    def go_on() -> None:
        nonlocal left
        with suppress(BlockingIOError):
            os.eventfd_read(eventfd)
        while found := ring.turn():
            for token, result, _ in found:
                assert result == 0
                left -= 1
                if left == 0:
                    over.set_result(None)
                elif left >= len(buffers):
                    start(token)

    def start(number: int) -> None:
        ring.push(lifetime.fill(slot=number, buffer=buffers[number], token=number))

    loop.add_reader(eventfd, go_on)
    try:
        for number in range(len(buffers)):
            start(number)
        go_on()
        await asyncio.wait_for(over, 60)
    finally:
        loop.remove_reader(eventfd)
        server.close()
        await server.wait_closed()
    assert all(bytes(memory.view(at, 5)) == b"<ask>" for at in buffers)
