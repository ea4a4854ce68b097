"""The order of ports and the meaning of a hold, asked of the running kernel."""

import json
import os
import subprocess
import sys

import pytest

from twbench.forecast import CLIENT_TIME_WAIT, REUSED_TIME_WAIT, OpenLoad, PortBudget, predict

pytestmark = pytest.mark.namespaces

# In a network namespace of its own: open and close connections over loopback, one at a time,
# until connect() finds no port or `count` are done; print the ports in order and sockstat's tw.
CHURN = """
import ctypes, fcntl, json, os, socket, struct, sys, time
order = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x40000000) and libc.unshare(0x10000000 | 0x40000000):
    sys.exit("unshare: " + os.strerror(ctypes.get_errno()))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
for name, value in order["sysctls"].items():
    with open("/proc/sys/net/ipv4/" + name, "wb", buffering=0) as file:
        file.write(value.encode())
listener = socket.create_server(("127.0.0.1", 5000))
ports, error = [], None
while len(ports) < order["count"] and error is None:
    client = socket.socket()
    try:
        client.connect(("127.0.0.1", 5000))
    except OSError as refusal:
        error = refusal.errno
        break
    server, _ = listener.accept()
    ports.append(client.getsockname()[1])
    first, second = (client, server) if order["first"] == "client" else (server, client)
    first.close()
    second.recv(1)
    second.close()
    time.sleep(order["gap_s"])
with open("/proc/thread-self/net/sockstat") as file:
    waiting = int(file.read().split(" tw ")[1].split()[0])
print(json.dumps({"ports": ports, "errno": error, "tw": waiting}))
"""


def churn(
    low: int,
    high: int,
    *,
    count: int = 1_000,
    first: str = "client",
    gap_s: float = 0,
    **sysctls: str,
) -> tuple[list[int], str | None, int]:
    """Return the ports used in order, the name of connect()'s errno, and TIME_WAIT at the end."""
    sysctls = {"ip_local_port_range": f"{low} {high}", "tcp_tw_reuse": "0"} | sysctls
    order = {"sysctls": sysctls, "count": count, "first": first, "gap_s": gap_s}
    result = subprocess.run(
        [sys.executable, "-I", "-c", CHURN, json.dumps(order)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    name = None if found["errno"] is None else os.strerror(found["errno"])
    return found["ports"], name, found["tw"]


def test_capacity_is_where_connect_finds_no_port() -> None:
    ports, error, time_wait = churn(40_000, 40_099)
    budget = PortBudget(range_low=40_000, range_high=40_099)
    forecast = predict(budget, OpenLoad.constant(rate_per_s=1_000, duration_s=10), CLIENT_TIME_WAIT)
    assert error == "Cannot assign requested address"
    assert len(ports) == time_wait == forecast.capacity == forecast.time_wait_steady


@pytest.mark.parametrize("low", [40_000, 40_001])
def test_first_half_has_the_parity_of_the_low_end(low: int) -> None:
    ports, _, _ = churn(low, low + 99)
    half = PortBudget(range_low=low, range_high=low + 99).cheap_capacity
    assert {port % 2 for port in ports[:half]} == {low % 2}
    assert {port % 2 for port in ports[half:]} == {1 - low % 2}


def test_port_of_a_time_wait_that_may_be_reused_is_found_in_the_first_half_again() -> None:
    ports, error, time_wait = churn(40_000, 40_009, count=14, gap_s=0.25, tcp_tw_reuse="1")
    budget = PortBudget(range_low=40_000, range_high=40_009)
    forecast = predict(budget, OpenLoad.constant(rate_per_s=4, duration_s=60), REUSED_TIME_WAIT)
    assert error is None
    assert {port % 2 for port in ports} == {0}
    assert time_wait == forecast.time_wait_steady == 5


def test_server_that_closes_first_keeps_one_time_wait_for_each_port_of_the_first_half() -> None:
    ports, error, time_wait = churn(40_000, 40_019, count=60, first="server")
    assert error is None
    assert len(ports) == 60
    assert time_wait == PortBudget(range_low=40_000, range_high=40_019).cheap_capacity
