"""How many CAs may stand below a CA, counted as nobody can talk their way around it.

RFC 5280 §4.2.1.9 leaves self-issued certificates out of the count, and OpenSSL does. A CA that may
have none below it could then put any number of new keys below itself, each under its own name. Here
each certificate counts, as it does for ``x509_svid.validate``.
"""

from collections.abc import Sequence

from cryptography import x509

from accredit_credentials.bundle import UNREADABLE
from accredit_credentials.errors import InvalidCertificate, Untrusted


def check_path_lengths(authorities: Sequence[x509.Certificate]) -> None:
    """Decide whether each of the CAs above a leaf allows those below it; nearest to the leaf first.

    Raises:
        InvalidCertificate: one of them has no basicConstraints that can be read.
        Untrusted: below one of them are more than it allows.
    """
    for below, certificate in enumerate(authorities):
        try:
            extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except (x509.ExtensionNotFound, *UNREADABLE) as error:
            raise InvalidCertificate("an authority has no basicConstraints to be read") from error
        allowed = extension.value.path_length
        if allowed is not None and below > allowed:
            raise Untrusted(f"{below} CAs stand below one that allows {allowed}")
