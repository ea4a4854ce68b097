"""The three files of a host are read by the names of their counters, not by place."""

import pytest

from bench.parts.counters import Counts, counts

SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: ActiveOpens PassiveOpens AttemptFails
Tcp: 5 20000 7
"""
NETSTAT = """\
TcpExt: SyncookiesSent TW TWRecycled TWKilled
TcpExt: 0 300 9 40
IpExt: InNoRoutes
IpExt: 0
"""
SOCKSTAT = """\
sockets: used 7
TCP: inuse 3 orphan 0 tw 250 alloc 4 mem 1
UDP: inuse 0 mem 0
"""


def test_entries_into_time_wait_are_both_kinds_together() -> None:
    assert counts(SNMP, NETSTAT, SOCKSTAT) == Counts(opened=20000, waited=340, waiting=250)


def test_counter_that_is_missing_is_no_zero() -> None:
    with pytest.raises(KeyError, match="TWKilled"):
        counts(SNMP, NETSTAT.replace("TWKilled", "Other"), SOCKSTAT)
