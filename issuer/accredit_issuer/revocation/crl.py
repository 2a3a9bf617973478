"""A CRL as a value: entries that are encoded once, and one signature around them.

``Entries`` are never changed: one more makes others that share all parts but one with those before.
What a signature is over is a digest, so that a token is handed 32 bytes and not four megabytes.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from accredit_credentials.crl_der import Times, crl_of, tbs_pieces
from accredit_credentials.leaf_der import IssuingCa

PARTS = 256  # one for each last byte of a serial number: its random end

_DIGEST = ec.ECDSA(Prehashed(hashes.SHA256()))


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of the entries, by serial number, and all of them as they stand on the CRL."""

    entries: Mapping[str, bytes] = field(repr=False)
    joined: bytes = field(repr=False)

    def changed(self, changes: Mapping[str, bytes | None]) -> "_Part":
        merged: dict[str, bytes | None] = {**self.entries, **changes}
        kept = {serial: entry for serial, entry in merged.items() if entry is not None}
        if kept == self.entries:
            return self
        return _Part(kept, b"".join([kept[serial] for serial in sorted(kept)]))


_NOTHING = _Part({}, b"")


@dataclass(frozen=True, slots=True)
class Entries:
    """What is on one CRL. The same entries are the same bytes, however they came together."""

    _parts: tuple[_Part, ...] = field(default=(_NOTHING,) * PARTS, repr=False)

    def changed(self, changes: Iterable[tuple[str, bytes | None]]) -> "Entries":
        """With entries put on, by their serial number, or taken off; the last word on one counts.

        The same object where that changes nothing.
        """
        by_part: dict[int, dict[str, bytes | None]] = {}
        for serial, entry in changes:
            by_part.setdefault(int(serial[-2:], 16), {})[serial] = entry
        parts = list(self._parts)
        for index, of_it in by_part.items():
            parts[index] = parts[index].changed(of_it)
        same = all(new is old for new, old in zip(parts, self._parts, strict=True))
        return self if same else Entries(tuple(parts))

    def joined(self) -> Iterator[bytes]:
        """All of them, in their order, many at a time."""
        return (part.joined for part in self._parts if part.joined)

    def __contains__(self, serial: str) -> bool:
        """Whether a certificate is on it, by its serial number in lower-case hexadecimal."""
        return serial in self._parts[int(serial[-2:], 16)].entries

    def __len__(self) -> int:
        return sum(len(part.entries) for part in self._parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Crl:
    """One CRL, signed.

    Attributes:
        authority: whose it is, by its key id.
        scheduled_at: when the newest one was made that no fact asked for: this one, or one before.
        tbs: what was signed, in pieces that it has in common with others.
    """

    authority: str
    times: Times
    scheduled_at: datetime
    entries: Entries
    signature: bytes = field(repr=False)
    tbs: tuple[bytes, ...] = field(repr=False)

    @cached_property
    def der(self) -> bytes:
        """As it is served; made for the first who asks."""
        return crl_of(self.tbs, self.signature)

    @property
    def tag(self) -> str:
        """A strong entity tag, quotes included: another one for every other CRL."""
        digest = hashlib.sha256(self.signature).hexdigest()
        return f'"{self.times.number}-{digest[:16]}"'


def sign_crl(
    ca: IssuingCa,
    key: ec.EllipticCurvePrivateKey,
    entries: Entries,
    times: Times,
    *,
    scheduled_at: datetime,
) -> Crl:
    """Sign a CRL.

    Raises:
        Unavailable: whoever keeps the key does not answer.
    """
    tbs = tbs_pieces(ca, entries.joined(), times)
    signature = key.sign(_digest_of(tbs), _DIGEST)
    return Crl(
        authority=ca.key_id.hex(),
        times=times,
        scheduled_at=scheduled_at,
        entries=entries,
        signature=signature,
        tbs=tbs,
    )


def rebuild_crl(
    ca: IssuingCa, entries: Entries, times: Times, *, scheduled_at: datetime, signature: bytes
) -> Crl | None:
    """The CRL that was signed, made again; None where this is not what was signed."""
    tbs = tbs_pieces(ca, entries.joined(), times)
    public_key = ca.certificate.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        return None
    try:
        public_key.verify(signature, _digest_of(tbs), _DIGEST)
    except InvalidSignature:
        return None
    return Crl(
        authority=ca.key_id.hex(),
        times=times,
        scheduled_at=scheduled_at,
        entries=entries,
        signature=signature,
        tbs=tbs,
    )


def _digest_of(pieces: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def next_times(last: int, now: datetime, lifetime: timedelta) -> Times:
    """Number and moments of the CRL that follows number ``last``; 0 where there was none.

    A number is the time in seconds, or one more than the last: where the last one is not known any
    more, in a database that was restored from a backup, it is greater all the same.
    """
    this_update = now.replace(microsecond=0)
    return Times(
        number=max(last + 1, int(now.timestamp())),
        this_update=this_update,
        next_update=this_update + lifetime,
    )
