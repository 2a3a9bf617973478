"""What may be signed: the decision before each signature.

``Profile.check`` turns a ``LeafTemplate`` into a ``CheckedLeaf``; the signer accepts nothing else,
so a template that was not checked does not type-check. A lifetime is never silently cut: the
caller asks for one that fits, and what does not fit is refused.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from accredit_credentials.keys import check_public_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_template import LeafTemplate
from accredit_issuer.errors import IssuerError

MAX_SERIAL_BITS = 159  # 20 octets, positive (RFC 5280 §4.1.2.2)
MIN_SERIAL_BITS = 64

_MANIFEST = re.compile(r"sha256:[0-9a-f]{64}")
_INSTANCE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ProfileViolation(IssuerError):
    """A template that must not be signed: a fault of ours, never of the caller's."""


@dataclass(frozen=True, slots=True)
class CheckedLeaf:
    """A template that a profile allows, for one issuing CA. Only ``Profile.check`` makes one."""

    template: LeafTemplate
    ca: x509.Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The bounds of one kind of leaf.

    Attributes:
        trust_domain: the only one to sign for.
        max_lifetime: from notBefore, without the backdating, to notAfter.
        backdate: how far notBefore lies in the past, for clocks that are behind.
        dns_names: the only DNS names allowed.
        needs_manifest: whether the leaf is an agent's.
    """

    trust_domain: TrustDomain
    max_lifetime: timedelta
    backdate: timedelta
    dns_names: frozenset[str] = frozenset()
    needs_manifest: bool = True

    def check(self, template: LeafTemplate, ca: x509.Certificate, now: datetime) -> CheckedLeaf:
        """Decide whether this template may be signed by this CA now.

        Raises:
            ProfileViolation: it may not; the text says which bound is broken.
        """
        bounds = {
            "trust domain": template.spiffe_id.trust_domain == self.trust_domain,
            "path": bool(template.spiffe_id.path),
            "serial": MIN_SERIAL_BITS <= template.serial.bit_length() <= MAX_SERIAL_BITS,
            "notBefore": now - self.backdate - timedelta(seconds=1) <= template.not_before <= now,
            "notAfter": now < template.not_after <= now + self.max_lifetime,
            "issuing CA's validity": template.not_after <= ca.not_valid_after_utc,
            "issuing CA's begin": ca.not_valid_before_utc <= now,
            "whole seconds": not template.not_before.microsecond
            and not template.not_after.microsecond,
            "instance": _INSTANCE.fullmatch(template.instance) is not None,
            "manifest": (
                template.manifest is not None and _MANIFEST.fullmatch(template.manifest) is not None
                if self.needs_manifest
                else template.manifest is None
            ),
            "DNS names": self.dns_names.issuperset(template.dns_names),
        }
        check_public_key(template.public_key)
        broken = ", ".join(name for name, holds in bounds.items() if not holds)
        if broken:
            raise ProfileViolation(f"leaf for {template.spiffe_id} breaks its profile: {broken}")
        return CheckedLeaf(template, ca)
