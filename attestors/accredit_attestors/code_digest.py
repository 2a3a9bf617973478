"""The measured code as evidence.

Attests that the claimant measured the very tree that its manifest declares. The claimant measures
itself, so a liar may send the declared digest without having the code: assurance ``self``. It
keeps honest agents honest (a wrong version, a changed file) and is the same measure that a node
daemon takes from outside. How a tree is measured is in ``tree``.
"""

import hmac

from accredit_attestors.contract import Attested, CollectContext, Evidence, VerifyContext
from accredit_attestors.declaration import check_digest
from accredit_attestors.dsse import MAX_ENVELOPE_BYTES
from accredit_attestors.errors import CodeMismatch, InvalidEvidence, InvalidManifest
from accredit_attestors.files import read_small_file
from accredit_attestors.levels import Assurance
from accredit_attestors.signing import unverified_manifest
from accredit_attestors.tree import Limits, Measured, Selection, measure, measure_file

__all__ = [
    "ATTESTOR",
    "CodeDigestAttestor",
    "Limits",
    "Measured",
    "Selection",
    "measure",
    "measure_file",
]


class CodeDigestAttestor:
    """Evidence: ``{"digest": "sha256:<hex>"}``."""

    kind = "code_digest"

    def collect(self, context: CollectContext) -> Evidence | None:
        """Measure the code as the manifest's own patterns select it."""
        if context.manifest_file is None or context.code_root is None:
            return None
        envelope = read_small_file(
            context.manifest_file, what="manifest", max_bytes=MAX_ENVELOPE_BYTES, private=False
        )
        # Unverified is enough here: other patterns measure another digest, which is then refused.
        selection = unverified_manifest(envelope).code.selection
        digest = measure(context.code_root, selection).digest
        return Evidence(self.kind, context.nonce, {"digest": digest})

    def verify(self, evidence: Evidence, context: VerifyContext) -> Attested:
        """Compare what was measured with what the verified manifest declares."""
        context.check_bound(evidence, self.kind)
        try:
            measured = check_digest(evidence.members("digest").text("digest"), "measured digest")
        except InvalidManifest as error:
            raise InvalidEvidence(str(error)) from None
        declared = context.required_manifest(self.kind).manifest.code.digest
        if not hmac.compare_digest(measured, declared):
            raise CodeMismatch(
                f"code measures {measured}, the manifest declares {declared}",
                hint="the files differ from what was signed: sign a manifest for them, "
                "or deploy the signed version",
            )
        return Attested(self.kind, (f"code:{measured}",), Assurance.SELF)


ATTESTOR = CodeDigestAttestor()
