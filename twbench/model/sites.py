"""The web that a server plays and a crawler meets: names, pages and their sizes. Pure.

Everything follows from `[web]` and a seed, so the two sides need not tell each other.
"""

import math
import random
import re
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from twbench.model.crawling import SiteKind, Web

DOMAIN = "test"
"""Reserved for such purposes (RFC 6761 section 6.2)."""
LARGEST_BODY_BYTES = 10_000_000
_GOLDEN = (math.sqrt(5) - 1) / 2
_NORMAL = NormalDist()
_REMEMBERED = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page of a site."""

    redirects_to: int | None
    """The number of the page that it sends to, which has a body; None: it has one itself."""
    body_bytes: int
    links: tuple[int, ...]
    """Numbers of pages of the same site."""


class Sites:
    """What is at which name; sites are numbered from 0, in the order of their popularity."""

    def __init__(self, web: Web, *, median_bytes: int, seed: int) -> None:
        """Take a web, the median size of its bodies in bytes, and the seed of all chances."""
        self.web = web
        self._median_bytes = median_bytes
        self._seed = seed
        self.names = tuple(f"site-{number + 1}.{DOMAIN}" for number in range(web.sites))
        self.page = lru_cache(_REMEMBERED)(self._page)

    def number(self, name: str) -> int | None:
        """Return the number of the site that a Host header names; None: there is none such."""
        found = re.fullmatch(rf"site-([1-9]\d{{0,3}})\.{DOMAIN}(:\d+)?", name.lower())
        number = int(found[1]) if found else 0
        return number - 1 if 1 <= number <= self.web.sites else None

    def kind(self, site: int) -> SiteKind | None:
        """Return in what a site is different; None: in nothing.

        Kinds are spread evenly over the popular and the unpopular (golden ratio sequence).
        """
        at = (site * _GOLDEN) % 1
        for kind in self.web.kinds:
            at -= kind.share
            if at < 0:
                return kind
        return None

    def weights(self) -> tuple[float, ...]:
        """Return how popular each site is, relative to the first (Zipf's law)."""
        return tuple((site + 1) ** -self.web.popularity for site in range(self.web.sites))

    def _page(self, site: int, number: int) -> Page:
        web = self.web
        chance = random.Random(f"{self._seed}/{site}/{number}")
        redirects = chance.random() < web.redirects and number > 0
        spread = math.exp(web.body_sigma * _NORMAL.inv_cdf(chance.uniform(1e-9, 1 - 1e-9)))
        size = min(round(self._median_bytes * spread), LARGEST_BODY_BYTES)
        return Page(
            redirects_to=self._body_before(site, number) if redirects else None,
            body_bytes=size,
            links=tuple(chance.randrange(web.pages) for _ in range(web.links)),
        )

    def _body_before(self, site: int, number: int) -> int:
        """Return the nearest page before this one that has a body; the first always has."""
        before = self.page(site, number - 1).redirects_to
        return number - 1 if before is None else before
