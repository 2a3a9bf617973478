"""One-time tokens of admins: shown once, kept as a hash.

Join tokens of agents are an attestor (``accredit_attestors.join_token``); these are their twin for
people and pipelines.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

from accredit_issuer.errors import Kind, Refusal

_TOKEN = re.compile(r"accredit-enrol\.([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class EnrolmentToken:
    """A secret that its holder can spend once."""

    id: str
    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Make one: 96 bits of name, 256 bits of secret."""
        return cls(secrets.token_urlsafe(12), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.

        Raises:
            Refusal: another form; the text is not repeated.
        """
        match = _TOKEN.fullmatch(text)
        if match is None:
            raise Refusal(Kind.MALFORMED, "token must be a one-time token as 'init' wrote it")
        return cls(match[1], match[2])

    def reveal(self) -> str:
        """The token's text, for the one who is to hold it."""
        return f"accredit-enrol.{self.id}.{self.secret}"

    @property
    def fingerprint(self) -> str:
        """What is kept of it."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, fingerprint: str) -> bool:
        """Whether a kept fingerprint is of this token, in constant time."""
        return hmac.compare_digest(self.fingerprint, fingerprint)
