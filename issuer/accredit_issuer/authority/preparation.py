"""New authorities: their keys, and their certificates from whoever is above them.

What is made here is about to be recorded (``steps.Taken``), and signs nothing before it is. A key
whose CA could not be certified is deleted again.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

from cryptography import x509

from accredit_credentials.keys import check_public_key
from accredit_issuer.authority.lifecycle import AuthorityKind, Origin, Standing, State, Step, after
from accredit_issuer.authority.planning import Rules
from accredit_issuer.authority.snapshot import Authority, Snapshot
from accredit_issuer.authority.spent_keys import delete_key
from accredit_issuer.authority.steps import Taken, moved, retired
from accredit_issuer.authority.upstream import CertifiedCa, IssuingCaRequest, RootCa, Upstream
from accredit_issuer.keys.key_manager import KeyManager, ManagedKey


@dataclass(frozen=True, slots=True)
class Asked:
    """What was certified, for a key that was made for it."""

    made: ManagedKey
    certified: CertifiedCa = field(repr=False)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Makes authorities, by the rules of each kind."""

    rules: Rules
    keys: KeyManager
    upstream: Upstream

    def of(
        self,
        kind: AuthorityKind,
        snapshot: Snapshot,
        now: datetime,
        asked: Asked | None = None,
    ) -> list[Taken]:
        """The next authority of a kind; of an issuing CA ``asked`` is what a parent certified.

        Raises:
            Unavailable: no key, or nobody who certifies it, is to be had.
        """
        expires_at = (now + self.rules[kind].lifetime).replace(microsecond=0)
        match kind:
            case AuthorityKind.ROOT:
                return [self._root(now, expires_at)]
            case AuthorityKind.X509:
                asked = asked or self._certified(snapshot.root(), now, expires_at)
                return self._issuing_ca(asked, snapshot, now)
            case AuthorityKind.JWT | AuthorityKind.WIT:
                return [self._token_key(kind, now, expires_at)]

    def ask_parent(self, now: datetime) -> Asked:
        """Have the parent certify an issuing CA; this takes as long as it does.

        Raises:
            Unavailable: no key, or no parent, is to be had.
        """
        lifetime = self.rules[AuthorityKind.X509].lifetime
        return self._certified(None, now, (now + lifetime).replace(microsecond=0))

    def root_of_parent(self, key_id: str, anchor: x509.Certificate, now: datetime) -> Taken:
        """A root of the parent's: to be published, without a key here."""
        standing = replace(
            _prepared(key_id, AuthorityKind.ROOT, now, anchor.not_valid_after_utc),
            origin=Origin.PARENT,
        )
        public = check_public_key(anchor.public_key())
        return Taken(Step.PREPARE, Authority(standing, public, anchor, None))

    def _root(self, now: datetime, expires_at: datetime) -> Taken:
        root = self.upstream.next_root(self.keys, now, expires_at)
        standing = replace(
            _prepared(root.id, AuthorityKind.ROOT, now, root.expires_at),
            origin=self.upstream.origin,
        )
        public = check_public_key(root.certificate.public_key())
        made = Authority(standing, public, root.certificate, root.key, root.above)
        return Taken(Step.PREPARE, made)

    def _certified(self, root: RootCa | None, now: datetime, expires_at: datetime) -> Asked:
        made = self.keys.generate()
        request = IssuingCaRequest(id=made.id, key=made.private, now=now, expires_at=expires_at)
        try:
            return Asked(made, self.upstream.certify(root, request))
        except Exception:
            delete_key(self.keys, made.id)  # another is made when it is tried again
            raise

    def _issuing_ca(self, asked: Asked, snapshot: Snapshot, now: datetime) -> list[Taken]:
        made, certified = asked.made, asked.certified
        certificate = certified.certificate
        standing = replace(
            _prepared(made.id, AuthorityKind.X509, now, certificate.not_valid_after_utc),
            parent=certified.root,
            origin=Origin.PARENT if self.upstream.follows else Origin.OWN,
        )
        public = check_public_key(made.private.public_key())
        made_ca = Authority(standing, public, certificate, made.private, certified.chain)
        return [*self._parents_choice(certified, snapshot, now), Taken(Step.PREPARE, made_ca)]

    def _parents_choice(
        self, certified: CertifiedCa, snapshot: Snapshot, now: datetime
    ) -> list[Taken]:
        """The root that the parent certified with becomes the active one in the same moment."""
        if certified.anchor is None:
            return []
        root = snapshot.find(certified.root)
        if root is not None and root.state is State.ACTIVE:
            return []
        before = retired(snapshot, AuthorityKind.ROOT, now)
        if root is not None:
            return [*before, moved(snapshot, root.id, Step.ACTIVATE, now)]
        new = self.root_of_parent(certified.root, certified.anchor, now)
        standing = after(new.authority.standing, Step.ACTIVATE, now)
        active = replace(new.authority, standing=standing)
        return [*before, new, Taken(Step.ACTIVATE, active)]

    def _token_key(self, kind: AuthorityKind, now: datetime, expires_at: datetime) -> Taken:
        made = self.keys.generate()
        standing = _prepared(made.id, kind, now, expires_at)
        public = check_public_key(made.private.public_key())
        return Taken(Step.PREPARE, Authority(standing, public, None, made.private))


def _prepared(key_id: str, kind: AuthorityKind, now: datetime, expires_at: datetime) -> Standing:
    return Standing(
        id=key_id,
        kind=kind,
        state=State.PREPARED,
        prepared_at=now,
        activated_at=None,
        retired_at=None,
        expires_at=expires_at,
    )
