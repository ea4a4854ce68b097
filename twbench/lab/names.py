"""Names of hosts, as /etc/hosts has them. Pure."""

from collections.abc import Mapping

_LOCAL = (("127.0.0.1", "localhost"), ("::1", "localhost"))


def hosts_text(addresses: Mapping[str, str]) -> str:
    """Return a hosts file (hosts(5)) of `localhost` and of these names, each with its address."""
    lines = (*_LOCAL, *((address, name) for name, address in addresses.items()))
    return "".join(f"{address}\t{name}\n" for address, name in lines)
