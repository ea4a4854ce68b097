"""An identity: a kernel's figure, the applications' figure, and the named terms between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """left = right + terms; `residual` is what is left over."""

    name: str
    left: int
    right: int
    """The other figure, with the terms added."""
    terms: Mapping[str, int] = field(default_factory=dict)
    """Named effects that are part of `right`, each with its sign."""
    bounds: Mapping[str, int] = field(default_factory=dict)
    """Of the effects that are known only to be no larger than this: how large at the most."""

    @property
    def residual(self) -> int:
        """Return left minus right."""
        return self.left - self.right

    @property
    def explained(self) -> str:
        """Return the terms in words."""
        return "; ".join(
            f"{value:+d} {name}"
            + (f" (at most {self.bounds[name]})" if name in self.bounds else "")
            for name, value in self.terms.items()
        )

    def as_json(self) -> dict[str, Any]:
        """Return the identity as summary.json has it."""
        return {
            "name": self.name,
            "left": self.left,
            "right": self.right,
            "residual": self.residual,
            "explained": self.explained,
        }


def identity(
    name: str, left: int, right: int, *, bounds: Mapping[str, int] | None = None, **terms: int
) -> Identity:
    """Return an identity; `terms` and `bounds` are named in words joined by underscores."""
    named = {_words(key): value for key, value in terms.items() if value}
    return Identity(
        name=name,
        left=left,
        right=right + sum(named.values()),
        terms=named,
        bounds={_words(key): bound for key, bound in (bounds or {}).items()},
    )


def _words(key: str) -> str:
    return key.replace("_", " ")
