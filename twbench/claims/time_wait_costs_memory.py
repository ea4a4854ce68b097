"""Every TIME_WAIT occupies kernel memory, on the client and on the server, and many do harm by it.

Source: article 2, section 4, first harm; against it article 1, reason 2 ("does not take much").
Expected: about 530 bytes on the client (the 256-byte object and two bind buckets, of 128 bytes
each, for its port), about 262 on the server (the object alone: the listener's buckets serve all of
its connections), within 30 %; next to nothing after the same connections ended by RST.
Refuted by: no more memory in use with 40,000 of them than without.

Measured as anybody can: SUnreclaim in /proc/meminfo after each 2,000 connections, and the median
slope through all pairs of these points (Theil and Sen), which what other programs do hardly moves.
"""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median

from twbench.claims.claim import (
    Check,
    Claim,
    Expected,
    Finding,
    Findings,
    Judgement,
    Scene,
    SetUpError,
    weigh,
)
from twbench.claims.crowd import Crowd, First, Order, crowd
from twbench.claims.scenery import Scenery
from twbench.kernel.readers import TickReader
from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.states import Side
from twbench.trace.scripts import close_in_turn, exchange

STEP = 2_000
STEPS = 20
CONTROL_STEPS = 6
OPEN_STEP = 50
OPEN_STEPS = 20
ATTEMPTS = 10
"""At the most, while other programs make the kernel's memory move."""
LOW_PORT = 2_000
RANGE_PORTS = 28_232
"""Of the default range: so many TIME_WAITs towards one server, and connect() is refused."""
_STEADY_BYTES = 100
"""A slope that moves by less is known to half of it."""
_STEADY_OPEN_BYTES = 3_000
_CALM_BYTES = 300_000
_CALM_S = 0.3
_MOST_CALM_LOOKS = 15
_RESTLESS = "other programs move the kernel's memory too much to weigh anything"
_QUIET_S = 0.02
"""The kernel frees what a closed socket held a little later (RCU)."""
_SLABS = ("tw_sock_TCP", "tcp_bind_bucket", "tcp_bind2_bucket")
_MEGA = 1_000_000

Point = tuple[int, int]
"""So many connections, so many bytes in use."""


def slope(points: list[Point]) -> float:
    """Return the bytes for each connection: the median of the slopes through every two points."""
    return median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))


def is_steady(points: list[Point], within_bytes: float) -> bool:
    """Return whether the slopes of the first and the second half agree."""
    middle = len(points) // 2
    return abs(slope(points[:middle]) - slope(points[middle:])) <= within_bytes


def _meminfo(name: str) -> int:
    """Return a line of /proc/meminfo, in bytes."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise SetUpError(f"/proc/meminfo has no {name}")


def _object_bytes() -> dict[str, int]:
    """Return the sizes that the kernel tells, to root alone."""
    sizes = {}
    for name in _SLABS:
        try:
            text = Path(f"/sys/kernel/slab/{name}/slab_size").read_text(encoding="ascii")
        except OSError:
            continue
        sizes[name] = int(text)
    return sizes


def _grow(at: Scenery, of: Crowd, order: Order, *, steps: int, memory: str) -> list[Point]:
    """Follow an order `steps` times, on new ports each time; return the memory after each."""
    points = []
    for number in range(1, steps + 1):
        made = of.make(replace(order, from_port=LOW_PORT + number * order.count))
        if made.error:
            raise SetUpError(f"connection {len(made.ports)} of step {number}: {made.error}")
        at.wait(_QUIET_S)
        points.append((number * order.count, _meminfo(memory)))
    return points


def _time_waits(at: Scenery, side: Side) -> int:
    with TickReader(lambda path: at.lab.open(str(side), path)) as reader:
        return reader.tick().sockstat["tw"]


def _play_closing(at: Scenery, first: Side) -> Finding:
    """Weigh closes on one fresh lab after the other, until two in a row weigh the same.

    The labs stay meanwhile. The kernel keeps a page of a slab while a single object is left in it,
    and TIME_WAITs take the room there first: those of the first lab may seem to weigh nothing.
    """
    before: Finding | None = None
    with ExitStack() as labs:
        for _ in range(ATTEMPTS):
            lab = labs.enter_context(Lab(LabPlan(expected_sockets=STEP * STEPS)))
            found = _weigh_closes(replace(at, own_lab=lab), first)
            if found and before and _is_near(found, before):
                return found
            before = found
    raise SetUpError(_RESTLESS)


def _is_near(found: Finding, before: Finding) -> bool:
    apart: float = abs(found["time_wait_bytes"] - before["time_wait_bytes"])
    return apart <= _STEADY_BYTES


def _wait_for_calm(at: Scenery) -> None:
    """Wait until the kernel has taken former hosts away, or for a few seconds."""
    before = _meminfo("SUnreclaim")
    for _ in range(_MOST_CALM_LOOKS):
        at.wait(_CALM_S)
        now = _meminfo("SUnreclaim")
        if abs(now - before) <= _CALM_BYTES:
            return
        before = now


def _weigh_closes(at: Scenery, first: Side) -> Finding | None:
    """Return what closes weigh, and resets before them; None while other programs disturb it."""
    _wait_for_calm(at)
    resets, closes = (Order(count=STEP, ending=each) for each in (First.RESET, First(first)))
    with crowd(at) as of:
        of.make(replace(resets, from_port=LOW_PORT))  # fills the kernel's caches
        reset = slope(_grow(at, of, resets, steps=CONTROL_STEPS, memory="SUnreclaim"))
        if abs(reset) > _STEADY_BYTES:
            return None
        points = _grow(at, of, closes, steps=STEPS, memory="SUnreclaim")
        of.settle()
        held = {str(side): _time_waits(at, side) for side in Side}
    if held != {str(first): STEP * STEPS, str(first.other): 0}:
        raise SetUpError(f"{STEP * STEPS} closes left TIME_WAITs: {held}")
    if not is_steady(points, _STEADY_BYTES):
        return None
    return {
        "time_waits": STEP * STEPS,
        "time_wait_bytes": round(slope(points), 1),
        "after_reset_bytes": round(reset, 1),
        "slab_objects_bytes": _object_bytes(),
    }


def _play_open(at: Scenery) -> Finding:
    order = Order(count=OPEN_STEP, ending=First.KEEP)
    with crowd(at, ports=ATTEMPTS) as of:
        for attempt in range(ATTEMPTS):
            points = _grow(at, of, replace(order, to=attempt), steps=OPEN_STEPS, memory="Slab")
            if is_steady(points, _STEADY_OPEN_BYTES):
                end_bytes = round(slope(points) / 2, 1)
                return {"connections": OPEN_STEP * OPEN_STEPS, "end_bytes": end_bytes}
            _wait_for_calm(at)
    raise SetUpError(_RESTLESS)


def _play_one(at: Scenery, *, reset: bool) -> Finding:
    stage = at.stage
    client, server = exchange(stage)
    if reset:
        client.reset()
        stage.play()
        server.receive()
        server.close()
    else:
        close_in_turn(stage, client, server)
    stage.pause("what is left of the connection")
    note = "nothing is left" if reset else "from here on the client's kernel keeps a TIME_WAIT"
    stage.mark(stage.ladder("", "").crossings[-1], note)
    return {f"{side}_time_waits": stage.counters(side)["sockstat_tw"] for side in Side}


def _judge(findings: Findings, expected: Expected) -> Judgement:
    client, server = findings["client-closes-first"], findings["server-closes-first"]
    client_bytes, server_bytes = client["time_wait_bytes"], server["time_wait_bytes"]
    open_bytes = findings["open-connections"]["end_bytes"]
    range_mb = client_bytes * RANGE_PORTS / _MEGA
    share = client_bytes / open_bytes

    def near(text: str, measured: float, wanted: float) -> Check:
        tolerance = expected["tolerance_share"]
        return Check(
            text=f"{text}: {measured:.0f} bytes each ({wanted:g} ± {tolerance:.0%} expected)",
            holds=abs(measured / wanted - 1) <= tolerance,
        )

    def nothing(text: str, measured: float) -> Check:
        most = expected["nothing_bytes"]
        return Check(
            text=f"{text}: {measured:.0f} bytes each (at most {most:g})", holds=measured <= most
        )

    return weigh(
        f"{client_bytes:.0f} bytes each on a client and {server_bytes:.0f} on a server; with every"
        f" port of the default range in TIME_WAIT that is {range_mb:.0f} MB; an end of an open"
        f" connection takes {open_bytes:,.0f} bytes",
        claimed=(
            Check(
                text=f"{client['time_waits']:,} TIME_WAITs hold memory on the client, and so do as"
                f" many on the server: {client_bytes:.0f} and {server_bytes:.0f} bytes each",
                holds=min(client_bytes, server_bytes) > expected["nothing_bytes"],
            ),
            near("TIME_WAIT on the client", client_bytes, expected["client_bytes"]),
            near("TIME_WAIT on the server", server_bytes, expected["server_bytes"]),
        ),
        caveats=(
            Check(
                text=f"it is little: {share:.0%} of what an end of an open connection takes without"
                f" any data in it; ports run out at {range_mb:.0f} MB",
                holds=share <= expected["little_share"],
            ),
        ),
        controls=(
            nothing("the same, ended by RST (client scene)", client["after_reset_bytes"]),
            nothing("the same, ended by RST (server scene)", server["after_reset_bytes"]),
            Check(
                text="one connection on the wire leaves one TIME_WAIT, and none when it is reset",
                holds=[findings[name]["client_time_waits"] for name in ("one-fin", "one-rst")]
                == [1, 0],
            ),
        ),
    )


CLAIM = Claim(
    id="time-wait-costs-memory",
    sentence="every TIME_WAIT occupies memory, on the client and on the server, and that is one of"
    " the two harms of having many",
    sources=(
        "article 2, section 4, first harm",
        "article 1, second reason (against it: it does not take many resources)",
        "Linux: struct tcp_timewait_sock, inet_bind_bucket and inet_bind2_bucket",
    ),
    expected={
        "client_bytes": 530,
        "server_bytes": 262,
        "tolerance_share": 0.3,
        "nothing_bytes": 100,
        "little_share": 0.4,
    },
    refuted_by="no more kernel memory in use with 40,000 TIME_WAITs than without",
    scenes=(
        *(
            Scene(
                name=f"{side}-closes-first",
                sentence=f"12,000 connections ended by RST, then 40,000 that the {side} closes"
                " first; kernel memory after every 2,000; on fresh hosts until two results agree",
                play=partial(_play_closing, first=side),
                needs_s=9,
                link=None,
                alone=True,
            )
            for side in Side
        ),
        Scene(
            name="open-connections",
            sentence="1,000 connections that stay open; kernel memory after every 50",
            play=_play_open,
            needs_s=2,
            link=Link.VETH,
            alone=True,
        ),
        Scene(
            name="one-fin",
            sentence="one connection, closed by the client first: a TIME_WAIT is left",
            play=partial(_play_one, reset=False),
            needs_s=1,
        ),
        Scene(
            name="one-rst",
            sentence="one connection, reset by the client: nothing is left",
            play=partial(_play_one, reset=True),
            needs_s=1,
        ),
    ),
    judge=_judge,
)
