"""What every table of a scenario has in common: frozen, strict, and clear about mistakes."""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def refuse(message: str) -> PydanticCustomError:
    """Return the error of a value that is not allowed; the message says what is."""
    return PydanticCustomError("twbench", "{message}", {"message": message})


Mistake = tuple[tuple[str, ...], str]
"""Where within a table it stands, and what is allowed there."""


def refuse_each(title: str, mistakes: Iterable[str | Mistake]) -> None:
    """Raise one error for each mistake, if there are any; a message alone is on the whole table."""
    placed = [((), mistake) if isinstance(mistake, str) else mistake for mistake in mistakes]
    errors = [
        InitErrorDetails(type=refuse(message), loc=place, input=None) for place, message in placed
    ]
    if errors:
        raise ValidationError.from_exception_data(title, errors)


def _slug(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise refuse("allowed are lower-case letters, digits and hyphens, 64 at most")
    return name


Slug = Annotated[str, AfterValidator(_slug)]
"""A name that can be part of a folder's."""


class Table(BaseModel):
    """A TOML table: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
