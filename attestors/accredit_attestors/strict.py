"""Reading documents from outside without guessing: JSON text, and the keys of one object.

Refuses a key that is repeated, unknown, missing or of another type, and names it together with
where it stands. Knows nothing about what a document means; the caller says which error to raise.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NoReturn, Self

from accredit_attestors.errors import AttestationError, shown


def load_json(data: bytes, *, what: str, error: type[AttestationError]) -> object:
    """Read one JSON text (RFC 8259) in UTF-8.

    Raises:
        AttestationError: of the given class; not JSON, nested too deep, or a key stands twice.
    """
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except _RepeatedKey as repeated:
        raise error(f"{what} has the key {shown(str(repeated))} twice") from None
    except (ValueError, RecursionError):
        # The parser's own message quotes what it read: it stays out of ours.
        raise error(f"{what} must be JSON in UTF-8") from None


@dataclass(frozen=True, slots=True)
class Members:
    """The keys of one object and their values, read by type.

    In every accessor ``default`` stands in for a missing key; without one the key is required.
    """

    values: Mapping[str, object] = field(repr=False)
    where: str
    error: type[AttestationError]

    @classmethod
    def of(
        cls,
        value: object,
        *,
        where: str,
        error: type[AttestationError],
        known: Collection[str] | None,
    ) -> Self:
        """Read an object that has no other keys than the ``known`` (``None``: any).

        Raises:
            AttestationError: of the given class; not an object, or an unknown key.
        """
        # A dict first: to ask whether it is a mapping of another kind takes ten times as long.
        if not isinstance(value, dict) and not isinstance(value, Mapping):
            raise error(f"{where} must be an object with keys")
        for key in value:
            if not isinstance(key, str) or (known is not None and key not in known):
                expected = ", ".join(known or ())
                raise error(f"{where} has the unknown key {shown(str(key))}, expected {expected}")
        return cls(value, where, error)

    def text(self, key: str, default: str | None = None) -> str:
        """The string under ``key``."""
        if default is not None and key not in self.values:
            return default
        return self._text(self._required(key), f"{self.where}: {key}")

    def integer(self, key: str, default: int | None = None) -> int:
        """The whole number under ``key``; true and false are none."""
        if default is not None and key not in self.values:
            return default
        value = self._required(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"{self.where}: {key} must be a whole number")
        return value

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        """The true or false under ``key``."""
        if default is not None and key not in self.values:
            return default
        value = self._required(key)
        if not isinstance(value, bool):
            raise self.error(f"{self.where}: {key} must be true or false")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """The array of strings under ``key``."""
        if default is not None and key not in self.values:
            return default
        where = f"{self.where}: {key}"
        return tuple(
            self._text(value, f"{where}[{index}]") for index, value in enumerate(self._array(key))
        )

    def members(
        self, key: str, *, known: Collection[str] | None, default: object = None
    ) -> "Members":
        """The object under ``key``."""
        value = self._required(key) if default is None else self.values.get(key, default)
        return Members.of(value, where=self._below(key), error=self.error, known=known)

    def each(
        self, key: str, *, known: Collection[str], default: object = None
    ) -> tuple["Members", ...]:
        """The array of objects under ``key``."""
        if default is not None and key not in self.values:
            return ()
        where = self._below(key)
        return tuple(
            Members.of(value, where=f"{where}[{index}]", error=self.error, known=known)
            for index, value in enumerate(self._array(key))
        )

    def _required(self, key: str) -> object:
        if key not in self.values:
            raise self.error(f"{self.where} must have the key {key!r}")
        return self.values[key]

    def _array(self, key: str) -> list[object]:
        value = self._required(key)
        if not isinstance(value, list):
            raise self.error(f"{self.where}: {key} must be an array")
        return value

    def _text(self, value: object, what: str) -> str:
        # A lone surrogate is a str that no UTF-8 can carry: it would fail later, somewhere else.
        if not isinstance(value, str) or not _is_unicode(value):
            raise self.error(f"{what} must be a string")
        return value

    def _below(self, key: str) -> str:
        return f"{self.where}: {key}"


class _RepeatedKey(ValueError):
    """Carries the key that stands twice in one object."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise _RepeatedKey(key)
        values[key] = value
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's (RFC 8259 §6)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
