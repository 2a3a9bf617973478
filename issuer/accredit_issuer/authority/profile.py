"""What may be signed: the decision before each signature.

``Profile.check`` turns a ``LeafTemplate`` into a ``CheckedLeaf``: the template is within the
bounds, and the bytes that will be signed were read again and are what it says (``leaf_lint``). The
signer accepts nothing else, so what was not checked does not type-check. A lifetime is never
silently cut: the caller asks for one that fits, and what does not fit is refused.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from accredit_credentials.keys import check_public_key
from accredit_credentials.leaf_der import IssuingCa, tbs_of
from accredit_credentials.leaf_lint import LintedLeaf, lint
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_template import LeafTemplate
from accredit_issuer.errors import IssuerError

SERIAL_BITS = 159  # 20 octets, positive (RFC 5280 §4.1.2.2)
REPLICA_BITS = 16
RANDOM_BITS = SERIAL_BITS - 1 - REPLICA_BITS  # 142
MAX_REPLICA = (1 << REPLICA_BITS) - 1

_SECOND = timedelta(seconds=1)
_MANIFEST = re.compile(r"sha256:[0-9a-f]{64}")
_INSTANCE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ProfileViolation(IssuerError):
    """A template that must not be signed: a fault of ours, never of the caller's."""


@dataclass(frozen=True, slots=True)
class CheckedLeaf:
    """What a profile allows to be signed. Only ``Profile.check`` makes one."""

    linted: LintedLeaf

    @property
    def template(self) -> LeafTemplate:
        """What the leaf says."""
        return self.linted.template

    @property
    def ca(self) -> IssuingCa:
        """The only CA that may sign it."""
        return self.linted.ca


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The bounds of one kind of leaf.

    Attributes:
        trust_domain: the only one to sign for.
        max_lifetime: from notBefore, without the backdating, to notAfter.
        backdate: how far notBefore lies in the past, for clocks that are behind.
        replica: whose serial numbers these are.
        dns_names: the only DNS names allowed.
        needs_manifest: whether the leaf is an agent's.
    """

    trust_domain: TrustDomain
    max_lifetime: timedelta
    backdate: timedelta
    replica: int = 0
    dns_names: frozenset[str] = frozenset()
    needs_manifest: bool = True

    def check(self, template: LeafTemplate, ca: IssuingCa, now: datetime) -> CheckedLeaf:
        """Decide whether this template may be signed by this CA now.

        Raises:
            ProfileViolation: it may not; the text says which bound is broken.
            InvalidKey: a key that nothing is bound to.
            InvalidCertificate: the bytes are not what the template says.
        """
        check_public_key(template.subject_key.key)
        begin, end = template.not_before, template.not_after
        bounds = (
            ("trust domain", template.spiffe_id.trust_domain == self.trust_domain),
            ("path", bool(template.spiffe_id.path)),
            ("serial", template.serial >> RANDOM_BITS == 1 << REPLICA_BITS | self.replica),
            ("notBefore", now - self.backdate - _SECOND <= begin <= now),
            ("notAfter", now < end <= now + self.max_lifetime),
            ("issuing CA's validity", end <= ca.not_after),
            ("issuing CA's begin", ca.not_before <= now),
            ("whole seconds", not begin.microsecond and not end.microsecond),
            ("instance", _INSTANCE.fullmatch(template.instance) is not None),
            ("manifest", self._allows_manifest(template.manifest)),
            ("DNS names", self.dns_names.issuperset(template.dns_names)),
        )
        if broken := ", ".join([name for name, holds in bounds if not holds]):
            raise ProfileViolation(f"leaf for {template.spiffe_id} breaks its profile: {broken}")
        return CheckedLeaf(lint(tbs_of(template, ca), template, ca))

    def _allows_manifest(self, manifest: str | None) -> bool:
        if manifest is None or not self.needs_manifest:
            return manifest is None and not self.needs_manifest
        return _MANIFEST.fullmatch(manifest) is not None


def new_serial(replica: int = 0) -> int:
    """A serial number of 159 bits: a one, the replica's 16 bits, 142 random bits.

    Two replicas never make the same one, and nobody can say which comes next (RFC 5280 §4.1.2.2,
    CA/Browser Forum Baseline Requirements §7.1: at least 64 bits of a CSPRNG).
    """
    random = int.from_bytes(_RANDOM.take()) >> (8 * _Block.SIZE - RANDOM_BITS)
    return (1 << REPLICA_BITS | replica) << RANDOM_BITS | random


class _Block:
    """Random bytes, fetched many at once: to ask the system for a few costs as much."""

    SIZE = 18  # bytes, of which RANDOM_BITS are used
    _AT_ONCE = 200

    def __init__(self) -> None:
        self._left: list[bytes] = []

    def take(self) -> bytes:
        """Bytes that nobody else gets."""
        while True:
            try:
                return self._left.pop()
            except IndexError:
                block = secrets.token_bytes(self.SIZE * self._AT_ONCE)
                self._left += [block[at : at + self.SIZE] for at in range(0, len(block), self.SIZE)]


_RANDOM = _Block()
