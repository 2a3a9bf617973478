"""What is wrong with a settings file, in one sentence: which key, by its full name, and why.

Pure: takes what pydantic found and the model that it was read by.
"""

import difflib
from collections.abc import Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError


def said_of(error: ValidationError, settings: type[BaseModel]) -> str:
    """The first thing that is wrong, by the full name of its key."""
    # Found by what it is: where two keys are wrong, a misspelt one explains the missing one.
    errors = error.errors(include_input=False, include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    place = [str(part) for part in first["loc"]]
    name = ".".join(place)
    if first["type"] == "extra_forbidden":
        meant = difflib.get_close_matches(place[-1], _keys_of(settings, place[:-1]), n=1)
        hint = f"; did you mean {meant[0]}?" if meant else ""
        return f"unknown key {_quoted(name)}{hint}"
    if first["type"] == "missing":
        return f"{name} is missing"
    return f"{name}: {first['msg'].removeprefix('Value error, ').lower()}"


def _keys_of(model: type[BaseModel], section: Sequence[str]) -> list[str]:
    for name in section:
        kinds = [model.model_fields[name].annotation]
        kinds += get_args(kinds[0])  # a section that may be left out is a union with None
        model = next(
            kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)
        )
    return list(model.model_fields)


def _quoted(name: str) -> str:
    """A key as it was written, on one line; TOML allows any text in quotes."""
    return name if name.isprintable() else repr(name)
