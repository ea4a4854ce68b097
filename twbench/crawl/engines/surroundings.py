"""What the libraries would take from the process around them, and a lab does not want."""

import logging
import os

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def forget_proxies() -> None:
    """Forget the environment's proxies, which no lab reaches; most clients would use them."""
    for name in _PROXIES:
        os.environ.pop(name, None)
        os.environ.pop(name.upper(), None)


def quiet_urllib3() -> None:
    """Let urllib3 not warn of each connection that it throws away or tries again: it is counted."""
    logging.getLogger("urllib3").setLevel(logging.ERROR)
