"""What answers carry: credentials as the API shows them."""

from datetime import datetime
from typing import Any

from accredit_credentials.task_token import BindingKind
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.issuance.issuance import IssuedJwt, IssuedTaskToken
from accredit_issuer.registry.listing import text_of


def x509_answer(svid: X509Svid) -> dict[str, Any]:
    """An X.509-SVID."""
    return {
        "spiffe_id": str(svid.spiffe_id),
        "instance": svid.instance,
        "manifest": svid.manifest,
        "serial": svid.serial,
        "certificates": svid.pem,
        "not_before": text_of(svid.not_before),
        "not_after": text_of(svid.not_after),
    }


def jwt_answer(issued: IssuedJwt) -> dict[str, Any]:
    """A JWT-SVID."""
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
