"""Join tokens as evidence of a node: a secret, handed over once, that admits one host.

The token is ``accredit-node.<id>.<secret>``: its prefix tells it apart from an agent's, so neither
is ever taken for the other. Decides that it is the recorded one, in time, and for this node. Does
not decide that it is used once: redeeming is the issuer's.
"""

from typing import ClassVar

from accredit_attestors.contract import Evidence
from accredit_attestors.errors import InvalidEvidence, JoinTokenRefused
from accredit_attestors.join_token import JoinToken
from accredit_attestors.nodes.contract import (
    NodeAttested,
    NodeCollectContext,
    NodeVerifyContext,
)

__all__ = ["ATTESTOR", "KIND", "NodeJoinToken", "NodeJoinTokenAttestor", "token_of"]

KIND = "join_token"


class NodeJoinToken(JoinToken):
    """A node's join token."""

    __slots__ = ()

    prefix: ClassVar[str] = "accredit-node"


def token_of(evidence: Evidence) -> NodeJoinToken:
    """The token in the evidence; nothing is verified yet.

    Raises:
        InvalidEvidence: the evidence is of another kind, or holds no node's join token.
    """
    if evidence.kind != KIND:
        raise InvalidEvidence(f"evidence is of kind {evidence.kind}, expected {KIND}")
    return NodeJoinToken.parse(evidence.members("token").text("token"))


class NodeJoinTokenAttestor:
    """Evidence: ``{"token": "accredit-node.<id>.<secret>"}``."""

    kind = KIND

    def collect(self, context: NodeCollectContext) -> Evidence | None:
        """Read the token's file, which must be closed to group and others."""
        if context.join_token_file is None:
            return None
        token = NodeJoinToken.read(context.join_token_file)
        return Evidence(self.kind, context.nonce, {"token": token.reveal()})

    def verify(self, evidence: Evidence, context: NodeVerifyContext) -> NodeAttested:
        """Recognise the token, and check its time and its node."""
        context.check_bound(evidence, self.kind)
        token, record = token_of(evidence), context.join_token
        # The secret first, and one answer for all who do not have it: they learn nothing.
        if record is None or not token.matches(record.id, record.secret_sha256):
            raise JoinTokenRefused("join token is not known")
        if context.now >= record.expires_at:
            raise JoinTokenRefused(f"join token {token.id} expired at {record.expires_at}")
        if record.node != context.node.name:
            raise JoinTokenRefused(
                f"join token {token.id} admits the node {record.node}, not {context.node.name}"
            )
        return NodeAttested(self.kind, (f"join_token:id:{token.id}",))


ATTESTOR = NodeJoinTokenAttestor()
