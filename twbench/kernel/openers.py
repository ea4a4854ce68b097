"""Who opens files and sockets, and so in which network namespace.

A descriptor of /proc/net/* and a socket keep the namespace they were opened in: a reader given an
opener stays with what it opens, though another process did so.
"""

import os
import socket
from collections.abc import Callable

OpenFile = Callable[[str], int]
"""From a path such as "/proc/net/sockstat" to a descriptor of that file in the wanted namespace."""

OpenSocket = Callable[[int, int, int], socket.socket]
"""From (family, type, protocol) to a socket made in the wanted namespace."""


def open_file_here(path: str) -> int:
    """Open a file of /proc/net in the calling thread's namespace, not the main thread's."""
    return os.open(path.replace("/proc/net/", "/proc/thread-self/net/"), os.O_RDONLY)


def open_socket_here(family: int, kind: int, protocol: int) -> socket.socket:
    """Make a socket in the calling thread's namespace."""
    return socket.socket(family, kind, protocol)
