"""Labs on the real kernel: who reaches whom, whose counters rise, and what remains."""

import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from twbench.lab.lab import LINK_WARNINGS, Lab
from twbench.lab.plan import LabPlan, Link
from twbench.model.errors import LabError, ScenarioError

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
ANY = {4: "0.0.0.0", 6: "::"}
PORT = 8000
OWN_HOSTS = [
    pytest.param(link, marks=[pytest.mark.namespaces] * (link is not Link.HOST)) for link in Link
]


def listen(lab: Lab, port: int = PORT) -> socket.socket:
    """Return a listener on every address of the server; port 0 is any free one."""
    family = lab.plan.family
    listener = lab.socket("server", FAMILIES[family], socket.SOCK_STREAM)
    listener.bind((ANY[family], port))
    listener.listen()
    return listener


def connect(lab: Lab, stack: str, source: str, target: str, port: int = PORT) -> socket.socket:
    made = lab.socket(stack, FAMILIES[lab.plan.family], socket.SOCK_STREAM)
    made.settimeout(5)
    made.bind((source, 0))
    made.connect((target, port))
    return made


def tcp_counters(lab: Lab, stack: str) -> dict[str, int]:
    with os.fdopen(lab.open(stack, "/proc/net/snmp")) as file:
        names, values = (line.split()[1:] for line in file if line.startswith("Tcp:"))
    return dict(zip(names, map(int, values), strict=True))


@pytest.mark.namespaces
@pytest.mark.parametrize("family", [4, 6])
def test_each_hosts_counters_are_its_own(family: int) -> None:
    with Lab(LabPlan(family=family)) as lab, listen(lab) as listener:
        source, target = lab.hosts["client"].addresses[0], lab.hosts["server"].addresses[0]
        with connect(lab, "client", source, target) as made:
            accepted, peer = listener.accept()
            with accepted:
                assert peer[0] == source
                made.sendall(b"across the veth")
                assert accepted.recv(100) == b"across the veth"
        client, server = (tcp_counters(lab, stack) for stack in ("client", "server"))
    assert (client["ActiveOpens"], client["PassiveOpens"]) == (1, 0)
    assert (server["ActiveOpens"], server["PassiveOpens"]) == (0, 1)


@pytest.mark.namespaces
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("link", [Link.VETH, Link.LOOPBACK])
def test_every_client_address_reaches_every_server_address(link: Link, family: int) -> None:
    plan = LabPlan(
        link=link, family=family, client_hosts=3, addresses_per_client=3, server_addresses=3
    )
    server = plan.server
    with Lab(plan) as lab:
        listener = lab.socket(server.stack, FAMILIES[family], socket.SOCK_STREAM)
        with listener:
            listener.bind((ANY[family], PORT))
            listener.listen()
            for client in plan.clients:
                for source, target in product(client.addresses, server.addresses):
                    with connect(lab, client.stack, source, target):
                        accepted, peer = listener.accept()
                        accepted.close()
                    assert peer[0] == source


@pytest.mark.namespaces
def test_the_server_reaches_its_clients_too() -> None:
    plan = LabPlan(client_hosts=2, addresses_per_client=2)
    with Lab(plan) as lab:
        for client in plan.clients:
            with lab.socket(client.stack, socket.AF_INET, socket.SOCK_STREAM) as listener:
                listener.bind((client.addresses[1], PORT))
                listener.listen()
                connect(lab, "server", "198.19.0.1", client.addresses[1]).close()


@pytest.mark.namespaces
def test_a_lab_at_its_largest_addresses_works_at_once() -> None:
    plan = LabPlan(client_hosts=2, addresses_per_client=250, server_addresses=250)
    with Lab(plan) as lab, listen(lab):
        for client in plan.clients:
            connect(lab, client.stack, client.addresses[-1], plan.server.addresses[-1]).close()


# A wire carries nothing by itself: tests/lab/test_build.py.
@pytest.mark.parametrize("link", [each for each in OWN_HOSTS if each.values != (Link.WIRE,)])
def test_a_command_runs_on_its_host_and_sees_its_addresses(link: Link) -> None:
    with Lab(LabPlan(link=link)) as lab:
        target = lab.hosts["server"].addresses[0]
        stack = lab.hosts["server"].stack
        with lab.socket(stack, socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((target, 0))
            listener.listen()
            port = listener.getsockname()[1]
            program = (
                "import socket, sys\n"
                "made = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)\n"
                "print(made.getsockname()[0])\n"
                "made.close()"
            )
            argv = [sys.executable, "-c", program, target, str(port)]
            command, descriptors = lab.command("client", argv)
            done = subprocess.run(
                command, pass_fds=descriptors, capture_output=True, text=True, check=True
            )
    expected = "198.18.1.1" if link is Link.VETH else "127.0.0.1"
    assert (done.stdout.strip(), done.stderr) == (expected, "")


@pytest.mark.parametrize("link", OWN_HOSTS)
def test_a_lab_leaves_no_descriptor_no_process_and_no_link(link: Link) -> None:
    def standing() -> tuple[list[Path], list[tuple[int, str]], str]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        return sorted(Path("/proc/self/fd").iterdir()), socket.if_nameindex(), children

    before = standing()
    with Lab(LabPlan(link=link)) as lab:
        os.close(lab.open(lab.stacks[0], "/proc/net/sockstat"))
    assert standing() == before


@pytest.mark.namespaces
def test_leaving_a_lab_kills_what_still_runs_on_its_hosts() -> None:
    with Lab(LabPlan()) as lab:
        argv, descriptors = lab.command("client", ["sh", "-c", "sleep 1000 & echo $!; wait"])
        child = subprocess.Popen(argv, pass_fds=descriptors, stdout=subprocess.PIPE)
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert Path(f"/proc/{grandchild}").exists()
    with child:
        try:
            assert child.wait(5) == -9
        finally:
            child.kill()
    stat = Path(f"/proc/{grandchild}/stat")
    assert not stat.exists() or ") Z" in stat.read_text(encoding="ascii")


@pytest.mark.namespaces
def test_a_refused_lab_leaves_nothing_either() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(LabError), Lab(LabPlan(client_sysctls={"net.ipv4.no_such": "1"})):
        pass
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.namespaces
def test_a_machine_that_makes_no_more_namespaces_is_told_so() -> None:
    limited = (
        "from pathlib import Path\n"
        "from twbench.lab.namespaces import own_user_namespace\n"
        "from twbench.lab.lab import Lab\n"
        "from twbench.lab.plan import LabPlan\n"
        "own_user_namespace()\n"
        "Path('/proc/sys/user/max_net_namespaces').write_text('3')\n"
        "Lab(LabPlan(client_hosts=8)).__enter__()\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", limited],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "LabError: network namespace 2 of 9: No space left on device" in done.stderr
    assert "user.max_net_namespaces=15000" in done.stderr


@pytest.mark.namespaces
def test_a_file_that_is_not_there_is_an_os_error_with_its_name() -> None:
    with Lab(LabPlan()) as lab, pytest.raises(FileNotFoundError, match="/proc/net/no_such"):
        lab.open("server", "/proc/net/no_such")


@pytest.mark.parametrize("link", OWN_HOSTS)
def test_an_unknown_stack_is_a_key_error(link: Link) -> None:
    with Lab(LabPlan(link=link)) as lab, pytest.raises(KeyError):
        lab.open("elsewhere", "/proc/net/snmp")


@pytest.mark.namespaces
def test_a_lab_that_was_left_refuses_requests() -> None:
    with Lab(LabPlan()) as lab:
        pass
    with pytest.raises(LabError, match="not entered, or left already"):
        lab.open("server", "/proc/net/snmp")


@pytest.mark.namespaces
def test_an_ordinary_user_has_privileged_socket_options_on_the_hosts() -> None:
    with Lab(LabPlan()) as lab, lab.socket("client", socket.AF_INET, socket.SOCK_STREAM) as made:
        tcp_repair = 19
        made.setsockopt(socket.IPPROTO_TCP, tcp_repair, 1)
        assert made.getsockopt(socket.IPPROTO_TCP, tcp_repair) == 1


def test_the_host_link_uses_the_machine_and_says_what_it_cannot_promise() -> None:
    plan = LabPlan(link=Link.HOST, server_addresses=2)
    with Lab(plan) as lab:
        assert set(LINK_WARNINGS[Link.HOST]) <= set(lab.warnings)
        assert lab.network("machine") is None
        assert tcp_counters(lab, "machine")["ActiveOpens"] >= 0
        assert lab.hosts["server"].addresses == ("127.0.0.1", "127.0.0.2")


@pytest.mark.namespaces
def test_the_reuse_warning_is_given_only_where_reuse_is_on() -> None:
    def warned(value: str) -> bool:
        name = "net.ipv4.tcp_tw_reuse"
        with Lab(LabPlan(link=Link.LOOPBACK, server_sysctls={name: value})) as lab:
            return any(name in warning for warning in lab.warnings)

    assert warned("2")
    assert not warned("0")


def test_a_plan_with_mistakes_makes_no_lab() -> None:
    with pytest.raises(ScenarioError):
        Lab(LabPlan(client_hosts=0))


@pytest.mark.namespaces
def test_the_middle_of_a_wire_is_a_stack_of_the_lab_but_no_hosts() -> None:
    with Lab(LabPlan(link=Link.WIRE)) as lab:
        assert lab.stacks == ("client", "server")
        assert lab.sysctls_before.keys() == {"client", "server"}
        assert lab.sysctls("wire", ["net.ipv4.ip_forward"]) == {"net.ipv4.ip_forward": "0"}
        packets = lab.socket("wire", socket.AF_PACKET, socket.SOCK_RAW)
        with packets:
            packets.bind(("server", 0))
        assert len(lab.warnings) == 1
        assert "rates are far below" in lab.warnings[0]
    with Lab(LabPlan()) as lab, pytest.raises(KeyError):
        lab.socket("wire", socket.AF_INET, socket.SOCK_STREAM)


@pytest.mark.parametrize("link", [each for each in OWN_HOSTS if each.values != (Link.WIRE,)])
def test_only_a_host_of_a_wire_lab_can_be_rebooted(link: Link) -> None:
    with Lab(LabPlan(link=link)) as lab, pytest.raises(LabError, match="reboot of server"):
        lab.reboot("server")


@pytest.mark.namespaces
def test_the_wire_itself_is_no_host_to_reboot() -> None:
    with Lab(LabPlan(link=Link.WIRE)) as lab, pytest.raises(KeyError):
        lab.reboot("wire")


@pytest.mark.namespaces
def test_a_sysctl_of_one_running_stack_can_be_changed() -> None:
    name = "net.ipv4.tcp_fin_timeout"
    with Lab(LabPlan()) as lab:
        lab.set_sysctl("server", name, "7")
        assert lab.sysctls("server", [name]) == {name: "7"}
    assert lab.sysctls_after["server"][name] == "7"
    assert lab.sysctls_after["client"][name] == lab.sysctls_before["client"][name] != "7"


@pytest.mark.namespaces
@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("net.ipv4.tcp_fin_timeou", "7", "near it: tcp_fin_timeout"),
        ("net.ipv4.tcp_fin_timeout", "soon", "use a value this kernel allows"),
        ("kernel.hostname", "other", "starts with 'net.'"),
    ],
)
def test_a_sysctl_that_is_not_taken_is_a_lab_error_and_the_lab_goes_on(
    name: str, value: str, remedy: str
) -> None:
    with Lab(LabPlan()) as lab:
        with pytest.raises(LabError) as caught:
            lab.set_sysctl("server", name, value)
        assert caught.value.what.startswith(f"{name} = {value!r} on server")
        assert remedy in caught.value.remedy
        assert lab.sysctls("server", ["net.ipv4.tcp_fin_timeout"])


def test_the_machines_own_sysctls_are_never_changed() -> None:
    name = "net.ipv4.tcp_fin_timeout"
    with Lab(LabPlan(link=Link.HOST)) as lab:
        before = lab.sysctls("machine", [name])
        with pytest.raises(LabError, match="on machine"):
            lab.set_sysctl("machine", name, before[name])
