"""How the lab and its keeper talk: one JSON object a packet, descriptors beside it.

Over a SOCK_SEQPACKET pair, so a message and its descriptors (SCM_RIGHTS, unix(7)) stay together.
"""

import array
import dataclasses
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from twbench.lab.plan import LabPlan, Link

Message = dict[str, Any]

_MAX_BYTES = 128 * 1024
_MAX_DESCRIPTORS = 253
"""SCM_MAX_FD, include/net/scm.h: what one message can carry."""
_SOL_LEVEL = (socket.SOL_SOCKET, socket.SCM_RIGHTS)


def send(channel: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message with copies of `descriptors`; OSError if the other side is gone."""
    ancillary = [(*_SOL_LEVEL, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([json.dumps(message).encode()], ancillary)


def receive(channel: socket.socket) -> tuple[Message, list[int]]:
    """Return the next message and its descriptors, which are the caller's to close.

    Raises EOFError when the other side is gone, OSError when the message came cut short.
    """
    descriptors = array.array("i")
    space = socket.CMSG_SPACE(_MAX_DESCRIPTORS * descriptors.itemsize)
    data, ancillary, flags, _ = channel.recvmsg(_MAX_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if (level, kind) == _SOL_LEVEL:
            whole = len(payload) - len(payload) % descriptors.itemsize
            descriptors.frombytes(payload[:whole])
    if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in descriptors:
            os.close(descriptor)
        if not data:
            raise EOFError("the other side is gone")
        raise OSError("a message came cut short")
    return json.loads(data), descriptors.tolist()


def plan_as_json(plan: LabPlan) -> str:
    """Return `plan` as the text of the first message."""
    fields: Message = {each.name: getattr(plan, each.name) for each in dataclasses.fields(plan)}
    fields["client_sysctls"] = dict(plan.client_sysctls)
    fields["server_sysctls"] = dict(plan.server_sysctls)
    return json.dumps(fields)


def plan_from_json(text: str) -> LabPlan:
    """Return the plan that `plan_as_json` wrote."""
    fields = json.loads(text)
    link, ports = Link(fields.pop("link")), tuple(fields.pop("server_ports"))
    return LabPlan(link=link, server_ports=ports, **fields)
