"""Sysctls of a host: written, checked, and never the machine's."""

from collections.abc import Mapping

import pytest

from twbench.lab.lab import Lab
from twbench.lab.plan import LabPlan
from twbench.lab.sysctls import RECORDED_SYSCTLS, path_of, read_sysctls
from twbench.model.errors import LabError

FIN_TIMEOUT = "net.ipv4.tcp_fin_timeout"
PORTS = "net.ipv4.ip_local_port_range"


def refusal(sysctls: Mapping[str, str]) -> LabError:
    with pytest.raises(LabError) as caught, Lab(LabPlan(client_sysctls=sysctls)):
        pass
    return caught.value


def test_a_name_is_a_path_below_proc_sys() -> None:
    assert str(path_of("net.ipv4.tcp_sack")) == "/proc/sys/net/ipv4/tcp_sack"


def test_a_sysctl_that_does_not_exist_is_left_out_and_blanks_are_folded() -> None:
    low, high = read_sysctls([PORTS, "net.ipv4.no_such"])[PORTS].split(" ")
    assert int(low) < int(high)


@pytest.mark.namespaces
def test_each_host_has_its_own_and_the_machine_keeps_its_values() -> None:
    machine = read_sysctls(RECORDED_SYSCTLS)
    plan = LabPlan(
        client_hosts=2,
        client_sysctls={FIN_TIMEOUT: "7", PORTS: "40000 40999"},
        server_sysctls={FIN_TIMEOUT: "9"},
    )
    with Lab(plan) as lab:
        values = {stack: lab.sysctls(stack, [FIN_TIMEOUT, PORTS]) for stack in lab.stacks}
        assert read_sysctls(RECORDED_SYSCTLS) == machine
    assert values["client-1"] == values["client-2"] == {FIN_TIMEOUT: "7", PORTS: "40000 40999"}
    assert values["server"][FIN_TIMEOUT] == "9"
    assert values["server"][PORTS] != "40000 40999"
    assert read_sysctls(RECORDED_SYSCTLS) == machine


@pytest.mark.namespaces
def test_the_socket_table_has_the_size_of_the_plan_and_the_usual_limits() -> None:
    with Lab(LabPlan(expected_sockets=10_000)) as lab:
        for stack in lab.stacks:
            before = lab.sysctls_before[stack]
            assert before["net.ipv4.tcp_ehash_entries"] == "16384"
            assert before["net.ipv4.tcp_max_tw_buckets"] == "262144"
            assert before["net.ipv4.tcp_max_syn_backlog"] == "4096"
    assert lab.sysctls_after == lab.sysctls_before


@pytest.mark.namespaces
def test_the_user_may_set_what_the_lab_sets_too() -> None:
    with Lab(LabPlan(server_sysctls={"net.ipv4.tcp_max_tw_buckets": "0"})) as lab:
        assert lab.sysctls_before["server"]["net.ipv4.tcp_max_tw_buckets"] == "0"
        assert lab.sysctls_before["client"]["net.ipv4.tcp_max_tw_buckets"] == "262144"


@pytest.mark.namespaces
def test_a_sysctl_of_an_interface_can_be_set() -> None:
    name = "net.ipv4.conf.eth0.rp_filter"
    with Lab(LabPlan(client_sysctls={name: "2"})) as lab:
        assert lab.sysctls("client", [name]) == {name: "2"}


@pytest.mark.namespaces
def test_a_list_that_the_kernel_writes_its_own_way_is_taken() -> None:
    name = "net.ipv4.ip_local_reserved_ports"
    with Lab(LabPlan(client_sysctls={name: "40001,40002,40003"})) as lab:
        assert lab.sysctls("client", [name]) == {name: "40001-40003"}


@pytest.mark.namespaces
def test_an_unknown_sysctl_names_the_key_and_its_neighbours() -> None:
    error = refusal({"net.ipv4.tcp_tw_recycle": "1"})
    assert "net.ipv4.tcp_tw_recycle = '1' on client: No such file or directory" in error.what
    assert "tcp_tw_reuse" in error.remedy


@pytest.mark.namespaces
def test_a_value_the_kernel_refuses_names_the_value_that_stands() -> None:
    error = refusal({PORTS: "50000 40000"})
    assert f"{PORTS} = '50000 40000' on client: Invalid argument" in error.what
    assert "'32768 60999'" in error.remedy


@pytest.mark.namespaces
def test_a_value_the_kernel_takes_for_another_is_told() -> None:
    octal = "010"
    error = refusal({FIN_TIMEOUT: octal})
    assert f"{FIN_TIMEOUT} = '010' on client: the kernel took the write but holds '8'" in error.what


@pytest.mark.namespaces
def test_a_key_of_the_whole_machine_is_refused() -> None:
    error = refusal({"net.ipv4.tcp_mem": "1 2 3"})
    assert "net.ipv4.tcp_mem = '1 2 3' on client" in error.what


@pytest.mark.namespaces
def test_a_key_a_namespace_may_only_read_is_refused() -> None:
    error = refusal({"net.ipv4.tcp_ehash_entries": "1"})
    assert "Permission denied" in error.what
    assert "may not set this key" in error.remedy
