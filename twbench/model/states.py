"""The TCP states as the Linux kernel numbers them (include/net/tcp_states.h)."""

from enum import IntEnum, StrEnum


class TcpState(IntEnum):
    """One state of RFC 9293 section 3.3.2, by the kernel's number."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


class Side(StrEnum):
    """The two ends of a connection."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> "Side":
        """Return the opposite end."""
        return Side.SERVER if self is Side.CLIENT else Side.CLIENT


TIME_WAIT_S = 60.0
"""How long Linux holds TIME_WAIT, in seconds: TCP_TIMEWAIT_LEN in include/net/tcp.h, no sysctl."""

TIME_WAIT_SLACK_S = 5.2
"""How much later the timer wheel may fire, in seconds (kernel/time/timer.c).

It rounds a minute up by at most 2.05 s at HZ=250, 4.1 s at HZ=1000 and 5.12 s at HZ=100.
"""
