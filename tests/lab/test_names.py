"""The hosts file of a program that finds the server by its names."""

from twbench.lab.names import hosts_text


def test_each_name_has_its_address_and_localhost_is_there() -> None:
    text = hosts_text({"server.test": "198.19.0.1", "site-1.test": "fd00::1"})
    assert [line.split() for line in text.splitlines()] == [
        ["127.0.0.1", "localhost"],
        ["::1", "localhost"],
        ["198.19.0.1", "server.test"],
        ["fd00::1", "site-1.test"],
    ]
