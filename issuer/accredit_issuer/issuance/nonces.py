"""Nonces for attestation: fresh, single-use, and free to hand out.

A nonce carries its own end and a MAC under a key that this process made at its start, so handing
one out stores nothing. Only a nonce that was used is remembered, until its end. A nonce of before
a restart is refused: ask for a new one.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from accredit_credentials.keys import b64url, b64url_decode
from accredit_issuer.errors import Kind, Refusal

MAX_REMEMBERED = 100_000

_RANDOM = 16
_END = 8
_MAC = 16


class Nonces:
    """Hands out nonces and accepts each once."""

    def __init__(self, lifetime: timedelta) -> None:
        self._lifetime = lifetime
        self._key = secrets.token_bytes(32)
        self._used: OrderedDict[bytes, datetime] = OrderedDict()

    def issue(self, now: datetime) -> tuple[str, datetime]:
        """A new nonce and when it ends."""
        end = (now + self._lifetime).replace(microsecond=0)
        body = secrets.token_bytes(_RANDOM) + int(end.timestamp()).to_bytes(_END)
        return b64url(body + self._mac(body)), end

    def redeem(self, nonce: str, now: datetime) -> None:
        """Accept a nonce, this once.

        Raises:
            Refusal: not one of ours, over, or used before.
        """
        body, end = self.check(nonce, now)
        if len(self._used) >= MAX_REMEMBERED:
            raise Refusal(Kind.BUSY, "too many attestations at once")
        self._used[body] = end

    def check(self, nonce: str, now: datetime) -> tuple[bytes, datetime]:
        """Decide whether a nonce could be redeemed now, without redeeming it.

        Raises:
            Refusal: not one of ours, over, or used before.
        """
        try:
            raw = b64url_decode(nonce)
        except ValueError:
            raise Refusal(Kind.MALFORMED, "nonce must be one that this issuer gave") from None
        body, mac = raw[: _RANDOM + _END], raw[_RANDOM + _END :]
        if not hmac.compare_digest(mac, self._mac(body)):
            raise Refusal(Kind.ATTESTATION_REFUSED, "nonce is not one that this issuer gave")
        end = datetime.fromtimestamp(int.from_bytes(body[_RANDOM:]), UTC)
        if now >= end:
            raise Refusal(Kind.ATTESTATION_REFUSED, "nonce is over; ask for a new one")
        self._forget(now)
        if body in self._used:
            raise Refusal(Kind.ATTESTATION_REFUSED, "nonce was used before")
        return body, end

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_MAC]

    def _forget(self, now: datetime) -> None:
        # In order of use, which is nearly the order of their ends: what lingers does so briefly.
        while self._used:
            body, end = next(iter(self._used.items()))
            if end > now:
                return
            del self._used[body]
