"""psutil's view of real sockets, in the same rows."""

import socket

import psutil

from twbench.kernel.psutil_reader import STATES, PsutilReader
from twbench.model.states import TcpState


def test_listener_and_time_wait_are_shown_as_the_other_readers_show_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, PsutilReader() as reader:
        address, port = listener.getsockname()
        client = socket.create_connection((address, port))
        server, peer = listener.accept()
        client.close()
        server.close()
        look = reader.look()
        # others may wait at the same port: connections of earlier tests
        ends = [(port, 0), (peer[1], port)]
        rows = look.sockets[[(each["sport"], each["dport"]) in ends for each in look.sockets]]
        assert sorted(rows["state"]) == [TcpState.TIME_WAIT, TcpState.LISTEN]
        (waiting,) = rows[rows["state"] == TcpState.TIME_WAIT]
        assert (waiting["sport"], waiting["dport"]) == (peer[1], port)
        assert waiting["src"].tobytes() == socket.inet_aton(address) + bytes(12)
        assert reader.tick().sockstat["tw"] >= 1
        assert (look.source, reader.tick().source) == ("psutil", "psutil")


def test_every_state_that_psutil_names_has_its_number() -> None:
    named = {value for name, value in vars(psutil).items() if name.startswith("CONN_")}
    beyond_tcp = {psutil.CONN_NONE}
    assert named - beyond_tcp == STATES.keys()
    assert len(set(STATES.values())) == len(STATES)
