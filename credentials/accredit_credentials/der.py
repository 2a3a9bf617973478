"""The little of DER (X.690) that is written and read by hand: tag, length, value.

Only what the fast path of issuing needs, in both directions. ``read`` is strict: one spelling of a
length, nothing beyond the end. Whatever comes from outside is parsed by the library, not here.
"""

from accredit_credentials.errors import InvalidCertificate

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
PRINTABLE_STRING = 0x13
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31

_SHORT = 0x80  # lengths below stand in one byte
_HIGH_TAG = 0x1F


def tlv(tag: int, value: bytes) -> bytes:
    """One value with its tag and length."""
    size = len(value)
    if size < _SHORT:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, _SHORT | len(length))) + length + value


def sequence(*values: bytes) -> bytes:
    """A SEQUENCE of values that are encoded already."""
    return tlv(SEQUENCE, b"".join(values))


def integer(number: int) -> bytes:
    """A non-negative INTEGER: a leading zero byte where the highest bit is set."""
    return tlv(INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


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
