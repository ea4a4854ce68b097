"""`twbench trace`: ladders on the screen and in files."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from twbench.model.endings import ENDINGS

Done = subprocess.CompletedProcess[str]
Twbench = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]

WITHIN_S = 60


@pytest.mark.namespaces
def test_ladder_is_printed_with_states_and_packets(twbench: Twbench) -> None:
    done = twbench("trace", "client-fin")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["client-fin", ENDINGS["client-fin"].sentence]
    assert max(map(len, lines)) <= 120
    for part in ("SYN_SENT", "FIN_WAIT_1", "FIN_WAIT_2", "LAST_ACK", "TIME_WAIT", "FIN+ACK seq="):
        assert part in done.stdout


@pytest.mark.namespaces
def test_json_has_states_and_steps(twbench: Twbench) -> None:
    done = twbench("trace", "server-unread", "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["title"] == "server-unread"
    assert told["states"]["client"][-2:] == ["ESTABLISHED", "CLOSED"]
    assert {step["step"] for step in told["steps"]} == {"call", "packet"}


@pytest.mark.namespaces
def test_ladder_is_kept_in_every_form_that_a_suffix_names(twbench: Twbench, tmp_path: Path) -> None:
    names = [f"kept.{suffix}" for suffix in ("txt", "svg", "json", "pcapng")]
    saves = [argument for name in names for argument in ("--save", name)]
    done = twbench("trace", "client-rst", "--family", "ipv6", *saves)
    assert (done.returncode, done.stderr) == (0, "")
    text, picture, data, capture = ((tmp_path / name).read_bytes() for name in names)
    assert text.startswith(b"client-rst\n")
    assert b"<svg" in picture
    told = json.loads(data)
    assert told["title"] == "client-rst"
    assert capture.startswith(b"\x0a\x0d\x0d\x0a")
    # the addresses of RFC 5180, for benchmarks
    assert bytes.fromhex("20010002") in capture


@pytest.mark.namespaces
def test_rules_of_the_wire_are_obeyed_and_shown(twbench: Twbench) -> None:
    rules = ("drop client→server ACK after server FIN, once", "delay SYN by 1 ms")
    given = [argument for rule in rules for argument in ("--rule", rule)]
    done = twbench("trace", "client-fin", *given, "--json")
    assert done.returncode == 0
    steps = json.loads(done.stdout)["steps"]
    fates = {(step["note"], step["fate"]) for step in steps if step["step"] == "packet"}
    assert {(rules[0], "dropped"), (rules[1], "held"), (rules[1], "released")} <= fates


@pytest.mark.namespaces
def test_ladder_without_a_connection_is_shown_as_far_as_it_goes(
    twbench: Twbench, tmp_path: Path
) -> None:
    done = twbench("trace", "client-fin", "--rule", "drop any", "--save", "kept.pcapng")
    assert done.returncode == 1
    assert done.stderr == "twbench: the connection did not come about: nothing to accept\n"
    assert "dropped" in done.stdout
    assert "SYN_SENT" in done.stdout
    assert b"dropped: drop any" in (tmp_path / "kept.pcapng").read_bytes()


@pytest.mark.namespaces
def test_all_ladders_are_written_to_a_folder(twbench: Twbench, tmp_path: Path) -> None:
    done = twbench("trace", "--all", "--out", "ladders")
    assert (done.returncode, done.stdout) == (0, "ladders: ladders\n")
    assert sorted(done.stderr.split()) == sorted([*ENDINGS, *["✓"] * len(ENDINGS)])
    wanted = {f"{name}.{suffix}" for name in ENDINGS for suffix in ("txt", "svg")}
    assert {path.name for path in (tmp_path / "ladders").iterdir()} == wanted | {"README.md"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("client-fni",), "unknown ending 'client-fni'; did you mean client-fin? allowed: client"),
        (("zzz",), "unknown ending 'zzz'; allowed: client-fin, "),
        ((), "no ending given; allowed: client-fin, "),
        (("crash", "--save", "x.png"), "--save x.png: found suffix '.png'; allowed: .svg, "),
        (("crash", "--out", "x"), "--out goes with --all"),
        (("--all",), "--all takes --out DIR"),
        (("crash", "--all", "--out", "x"), "--all takes --out DIR"),
        (("--all", "--out", "x", "--rule", "drop any"), "--all takes --out DIR"),
        (("--all", "--out", "x", "--json"), "--all takes --out DIR"),
    ],
)
def test_mistake_in_the_arguments_is_told(
    twbench: Twbench, arguments: tuple[str, ...], said: str
) -> None:
    done = twbench("trace", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"twbench: {said}")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.namespaces
def test_wrong_rule_is_told_with_what_may_be(twbench: Twbench) -> None:
    done = twbench("trace", "client-fin", "--rule", "bend SYN")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("twbench: rule 'bend SYN': found 'bend'; allowed is pass, drop")


@pytest.mark.namespaces
def test_rule_that_answers_with_no_error_is_told(twbench: Twbench) -> None:
    done = twbench("trace", "client-fin", "--rule", "refuse SYN with icmp 8/0")
    assert (done.returncode, done.stdout) == (2, "")
    said = "twbench: rule 'refuse SYN with icmp 8/0': found ICMP type 8; allowed is the type of"
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def test_file_that_cannot_be_written_is_told_before_anything_is_played(
    twbench: Twbench, tmp_path: Path
) -> None:
    done = twbench("trace", "client-rst", "--save", "no/such/folder.svg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "twbench: --save no/such/folder.svg: No such file or directory;"
        " name a file that can be written\n"
    )
    (tmp_path / "folder.svg").mkdir()
    done = twbench("trace", "client-rst", "--save", "folder.svg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("twbench: --save folder.svg: Is a directory;")
    (tmp_path / "taken").write_text("a file")
    done = twbench("trace", "client-rst", "--save", "taken/kept.svg")
    assert done.stderr.startswith("twbench: --save taken/kept.svg: Not a directory;")
    done = twbench("trace", "--all", "--out", "taken")
    assert done.returncode == 2
    assert done.stderr == "twbench: --out: taken: File exists\n"


@pytest.mark.namespaces
def test_interrupt_ends_a_long_trace_and_leaves_nothing(start: Start) -> None:
    process = start("trace", "client-fin", "--to-the-end")
    program = psutil.Process(process.pid)
    end_s = time.monotonic() + WITHIN_S
    while not (family := program.children(recursive=True)):
        assert time.monotonic() < end_s
        time.sleep(0.05)
    # by now it makes its hosts, plays, or watches TIME_WAIT: all must end alike
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    output, said = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, output, said) == (130, "", "")
    gone, alive = psutil.wait_procs(family, timeout=WITHIN_S)
    assert len(gone) == len(family)
    assert alive == []
