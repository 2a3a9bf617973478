"""A CRL, written by hand (RFC 5280 §5): entries once, and only what is around them anew.

The library's builder makes an object of each entry and encodes all of them for each CRL: a second
and a half at 100,000. Here an entry stays the bytes that it is; a property test compares whole
CRLs with the builder's, byte for byte.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from accredit_credentials import der
from accredit_credentials.leaf_der import IssuingCa

_VERSION_2 = der.integer(1)
_OID_CRL_NUMBER = bytes.fromhex("0603551d14")
_OID_REASON = bytes.fromhex("0603551d15")
_CERTIFICATE_HOLD = 6  # CRLReason, RFC 5280 §5.3.1
_HELD = der.sequence(
    der.extension(_OID_REASON, der.tlv(der.ENUMERATED, bytes((_CERTIFICATE_HOLD,))))
)
_EXTENSIONS = 0xA0  # [0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What is another in each CRL of one CA, besides the entries.

    Attributes:
        number: grows with each one (§5.2.3).
        this_update: when it was made.
        next_update: when there will be another one at the latest.
    """

    number: int
    this_update: datetime
    next_update: datetime


def entry_of(serial: int, at: datetime, *, suspended: bool) -> bytes:
    """One certificate that is not to be accepted (§5.1.2.6), since ``at``."""
    # An extension of the reason "unspecified" should be left out (§5.3.1).
    reason = _HELD if suspended else b""
    return der.tlv(der.SEQUENCE, der.integer(serial) + der.time(at) + reason)


def tbs_pieces(ca: IssuingCa, entries: Iterable[bytes], times: Times) -> tuple[bytes, ...]:
    """The TBSCertList (§5.1.2) of ``ca``; each of ``entries`` is one or several, encoded.

    In pieces: of 100,000 entries each copy is of four megabytes, and who signs needs none.
    """
    pieces = tuple(entries)
    size = sum(map(len, pieces))
    begin = (
        _VERSION_2
        + der.ECDSA_SHA256
        + ca.subject
        + der.time(times.this_update)
        + der.time(times.next_update)
        # No entries are no list, and not an empty one (§5.1.2.6).
        + (der.head(der.SEQUENCE, size) if size else b"")
    )
    number = der.extension(_OID_CRL_NUMBER, der.integer(times.number))
    end = der.tlv(_EXTENSIONS, der.sequence(number, ca.authority_key))
    whole = der.head(der.SEQUENCE, len(begin) + size + len(end))
    return (whole + begin, *pieces, end)


def crl_of(tbs: Sequence[bytes], signature: bytes) -> bytes:
    """The CertificateList (§5.1.1): the pieces that were signed, and their ECDSA signature."""
    end = der.ECDSA_SHA256 + der.tlv(der.BIT_STRING, b"\0" + signature)
    size = sum(map(len, tbs)) + len(end)
    return b"".join((der.head(der.SEQUENCE, size), *tbs, end))
