# ruff: noqa: INP001 - a script of its own
"""A Scrapy spider that follows every link of the lab's sites until it is ended.

twbench exec configs/crawl.toml -- scrapy runspider -L ERROR docs/examples/spider.py
"""

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import scrapy


class Spider(scrapy.Spider):
    """Begins at the first page of each site."""

    name = "lab"
    start_urls: ClassVar[list[str]] = os.environ["TWBENCH_SITES"].split()

    def parse(self, response: Any) -> Iterator[Any]:  # noqa: ANN401 - Scrapy's, of several kinds
        """Follow what a page links to."""
        yield from response.follow_all(css="a")
