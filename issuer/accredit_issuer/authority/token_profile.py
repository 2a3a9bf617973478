"""What tokens may be signed: the decision before each signature of a JWT or WIT key.

As ``profile`` for certificates: ``TokenProfile.check`` and ``WitProfile.check`` turn the content of
a token into a ``CheckedToken``, and the issuer signs nothing else.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from accredit_credentials.jws import usual_algorithm
from accredit_credentials.jwt_svid import JwtSvid
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.task_token import TaskToken
from accredit_credentials.wit_svid import WitSvid
from accredit_issuer.authority.lifecycle import AuthorityKind, Standing
from accredit_issuer.authority.profile import ProfileViolation

T = TypeVar("T", bound=JwtSvid | TaskToken)
Content = TypeVar("Content", bound=JwtSvid | TaskToken | WitSvid)


@dataclass(frozen=True, slots=True)
class CheckedToken(Generic[Content]):
    """What a profile allows to be signed, by one key. Only the profiles' ``check`` makes one."""

    content: Content
    authority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenProfile:
    """The bounds of one kind of token.

    Attributes:
        trust_domain: the only one to sign for.
        issuer: the only ``iss``.
        max_lifetime: from ``iat`` to ``exp``.
    """

    trust_domain: TrustDomain
    issuer: str
    max_lifetime: timedelta

    def check(self, content: T, authority: str, now: datetime) -> CheckedToken[T]:
        """Decide whether this may be signed by this key now.

        Raises:
            ProfileViolation: it may not; the text says which bound is broken.
        """
        token: JwtSvid | TaskToken = content
        task = token if isinstance(token, TaskToken) else None
        subject = token.client if isinstance(token, TaskToken) else token.spiffe_id
        bounds = (
            ("trust domain", subject.trust_domain == self.trust_domain),
            ("path", bool(subject.path)),
            ("issuer", content.issuer == self.issuer),
            ("key", bool(authority) and content.authority == authority),
            ("iat", content.issued_at == now),
            ("exp", now < content.expires_at <= now + self.max_lifetime),
            ("whole seconds", not content.expires_at.microsecond),
            ("audience", bool(content.audience) and "" not in tuple(content.audience)),
            ("jti", bool(content.jti)),
            ("agent", content.agent is not None),
            ("grants", task is None or bool(task.grants)),
        )
        if broken := ", ".join([name for name, holds in bounds if not holds]):
            kind = "task token" if task else "JWT-SVID"
            raise ProfileViolation(f"{kind} of {subject} breaks its profile: {broken}")
        return CheckedToken(content, authority)


@dataclass(frozen=True, slots=True, kw_only=True)
class WitProfile:
    """The bounds of WIT-SVIDs, which name no issuer and no audience.

    Attributes:
        trust_domain: the only one to sign for.
        max_lifetime: from ``iat`` to ``exp``.
        backdate: from ``nbf`` to ``iat``, for clocks that are behind.
    """

    trust_domain: TrustDomain
    max_lifetime: timedelta
    backdate: timedelta

    def check(self, content: WitSvid, authority: Standing, now: datetime) -> CheckedToken[WitSvid]:
        """Decide whether this may be signed by this key now.

        Raises:
            ProfileViolation: it may not; the text says which bound is broken.
        """
        bounds = (
            ("trust domain", content.spiffe_id.trust_domain == self.trust_domain),
            ("path", bool(content.spiffe_id.path)),
            ("key", authority.kind is AuthorityKind.WIT and content.authority == authority.id),
            ("iat", content.issued_at == now),
            ("nbf", content.not_before == now - self.backdate),
            ("exp", now < content.expires_at <= min(now + self.max_lifetime, authority.expires_at)),
            ("whole seconds", not content.expires_at.microsecond),
            ("cnf", content.algorithm == usual_algorithm(content.key)),
            ("jti", bool(content.jti)),
            ("agent", content.agent is not None),
        )
        if broken := ", ".join([name for name, holds in bounds if not holds]):
            raise ProfileViolation(f"WIT-SVID of {content.spiffe_id} breaks its profile: {broken}")
        return CheckedToken(content, authority.id)
