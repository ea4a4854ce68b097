"""The process that makes a lab and holds it: `python -m twbench.lab.keeper DESCRIPTOR PARENT`.

Single-threaded and apart from the lab's owner, which may have threads already and so could not
enter a user namespace itself. It makes the stacks, then opens files and sockets in them on
request. When the owner closes its end, or dies in whatever way, the keeper kills what still runs
in the lab's namespaces and ends; with the last process the kernel takes the namespaces back.
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from twbench.lab.build import Built, build, rebuild
from twbench.lab.enter import die_with_parent
from twbench.lab.namespaces import enter_network
from twbench.lab.protocol import Message, plan_from_json, receive, send
from twbench.lab.sysctls import read_sysctls, write_sysctls
from twbench.lab.wiring import wire
from twbench.model.errors import LabError


def serve(channel: socket.socket, wake: socket.socket, built: Built) -> None:
    """Answer requests until the owner closes its end, or `wake` tells of a SIGTERM.

    A request is `{"do": name, "stack": name, …}`; a reply `{"ok": value}` with at most one
    descriptor, or `{"errno": number, "about": text}`, or `{"refused": text, "remedy": text}`.
    """
    events = select.poll()
    events.register(channel, select.POLLIN)
    events.register(wake, select.POLLIN)
    while True:
        if any(number == wake.fileno() for number, _ in events.poll()):
            return
        try:
            request, _ = receive(channel)
        except (EOFError, ConnectionResetError):
            return
        try:
            enter_network(built.stacks[request["stack"]])
            reply, descriptors = _ACTIONS[request["do"]](request, built)
        except OSError as error:
            reply, descriptors = {"errno": error.errno, "about": request.get("path", "")}, []
        except LabError as error:
            reply, descriptors = _refusal(error), []
        send(channel, reply, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _open(request: Message, _built: Built) -> tuple[Message, list[int]]:
    return {"ok": None}, [os.open(request["path"], os.O_RDONLY | os.O_CLOEXEC)]


def _socket(request: Message, _built: Built) -> tuple[Message, list[int]]:
    made = socket.socket(request["family"], request["type"], request["proto"])
    return {"ok": None}, [made.detach()]


def _read_sysctls(request: Message, _built: Built) -> tuple[Message, list[int]]:
    return {"ok": read_sysctls(request["names"])}, []


def _set_sysctl(request: Message, _built: Built) -> tuple[Message, list[int]]:
    write_sysctls(request["stack"], {request["name"]: request["value"]})
    return {"ok": None}, []


def _reboot(request: Message, built: Built) -> tuple[Message, list[int]]:
    rebuild(built, request["stack"])
    return {"ok": None}, [os.dup(built.stacks[request["stack"]])]


def _refusal(error: LabError) -> Message:
    return {"refused": error.what, "remedy": error.remedy}


_ACTIONS: dict[str, Callable[[Message, Built], tuple[Message, list[int]]]] = {
    "open": _open,
    "socket": _socket,
    "read_sysctls": _read_sysctls,
    "set_sysctl": _set_sysctl,
    "reboot": _reboot,
}


def processes_in(networks: Iterable[int], *, spare: Iterable[int]) -> list[int]:
    """Return the ids of all processes inside one of these network namespaces but `spare`.

    `networks` are inode numbers, and the namespaces were made by us, so whoever is inside was put
    there through this lab.
    """
    inodes, spared = set(networks), set(spare)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in spared:
            # Another user's process may not be looked at, and cannot be ours.
            with suppress(OSError):
                if (entry / "ns/net").stat().st_ino in inodes:
                    found.append(int(entry.name))
    return found


def clear(built: Built, owner: int) -> None:
    """Kill what still runs in the lab's stacks, forks made meanwhile included."""
    inodes = [
        os.fstat(descriptor).st_ino for descriptor in (*built.stacks.values(), *built.retired)
    ]
    spare = (os.getpid(), owner)
    while left := processes_in(inodes, spare=spare):
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if all(_is_zombie(process) for process in left):
            return


def _is_zombie(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def main() -> None:
    """Make the lab of the first message, say so or what was refused, and hold it."""
    descriptor, owner = int(sys.argv[1]), int(sys.argv[2])
    wake, waker = socket.socketpair()
    with socket.socket(fileno=descriptor) as channel, wake, waker:
        # A handler that raised could cut `clear` short; this one only makes `wake` readable.
        waker.settimeout(0.0)
        signal.set_wakeup_fd(waker.fileno())
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        request, _ = receive(channel)
        try:
            built = build(wire(plan_from_json(request["plan"])))
        except LabError as error:
            send(channel, _refusal(error))
            return
        try:
            # SIGTERM, not SIGKILL: a forked copy of the owner may hold the channel's other end.
            die_with_parent(owner, signal.SIGTERM)
            handed = [] if built.user is None else [built.user]
            ready = {
                "stacks": list(built.stacks),
                "user": built.user is not None,
                "warnings": built.warnings,
            }
            send(channel, ready, [*handed, *built.stacks.values()])
            serve(channel, wake, built)
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            clear(built, owner)


if __name__ == "__main__":
    main()
