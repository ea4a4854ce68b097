"""What other load generators print is read right; the texts are shortened reports of theirs."""

import json

import pytest

from bench.parts.tools import (
    TOOLS,
    Target,
    Told,
    UnreadableError,
    read_ab,
    read_epoll,
    read_h2load,
    read_hey,
    read_wrk,
)

TARGET = Target(address="198.19.0.1", port=8080, users=64, seconds=2, exchanges=9000)
KEPT = Target(address="198.19.0.1", port=8080, users=64, seconds=2, exchanges=9000, keep_alive=True)

WRK = """\
Running 1s test @ http://127.0.0.1:8099/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.55ms    0.86ms   6.31ms   65.99%
    Req/Sec    15.18k   209.38    15.44k    60.00%
  15000 requests in 1.01s, 2.22MB read
{errors}Requests/sec:  10000.00
Transfer/sec:      2.20MB
"""
AB = """\
Concurrency Level:      64
Time taken for tests:   1.500 seconds
Complete requests:      15127
Failed requests:        7
   (Connect: 0, Receive: 0, Length: 7, Exceptions: 0)
{errors}Total transferred:      2314431 bytes
"""
HEY = """\
Summary:
  Total:\t1.0028 secs
  Slowest:\t0.0168 secs
  Requests/sec:\t8389.6455

Response time histogram:
  0.001 [1]\t|
  0.003 [118]\t|■■

Status code distribution:
  [200]\t8413 responses
{errors}
"""
H2LOAD = """\
finished in {time}, 14364.91 req/s, 0B/s
requests: 20000 total, 20000 started, 20000 done, 19990 succeeded, 10 failed, 9 errored, 0 timeout
status codes: 19990 2xx, 0 3xx, 0 4xx, 0 5xx
"""


def test_wrk_says_how_many_and_how_fast() -> None:
    assert read_wrk(WRK.format(errors="")) == Told(exchanges=15000, failed=0, elapsed_s=1.5)


def test_wrk_names_its_failures_in_two_lines() -> None:
    errors = (
        "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"
    )
    assert read_wrk(WRK.format(errors=errors)).failed == 15
    assert read_wrk(WRK.format(errors=errors)).exchanges == 14995


def test_wrk_without_an_answer_has_no_exchange() -> None:
    text = WRK.format(errors="").replace("15000 req", "0 req").replace("10000.00", "0.00")
    assert read_wrk(text) == Told(exchanges=0, failed=0, elapsed_s=0)


def test_ab_counts_failed_and_unwelcome_answers() -> None:
    told = read_ab(AB.format(errors="Non-2xx responses:      3\n"))
    assert told == Told(exchanges=15117, failed=10, elapsed_s=1.5)


def test_hey_tells_answers_by_status_and_errors_by_text() -> None:
    errors = '  [503]\t4 responses\n\nError distribution:\n  [64]\tGet "http://…": EOF\n'
    assert read_hey(HEY.format(errors=errors)) == Told(exchanges=8413, failed=68, elapsed_s=1.0028)


def test_hey_without_errors_has_none() -> None:
    assert read_hey(HEY.format(errors="")).failed == 0


@pytest.mark.parametrize(("time", "seconds"), [("1.39s", 1.39), ("139.20ms", 0.1392)])
def test_h2load_counts_what_succeeded_whatever_unit_its_time_has(time: str, seconds: float) -> None:
    told = read_h2load(H2LOAD.format(time=time))
    assert (told.exchanges, told.failed) == (19990, 10)
    assert told.elapsed_s == pytest.approx(seconds)


def test_epoll_client_speaks_json() -> None:
    line = json.dumps({"connections": 5, "errors": 1, "seconds": 2.5, "cpu_seconds": 2.0})
    assert read_epoll(line) == Told(exchanges=5, failed=1, elapsed_s=2.5, cpu_s=2.0)


@pytest.mark.parametrize("name", TOOLS)
def test_output_of_another_kind_is_refused_and_shown(name: str) -> None:
    with pytest.raises(UnreadableError, match="something else"):
        TOOLS[name].told("something else")


@pytest.mark.parametrize("name", [name for name in TOOLS if name != "C epoll"])
def test_every_tool_asks_the_same_page_with_as_many_users(name: str) -> None:
    argv = TOOLS[name].argv(TARGET)
    assert argv[-1] == "http://198.19.0.1:8080/"
    assert "64" in " ".join(argv)


@pytest.mark.parametrize("name", ["wrk", "hey", "h2load"])
def test_tool_asks_to_close_unless_connections_are_kept(name: str) -> None:
    closing = {"Connection: close", "-disable-keepalive"}
    assert closing & {*TOOLS[name].argv(TARGET)}
    assert not closing & {*TOOLS[name].argv(KEPT)}
