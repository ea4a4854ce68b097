"""HTTP clients that are not ours speak to the bundled server without complaint."""

import asyncio
import http.client
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from twbench.model.plans import Endpoint
from twbench.server.http import Listener

Serving = Callable[..., Awaitable[tuple[Endpoint, Listener]]]

SIZE = 4321
ENDINGS = ["client-fin", "server-fin", "server-half-close"]


def program(name: str) -> str:
    """Return where a program is, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


async def run(*command: str) -> str:
    """Run a program to its end in a thread; it must succeed."""
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def url(endpoint: Endpoint, path: str = "/") -> str:
    return f"http://{endpoint[0]}:{endpoint[1]}{path}"


@pytest.mark.parametrize("ending", ENDINGS)
async def test_aiohttp(ending: str, serving: Serving) -> None:
    import aiohttp

    endpoint, listener = await serving(ending=ending, response_bytes=SIZE)
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.get(url(endpoint)) as answer:
                assert (answer.status, len(await answer.read())) == (200, SIZE)
        async with session.post(url(endpoint), data=b"x" * 100_000, expect100=True) as answer:
            assert (answer.status, len(await answer.read())) == (200, SIZE)
        async with session.head(url(endpoint)) as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(SIZE))
    assert listener.ledger.report.accepted == 1
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for _ in range(3):
            async with session.get(url(endpoint)) as answer:
                assert (answer.status, len(await answer.read())) == (200, SIZE)
    assert (listener.ledger.report.accepted, listener.ledger.report.requests) == (4, 8)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_httpx(ending: str, serving: Serving) -> None:
    import httpx

    endpoint, listener = await serving(ending=ending, response_bytes=SIZE)
    async with httpx.AsyncClient() as client:
        for _ in range(3):
            answer = await client.get(url(endpoint))
            assert (answer.status_code, len(answer.content)) == (200, SIZE)
        answer = await client.post(url(endpoint), content=b"x" * 100_000)
        assert (answer.status_code, len(answer.content)) == (200, SIZE)
        assert (await client.head(url(endpoint))).status_code == 200
        assert listener.ledger.report.accepted == 1
        answer = await client.get(url(endpoint), headers={"Connection": "close"})
        assert len(answer.content) == SIZE
    assert listener.ledger.report.requests == 6


@pytest.mark.parametrize("ending", ENDINGS)
async def test_requests(ending: str, serving: Serving) -> None:
    import requests

    endpoint, listener = await serving(ending=ending, response_bytes=SIZE)

    def speak() -> None:
        with requests.Session() as session:
            for _ in range(3):
                answer = session.get(url(endpoint), timeout=5)
                assert (answer.status_code, len(answer.content)) == (200, SIZE)
            assert session.post(url(endpoint), data=b"x" * 100_000, timeout=5).ok
            assert session.head(url(endpoint), timeout=5).ok
            last = session.get(url(endpoint), headers={"Connection": "close"}, timeout=5)
            assert len(last.content) == SIZE

    await asyncio.to_thread(speak)
    assert (listener.ledger.report.accepted, listener.ledger.report.requests) == (1, 6)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_http_client(ending: str, serving: Serving) -> None:
    endpoint, listener = await serving(ending=ending, response_bytes=SIZE)

    def speak() -> None:
        connection = http.client.HTTPConnection(*endpoint, timeout=5)
        for method, body, size in (("GET", None, SIZE), ("POST", b"x", SIZE), ("HEAD", None, 0)):
            connection.request(method, "/", body=body)
            answer = connection.getresponse()
            assert (answer.status, len(answer.read())) == (200, size)
            assert not answer.will_close
        connection.close()

    await asyncio.to_thread(speak)
    assert (listener.ledger.report.accepted, listener.ledger.report.requests) == (1, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], f"200 {SIZE} 1\n"),
        (["--http1.0"], f"200 {SIZE} 1\n"),
        (["--header", "Connection: Upgrade", "--header", "Upgrade: h2c"], f"200 {SIZE} 1\n"),
        (["--head"], "200 0 1\n"),
        (["--header", "Connection: close"], f"200 {SIZE} 1\n"),
        (["--data-binary", "@BODY", "--header", "Expect: 100-continue"], f"200 {SIZE} 1\n"),
    ],
    ids=["plain", "HTTP/1.0", "upgrade offered", "HEAD", "close", "100-continue"],
)
async def test_curl(options: list[str], expected: str, serving: Serving, tmp_path: Path) -> None:
    curl = program("curl")
    endpoint, listener = await serving(ending="server-fin", response_bytes=SIZE)
    body = tmp_path / "body"
    body.write_bytes(b"x" * 2_000_000)
    options = [option.replace("BODY", str(body)) for option in options]
    written = ["--write-out", "%{http_code} %{size_download} %{num_connects}\n"]
    output = await run(curl, "-sS", *written, "-o", "/dev/null", *options, url(endpoint))
    assert output == expected
    assert listener.ledger.report.requests == 1


async def test_curl_keeps_its_connection(serving: Serving) -> None:
    endpoint, listener = await serving(response_bytes=SIZE)
    await run(program("curl"), "-sS", "-o", "/dev/null", *[url(endpoint)] * 3)
    assert (listener.ledger.report.accepted, listener.ledger.report.requests) == (1, 3)


async def test_wrk(serving: Serving) -> None:
    endpoint, listener = await serving(response_bytes=SIZE)
    output = await run(program("wrk"), "-t1", "-c8", "-d1s", url(endpoint))
    assert "Socket errors" not in output
    assert "Non-2xx" not in output
    found = re.search(r"(\d+) requests in", output)
    assert found is not None
    assert 8 <= int(found[1]) <= listener.ledger.report.requests


@pytest.mark.parametrize("options", [[], ["-k"]], ids=["fresh", "kept"])
async def test_ab(options: list[str], serving: Serving) -> None:
    endpoint, listener = await serving(ending="server-fin", response_bytes=SIZE)
    output = await run(program("ab"), "-q", "-n", "200", "-c", "8", *options, url(endpoint))
    assert re.search(r"Complete requests:\s+200", output)
    assert re.search(r"Failed requests:\s+0", output)
    assert f"Document Length:        {SIZE} bytes" in output
    assert (listener.ledger.report.accepted < 200) == bool(options)
