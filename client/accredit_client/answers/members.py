"""One JSON object of an answer, read member by member.

A member that is missing or of another type is an ``InvalidAnswer`` that names it; members that we
do not know are ignored, so that the issuer may say more.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from accredit_client.errors import InvalidAnswer
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.strict_json import NotStrictJson, parse_object

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one JSON object of an answer."""

    values: Mapping[str, Any] = field(repr=False)
    where: str = "answer"

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a body.

        Raises:
            InvalidAnswer: not one JSON object with one meaning.
        """
        try:
            return cls(parse_object(body))
        except NotStrictJson as error:
            raise InvalidAnswer(f"the issuer's answer must be a JSON object: {error}") from None

    def text(self, name: str) -> str:
        """A text, perhaps empty."""
        return self._of_type(name, str, "a text")

    def optional_text(self, name: str) -> str | None:
        """A text, or None where it is null or left out."""
        return None if self.values.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """A whole number."""
        value = self._of_type(name, int, "a whole number")
        if isinstance(value, bool):
            raise self._wrong(name, "a whole number")
        return value

    def optional_number(self, name: str) -> int | None:
        """A whole number, or None where it is null or left out."""
        return None if self.values.get(name) is None else self.number(name)

    def truth(self, name: str) -> bool:
        """True or false."""
        return self._of_type(name, bool, "true or false")

    def amount(self, name: str) -> float:
        """A number, whole or not."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        return float(value)

    def optional_amount(self, name: str) -> float | None:
        """A number, or None where it is null or left out."""
        return None if self.values.get(name) is None else self.amount(name)

    def moment(self, name: str) -> datetime:
        """A moment in RFC 3339, in UTC."""
        try:
            moment = datetime.fromisoformat(self.text(name))
        except ValueError:
            raise self._wrong(name, "a moment in RFC 3339") from None
        if moment.tzinfo is None:
            raise self._wrong(name, "a moment with its time zone")
        return moment.astimezone(UTC)

    def optional_moment(self, name: str) -> datetime | None:
        """A moment, or None where it is null or left out."""
        return None if self.values.get(name) is None else self.moment(name)

    def spiffe_id(self, name: str) -> SpiffeId:
        """A SPIFFE ID."""
        try:
            return SpiffeId.parse(self.text(name))
        except InvalidSpiffeId as error:
            raise InvalidAnswer(f"{self.where}: {error}") from None

    def octets(self, name: str) -> bytes:
        """Bytes in base64."""
        try:
            return base64.b64decode(self.text(name), validate=True)
        except (ValueError, binascii.Error):
            raise self._wrong(name, "base64") from None

    def texts(self, name: str) -> tuple[str, ...]:
        """An array of texts."""
        values = self._of_type(name, list, "an array of texts")
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(name, "an array of texts")
        return tuple(values)

    def optional_texts(self, name: str) -> tuple[str, ...]:
        """An array of texts, empty where it is null or left out."""
        return () if self.values.get(name) is None else self.texts(name)

    def member(self, name: str) -> "Members":
        """An object."""
        return Members(self._of_type(name, dict, "an object"), name)

    def each(self, name: str, read: Callable[["Members"], T]) -> tuple[T, ...]:
        """An array of objects, each read by ``read``."""
        values = self._of_type(name, list, "an array of objects")
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(name, "an array of objects")
        return tuple(read(Members(value, f"{name}[{i}]")) for i, value in enumerate(values))

    def _of_type(self, name: str, kind: type[T], expected: str) -> T:
        value = self.values.get(name)
        if not isinstance(value, kind):
            raise self._wrong(name, expected)
        return value

    def _wrong(self, name: str, expected: str) -> InvalidAnswer:
        return InvalidAnswer(f"the issuer's {self.where} must have {name!r}, {expected}")
