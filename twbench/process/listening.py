"""Sockets that are bound to listen, and the one way to say that the kernel refuses that."""

import socket

from twbench.model.outcomes import errno_name
from twbench.model.plans import Endpoint
from twbench.model.scenario import Family

_FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}


class CannotListenError(Exception):
    """An endpoint is taken, or is not to be had; `error` is the kernel's name of the reason."""

    def __init__(self, endpoint: Endpoint, error: str) -> None:
        """Say which endpoint, and why."""
        self.error = error
        super().__init__(f"cannot listen on {endpoint[0]} port {endpoint[1]}: {error}")


def listen(endpoint: Endpoint, *, family: Family, backlog: int) -> socket.socket:
    """Return a non-blocking TCP socket that listens; processes of one user may share its port.

    Raises:
        CannotListenError: the kernel refuses.
    """
    return _listening(endpoint, family, backlog, shared=True)


def refuse_taken(endpoint: Endpoint, *, family: Family) -> None:
    """Find out whether an endpoint can be had for oneself, which `listen` alone does not tell.

    It is bound for a moment, without SO_REUSEPORT: any socket that listens there conflicts
    (inet_csk_bind_conflict). Nothing listens meanwhile, so that no client is accepted and lost.

    Raises:
        CannotListenError: it cannot.
    """
    _listening(endpoint, family, None, shared=False).close()


def _listening(
    endpoint: Endpoint, family: Family, backlog: int | None, *, shared: bool
) -> socket.socket:
    try:
        sock = socket.socket(_FAMILIES[family], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise CannotListenError(endpoint, errno_name(error.errno)) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        sock.bind(endpoint)
        if backlog is not None:
            sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise CannotListenError(endpoint, errno_name(error.errno)) from None
    return sock
