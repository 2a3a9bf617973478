"""JSON objects with one meaning: no duplicate keys, no NaN, no lone surrogates, no endless depth.

Two parsers that disagree about a document are two documents. Everything signed that Accredit
reads goes through here, once its size was bounded by the caller.
"""

import json
import math
import re
from typing import Any, NoReturn


class NotStrictJson(ValueError):
    """The text is not one JSON object with one meaning."""


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        NotStrictJson: not UTF-8, not JSON, not an object, duplicate keys, NaN, Infinity or a number
            that overflows to it, half of a surrogate pair.
    """
    try:
        document = text if isinstance(text, str) else text.decode()
        value = _DECODER.decode(document)
        if isinstance(text, str) or ("\\u" in document and _SURROGATE_ESCAPE.search(document)):
            # Half of a pair is no character (RFC 7493 §2.1): it would parse here and fail later,
            # wherever the text is hashed, stored or logged.
            json.dumps(value, ensure_ascii=False).encode()
    except NotStrictJson:
        raise
    except RecursionError:
        raise NotStrictJson("nested too deeply") from None
    except ValueError:
        raise NotStrictJson("not JSON") from None
    if not isinstance(value, dict):
        raise NotStrictJson("not an object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrictJson("a member stands twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise NotStrictJson(f"{name} is not a JSON number")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise NotStrictJson("a number is too large")
    return value


_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_constant=_no_constant, parse_float=_finite
)
