"""The little of DER (X.690) that is written and read by hand: tag, length, value.

Only what leaves and CRLs need, in both directions. ``read`` is strict: one spelling of a
length, nothing beyond the end. Whatever comes from outside is parsed by the library, not here.
"""

from datetime import datetime
from functools import lru_cache

from accredit_credentials.errors import InvalidCertificate

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
ENUMERATED = 0x0A
PRINTABLE_STRING = 0x13
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31

GENERALIZED_FROM = 2050  # RFC 5280 §4.1.2.5: UTCTime through the year 2049
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # RFC 5758 §3.2: no parameters

_SHORT = 0x80  # lengths below stand in one byte
_HIGH_TAG = 0x1F


def tlv(tag: int, value: bytes) -> bytes:
    """One value with its tag and length."""
    return head(tag, len(value)) + value


def head(tag: int, size: int) -> bytes:
    """Tag and length of a value of ``size`` bytes."""
    if size < _SHORT:
        return bytes((tag, size))
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, _SHORT | len(length))) + length


def sequence(*values: bytes) -> bytes:
    """A SEQUENCE of values that are encoded already."""
    return tlv(SEQUENCE, b"".join(values))


def integer(number: int) -> bytes:
    """A non-negative INTEGER: a leading zero byte where the highest bit is set."""
    return tlv(INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def extension(oid: bytes, value: bytes) -> bytes:
    """An extension (RFC 5280 §4.2) that is not critical; ``oid`` is encoded already."""
    return tlv(SEQUENCE, oid + tlv(OCTET_STRING, value))


@lru_cache(maxsize=256)  # whole seconds: what is made in one of them has it in common
def time(moment: datetime) -> bytes:
    """A moment of UTC as a Time (RFC 5280 §4.1.2.5), in whole seconds."""
    if moment.year < GENERALIZED_FROM:
        return tlv(UTC_TIME, f"{moment:%y%m%d%H%M%S}Z".encode("ascii"))
    return tlv(GENERALIZED_TIME, f"{moment:%Y%m%d%H%M%S}Z".encode("ascii"))


def read(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Where the value at ``at`` begins and ends; it must have this tag and end by ``end``.

    Raises:
        InvalidCertificate: another tag, a length in another spelling than DER's, or too long.
    """
    if at + 2 > end or data[at] != tag:
        raise InvalidCertificate(f"DER has no {tag:#04x} at byte {at}")
    size, begin = data[at + 1], at + 2
    if size >= _SHORT:
        octets = size & 0x7F
        begin += octets
        size = int.from_bytes(data[at + 2 : begin])
        if not octets or size < _SHORT or size.bit_length() <= 8 * (octets - 1):
            raise InvalidCertificate(f"DER has a length at byte {at} that is not the shortest")
    if begin + size > end:
        raise InvalidCertificate(f"DER ends within the value at byte {at}")
    return begin, begin + size


def next_tag(data: bytes, at: int, end: int) -> int | None:
    """The tag at ``at``; None at the end.

    Raises:
        InvalidCertificate: a tag of several bytes, which nothing of ours has.
    """
    if at >= end:
        return None
    if data[at] & _HIGH_TAG == _HIGH_TAG:
        raise InvalidCertificate(f"DER has a long tag at byte {at}")
    return data[at]
