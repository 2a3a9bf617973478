"""The signed manifest as evidence, and the front door to everything about manifests.

Attests that a signer of the agent's namespace says what should run. That it does run is for other
evidence: a manifest is public, and whoever has read it can show it. Hence assurance ``self``.

The rest lives in ``declaration`` (what a manifest says), ``statement`` (its wire form), ``signing``
(who may sign) and ``signer_keys``; the names that other packages need are gathered here.
"""

from accredit_attestors.contract import Attested, CollectContext, Evidence, VerifyContext
from accredit_attestors.declaration import (
    Action,
    Artefact,
    Code,
    Delegation,
    Limits,
    Manifest,
    Resource,
    Role,
)
from accredit_attestors.dsse import MAX_ENVELOPE_BYTES
from accredit_attestors.errors import CannotCollect
from accredit_attestors.files import read_small_file
from accredit_attestors.levels import Assurance, Risk
from accredit_attestors.signer_keys import (
    generate_signer_key,
    load_signer_private_key,
    load_signer_public_key,
    public_key_pem,
    save_signer_private_key,
)
from accredit_attestors.signing import Signer, VerifiedManifest, sign, unverified_manifest, verify
from accredit_attestors.statement import manifest_digest

__all__ = [
    "ATTESTOR",
    "Action",
    "Artefact",
    "Assurance",
    "Code",
    "Delegation",
    "Limits",
    "Manifest",
    "ManifestAttestor",
    "Resource",
    "Risk",
    "Role",
    "Signer",
    "VerifiedManifest",
    "generate_signer_key",
    "load_signer_private_key",
    "load_signer_public_key",
    "manifest_digest",
    "public_key_pem",
    "save_signer_private_key",
    "sign",
    "unverified_manifest",
    "verify",
]


class ManifestAttestor:
    """Evidence: ``{"envelope": <the signed manifest>}``."""

    kind = "manifest"

    def collect(self, context: CollectContext) -> Evidence | None:
        """Show the manifest file, unread."""
        if context.manifest_file is None:
            return None
        data = read_small_file(
            context.manifest_file, what="manifest", max_bytes=MAX_ENVELOPE_BYTES, private=False
        )
        try:
            envelope = data.decode()
        except UnicodeDecodeError:
            raise CannotCollect(f"manifest {context.manifest_file} must be UTF-8") from None
        return Evidence(self.kind, context.nonce, {"envelope": envelope})

    def verify(self, evidence: Evidence, context: VerifyContext) -> Attested:
        """Decide who signed the manifest, and select by what it says."""
        context.check_bound(evidence, self.kind)
        envelope = evidence.members("envelope").text("envelope").encode()
        known = context.manifest
        if known is not None and known.envelope == envelope:
            # The same bytes were verified for this very attempt; only time has passed.
            known.manifest.check_valid_at(context.now)
            verified = known
        else:
            verified = verify(envelope, signers=context.signers, now=context.now)
        manifest = verified.manifest
        selectors = (
            f"manifest:agent:{manifest.agent}",
            f"manifest:version:{manifest.version}",
            f"manifest:digest:{verified.digest}",
            f"manifest:signer:{verified.signer}",
        )
        return Attested(self.kind, selectors, Assurance.SELF)


ATTESTOR = ManifestAttestor()
