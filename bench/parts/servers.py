"""The servers that a load may be aimed at, each one process on the lab's server host, pinned."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.parts.child import Child, cpu_clock_s
from bench.parts.errors import BrokenError, UnavailableError
from twbench.lab.lab import Lab
from twbench.model.reports import ServerReport
from twbench.model.scenario import Scenario
from twbench.run.planning import endpoints, server_plan

SERVERS = ("nginx", "streams", "uring")
_LISTENING_WITHIN_S = 10.0
_GRACE_S = 60.0
_NGINX = """\
user root;
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/octet-stream;
    keepalive_timeout {keepalive_timeout_s}s;
    keepalive_requests 1000000000;
    server {{
        {listen}
        location / {{ return 200 "{body}"; }}
        location = /status {{ stub_status; }}
    }}
}}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """A server that listens: its CPU time so far, and what it counted in the end."""

    cpu_now_s: Callable[[], float]
    stop: Callable[[], int]
    """Asks for the requests that it counted, the last thing it is asked."""


@contextlib.contextmanager
def serve(name: str, lab: Lab, task: Scenario, *, core: int) -> Iterator[Serving]:
    """Run the server inside the block.

    Raises:
        UnavailableError: it is not to be had here.
        BrokenError: it does not come up, or breaks down.
    """
    with (_nginx if name == "nginx" else _bundled)(lab, task, core) as serving:
        yield serving


@contextlib.contextmanager
def _bundled(lab: Lab, task: Scenario, core: int) -> Iterator[Serving]:
    """Run twbench's own server, with the engine that the scenario names."""
    argv = ("-m", "twbench.server.worker")
    with Child(lab, "server", argv, core=core) as server:
        server.say(server_plan(task, lab.plan).as_line())
        server.wait_ready()
        wanted, has = getattr(task.server, "engine", "auto"), server.ready.get("engine")
        # asyncio is what carries the server's streams
        if wanted == "uring" and has != wanted:
            raise UnavailableError(f"the server has engine {has} instead of {wanted}")

        def stop() -> int:
            server.say(b"stop\n")
            server.wait_done(_GRACE_S)
            counted = ServerReport()
            for message in server.messages:
                counted.add(ServerReport.from_json(message))
            return counted.requests

        yield Serving(cpu_now_s=server.cpu_now_s, stop=stop)


def nginx_config(task: Scenario, addresses: list[tuple[str, int]], folder: str) -> str:
    """Return the configuration: one process, an answer from memory, and no log. Pure."""
    return _NGINX.format(
        folder=folder,
        keepalive_timeout_s=round(task.server.keepalive_timeout_s) if task.client.pool else 0,
        listen=" ".join(f"listen {a}:{p} backlog={task.server.backlog};" for a, p in addresses),
        body="x" * task.server.response_bytes,
    )


@contextlib.contextmanager
def _nginx(lab: Lab, task: Scenario, core: int) -> Iterator[Serving]:
    if not (program := shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")):
        raise UnavailableError("nginx is not installed (Debian: apt install nginx-light)")
    with tempfile.TemporaryDirectory(prefix="twbench-nginx-") as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(nginx_config(task, list(endpoints(lab.plan)), folder), encoding="ascii")
        argv = [program, "-p", folder, "-c", str(config), "-e", "stderr"]
        command, descriptors = lab.command("server", argv)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            pass_fds=descriptors,
            start_new_session=True,
        )
        try:
            os.sched_setaffinity(process.pid, {core})
            _wait_listening(lab, process)
            yield Serving(
                cpu_now_s=lambda: cpu_clock_s(process.pid), stop=lambda: _nginx_requests(lab)
            )
        finally:
            process.kill()
            process.wait()


def _wait_listening(lab: Lab, process: subprocess.Popen[bytes]) -> None:
    """Return when every endpoint takes connections; BrokenError if that never comes."""
    late_s = time.monotonic() + _LISTENING_WITHIN_S
    for endpoint in endpoints(lab.plan):
        while True:
            client = lab.socket(lab.plan.clients[0].stack, socket.AF_INET, socket.SOCK_STREAM)
            with client, contextlib.suppress(ConnectionRefusedError):
                client.connect(endpoint)
                break
            if process.poll() is not None or time.monotonic() > late_s:
                raise BrokenError(f"nginx does not listen (status {process.returncode})")
            time.sleep(0.02)


def _nginx_requests(lab: Lab) -> int:
    """Ask for the page of ngx_http_stub_status_module: the requests so far but this one.

    Raises BrokenError for a page of another kind.
    """
    with lab.socket(lab.plan.clients[0].stack, socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(_LISTENING_WITHIN_S)
        client.connect(endpoints(lab.plan)[0])
        client.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        page = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    if not (found := re.search(r"accepts handled requests\s+\d+ \d+ (\d+)", page)):
        raise BrokenError(f"nginx does not tell its requests\n{page}")
    return int(found[1]) - 1
