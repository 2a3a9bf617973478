"""How far a CA's word goes: the namespaces that it may issue for.

A CA that was certified for another issuer of the trust domain carries one subject attribute
``OU=namespace:<name>`` for each namespace. Below it an SVID counts only if it is an agent's of one
of these namespaces: no admin's, no issuer's, nobody else's. A CA without such an attribute is not
limited; of several in one path each has to allow the SVID.

This is Accredit's own rule: other verifiers see a name and nothing that they would enforce.
"""

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from accredit_credentials.errors import Untrusted
from accredit_credentials.spiffe_id import SpiffeId

_PREFIX = "namespace:"
MAX_NAMESPACE_LENGTH = 64 - len(_PREFIX)  # X.520: an organizationalUnitName has 64 characters


def namespace_attributes(namespaces: Iterable[str]) -> list[x509.NameAttribute[str]]:
    """What stands in the subject of a CA that is limited to these namespaces."""
    return [
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"{_PREFIX}{each}")
        for each in namespaces
    ]


def namespaces_of(certificate: x509.Certificate) -> tuple[str, ...] | None:
    """The namespaces that a CA is limited to; None where it is not limited."""
    values = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    named = [str(each.value) for each in values]
    found = tuple(each.removeprefix(_PREFIX) for each in named if each.startswith(_PREFIX))
    return found or None


def check_reach(spiffe_id: SpiffeId, authorities: Sequence[x509.Certificate]) -> None:
    """Decide whether each of the CAs above an SVID may speak for it.

    Raises:
        Untrusted: one of them is limited to namespaces that the SVID is not an agent of.
    """
    for certificate in authorities:
        limited = namespaces_of(certificate)
        if limited is not None and _namespace(spiffe_id) not in limited:
            raise Untrusted(
                f"SVID of {spiffe_id} is below a CA that is limited to agents of "
                f"{', '.join(limited)[:160]!r}"
            )


def _namespace(spiffe_id: SpiffeId) -> str | None:
    match spiffe_id.segments:
        case ("ns", namespace, "agent", _, *_):
            return namespace
    return None
