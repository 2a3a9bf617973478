"""The identity that this issuer has at its parent: a folder that ``accredit run`` keeps fresh.

Read anew whenever it is used, as one set: ``.current`` is resolved once, so that a key is never
seen beside another key's certificate. The layout is the client's (docs/client.md).
"""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import X509Identity, parse_pem
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.keys.secret_files import read_guarded

MAX_FILE_BYTES = 1024 * 1024
_SETTING = "upstream.identity_folder"
_CURRENT = ".current"


@dataclass(frozen=True, slots=True)
class ParentIdentity:
    """Who we are at the parent, and the bundle by which we know it."""

    bundle: TrustBundle
    identity: X509Identity = field(repr=False)


def read_parent_identity(folder: Path, trust_domain: TrustDomain) -> ParentIdentity:
    """Read the folder's one set.

    Raises:
        InvalidSettings: unreadable, its key open to others, not of one piece, or of another trust
            domain.
    """
    place = folder / _CURRENT
    place = place.resolve() if place.is_symlink() else folder
    key_pem = read_guarded(_SETTING, place / "svid_key.pem", MAX_FILE_BYTES)
    svid_pem = read_guarded(_SETTING, place / "svid.pem", MAX_FILE_BYTES)
    document = read_guarded(_SETTING, place / "bundle.json", MAX_FILE_BYTES)
    try:
        key = serialization.load_pem_private_key(key_pem, None)
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise InvalidSettings(f"{_SETTING}: {folder} holds a key of another kind")
        svid = parse_pem(svid_pem.decode("ascii"))
        bundle = TrustBundle.parse(trust_domain, document)
        identity = X509Identity.of(svid, key)
    except CredentialError as error:
        raise InvalidSettings(f"{_SETTING}: {folder}: {error}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without its cause: a parser's words may quote what it read.
        raise InvalidSettings(f"{_SETTING}: {folder} does not hold an identity") from None
    if svid.spiffe_id.trust_domain != trust_domain:
        raise InvalidSettings(
            f"{_SETTING}: {folder} is of {svid.spiffe_id.trust_domain}, expected {trust_domain}"
        )
    return ParentIdentity(bundle, identity)
