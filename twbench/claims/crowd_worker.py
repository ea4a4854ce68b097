"""Makes many connections, one after the other, and owns both ends of each.

Run as a file on the client host, with nothing but the standard library, so that it starts in
milliseconds; the listeners come from the server host by inheritance, and with them the other ends.
`python -I -S crowd_worker.py CLIENT-ADDRESS LISTENER-DESCRIPTOR…`, then a line of JSON in and one
out, until the input ends; what they hold is in crowd.py, `Order` and `Made`.
"""

import errno
import json
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

_RESET = struct.pack("@ii", 1, 0)
_IP_LOCAL_PORT_RANGE = 51
"""linux/in.h, since 6.3."""

Ends = tuple[socket.socket, socket.socket]


def _active_close(first: socket.socket, second: socket.socket) -> None:
    """Close one end, and when its FIN has come, the other."""
    first.close()
    second.recv(1)
    second.close()


def _reset(client: socket.socket, server: socket.socket) -> None:
    """Close with SO_LINGER 0, and when the RST has come, the other end."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()
    try:
        server.recv(1)
    except ConnectionResetError:
        server.close()


class Worker:
    """Both ends of every connection, in one thread: which end closes first is no race."""

    def __init__(self, address: str, listeners: list[socket.socket]) -> None:
        """Connect from `address` to the listeners."""
        self._address = address
        self._listeners = listeners
        self._held: list[Ends] = []
        self._end: Mapping[str, Callable[[socket.socket, socket.socket], object]] = {
            "client": _active_close,
            "server": lambda client, server: _active_close(server, client),
            "reset": _reset,
            "keep": lambda client, server: self._held.append((client, server)),
        }

    def perform(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Make the connections, up to the first that is refused."""
        listener, end = self._listeners[order["to"]], self._end[order["ending"]]
        target = listener.getsockname()
        ports: list[int] = []
        cpu_ns: list[int] = []
        for number in range(order["count"]):
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            began_ns = time.thread_time_ns()
            try:
                self._prepare(client, order, number)
                client.connect(target)
            except OSError as error:
                client.close()
                return _made(ports, cpu_ns, errno.errorcode.get(error.errno or 0, str(error)))
            cpu_ns.append(time.thread_time_ns() - began_ns)
            ports.append(client.getsockname()[1])
            server, _ = listener.accept()
            end(client, server)
        return _made(ports, cpu_ns, "")

    def _prepare(self, client: socket.socket, order: Mapping[str, Any], number: int) -> None:
        if order["window"]:
            low, high = order["window"]
            client.setsockopt(
                socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low)
            )
        if order["from_port"]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((self._address, order["from_port"] + number))


def _made(ports: list[int], cpu_ns: list[int], error: str) -> dict[str, Any]:
    return {"ports": ports, "cpu_ns": cpu_ns, "error": error}


def main(arguments: list[str]) -> None:
    """Obey orders until there are none."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    address, *descriptors = arguments
    worker = Worker(address, [socket.socket(fileno=int(each)) for each in descriptors])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(worker.perform(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
