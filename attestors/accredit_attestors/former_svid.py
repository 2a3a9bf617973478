"""An SVID that is over, as evidence: whoever still holds its key was this instance.

For a laptop that slept through its renewal, with no join token at hand. The key signs the nonce and
the new key. Decides that the SVID is one that was issued, and that its key signed. Does not decide
whether it may still speak: that it is over since a bounded time only, that no fact was ever stated
against it and that nobody renewed after it, is decided by the issuer, which has the facts.

Proves who asks, and nothing of what runs: beside it stand the manifest and the code digest. Nodes
show the same (``nodes.former_svid``).
"""

import hmac
import re

from accredit_attestors import possession
from accredit_attestors.contract import (
    Attested,
    CollectContext,
    Evidence,
    FormerRecord,
    VerifyContext,
)
from accredit_attestors.errors import FormerSvidRefused, InvalidEvidence
from accredit_attestors.levels import Assurance
from accredit_attestors.possession import Challenge
from accredit_credentials.x509_svid import X509Identity

__all__ = ["ATTESTOR", "KIND", "FormerSvidAttestor", "collect_former", "serial_of", "verify_former"]

KIND = "former_svid"

_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def serial_of(evidence: Evidence) -> str:
    """The serial number under which the issuer looks the SVID up; nothing is verified yet.

    Raises:
        InvalidEvidence: the evidence is of another kind, or names no serial number.
    """
    if evidence.kind != KIND:
        raise InvalidEvidence(f"evidence is of kind {evidence.kind}, expected {KIND}")
    return _matching(evidence, "serial", _SERIAL, "lower-case hexadecimal")


def collect_former(former: X509Identity, *, nonce: str, public_key: bytes) -> Evidence:
    """Evidence by the key of an SVID that is over, for a new key (DER SubjectPublicKeyInfo)."""
    svid = former.svid
    challenge = Challenge(
        purpose=KIND,
        trust_domain=svid.spiffe_id.trust_domain,
        nonce=nonce,
        public_key=public_key,
    )
    payload = {
        "serial": svid.serial,
        "sha256": svid.sha256,
        "signature": possession.prove(former.key, challenge),
    }
    return Evidence(KIND, nonce, payload)


def verify_former(evidence: Evidence, record: FormerRecord | None, public_key: bytes) -> str:
    """Decide whether the key of a known SVID signed; returns the selector.

    Raises:
        InvalidEvidence: it is not evidence of this kind.
        FormerSvidRefused: no such SVID was issued.
        PossessionRefused: its key did not sign.
    """
    serial = serial_of(evidence)
    digest = _matching(evidence, "sha256", _SHA256, "64 hexadecimal digits")
    signature = evidence.members("serial", "sha256", "signature").text("signature")
    if record is None or record.serial != serial or not hmac.compare_digest(record.sha256, digest):
        raise FormerSvidRefused("no such SVID was issued")
    challenge = Challenge(
        purpose=KIND,
        trust_domain=record.spiffe_id.trust_domain,
        nonce=evidence.nonce,
        public_key=public_key,
    )
    possession.check(record.key, signature, challenge)
    return f"former_svid:serial:{serial}"


class FormerSvidAttestor:
    """Evidence: ``{"serial": hex, "sha256": hex of the DER, "signature": base64url}``."""

    kind = KIND

    def collect(self, context: CollectContext) -> Evidence | None:
        """Sign with the key of the SVID that is over."""
        if context.former is None:
            return None
        return collect_former(context.former, nonce=context.nonce, public_key=context.public_key)

    def verify(self, evidence: Evidence, context: VerifyContext) -> Attested:
        """Recognise the SVID, and check that its key signed."""
        context.check_bound(evidence, self.kind)
        selector = verify_former(evidence, context.former, context.public_key)
        return Attested(self.kind, (selector,), Assurance.SELF)


def _matching(evidence: Evidence, name: str, form: re.Pattern[str], expected: str) -> str:
    text = evidence.members("serial", "sha256", "signature").text(name)
    if not form.fullmatch(text):
        raise InvalidEvidence(f"{name} of {KIND} evidence must be {expected}")
    return text


ATTESTOR = FormerSvidAttestor()
