"""Crawlers, one file each; each is imported when it is asked for, and not before.

A file has `crawler(client) -> Crawl` and `version() -> str`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from twbench.crawl.own import OwnCrawlerError, load
from twbench.crawl.pages import Crawl
from twbench.model.scenario import ClientSpec

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "auto": "streams",
        "streams": "streams",
        "aiohttp": "aiohttp",
        "httpx": "httpx",
        "requests": "requests",
        "urllib3": "urllib3",
    }
)
"""`client.engine` to the file that has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """A crawler that can be had."""

    crawl: Crawl
    name: str
    """With the version, where it is somebody else's."""
    why: str
    path: str | None = None
    """The file of a crawler of the user's."""


class NoEngineError(Exception):
    """A crawler cannot be had; `error` says whose fault it is: `library` or `crawler`."""

    def __init__(self, message: str, error: str) -> None:
        """Say why."""
        super().__init__(message)
        self.error = error


def engine_of(client: ClientSpec) -> Engine:
    """Return the crawler that a scenario asks for.

    Raises:
        NoEngineError: its library is not installed, or the user's file has a mistake.
    """
    asked = client.engine
    why = f"client.engine is {asked!r}"
    if client.is_own:
        try:
            path, crawl = load(asked)
        except OwnCrawlerError as mistake:
            raise NoEngineError(str(mistake), "crawler") from None
        return Engine(crawl=crawl, name=asked, why=why, path=path)
    if asked == "auto":
        why = "a crawl without a library has pools of our own"
    try:
        module = import_module(f"{__name__}.{ENGINES[asked]}")
    except ModuleNotFoundError as missing:
        message = f"{missing.name} is not installed: pip install 'twbench[peers]'"
        raise NoEngineError(message, "library") from None
    return Engine(crawl=module.crawler(client), name=module.version(), why=why)
