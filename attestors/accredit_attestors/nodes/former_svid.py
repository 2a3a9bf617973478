"""A node SVID that is over, as evidence: see ``accredit_attestors.former_svid``.

The one kind that a node may show whatever kind it was listed with.
"""

from accredit_attestors.contract import Evidence
from accredit_attestors.errors import FormerSvidRefused
from accredit_attestors.former_svid import KIND, collect_former, verify_former
from accredit_attestors.nodes.contract import (
    NodeAttested,
    NodeCollectContext,
    NodeVerifyContext,
)
from accredit_credentials.spiffe_id import node_id

__all__ = ["ATTESTOR", "KIND", "NodeFormerSvidAttestor"]


class NodeFormerSvidAttestor:
    """Evidence: ``{"serial": hex, "sha256": hex of the DER, "signature": base64url}``."""

    kind = KIND

    def collect(self, context: NodeCollectContext) -> Evidence | None:
        """Sign with the key of the SVID that is over."""
        if context.former is None:
            return None
        return collect_former(context.former, nonce=context.nonce, public_key=context.public_key)

    def verify(self, evidence: Evidence, context: NodeVerifyContext) -> NodeAttested:
        """Recognise the SVID as this node's, and check that its key signed."""
        context.check_bound(evidence, self.kind)
        selector = verify_former(evidence, context.former, context.public_key)
        wanted = node_id(context.trust_domain, context.node.name)
        if context.former is None or context.former.spiffe_id != wanted:
            raise FormerSvidRefused(f"the SVID is not one of the node {context.node.name}")
        return NodeAttested(self.kind, (selector,))


ATTESTOR = NodeFormerSvidAttestor()
