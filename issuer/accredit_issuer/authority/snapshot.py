"""The authorities in use at one moment, and the bundle that they make.

A ``Snapshot`` is never changed: a step makes the next one (``steps``), and ``Authorities`` puts it
in its place once the step is recorded.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import PublicKey
from accredit_issuer.authority.lifecycle import AuthorityKind, Standing, State
from accredit_issuer.authority.upstream import RootCa
from accredit_issuer.errors import Unavailable
from accredit_issuer.settings import Config

IsRevoked = Callable[[str], bool]
"""Whether a fact is against the authority with this id."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A key that signs, with its private part where it still may."""

    standing: Standing
    public: PublicKey = field(repr=False)
    certificate: x509.Certificate | None = field(repr=False)
    key: ec.EllipticCurvePrivateKey | None = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(default=(), repr=False)
    """Of an issuing CA, what is between it and the trust anchor; of a root, what is above it, the
    anchor last."""

    @property
    def anchor(self) -> x509.Certificate | None:
        """What the bundle publishes of a root."""
        return self.chain[-1] if self.chain else self.certificate

    @property
    def id(self) -> str:
        """The key id in hexadecimal."""
        return self.standing.id

    @property
    def kind(self) -> AuthorityKind:
        """What it signs."""
        return self.standing.kind

    @property
    def state(self) -> State:
        """Where it stands in its life."""
        return self.standing.state

    @property
    def signing_key(self) -> ec.EllipticCurvePrivateKey:
        """Its private key.

        Raises:
            Unavailable: it is not held any more.
        """
        if self.key is None:
            raise Unavailable(f"the key of the {self.kind.value} authority is not held any more")
        return self.key


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All authorities in use at one moment, and the bundle that they make."""

    authorities: tuple[Authority, ...]
    sequence: int
    bundle: TrustBundle

    @classmethod
    def of(
        cls,
        authorities: Iterable[Authority],
        sequence: int,
        *,
        config: Config,
        is_revoked: IsRevoked,
    ) -> Self:
        """Make the bundle of these authorities."""
        # In an order of their own: one sequence number is one document, past a restart too.
        ordered = tuple(sorted(authorities, key=lambda a: (a.standing.prepared_at, a.id)))
        roots = _published(ordered, AuthorityKind.ROOT)
        bundle = TrustBundle(
            trust_domain=config.trust_domain,
            # Two that were given may have one anchor.
            x509_authorities=tuple(dict.fromkeys(a.anchor for a in roots if a.anchor)),
            jwt_authorities=token_keys(ordered, AuthorityKind.JWT, is_revoked),
            sequence=sequence,
            refresh_hint=config.refresh_hint,
            tainted=frozenset(a.id for a in ordered if a.state is State.TAINTED),
            wit_authorities=token_keys(ordered, AuthorityKind.WIT, is_revoked),
        )
        return cls(ordered, sequence, bundle)

    def find(self, wanted: str) -> Authority | None:
        """The one with this id, if it is in use."""
        return next((a for a in self.authorities if a.id == wanted), None)

    def active(self, kind: AuthorityKind) -> Authority:
        """The one that signs.

        Raises:
            Unavailable: there is none.
        """
        for authority in self.authorities:
            if authority.kind is kind and authority.state is State.ACTIVE:
                return authority
        raise Unavailable(f"no active authority of the kind {kind.value}")

    def published(self, kind: AuthorityKind) -> tuple[Authority, ...]:
        """Those that relying parties have to know."""
        return _published(self.authorities, kind)

    def publishes_by(self, is_revoked: IsRevoked) -> bool:
        """Whether the bundle has the keys of tokens that it should have by the facts of now."""
        published = (
            (AuthorityKind.JWT, self.bundle.jwt_authorities),
            (AuthorityKind.WIT, self.bundle.wit_authorities),
        )
        return all(
            token_keys(self.authorities, kind, is_revoked).keys() == keys.keys()
            for kind, keys in published
        )

    def root(self) -> RootCa:
        """The active root, as what certifies issuing CAs.

        Raises:
            Unavailable: there is none.
        """
        active = self.active(AuthorityKind.ROOT)
        if active.certificate is None:
            raise Unavailable("the root has no certificate")
        return RootCa(
            id=active.id, certificate=active.certificate, above=active.chain, key=active.key
        )


def token_keys(
    authorities: Iterable[Authority], kind: AuthorityKind, is_revoked: IsRevoked
) -> dict[str, PublicKey]:
    """The keys of one kind of token that the bundle publishes, by their id."""
    # Not a revoked one: whoever has it could go on signing with it.
    published = _published(authorities, kind)
    return {a.id: a.public for a in published if not is_revoked(a.id)}


def _published(authorities: Iterable[Authority], kind: AuthorityKind) -> tuple[Authority, ...]:
    return tuple(a for a in authorities if a.kind is kind and a.state is not State.REMOVED)
