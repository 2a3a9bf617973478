"""A resource server's world: an agent, an issuer's tokens and facts, and a verifier of them."""

from datetime import datetime, timedelta
from typing import Any

from support.authority import Authority
from support.fake_issuer import AUDIENCE, ISSUER, FakeIssuer

from accredit_client.thumbprint import certificate_thumbprint
from accredit_client.verify import TaskTokenVerifier, TokenRequest
from accredit_credentials.dpop import create_proof
from accredit_credentials.keys import generate_key, jwk_thumbprint
from accredit_credentials.revocation import FactKind, RevocationFact, Target
from accredit_credentials.revocation_feed import FeedState, Statement
from accredit_credentials.task_token import Binding, BindingKind, Presented

URL = f"{AUDIENCE}/tickets/4711"


class World:
    """An agent with a certificate, an issuer's tokens, and a server that checks them."""

    def __init__(self, authority: Authority, now: datetime) -> None:
        self.authority = authority
        self.now = now
        self.fake = FakeIssuer(authority, lambda: self.now)
        self.bundle = authority.bundle
        self.facts = FeedState()
        self.sequence = 0
        self.hear()
        self.identity = authority.issue()
        self.certificate = self.identity.svid.der[0]
        self.holder = certificate_thumbprint(self.certificate)
        self.key = generate_key()

    def hear(self, *targets: str) -> None:
        """Take in a statement with facts about these targets."""
        before = self.sequence
        facts = []
        for target in targets:
            self.sequence += 1
            facts.append(
                RevocationFact(
                    sequence=self.sequence,
                    target=Target.parse(target),
                    kind=FactKind.REVOKED,
                    at=self.now,
                    expires_at=self.now + timedelta(hours=1),
                    reason="canary-reason",
                )
            )
        statement = Statement(
            trust_domain=self.authority.trust_domain,
            after=before,
            through=self.sequence,
            as_of=self.now,
            facts=tuple(facts),
        )
        self.facts.apply(statement, now=self.now)

    def verifier(self, **options: Any) -> TaskTokenVerifier:
        """A verifier of the tickets server."""
        values: dict[str, Any] = {
            "audience": AUDIENCE,
            "issuer": ISSUER,
            "bundle": lambda: self.bundle,
            "facts": self.facts,
            "clock": lambda: self.now,
            **options,
        }
        return TaskTokenVerifier(**values)

    def token(self, **fields: Any) -> str:
        """A token bound to the agent's certificate."""
        bound = Binding(BindingKind.CERTIFICATE, self.holder)
        return self.fake.task_token(**{"binding": bound, **fields})

    def dpop_token(self) -> str:
        """A token bound to the agent's DPoP key."""
        thumbprint = jwk_thumbprint(self.key.public_key())
        return self.fake.task_token(binding=Binding(BindingKind.DPOP_KEY, thumbprint))

    def dpop_request(self, token: str, *, jti: str = "jti", **changed: Any) -> TokenRequest:
        """A request with a proof; ``changed`` says what the proof was made for instead."""
        made_for = {"method": "GET", "url": URL, "access_token": token, "now": self.now, **changed}
        key = made_for.pop("key", self.key)
        proof = create_proof(key, jti=jti, **made_for)
        return TokenRequest(scheme="dpop", token=token, proof=proof, method="GET", url=URL)

    @property
    def presented(self) -> Presented:
        """What the agent shows."""
        return Presented(certificate=self.holder)
