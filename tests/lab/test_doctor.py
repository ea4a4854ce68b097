"""What the doctor makes of machines, from tables of facts; and of this one."""

from dataclasses import replace

import pytest

from twbench.lab.doctor import (
    COMMANDS,
    LINKS,
    Finding,
    Status,
    examine,
    has_own_lab,
    judge,
    links,
    missing,
    namespace_remedy,
)
from twbench.lab.plan import Link
from twbench.lab.probes import ATTEMPTS, Facts, attempt_apart, gather

FINE = Facts(
    attempts=dict.fromkeys(ATTEMPTS, ""),
    sysctls={
        "kernel.io_uring_disabled": "0",
        "user.max_user_namespaces": "96365",
        "user.max_net_namespaces": "96365",
        "net.ipv4.ip_local_port_range": "32768 60999",
        "net.ipv4.tcp_tw_reuse": "0",
        "net.ipv4.tcp_max_tw_buckets": "262144",
    },
    uid=1000,
    capabilities=0,
    seccomp=0,
    container=False,
    descriptors_soft=8192,
    descriptors_hard=1_048_576,
    clock_resolution_s=1e-9,
    clocksource="tsc",
    kernel="6.8.0",
    python="CPython 3.12.3",
    uvloop="0.21.0",
    cpus=4,
)
NO_NAMESPACES = dict.fromkeys(ATTEMPTS, "") | {
    "user_namespace": "Operation not permitted",
    "network_namespace": "Operation not permitted",
    "sysctl": "not tried: no network namespace",
    "veth": "not tried: no network namespace",
    "packet_socket": "not tried: no network namespace",
}
UBUNTU_24_04 = replace(
    FINE,
    attempts=NO_NAMESPACES,
    sysctls={**FINE.sysctls, "kernel.apparmor_restrict_unprivileged_userns": "1"},
)
DOCKER = replace(
    FINE,
    attempts=NO_NAMESPACES | {"io_uring": "Operation not permitted"},
    uid=0,
    capabilities=0xA80425FB,
    seccomp=2,
    container=True,
)
DEBIAN_CLOSED = replace(
    FINE,
    attempts=NO_NAMESPACES,
    sysctls={**FINE.sysctls, "kernel.unprivileged_userns_clone": "0"},
)
NO_USER_NAMESPACES = replace(
    FINE, attempts=NO_NAMESPACES, sysctls={**FINE.sysctls, "user.max_user_namespaces": "0"}
)
NO_NET_NAMESPACES = replace(
    FINE, attempts=NO_NAMESPACES, sysctls={**FINE.sysctls, "user.max_net_namespaces": "0"}
)
UNEXPLAINED = replace(FINE, attempts=NO_NAMESPACES)


def finding(facts: Facts, name: str, needed: int = 4096) -> Finding:
    (found,) = [each for each in judge(facts, needed_descriptors=needed) if each.name == name]
    return found


def test_a_machine_that_allows_everything_gets_only_ok() -> None:
    found = judge(FINE, needed_descriptors=4096)
    assert {each.status for each in found} == {Status.OK}
    assert {each.remedy for each in found} == {""}
    assert links(FINE) == dict.fromkeys(Link, ())


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        (UBUNTU_24_04, "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        (DOCKER, "docker run --privileged …   (or podman run --privileged …)"),
        (DEBIAN_CLOSED, "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        (NO_USER_NAMESPACES, "sudo sysctl -w user.max_user_namespaces=15000"),
        (NO_NET_NAMESPACES, "sudo sysctl -w user.max_net_namespaces=15000"),
        (UNEXPLAINED, "run twbench with sudo"),
    ],
    ids=["ubuntu", "docker", "debian", "no-userns", "no-netns", "unexplained"],
)
def test_a_refused_namespace_names_its_cause_and_the_command(facts: Facts, remedy: str) -> None:
    assert namespace_remedy(facts) == remedy
    told = finding(facts, "user namespaces")
    assert (told.status, told.remedy) == (Status.FAIL, remedy)
    assert finding(facts, "veth pairs").status is Status.UNKNOWN
    assert links(facts)[Link.HOST] == ()
    assert links(facts)[Link.LOOPBACK] == ("network_namespace", "sysctl")


def test_without_packet_sockets_only_the_wire_and_its_commands_are_missing() -> None:
    refused = {**FINE.attempts, "packet_socket": "Operation not permitted"}
    facts = replace(FINE, attempts=refused)
    assert {link for link, lacks in links(facts).items() if lacks} == {Link.WIRE}
    assert finding(facts, "twbench trace, claims").found == "lacks packet_socket"
    assert finding(facts, "twbench run, link = 'wire'").status is Status.FAIL
    assert finding(facts, "twbench demo").status is Status.OK
    assert "link = 'wire', `trace` and `claims`" in finding(facts, "packet sockets on a host").means


def test_root_needs_no_user_namespace() -> None:
    refused = {**FINE.attempts, "user_namespace": "Operation not permitted"}
    facts = replace(FINE, attempts=refused, uid=0)
    assert finding(facts, "user namespaces").status is Status.WARN
    assert links(facts)[Link.VETH] == ()


def test_docker_is_seen_as_confined_and_io_uring_as_filtered() -> None:
    assert finding(DOCKER, "confinement").status is Status.WARN
    told = finding(DOCKER, "io_uring")
    assert told.status is Status.WARN
    assert "seccomp=unconfined" in told.remedy


@pytest.mark.parametrize(
    ("ability", "title", "status", "remedy"),
    [
        ("veth", "veth pairs", Status.FAIL, "sudo modprobe veth"),
        ("sock_diag", "sock_diag", Status.WARN, "sudo modprobe tcp_diag"),
        ("packet_socket", "packet sockets on a host", Status.WARN, "run twbench with sudo"),
        ("sysctl", "sysctls of a host", Status.FAIL, "run twbench with sudo"),
        ("io_uring", "io_uring", Status.WARN, "use a kernel of 6.13 or later"),
    ],
)
def test_each_refused_ability_has_its_own_remedy(
    ability: str, title: str, status: Status, remedy: str
) -> None:
    told = finding(replace(FINE, attempts={**FINE.attempts, ability: "No"}), title)
    assert (told.status, told.found) == (status, "No")
    assert told.remedy.startswith(remedy)


def test_a_read_only_proc_sys_asks_for_a_privileged_container() -> None:
    attempts = {**FINE.attempts, "sysctl": "net.ipv4.x = '1' on a host: Read-only file system"}
    assert "--privileged" in finding(replace(FINE, attempts=attempts), "sysctls of a host").remedy


def test_disabled_io_uring_names_its_sysctl() -> None:
    facts = replace(
        FINE,
        attempts={**FINE.attempts, "io_uring": "Operation not permitted"},
        sysctls={**FINE.sysctls, "kernel.io_uring_disabled": "2"},
    )
    assert finding(facts, "io_uring").remedy == "sudo sysctl -w kernel.io_uring_disabled=0"
    assert finding(facts, "kernel.io_uring_disabled").status is Status.WARN


def test_an_ability_nobody_tried_counts_as_missing() -> None:
    assert missing(replace(FINE, attempts={}), LINKS[Link.VETH]) == LINKS[Link.VETH]
    assert finding(replace(FINE, attempts={}), "sock_diag").status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("soft", "hard", "status", "remedy"),
    [
        (4096, 4096, Status.OK, ""),
        (1024, 4096, Status.OK, ""),
        (1024, 2048, Status.WARN, "sudo prlimit --pid $$ --nofile=4096:4096"),
    ],
)
def test_few_descriptors_are_told_with_the_command_that_raises_them(
    soft: int, hard: int, status: Status, remedy: str
) -> None:
    told = finding(replace(FINE, descriptors_soft=soft, descriptors_hard=hard), "open files")
    assert (told.status, told.remedy) == (status, remedy)
    assert told.means.startswith(
        "one descriptor" if status is Status.OK else f"at most about {hard}"
    )


@pytest.mark.parametrize(
    ("refused", "own"),
    [
        ((), True),
        (("veth",), True),
        (("sysctl",), False),
        (("network_namespace", "sysctl", "veth"), False),
        (("packet_socket", "sock_diag", "user_namespace"), True),
    ],
)
def test_a_lab_of_its_own_takes_a_namespace_and_its_sysctls(
    refused: tuple[str, ...], own: bool
) -> None:
    attempts = {**FINE.attempts, **dict.fromkeys(refused, "Operation not permitted")}
    assert has_own_lab(replace(FINE, attempts=attempts)) is own


@pytest.mark.parametrize(
    ("name", "facts", "status"),
    [
        ("net.ipv4.tcp_tw_reuse", {"sysctls": {"net.ipv4.tcp_tw_reuse": "2"}}, Status.WARN),
        ("net.ipv4.tcp_tw_reuse", {"sysctls": {"net.ipv4.tcp_tw_reuse": "1"}}, Status.WARN),
        ("net.ipv4.tcp_tw_reuse", {"sysctls": {}}, Status.UNKNOWN),
        ("net.ipv4.tcp_max_tw_buckets", {"sysctls": {}}, Status.UNKNOWN),
        (
            "net.ipv4.tcp_max_tw_buckets",
            {"sysctls": {"net.ipv4.tcp_max_tw_buckets": "2048"}},
            Status.WARN,
        ),
        ("ephemeral ports", {"sysctls": {}}, Status.UNKNOWN),
        ("clock", {"clock_resolution_s": 0.004}, Status.WARN),
        ("clock", {"clocksource": "acpi_pm"}, Status.WARN),
        ("clock", {"clocksource": ""}, Status.UNKNOWN),
        ("versions", {"uvloop": ""}, Status.WARN),
        ("processors", {"cpus": 1}, Status.WARN),
    ],
)
def test_resources_short_of_usual_are_told(
    name: str, facts: dict[str, object], status: Status
) -> None:
    assert finding(replace(FINE, **facts), name).status is status  # type: ignore[arg-type]


def test_the_port_range_is_counted() -> None:
    assert "28232 ports" in finding(FINE, "ephemeral ports").found


def test_every_need_is_an_ability_that_is_tried() -> None:
    assert {name for needs in (*LINKS.values(), *COMMANDS.values()) for name in needs} <= set(
        ATTEMPTS
    )


def test_a_probe_that_cannot_start_is_unknown_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    facts = replace(FINE, attempts=attempt_apart())
    assert finding(facts, "veth pairs").status is Status.UNKNOWN
    assert "the probe itself failed" in finding(facts, "veth pairs").found


@pytest.mark.namespaces
def test_this_machine_is_examined_and_links_it_allows_are_found() -> None:
    facts = gather()
    assert facts.attempts.keys() == ATTEMPTS.keys()
    assert links(facts)[Link.VETH] == ()
    found = examine()
    assert len({each.name for each in found}) == len(found)
    assert all(each.found and each.means for each in found)


def test_commands_are_told_with_what_they_lack() -> None:
    told = finding(DOCKER, "twbench run, link = 'veth'")
    assert (told.status, told.found) == (Status.FAIL, "lacks network_namespace, sysctl, veth")
    assert finding(DOCKER, "twbench run, link = 'host'").status is Status.OK
    assert finding(FINE, "twbench demo").found == "possible"
