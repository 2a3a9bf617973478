"""Token Status Lists: one small signed document says of many tokens whether they still stand.

draft-ietf-oauth-status-list-21, its JWT form. A token names a list and its own index in it
(``StatusReference``, the claim ``status``); the list (``statuslist+jwt``) has so many bits for each
index, compressed. Whoever has the list decides offline, and nobody learns which token it asked for.

Decided here: the form of both, the list's signature and time (``verify``), and what the list says
of one token (``check``). A list that is missing or over says no, an index outside of it is an
error, and a value other than ``VALID`` is never good, whatever it may mean one day. A profile: a
list must say when it is over, which the draft only recommends.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any, TypeGuard

from accredit_credentials import jws
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import (
    InvalidStatusList,
    InvalidToken,
    Revoked,
    Stale,
    Untrusted,
)
from accredit_credentials.jwt_svid import CLOCK_LEEWAY
from accredit_credentials.keys import PrivateKey, b64url, b64url_decode

TYPE = "statuslist+jwt"
TYPES: frozenset[str | None] = frozenset({TYPE})
MEDIA_TYPE = f"application/{TYPE}"
BITS = frozenset({1, 2, 4, 8})
MAX_OCTETS = 1024 * 1024  # of a list that is not compressed, and of one that is
MAX_TOKEN_CHARS = 2 * MAX_OCTETS
MAX_URI_LENGTH = 2048
MAX_INDEX = 8 * MAX_OCTETS - 1
_BITS_OF_OCTET = 8


class Status(IntEnum):
    """The values that we give (§7.1); all others are somebody's own, or of days to come."""

    VALID = 0
    INVALID = 1
    SUSPENDED = 2


@dataclass(frozen=True, slots=True)
class StatusReference:
    """Where a token's status stands: an index of the list at ``uri`` (§6.2)."""

    index: int
    uri: str

    def to_claim(self) -> dict[str, Any]:
        """The value of the claim ``status``."""
        return {"status_list": {"idx": self.index, "uri": self.uri}}

    @classmethod
    def of_claims(cls, claims: Mapping[str, Any]) -> "StatusReference | None":
        """Read a token's claim ``status``; None where it has none, or names no list.

        Raises:
            InvalidToken: it names a list in another form.
        """
        status = claims.get("status")
        if status is None:
            return None
        if not isinstance(status, dict):
            raise InvalidToken("token's status must be an object")
        named = status.get("status_list")
        if named is None:  # another mechanism, which a verifier may not know (§6.1)
            return None
        if not isinstance(named, dict):
            raise InvalidToken("token's status_list must be an object")
        index = named.get("idx")
        if not _is_number(index) or not 0 <= index <= MAX_INDEX:
            raise InvalidToken(f"token's status_list must have an 'idx' of 0 to {MAX_INDEX}")
        uri = jws.text_claim(named, "uri")
        if len(uri) > MAX_URI_LENGTH:
            raise InvalidToken(f"token's status_list has a uri of more than {MAX_URI_LENGTH}")
        return cls(index, uri)


@dataclass(frozen=True, slots=True)
class StatusList:
    """The statuses themselves (§4.1).

    Attributes:
        bits: of each status: 1, 2, 4 or 8.
        octets: the statuses one after the other, in each octet from its lowest bit.
    """

    bits: int
    octets: bytes = field(repr=False)

    @classmethod
    def of_values(cls, values: Mapping[int, int], *, size: int, bits: int) -> "StatusList":
        """A list of ``size`` statuses: those of ``values`` by index, all others valid.

        Raises:
            InvalidStatusList: an index or a value that the list has no room for.
        """
        _check_bits(bits)
        if not 0 < size * bits <= MAX_OCTETS * _BITS_OF_OCTET:
            raise InvalidStatusList(f"a status list of {size} statuses is too long, or empty")
        octets = bytearray(-(-size * bits // _BITS_OF_OCTET))
        for index, value in values.items():
            put(octets, index, value, bits=bits)
        return cls(bits, bytes(octets))

    @property
    def size(self) -> int:
        """How many indexes it has."""
        return len(self.octets) * _BITS_OF_OCTET // self.bits

    def value(self, index: int) -> int:
        """The status of an index.

        Raises:
            InvalidStatusList: it has no such index.
        """
        if not 0 <= index < self.size:
            raise InvalidStatusList(f"status list has no index {index}, it has {self.size}")
        position, shift = _place(index, self.bits)
        return self.octets[position] >> shift & ((1 << self.bits) - 1)

    def to_claim(self) -> dict[str, Any]:
        """The value of the claim ``status_list`` (§4.2)."""
        return {"bits": self.bits, "lst": b64url(zlib.compress(self.octets, level=9))}

    @classmethod
    def of_claim(cls, value: object) -> "StatusList":
        """Read the claim ``status_list``; members that we do not know are passed over.

        Raises:
            InvalidStatusList: of another form, or larger than anybody should have to unpack.
        """
        if not isinstance(value, dict):
            raise InvalidStatusList("status list must have the claim 'status_list', an object")
        bits, text = value.get("bits"), value.get("lst")
        if not _is_number(bits):
            raise InvalidStatusList("status list must have 'bits', a number")
        _check_bits(bits)
        if not isinstance(text, str):
            raise InvalidStatusList("status list must have 'lst', a text")
        try:
            compressed = b64url_decode(text)
        except ValueError:
            raise InvalidStatusList("status list's 'lst' must be canonical base64url") from None
        return cls(bits, _unpacked(compressed))


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusListToken:
    """A Status List Token that was verified, or that is to be signed (§5.1).

    Attributes:
        issuer: who made it, and the tokens that name it.
        uri: where it is to be had; a token that names it names this very text.
        issued_at: as of when it holds.
        expires_at: from when on it says nothing any more.
        ttl: seconds after which whoever has it should fetch it again.
        statuses: what it says.
    """

    issuer: str
    uri: str
    issued_at: datetime
    expires_at: datetime
    ttl: int
    statuses: StatusList


def sign(token: StatusListToken, key: PrivateKey, kid: str) -> str:
    """Sign a list."""
    claims = {
        "iss": token.issuer,
        "sub": token.uri,
        "iat": jws.epoch(token.issued_at),
        "exp": jws.epoch(token.expires_at),
        "ttl": token.ttl,
        "status_list": token.statuses.to_claim(),
    }
    return jws.sign(claims, key, header={"kid": kid, "typ": TYPE})


def verify(
    text: str,
    *,
    bundle: TrustBundle,
    issuer: str,
    uri: str,
    now: datetime,
    leeway: float = CLOCK_LEEWAY,
) -> StatusListToken:
    """Decide whether this is the list at ``uri``, made by ``issuer``, and its time is now.

    Raises:
        InvalidToken, InvalidStatusList: not of the form of a list.
        Untrusted: another issuer or list, or no authority of the bundle signed it.
        Expired: ``now`` is outside its validity.
    """
    unverified = jws.parse(text, types=TYPES, limit=MAX_TOKEN_CHARS)
    # Before anything is unpacked: strangers make nobody work.
    jws.verify_with(unverified, bundle.jwt_authorities)
    claims = unverified.claims
    if jws.text_claim(claims, "iss") != issuer:
        raise Untrusted(f"status list must be of the issuer {issuer}")
    if jws.text_claim(claims, "sub") != uri:
        raise Untrusted(f"status list must be the one at {uri}")
    ttl = claims.get("ttl")
    if not _is_number(ttl) or ttl <= 0:
        raise InvalidStatusList("status list must have 'ttl', a number of seconds above 0")
    token = StatusListToken(
        issuer=issuer,
        uri=uri,
        issued_at=jws.time_claim(claims, "iat"),
        expires_at=jws.time_claim(claims, "exp"),
        ttl=ttl,
        statuses=StatusList.of_claim(claims.get("status_list")),
    )
    not_before = jws.time_claim(claims, "nbf") if "nbf" in claims else token.issued_at
    jws.check_time(
        not_before=max(not_before, token.issued_at),
        expires_at=token.expires_at,
        now=now,
        leeway=leeway,
    )
    return token


def check(
    reference: StatusReference,
    known: StatusListToken | None,
    *,
    now: datetime,
    leeway: float = CLOCK_LEEWAY,
) -> None:
    """Decide whether the token with this reference still stands, by a list that was verified.

    ``known`` is the list as it was fetched last; None where it could not be.

    Raises:
        Stale: there is no list, or it is over: nobody knows.
        Untrusted: it is another list than the token names.
        InvalidStatusList: it has no such index.
        Revoked: it says anything but valid.
    """
    if known is None:
        raise Stale("the token's status list is not known")
    if known.uri != reference.uri:
        raise Untrusted("token names another status list")
    if now >= known.expires_at:
        raise Stale(f"token's status list is over since {known.expires_at:%Y-%m-%dT%H:%M:%SZ}")
    if (known.issued_at - now).total_seconds() > leeway:
        raise Stale("token's status list comes from the future: compare the clocks")
    value = known.statuses.value(reference.index)
    if value != Status.VALID:
        raise Revoked(f"token's status is {_name_of(value)}")


def put(octets: bytearray, index: int, value: int, *, bits: int) -> None:
    """Set the status of an index.

    Raises:
        InvalidStatusList: no such index, or a value that does not fit into so many bits.
    """
    if not 0 <= index < len(octets) * _BITS_OF_OCTET // bits:
        raise InvalidStatusList(f"status list has no index {index}")
    if not 0 <= value < 1 << bits:
        raise InvalidStatusList(f"status {value} does not fit into {bits} bits")
    position, shift = _place(index, bits)
    mask = (1 << bits) - 1
    octets[position] = octets[position] & ~(mask << shift) | value << shift


def _place(index: int, bits: int) -> tuple[int, int]:
    """The octet that an index is in, and from which bit."""
    return divmod(index * bits, _BITS_OF_OCTET)


def _check_bits(bits: int) -> None:
    if bits not in BITS:
        raise InvalidStatusList("status list's 'bits' must be 1, 2, 4 or 8")


def _unpacked(compressed: bytes) -> bytes:
    """Inflate, but never to more than a list may have, whatever the data would become."""
    if len(compressed) > MAX_OCTETS:
        raise InvalidStatusList(f"status list has more than {MAX_OCTETS} octets")
    inflate = zlib.decompressobj()
    try:
        octets = inflate.decompress(compressed, MAX_OCTETS + 1)
    except zlib.error:
        raise InvalidStatusList("status list's 'lst' must be of the ZLIB format") from None
    if len(octets) > MAX_OCTETS:
        raise InvalidStatusList(f"status list unpacks to more than {MAX_OCTETS} octets")
    if not inflate.eof or inflate.unused_data:
        raise InvalidStatusList("status list's 'lst' must be one whole ZLIB stream")
    if not octets:
        raise InvalidStatusList("status list has no statuses")
    return octets


def _name_of(value: int) -> str:
    known = {each.value: each.name.lower() for each in Status}
    return known.get(value, f"{value}, which is not valid")


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
