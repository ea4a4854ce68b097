"""What this machine allows twbench to do, what stands in the way, and the command that mends it.

`examine()` tries and reads (`probes.gather`) and judges; `judge` is pure: facts to findings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from twbench.lab.plan import Link
from twbench.lab.probes import Facts, gather


class Status(StrEnum):
    """How a finding bears on twbench."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing looked at: what was found, what that means, and the command that changes it.

    `remedy` is empty where nothing needs mending.
    """

    name: str
    status: Status
    found: str
    means: str
    remedy: str = ""


LINKS: dict[Link, tuple[str, ...]] = {
    Link.VETH: ("network_namespace", "sysctl", "veth"),
    Link.WIRE: ("network_namespace", "sysctl", "veth", "packet_socket"),
    Link.LOOPBACK: ("network_namespace", "sysctl"),
    Link.HOST: (),
}
"""The abilities each link needs, by their names in `probes.ATTEMPTS`."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "demo": LINKS[Link.VETH],
    **{f"run, link = '{link.value}'": needs for link, needs in LINKS.items()},
    "exec, crawls": (*LINKS[Link.VETH], "own_names"),
    "trace, claims": LINKS[Link.WIRE],
    "watch": (),
    "serve, forecast, report, schema": (),
}
"""The same for the commands."""

FIX_SECCOMP = "docker run --privileged …   (or podman run --privileged …)"
_FIX_APPARMOR = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
_FIX_CLONE = "sudo sysctl -w kernel.unprivileged_userns_clone=1"
_FIX_MAX_USER = "sudo sysctl -w user.max_user_namespaces=15000"
_FIX_MAX_NET = "sudo sysctl -w user.max_net_namespaces=15000"
_FIX_SUDO = "run twbench with sudo"
NEEDED_DESCRIPTORS = 4096
"""Open files that a process is wanted to have where nothing else is said."""
_SECCOMP_FILTER = 2
_COARSE_CLOCK_S = 1e-6
_SLOW_CLOCKSOURCES = {"hpet", "acpi_pm", "refined-jiffies", "jiffies"}
_USUAL_TW_BUCKETS = 262144


def missing(facts: Facts, needs: tuple[str, ...]) -> tuple[str, ...]:
    """Return which of the abilities `needs` this machine refuses; empty when all work."""
    return tuple(name for name in needs if facts.attempts.get(name, "not tried"))


def links(facts: Facts) -> dict[Link, tuple[str, ...]]:
    """Return what each link lacks here; empty where it is possible."""
    return {link: missing(facts, needs) for link, needs in LINKS.items()}


def has_own_lab(facts: Facts) -> bool:
    """Return whether a link with hosts of its own is possible here: 'veth' or 'loopback'."""
    lacks = links(facts)
    return not (lacks[Link.VETH] and lacks[Link.LOOPBACK])


def namespace_remedy(facts: Facts) -> str:
    """Return the command most likely to allow namespaces, the surest cause first."""
    settings = facts.sysctls
    causes = (
        (settings.get("user.max_net_namespaces") == "0", _FIX_MAX_NET),
        (facts.seccomp == _SECCOMP_FILTER and facts.container, FIX_SECCOMP),
        (settings.get("user.max_user_namespaces") == "0", _FIX_MAX_USER),
        (settings.get("kernel.unprivileged_userns_clone") == "0", _FIX_CLONE),
        (
            settings.get("kernel.apparmor_restrict_unprivileged_userns", "0") != "0",
            _FIX_APPARMOR,
        ),
        (facts.container or facts.uid == 0, FIX_SECCOMP),
    )
    return next((remedy for holds, remedy in causes if holds), _FIX_SUDO)


def _user_namespaces(facts: Facts) -> Finding:
    error = facts.attempts.get("user_namespace", "not tried")
    direct = not facts.attempts.get("network_namespace", "not tried")
    status = Status.OK if not error else Status.WARN if direct else Status.FAIL
    means = {
        Status.OK: "hosts can be made without root",
        Status.WARN: "this user makes hosts directly; an ordinary user here could not",
        Status.FAIL: "no hosts: only link = 'host' works",
    }[status]
    remedy = "" if not error else namespace_remedy(facts)
    return Finding(
        name="user namespaces",
        status=status,
        found=error or "made one",
        means=means,
        remedy=remedy,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attempt:
    """How an ability that was tried is told: what its working and its refusal mean."""

    title: str
    works: str
    refused: str
    status: Status = Status.FAIL
    remedy: Callable[[Facts], str] = namespace_remedy


def _sysctl_remedy(facts: Facts) -> str:
    read_only = "Read-only" in facts.attempts.get("sysctl", "")
    return FIX_SECCOMP if read_only else namespace_remedy(facts)


def _io_uring_remedy(facts: Facts) -> str:
    if facts.sysctls.get("kernel.io_uring_disabled", "0") != "0":
        return "sudo sysctl -w kernel.io_uring_disabled=0"
    if facts.seccomp == _SECCOMP_FILTER:
        return "docker run --security-opt seccomp=unconfined …"
    return "use a kernel of 6.13 or later that has CONFIG_IO_URING"


_ATTEMPTS: dict[str, _Attempt] = {
    "network_namespace": _Attempt(
        title="network namespaces",
        works="every link but 'host' can have hosts of its own",
        refused="only link = 'host' works",
    ),
    "sysctl": _Attempt(
        title="sysctls of a host",
        works="scenarios can set sysctls on their hosts",
        refused="no host can be set up: only link = 'host' works",
        remedy=_sysctl_remedy,
    ),
    "veth": _Attempt(
        title="veth pairs",
        works="client and server can be two hosts with counters of their own",
        refused="links 'veth' and 'wire' do not work; link = 'loopback' may",
        remedy=lambda _: "sudo modprobe veth",
    ),
    "packet_socket": _Attempt(
        title="packet sockets on a host",
        works="link = 'wire', `trace` and `claims` can see, hold and make packets",
        refused="no packet can be seen or made: link = 'wire', `trace` and `claims` do not work",
        status=Status.WARN,
    ),
    "own_names": _Attempt(
        title="names on a host",
        works="programs and crawlers find the server and its sites by name",
        refused="mounts are refused: `exec` and crawls do not work",
        status=Status.WARN,
    ),
    "sock_diag": _Attempt(
        title="sock_diag",
        works="full looks at every socket are cheap",
        refused="full looks read /proc/net/tcp or psutil: slower, without timers",
        status=Status.WARN,
        remedy=lambda _: "sudo modprobe tcp_diag",
    ),
    "io_uring": _Attempt(
        title="io_uring",
        works="fleet and server can run on the engine 'uring', which is the fastest",
        refused="engine = 'auto' takes 'streams', which opens fewer connections a second",
        status=Status.WARN,
        remedy=_io_uring_remedy,
    ),
}


def _attempted(facts: Facts) -> list[Finding]:
    findings = []
    for name, told in _ATTEMPTS.items():
        error = facts.attempts.get(name)
        untried = error is None or "not tried" in error or "probe itself" in error
        findings.append(
            Finding(
                name=told.title,
                status=Status.UNKNOWN if untried else told.status if error else Status.OK,
                found="works" if error == "" else error or "not tried",
                means=told.refused if error or untried else told.works,
                remedy=told.remedy(facts) if error or untried else "",
            )
        )
    return findings


@dataclass(frozen=True, kw_only=True, slots=True)
class _Setting:
    """A sysctl that explains a refusal: the values that stand in the way, what they do, the fix."""

    blocking: frozenset[str]
    means: str
    remedy: str


_SETTINGS: dict[str, _Setting] = {
    "kernel.apparmor_restrict_unprivileged_userns": _Setting(
        blocking=frozenset({"1"}),
        means="AppArmor takes an ordinary user's rights in a user namespace away (Ubuntu 24.04)",
        remedy=_FIX_APPARMOR,
    ),
    "kernel.unprivileged_userns_clone": _Setting(
        blocking=frozenset({"0"}),
        means="only root may make user namespaces (Debian's patch)",
        remedy=_FIX_CLONE,
    ),
    "user.max_user_namespaces": _Setting(
        blocking=frozenset({"0"}), means="no user namespace at all", remedy=_FIX_MAX_USER
    ),
    "user.max_net_namespaces": _Setting(
        blocking=frozenset({"0"}), means="no network namespace at all", remedy=_FIX_MAX_NET
    ),
    "kernel.io_uring_disabled": _Setting(
        blocking=frozenset({"1", "2"}),
        means="io_uring is closed: 1 for users outside io_uring_group, 2 for everyone",
        remedy="sudo sysctl -w kernel.io_uring_disabled=0",
    ),
}


def _settings(facts: Facts) -> list[Finding]:
    findings = []
    for name, told in _SETTINGS.items():
        value = facts.sysctls.get(name)
        blocked = value in told.blocking
        absent = value is None
        findings.append(
            Finding(
                name=name,
                # A warning: whether it bites is what the attempts show (root passes most of them).
                status=Status.WARN if blocked else Status.OK,
                found="absent" if value is None else value,
                means=told.means if blocked else f"nothing in the way{' here' if absent else ''}",
                remedy=told.remedy if blocked else "",
            )
        )
    return findings


def _confinement(facts: Facts) -> Finding:
    filtered = facts.seccomp == _SECCOMP_FILTER
    where = "in a container, " if facts.container else ""
    refuses = filtered and bool(missing(facts, LINKS[Link.VETH]))
    return Finding(
        name="confinement",
        status=Status.WARN if refuses else Status.OK,
        found=f"{where}uid {facts.uid}, CapEff {facts.capabilities:#x}, seccomp {facts.seccomp}",
        means="a seccomp filter is on, and what failed above may be its doing"
        if refuses
        else "nothing in the way",
        remedy=FIX_SECCOMP if refuses else "",
    )


def _descriptors(facts: Facts, needed: int) -> Finding:
    soft, hard = facts.descriptors_soft, facts.descriptors_hard
    # every worker lifts its soft limit to the hard one
    enough = hard >= needed
    return Finding(
        name="open files",
        status=Status.OK if enough else Status.WARN,
        found=f"soft {soft}, hard {hard}, wanted {needed}",
        means="one descriptor a connection, and workers take the hard limit: enough"
        if enough
        else f"at most about {hard} connections at once in a process, then EMFILE",
        remedy="" if enough else f"sudo prlimit --pid $$ --nofile={needed}:{needed}",
    )


def _ports(facts: Facts) -> Finding:
    value = facts.sysctls.get("net.ipv4.ip_local_port_range", "")
    words = value.split()
    known = len(words) == 2 and all(word.isdigit() for word in words)  # noqa: PLR2004 - low, high
    count = int(words[1]) - int(words[0]) + 1 if known else 0
    return Finding(
        name="ephemeral ports",
        status=Status.OK if known else Status.UNKNOWN,
        found=f"{value} ({count} ports)" if known else value or "not readable",
        means="link = 'host' has these for each source and destination; own hosts have their own",
    )


def _tw_reuse(facts: Facts) -> Finding:
    value = facts.sysctls.get("net.ipv4.tcp_tw_reuse")
    told = {
        "0": (Status.OK, "TIME_WAIT is never reused for a new connection"),
        "1": (Status.WARN, "TIME_WAIT is reused after a second: link = 'host' hides exhaustion"),
        "2": (
            Status.WARN,
            "loopback TIME_WAIT is reused after a second: only link = 'veth' shows exhaustion",
        ),
    }
    status, means = told.get(value or "", (Status.UNKNOWN, "whether TIME_WAIT is reused"))
    return Finding(
        name="net.ipv4.tcp_tw_reuse", status=status, found=value or "not readable", means=means
    )


def _tw_buckets(facts: Facts) -> Finding:
    value = facts.sysctls.get("net.ipv4.tcp_max_tw_buckets", "")
    known = value.isdigit()
    few = known and int(value) < _USUAL_TW_BUCKETS
    return Finding(
        name="net.ipv4.tcp_max_tw_buckets",
        status=Status.WARN if few else Status.OK if known else Status.UNKNOWN,
        found=value or "not readable",
        means=f"link = 'host' holds at most {value} in TIME_WAIT; own hosts {_USUAL_TW_BUCKETS}"
        if few
        else "how many TIME_WAIT the machine holds at once",
    )


def _clock(facts: Facts) -> Finding:
    poor = facts.clock_resolution_s > _COARSE_CLOCK_S or facts.clocksource in _SLOW_CLOCKSOURCES
    return Finding(
        name="clock",
        status=Status.WARN if poor else Status.OK if facts.clocksource else Status.UNKNOWN,
        found=f"{facts.clock_resolution_s * 1e9:.0f} ns, source {facts.clocksource or 'unknown'}",
        means="reading the time is slow or coarse: latencies are less exact"
        if poor
        else "latencies are exact to the microsecond",
    )


def _versions(facts: Facts) -> Finding:
    return Finding(
        name="versions",
        status=Status.OK if facts.uvloop else Status.WARN,
        found=f"Linux {facts.kernel}, {facts.python}, uvloop {facts.uvloop or 'absent'}",
        means="the fast event loop is there"
        if facts.uvloop
        else "asyncio's own loop runs instead: fewer connections a second",
        remedy="" if facts.uvloop else "pip install uvloop",
    )


def _processors(facts: Facts) -> Finding:
    alone = facts.cpus < 2  # noqa: PLR2004 - one for each side
    return Finding(
        name="processors",
        status=Status.WARN if alone else Status.OK,
        found=str(facts.cpus),
        means="client and server share one processor: rates are lower, latencies higher"
        if alone
        else "client and server can have a processor each",
    )


def _allowed(facts: Facts) -> list[Finding]:
    """Return what each command can do here."""
    findings = []
    for command, needs in COMMANDS.items():
        lacks = missing(facts, needs)
        findings.append(
            Finding(
                name=f"twbench {command}",
                status=Status.FAIL if lacks else Status.OK,
                found=f"lacks {', '.join(lacks)}" if lacks else "possible",
                means="needs what is missing" if lacks else "needs nothing more",
                remedy="see above" if lacks else "",
            )
        )
    return findings


def judge(facts: Facts, *, needed_descriptors: int) -> list[Finding]:
    """Return the findings on `facts`: abilities, settings, resources, then the commands."""
    return [
        _user_namespaces(facts),
        *_attempted(facts),
        *_settings(facts),
        _confinement(facts),
        _descriptors(facts, needed_descriptors),
        _ports(facts),
        _tw_reuse(facts),
        _tw_buckets(facts),
        _clock(facts),
        _versions(facts),
        _processors(facts),
        *_allowed(facts),
    ]


def examine(*, needed_descriptors: int = NEEDED_DESCRIPTORS) -> list[Finding]:
    """Try and read everything on this machine and return the findings."""
    return judge(gather(), needed_descriptors=needed_descriptors)
