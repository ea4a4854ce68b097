"""`twbench serve`: the bundled server alone, endings on demand."""

import ipaddress
from typing import Annotated

import typer

from twbench.cli.show import stderr
from twbench.model.endings import ENDINGS
from twbench.model.errors import Problem, ScenarioError
from twbench.model.parse import build_scenario
from twbench.model.plans import ServerPlan
from twbench.model.reports import ServerReport
from twbench.run.serving import serve_alone


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "serve",
        help="Run the bundled server alone; each URL may choose its own ending.",
        epilog=(
            "Examples: twbench serve --ending server-rst · curl http://127.0.0.1:8080/ · "
            "curl 'http://127.0.0.1:8080/server-half-close?bytes=100000&delay_ms=50'"
        ),
    )(serve)


def serve(  # noqa: PLR0913 - one for each option
    *,
    ending: Annotated[str, typer.Option(help="one of: " + ", ".join(ENDINGS))] = "server-fin",
    address: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="the port to listen on")] = 8080,
    processes: Annotated[int, typer.Option(help="processes sharing the port")] = 1,
    response_bytes: Annotated[int, typer.Option(help="body of every answer")] = 512,
    delay_ms: Annotated[float, typer.Option(help="time to think before each answer")] = 0,
    keepalive_timeout_s: Annotated[
        float, typer.Option(help="idle connections are closed after this")
    ] = 75,
    keepalive_requests: Annotated[int, typer.Option(help="requests a connection at most")] = 1000,
    hold_s: Annotated[
        float, typer.Option(help="how long to wait for a client that is to close first")
    ] = 10,
    expose: Annotated[
        bool, typer.Option("--expose", help="allow an address that other machines can reach")
    ] = False,
) -> None:
    """Serve until Ctrl-C."""
    ip = _address(address, expose=expose)
    # the same checks, and the same words, as for a scenario's tables
    scenario = build_scenario(
        {
            "name": "serve",
            "lab": {"server": {"ports": [port]}},
            "load": {"concurrency": 1, "duration_s": 1},
            "ending": {"kind": ending, "hold_s": hold_s},
            "client": {"pool": {}},
            "server": {
                "processes": processes,
                "response_bytes": response_bytes,
                "delay_ms": delay_ms,
                "keepalive_timeout_s": keepalive_timeout_s,
                "keepalive_requests": keepalive_requests,
            },
        },
        source="twbench serve",
    )
    console = stderr()
    host = f"[{ip}]" if ip.version == 6 else str(ip)  # noqa: PLR2004 - the protocol's number
    plan = ServerPlan(
        server=scenario.server,
        ending=scenario.ending,
        family="ipv4" if ip.version == 4 else "ipv6",  # noqa: PLR2004 - likewise
        endpoints=((str(ip), port),),
        by_url=True,
    )
    shown = ""

    def tell(counts: ServerReport) -> None:
        nonlocal shown
        line = _line(counts)
        if line != shown:
            console.print(line)
            shown = line

    def ready() -> None:
        console.print(f"listening on http://{host}:{port}/ with ending {ending}; Ctrl-C ends it")

    def warn(text: str) -> None:
        console.print(text, markup=False)

    total = serve_alone(plan, processes=processes, ready=ready, tell=tell, warn=warn)
    console.print(f"ended; {_line(total)}")


def _address(text: str, *, expose: bool) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        allowed = "allowed is an IPv4 or IPv6 address"
        problem = Problem(key="--address", found=repr(text), allowed=allowed)
        raise ScenarioError("twbench serve", [problem]) from None
    if not ip.is_loopback and not expose:
        allowed = "other machines can reach it: allowed are loopback addresses, or add --expose"
        problem = Problem(key="--address", found=repr(text), allowed=allowed)
        raise ScenarioError("twbench serve", [problem])
    return ip


def _line(counts: ServerReport) -> str:
    left = ", ".join(f"{n:,} {how.replace('_', ' ')}" for how, n in counts.departures.items())
    return f"accepted {counts.accepted:,}, requests {counts.requests:,}, left: {left or 'none'}"
