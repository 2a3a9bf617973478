"""Who asks: from an agent's SVID to what the registry knows of its holder."""

from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import Claimant
from accredit_issuer.registry.registry import Registry


def claimant_of(registry: Registry, svid: X509Svid) -> Claimant:
    """What is known of the holder of an agent's SVID.

    Raises:
        Refusal: not an agent's, or of an instance or manifest that is not known.
    """
    if svid.instance is None or svid.manifest is None:
        raise Refusal(Kind.FORBIDDEN, f"{svid.spiffe_id} is not an agent")
    instance = registry.instance(svid.instance)
    manifest = registry.manifest(instance.manifest)
    if svid.manifest != instance.manifest:
        raise Refusal(Kind.UNAUTHENTICATED, "the SVID is of another manifest than its instance")
    return Claimant(
        manifest=manifest,
        instance=instance.id,
        assurance=instance.assurance,
        not_after=svid.not_after,
        marks=(
            f"signer:{manifest.signer}",
            f"owner:{manifest.manifest.owner}",
            *(() if instance.node is None else (f"node:{instance.node}",)),
            *svid.marks(),
        ),
    )
