"""One task's token, held for as long as it is good: when to ask for another, and what to ask.

Pure: ``TaskTokens`` remembers and decides, ``http`` fetches. A token is asked for again at half of
its life, once the certificate that it is bound to was renewed, once the key that signed it is
tainted (what it signed may be refused any moment), and once a server has refused it.
The first token begins the task; the later ones are for the same task.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from accredit_client.answers import TaskTokenAnswer
from accredit_client.calls import TaskTokenRequest
from accredit_client.thumbprint import certificate_thumbprint
from accredit_credentials import jws, task_token
from accredit_credentials.dpop import create_proof
from accredit_credentials.errors import InvalidToken
from accredit_credentials.keys import PrivateKey, check_public_key, generate_key, jwk_thumbprint
from accredit_credentials.x509_svid import X509Identity

_JTI_BYTES = 16


class TokenBinding(StrEnum):
    """What a token is bound to, as the issuer is asked for it."""

    CERTIFICATE = "certificate"
    DPOP = "dpop"
    BEARER = "bearer"  # only where the manifest allows it


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token and when it was obtained.

    Attributes:
        answer: with the token.
        obtained_at: by our clock.
        certificate: the thumbprint of the certificate that it is bound to.
        authority: the id of the key that signed it.
    """

    answer: TaskTokenAnswer = field(repr=False)
    obtained_at: datetime
    certificate: str | None
    authority: str | None = None

    def good(self, now: datetime) -> bool:
        """Whether it may be sent."""
        return now < self.answer.expires_at

    def young(self, now: datetime) -> bool:
        """Whether it is in the first half of its life."""
        return now < self.obtained_at + (self.answer.expires_at - self.obtained_at) / 2


class TaskTokens:
    """The token of one task. Not locked: whoever fetches sees to it that one fetches."""

    def __init__(
        self,
        *,
        resource: str,
        actions: Sequence[str],
        purpose: str,
        binding: TokenBinding | str,
        principal: str | None,
        task_id: str | None,
        parent: str | None,
    ) -> None:
        if isinstance(actions, str) or not actions:
            raise ValueError("actions must name one action or more, in a list")
        self._binding = TokenBinding(binding)
        self._key: PrivateKey | None = None
        jkt: str | None = None
        if self._binding is TokenBinding.DPOP:
            self._key = generate_key()
            jkt = jwk_thumbprint(check_public_key(self._key.public_key()))
        self._first = TaskTokenRequest(
            resource=resource,
            actions=tuple(actions),
            purpose=purpose,
            task_id=task_id,
            parent=parent,
            principal=principal,
            binding=self._binding.value,
            jkt=jkt,
        )
        self._held: HeldToken | None = None
        self._shown: tuple[X509Identity, str] | None = None

    def current(
        self,
        now: datetime,
        identity: X509Identity,
        refused: HeldToken | None = None,
        *,
        tainted: Collection[str] = (),
    ) -> HeldToken | None:
        """The token to send, or None where another is due."""
        held = self._held
        if held is None or held is refused or not held.young(now) or held.authority in tainted:
            return None
        return held if self._fits(held, identity) else None

    def fallback(
        self, now: datetime, identity: X509Identity, refused: HeldToken | None = None
    ) -> HeldToken | None:
        """The token to send where another was due and could not be had."""
        held = self._held
        if held is None or held is refused or not held.good(now):
            return None
        return held if self._fits(held, identity) else None

    def request(self) -> TaskTokenRequest:
        """What to ask for."""
        if self._held is None:
            return self._first
        first = self._first
        return TaskTokenRequest(
            resource=first.resource,
            actions=first.actions,
            purpose=first.purpose,
            task_id=self._held.answer.task_id,
            principal=first.principal,
            binding=first.binding,
            jkt=first.jkt,
        )

    def hold(self, answer: TaskTokenAnswer, now: datetime) -> HeldToken:
        """Take in a token."""
        certificate, authority = _read(answer.access_token)
        if self._binding is not TokenBinding.CERTIFICATE:
            certificate = None
        self._held = HeldToken(answer, now, certificate, authority)
        return self._held

    def headers(
        self, held: HeldToken, *, method: str, url: str, now: datetime
    ) -> tuple[tuple[str, str], ...]:
        """The headers of one request; a DPoP proof is good for this one only."""
        token = held.answer.access_token
        if self._key is None:
            return (("Authorization", f"Bearer {token}"),)
        proof = create_proof(
            self._key,
            method=method,
            url=url,
            access_token=token,
            jti=secrets.token_urlsafe(_JTI_BYTES),
            now=now,
        )
        return (("Authorization", f"DPoP {token}"), ("DPoP", proof))

    def _fits(self, held: HeldToken, identity: X509Identity) -> bool:
        """Whether a token is bound to the certificate that new connections show."""
        if held.certificate is None:
            return True
        if self._shown is None or self._shown[0] is not identity:
            self._shown = (identity, certificate_thumbprint(identity.svid.der[0]))
        return held.certificate == self._shown[1]


def _read(token: str) -> tuple[str | None, str | None]:
    """The thumbprint in a token's ``cnf``, and its key. The server verifies; we ask only when."""
    try:
        unverified = jws.parse(token, types=task_token.TYPES)
        authority = unverified.kid
    except InvalidToken:
        return None, None
    confirmation = unverified.claims.get("cnf")
    bound = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    return bound if isinstance(bound, str) else None, authority
