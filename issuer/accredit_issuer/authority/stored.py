"""Whether the database still holds the authorities that were written: pure, over their rows.

Whoever can write the database, and has none of our keys, must not be able to have his own key
published in our name. So an authority's row is believed only as far as it can be proved: by the
private key that is kept under its id, and by the signatures of those above it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Row

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import CredentialError
from accredit_credentials.keys import PublicKey, check_public_key
from accredit_credentials.x509_svid import authority_key_id
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.authority.lifecycle import TOKEN_KINDS, AuthorityKind, Origin
from accredit_issuer.errors import IssuerError


class AuthorityDamaged(IssuerError):
    """An authority's row is not what was written; the text names its id."""

    def __init__(self, key_id: str, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"the database holds another authority {key_id} than was made: {problem}; "
            "restore a backup, and see what 'accredit-issuer audit' finds"
        )


@dataclass(frozen=True, slots=True)
class Stored:
    """An authority's row, read.

    Attributes:
        certificate: of a root or an issuing CA.
        chain: of an issuing CA what lies between it and the trust anchor, of a root what is above
            it, nearest first.
        parent: the id of the root that certified an issuing CA.
        is_given: whether it is a root that somebody else made, of whose key we hold nothing.
    """

    id: str
    public: PublicKey = field(repr=False)
    certificate: x509.Certificate | None = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    parent: str | None
    is_given: bool

    @classmethod
    def of_row(cls, row: Row[Any]) -> Self:
        """Read a row.

        Raises:
            AuthorityDamaged: it cannot be read, or its key is not the one that its id says.
        """
        certificate: x509.Certificate | None = None
        try:
            pem = row.public.encode()
            if row.kind in TOKEN_KINDS:
                public = check_public_key(serialization.load_pem_public_key(pem))
            else:
                certificate = x509.load_pem_x509_certificate(pem)
                public = check_public_key(certificate.public_key())
            chain = x509.load_pem_x509_certificates(row.chain.encode()) if row.chain else []
            is_given = row.kind == AuthorityKind.ROOT.value and row.origin != Origin.OWN.value
            known = (
                subject_key_id(certificate)
                if is_given and certificate is not None
                else x509.SubjectKeyIdentifier.from_public_key(public).digest.hex()
            )
            parent = row.parent
            if row.kind == AuthorityKind.X509.value and certificate is not None:
                # Made before parents were written down: its certificate says who signed it.
                parent = parent or authority_key_id(certificate)
        except (*UNREADABLE, CredentialError, x509.ExtensionNotFound) as error:
            raise AuthorityDamaged(row.id, "its public part cannot be read") from error
        if known != row.id:
            raise AuthorityDamaged(row.id, "its public key is not the one that its id says")
        return cls(row.id, public, certificate, tuple(chain), parent, is_given)


def check_held(stored: Stored, private: ec.EllipticCurvePrivateKey) -> None:
    """Decide whether the row is of the private key that is kept under its id.

    Raises:
        AuthorityDamaged: it is of another.
    """
    if stored.public != private.public_key():
        raise AuthorityDamaged(stored.id, "its public key is not that of the private key")


def check_certified(authorities: Iterable[Stored], roots: Mapping[str, Stored]) -> None:
    """Decide whether each certificate was signed by what the rows say is above it.

    ``roots`` are all that are known, by their ids, removed ones too.

    Raises:
        AuthorityDamaged: it was not.
    """
    for each in authorities:
        if each.certificate is None:
            continue
        path = [each.certificate, *each.chain]
        if each.id in roots:
            if path[-1].issuer == path[-1].subject:
                path.append(path[-1])
        else:
            anchor = _anchor(roots.get(each.parent or ""))
            if anchor is None:
                raise AuthorityDamaged(each.id, "the root that certified it is not there")
            path.append(anchor)
        if not _is_chain(path):
            raise AuthorityDamaged(each.id, "what is above it did not sign its certificate")


def _anchor(root: Stored | None) -> x509.Certificate | None:
    """What the bundle publishes of a root: itself, or what is highest above it."""
    if root is None:
        return None
    return root.chain[-1] if root.chain else root.certificate


def _is_chain(path: Sequence[x509.Certificate]) -> bool:
    try:
        for below, above in pairwise(path):
            below.verify_directly_issued_by(above)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
