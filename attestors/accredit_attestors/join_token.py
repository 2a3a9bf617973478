"""Join tokens as evidence: a secret, handed over once, that admits one agent.

For where nothing else can tell machines apart. The token is ``accredit-join.<id>.<secret>``; the
issuer keeps the id and the SHA-256 of the secret (32 random bytes need no slower hash). Decides
that the token is the recorded one, in time, and for the agent of the manifest. Does not decide
that it is used once: redeeming is the issuer's, in one transaction with what it issues.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Self

from accredit_attestors.contract import (
    Attested,
    CollectContext,
    Evidence,
    JoinTokenRecord,
    VerifyContext,
)
from accredit_attestors.errors import CannotCollect, InvalidEvidence, JoinTokenRefused
from accredit_attestors.files import read_small_file
from accredit_attestors.levels import Assurance
from accredit_credentials.keys import b64url, b64url_decode
from accredit_credentials.spiffe_id import AgentId

__all__ = [
    "ATTESTOR",
    "JoinToken",
    "JoinTokenAttestor",
    "JoinTokenRecord",
    "record_of",
    "token_id",
]

_ID_BYTES = 12
_SECRET_BYTES = 32
_TOKEN = re.compile(
    r"(?P<prefix>[a-z-]{1,32})\.(?P<id>[A-Za-z0-9_-]{16})\.(?P<secret>[A-Za-z0-9_-]{43})"
)
_MAX_FILE_BYTES = 256


@dataclass(frozen=True, slots=True, eq=False)
class JoinToken:
    """A join token. Printing it shows its id only, and ``==`` does not compare secrets."""

    prefix: ClassVar[str] = "accredit-join"
    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Make a token from the system's randomness."""
        return cls(secrets.token_urlsafe(_ID_BYTES), secrets.token_bytes(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a token's one spelling.

        Raises:
            InvalidEvidence: any other form. The text stays out of the message.
        """
        parts = _TOKEN.fullmatch(text)
        form = f"join token must have the form {cls.prefix}.<id>.<secret>"
        if parts is None or parts["prefix"] != cls.prefix:
            raise InvalidEvidence(form)
        try:
            return cls(parts["id"], b64url_decode(parts["secret"]))
        except ValueError:
            raise InvalidEvidence(form) from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a token's file, which must be closed to group and others.

        Raises:
            CannotCollect: the file cannot be used, or holds something else.
        """
        data = read_small_file(path, what="join token", max_bytes=_MAX_FILE_BYTES, private=True)
        try:
            return cls.parse(data.decode("ascii", "replace").strip())
        except InvalidEvidence as error:
            raise CannotCollect(f"{path}: {error}") from None

    def reveal(self) -> str:
        """The token's text, for the one who hands it over."""
        return f"{self.prefix}.{self.id}.{b64url(self.secret)}"

    @property
    def fingerprint(self) -> str:
        """What is kept of the secret: its SHA-256 in hex."""
        return hashlib.sha256(self.secret).hexdigest()

    def matches(self, token_id: str, secret_sha256: str) -> bool:
        """Whether a kept id and fingerprint are of this token; the secret in constant time."""
        return self.id == token_id and hmac.compare_digest(secret_sha256, self.fingerprint)


def record_of(token: JoinToken, *, agent: AgentId, expires_at: datetime) -> JoinTokenRecord:
    """What the issuer keeps of a token that admits ``agent`` until ``expires_at``."""
    return JoinTokenRecord(token.id, token.fingerprint, agent, expires_at)


def token_id(evidence: Evidence) -> str:
    """The id under which the issuer looks the record up; nothing is verified yet.

    Raises:
        InvalidEvidence: the evidence is of another kind, or holds no join token.
    """
    return _token(evidence).id


class JoinTokenAttestor:
    """Evidence: ``{"token": "accredit-join.<id>.<secret>"}``."""

    kind = "join_token"

    def collect(self, context: CollectContext) -> Evidence | None:
        """Read the token's file, which must be closed to group and others."""
        path = context.join_token_file
        if path is None:
            return None
        token = JoinToken.read(path)
        return Evidence(self.kind, context.nonce, {"token": token.reveal()})

    def verify(self, evidence: Evidence, context: VerifyContext) -> Attested:
        """Recognise the token, and check its time and its agent."""
        context.check_bound(evidence, self.kind)
        token, record = _token(evidence), context.join_token
        # The secret first, and one answer for all who do not have it: they learn nothing.
        if record is None or not token.matches(record.id, record.secret_sha256):
            raise JoinTokenRefused("join token is not known")
        if context.now >= record.expires_at:
            raise JoinTokenRefused(f"join token {token.id} expired at {record.expires_at}")
        agent = context.required_manifest(self.kind).manifest.agent
        if agent != record.agent:
            raise JoinTokenRefused(
                f"join token {token.id} admits {record.agent}, the manifest is of {agent}"
            )
        return Attested(self.kind, (f"join_token:id:{token.id}",), Assurance.SELF)


def _token(evidence: Evidence) -> JoinToken:
    if evidence.kind != JoinTokenAttestor.kind:
        raise InvalidEvidence(f"evidence is of kind {evidence.kind}, expected join_token")
    return JoinToken.parse(evidence.members("token").text("token"))


ATTESTOR = JoinTokenAttestor()
