"""What answers carry: credentials as the API shows them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from accredit_credentials.leaf_der import SignedLeaf, pem_of
from accredit_credentials.task_token import BindingKind
from accredit_issuer.api.problems import document
from accredit_issuer.errors import Refusal
from accredit_issuer.issuance.tokens import IssuedJwt, IssuedTaskToken, IssuedWit
from accredit_issuer.registry.listing import text_of


def x509_answer(leaf: SignedLeaf) -> dict[str, Any]:
    """An X.509-SVID."""
    template = leaf.template
    return {
        "spiffe_id": str(template.spiffe_id),
        "instance": template.instance,
        "manifest": template.manifest,
        "serial": leaf.serial,
        "certificates": leaf.pem,
        "not_before": text_of(template.not_before),
        "not_after": text_of(template.not_after),
    }


def batch_answer(leaves: Sequence[SignedLeaf]) -> dict[str, Any]:
    """X.509-SVIDs of one instance, in the order of their requests; the chain once for all."""
    template = leaves[0].template
    return {
        "spiffe_id": str(template.spiffe_id),
        "instance": template.instance,
        "manifest": template.manifest,
        "not_before": text_of(template.not_before),
        "not_after": text_of(template.not_after),
        "chain": leaves[0].ca.pem,
        "svids": [{"serial": leaf.serial, "certificate": pem_of(leaf.der)} for leaf in leaves],
    }


def instances_answer(outcomes: Sequence[SignedLeaf | Refusal]) -> dict[str, Any]:
    """Outcomes for processes of a node, in the order of their requests: an SVID, or a problem."""
    return {
        "results": [
            {"problem": document(each.kind, each.detail)}
            if isinstance(each, Refusal)
            else {"svid": x509_answer(each)}
            for each in outcomes
        ]
    }


def jwt_answer(issued: IssuedJwt) -> dict[str, Any]:
    """A JWT-SVID."""
    return {
        "spiffe_id": str(issued.svid.spiffe_id),
        "token": issued.token,
        "jti": issued.svid.jti,
        "expires_at": text_of(issued.svid.expires_at),
    }


def wit_answer(issued: IssuedWit) -> dict[str, Any]:
    """A WIT-SVID."""
    return {
        "spiffe_id": str(issued.svid.spiffe_id),
        "token": issued.token,
        "jti": issued.svid.jti,
        "expires_at": text_of(issued.svid.expires_at),
    }


def task_token_answer(issued: IssuedTaskToken, now: datetime) -> dict[str, Any]:
    """A task token (RFC 6749 §5.1, RFC 9449 §5)."""
    content = issued.content
    dpop = content.binding.kind is BindingKind.DPOP_KEY
    return {
        "access_token": issued.token,
        "token_type": "DPoP" if dpop else "Bearer",
        "expires_in": int((content.expires_at - now).total_seconds()),
        "expires_at": text_of(content.expires_at),
        "scope": content.scope,
        "audience": content.audience,
        "jti": content.jti,
        "task": {"id": content.task.id},
    }
