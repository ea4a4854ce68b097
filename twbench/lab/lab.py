"""The live lab: a context manager that makes what a plan says and undoes exactly that."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from twbench.lab import enter
from twbench.lab.plan import SHARED_STACK, LabPlan, Link, is_sysctl_of_a_stack
from twbench.lab.protocol import Message, plan_as_json, receive, send
from twbench.lab.sysctls import RECORDED_SYSCTLS, read_sysctls
from twbench.model.errors import LabError

_SHARED_KERNEL = (
    "client and server share one kernel stack: its counters are both sides' together, and who holds"
    " TIME_WAIT shows only in the ports"
)
_LOOPBACK_REUSE = (
    "net.ipv4.tcp_tw_reuse = 2, the kernel's default, recycles TIME_WAIT between loopback addresses"
    " (127.0.0.0/8, ::1) after a second, which hides port exhaustion; 0 shows it"
)
_HOST_WARNINGS = (
    "other programs' sockets are in the counters, and take ports, of this machine too",
    "no sysctl is set on the machine's own network; scenarios that need one want another link",
)
_CARRIED = (
    "a userspace program carries each packet, so rates are far below a veth's; the hosts' offloads"
    " (checksum, TSO, GSO, GRO) are off, and their congestion control is reno"
)
LINK_WARNINGS: dict[Link, tuple[str, ...]] = {
    Link.VETH: (),
    Link.WIRE: (_CARRIED,),
    Link.LOOPBACK: (_SHARED_KERNEL,),
    Link.HOST: (_SHARED_KERNEL, *_HOST_WARNINGS),
}
"""What each link cannot separate or promise."""

_CLOSE_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host of a running lab: the stack that carries it, and its addresses as text."""

    name: str
    stack: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reaper:
    """Who is to wait for a command and all that it starts."""

    grace_s: float
    """How long what the command leaves running has to end once it is asked to."""
    told: int
    """A pipe's end, the caller's to close: "STATUS WHY" where the command cannot run, or empty."""


class Lab:
    """The hosts of a plan, from `__enter__` to `__exit__`.

    The kernel ends the lab when the thread that entered it ends, however it ends: enter it in a
    thread that outlives the use, and start commands from such a thread too (PR_SET_PDEATHSIG).
    Requests may come from several threads.
    """

    def __init__(self, plan: LabPlan) -> None:
        plan.check()
        self.plan = plan
        self.hosts = {
            host.name: Host(name=host.name, stack=host.stack, addresses=host.addresses)
            for host in plan.hosts
        }
        self.stacks = plan.stacks
        self.warnings: tuple[str, ...] = LINK_WARNINGS[plan.link]
        self.sysctls_before: dict[str, dict[str, str]] = {}
        self.sysctls_after: dict[str, dict[str, str]] = {}
        self._user: int | None = None
        self._networks: dict[str, int] = {}
        self._keeper: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        """Make the hosts; LabError, with a remedy, where the machine refuses."""
        try:
            if self.plan.link is not Link.HOST:
                self._start_keeper()
            self.sysctls_before = self._recorded_sysctls()
        except BaseException:
            self._end()
            raise
        if self.plan.link in SHARED_STACK:
            reuse = {each.get("net.ipv4.tcp_tw_reuse") for each in self.sysctls_before.values()}
            self.warnings += (_LOOPBACK_REUSE,) if "2" in reuse else ()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill whatever still runs on the hosts and take them away."""
        try:
            self.sysctls_after = self._recorded_sysctls()
        except LabError:
            # The keeper was killed from outside; what the block itself raised matters more.
            if error is None:
                raise
        finally:
            self._end()

    def command(
        self,
        host: str,
        argv: Sequence[str],
        *,
        hosts: Path | None = None,
        privileged: bool = True,
        reaper: Reaper | None = None,
    ) -> tuple[list[str], tuple[int, ...]]:
        """Return `argv` made to run on `host`, and the descriptors to pass on as `pass_fds`.

        For `subprocess.Popen` and `asyncio.create_subprocess_exec`, in this process: the command
        is killed when its starter dies. It shares the starter's terminal and so its Ctrl-C; pass
        `start_new_session=True` to decide yourself how it ends.

        The command sees the file `hosts` as /etc/hosts. Unless it is `privileged`, it runs as the
        caller, and can change nothing of the lab: its links, addresses, sysctls and mounts.

        With a `reaper` the process that is started is the command's parent, with the command's exit
        status, and ends after all that the command starts (`enter` says what it answers to).

        LabError where `hosts` is asked for over link 'host', which has no namespaces of its own.
        """
        if hosts is not None and self.plan.link is Link.HOST:
            raise LabError(
                f"names of its own on {host}", remedy="a link other than 'host', as 'veth'"
            )
        network = self._networks.get(self.hosts[host].stack)
        user = self._user
        head = [sys.executable, "-I", "-S", enter.__file__]
        for option, descriptor in (("--user", user), ("--net", network)):
            head += [option, "-" if descriptor is None else str(descriptor)]
        head += [] if hosts is None else ["--hosts", str(hosts)]
        head += [] if privileged else ["--privileges", "none"]
        told = None
        if reaper is not None:
            told = reaper.told
            head += ["--grace", str(reaper.grace_s), "--told", str(told)]
        passed = tuple(each for each in (user, network, told) if each is not None)
        return [*head, "--parent", str(os.getpid()), "--", *argv], passed

    def open(self, stack: str, path: str) -> int:
        """Open a file of `stack` for reading and return its descriptor, the caller's to close.

        Meant for /proc/net and /proc/sys/net, whose content is the opener's namespace's.
        """
        if self._is_machine(stack):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _, (descriptor,) = self._ask({"do": "open", "stack": stack, "path": path})
        return descriptor

    def socket(self, stack: str, family: int, kind: int, proto: int = 0) -> socket.socket:
        """Return a new socket that lives on `stack`, the caller's to close; OSError if refused.

        `stack` may be the plan's `middle` too, here and for `open` and the sysctls.
        """
        if self._is_machine(stack):
            return socket.socket(family, kind, proto)
        request: Message = {"do": "socket", "stack": stack, "proto": proto}
        _, (descriptor,) = self._ask(request | {"family": int(family), "type": int(kind)})
        return socket.socket(fileno=descriptor)

    def sysctls(self, stack: str, names: Iterable[str]) -> dict[str, str]:
        """Return the values on `stack` of those of `names` that exist there."""
        if self._is_machine(stack):
            return read_sysctls(names)
        reply, _ = self._ask({"do": "read_sysctls", "stack": stack, "names": list(names)})
        values: dict[str, str] = reply["ok"]
        return values

    def set_sysctl(self, stack: str, name: str, value: str) -> None:
        """Change one sysctl ("net.…") of `stack` from now on; LabError if it is not taken."""
        what = f"{name} = {value!r} on {stack}"
        if self._is_machine(stack):
            raise LabError(what, remedy="link = 'host' never changes the machine's own settings")
        if not is_sysctl_of_a_stack(name):
            raise LabError(what, remedy="a name that starts with 'net.' belongs to a stack")
        self._ask({"do": "set_sysctl", "stack": stack, "name": name, "value": value})

    def reboot(self, host: str) -> None:
        """Give `host` of a wire lab a fresh stack, which knows nothing of its old connections.

        Name, MAC, addresses, routes and the plan's sysctls are the same again; what `set_sysctl`
        changed is lost. Sockets and processes of before stay in the old stack, which reaches
        nothing any more. The interface on the middle stack is a new one of the same name, so a
        packet socket bound to it must be opened again (the old one reports ENETDOWN). Descriptors
        got from `command` and `network` before mean the new stack from now on.

        LabError where the link is another, or the fresh stack is refused.
        """
        stack = self.hosts[host].stack
        if self.plan.link is not Link.WIRE:
            raise LabError(f"reboot of {host}", remedy="only link = 'wire' can reboot a host")
        _, (fresh,) = self._ask({"do": "reboot", "stack": stack})
        os.dup2(fresh, self._networks[stack], inheritable=False)
        os.close(fresh)

    def network(self, stack: str) -> int | None:
        """Return the lab's own descriptor of a stack's namespace; None for the machine's own."""
        return self._networks.get(stack)

    def _recorded_sysctls(self) -> dict[str, dict[str, str]]:
        return {stack: self.sysctls(stack, RECORDED_SYSCTLS) for stack in self.stacks}

    def _is_machine(self, stack: str) -> bool:
        if stack not in (*self.stacks, self.plan.middle):
            raise KeyError(stack)
        return self.plan.link is Link.HOST

    def _ask(self, request: Message) -> tuple[Message, list[int]]:
        if self._channel is None:
            raise LabError("the lab is not entered, or left already", remedy="use it inside `with`")
        with self._turn:
            try:
                send(self._channel, request)
                reply, descriptors = receive(self._channel)
            except (BrokenPipeError, ConnectionResetError, EOFError):
                raise LabError("the lab's keeper has ended", remedy="start again") from None
        _raise_refusal(reply)
        if "errno" in reply:
            raise OSError(reply["errno"], os.strerror(reply["errno"]), reply["about"] or None)
        return reply, descriptors

    def _start_keeper(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        with theirs:
            number = theirs.fileno()
            self._keeper = subprocess.Popen(
                [sys.executable, "-P", "-m", "twbench.lab.keeper", str(number), str(os.getpid())],
                pass_fds=(number,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # The keeper must find the same packages, wherever its owner found them.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                start_new_session=True,
            )
        try:
            send(ours, {"plan": plan_as_json(self.plan)})
            ready, descriptors = receive(ours)
        except (BrokenPipeError, ConnectionResetError, EOFError):
            raise LabError("the lab's keeper ended at its start, see standard error") from None
        _raise_refusal(ready)
        if ready["user"]:
            self._user, *descriptors = descriptors
        self._networks = dict(zip(ready["stacks"], descriptors, strict=True))
        self.warnings += tuple(ready["warnings"])

    def _end(self) -> None:
        """Close what was opened; the keeper clears the hosts and ends by that."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._keeper is not None:
            try:
                self._keeper.wait(_CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._keeper.kill()
                self._keeper.wait()
            self._keeper = None
        for descriptor in (*self._networks.values(), self._user):
            if descriptor is not None:
                os.close(descriptor)
        self._networks, self._user = {}, None


def _raise_refusal(reply: Message) -> None:
    if "refused" in reply:
        raise LabError(reply["refused"], remedy=reply["remedy"])
