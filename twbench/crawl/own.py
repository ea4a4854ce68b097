"""A crawler of the user's: `FILE.py:NAME`, loaded, and its mistakes told in a sentence each."""

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import TracebackType

from twbench.crawl.pages import Crawl

_MODULE = "twbench_crawler_of_ones_own"
"""Its name among the modules: the file's own may be that of another."""


class OwnCrawlerError(Exception):
    """The file, or the name in it, is no crawler; the message says what is wrong with it."""


def load(engine: str) -> tuple[str, Crawl]:
    """Return the file's path, and the coroutine function that `FILE.py:NAME` names.

    As for a program, the file's folder comes first where it imports from.

    Raises:
        OwnCrawlerError: there is no such file, it cannot be run, or it has no such coroutine.
    """
    file, _, name = engine.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise OwnCrawlerError(f"{file}: there is no such file")
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise OwnCrawlerError(f"{file}: this is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[_MODULE] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a file may raise
        del sys.modules[_MODULE]
        if isinstance(error, SyntaxError):
            raise OwnCrawlerError(f"{file}, line {error.lineno}: {error.msg}") from None
        line = _line_in(str(path), error.__traceback__)
        raise OwnCrawlerError(f"{file}, line {line}: {type(error).__name__}: {error}") from None
    return str(path), _coroutine(file, name, getattr(module, name, None))


def _coroutine(file: str, name: str, found: object) -> Crawl:
    wanted = f"`async def {name}(pages: Pages) -> None`"
    if found is None:
        raise OwnCrawlerError(f"{file} has no {name!r}: it needs {wanted}")
    if not inspect.iscoroutinefunction(found):
        raise OwnCrawlerError(f"{file}: {name!r} is no coroutine function: it needs {wanted}")
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        raise OwnCrawlerError(
            f"{file}: {name!r} does not take the pages: it needs {wanted}"
        ) from None
    crawl: Crawl = found
    return crawl


def _line_in(path: str, trace: TracebackType | None) -> int:
    """Return the line of a file at which a traceback leaves it for the last time."""
    lines = [line for frame, line in traceback.walk_tb(trace) if frame.f_code.co_filename == path]
    return lines[-1] if lines else 0


def told(error: BaseException, path: str | None) -> str:
    """Return an exception with its traceback, from where it is first in the user's file."""
    trace = error.__traceback__
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename != path:
        at = at.tb_next
    return "".join(traceback.format_exception(type(error), error, at or trace))
