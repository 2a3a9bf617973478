"""Compact JWS by hand: what our own ``jws.sign`` would never write."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from accredit_credentials import jws
from accredit_credentials.keys import PrivateKey, b64url, b64url_decode


def forge(header: Mapping[str, Any] | str, claims: Mapping[str, Any] | str, key: PrivateKey) -> str:
    """Sign any header over any payload, each an object or its very text, with ES256."""
    texts = (part if isinstance(part, str) else json.dumps(part) for part in (header, claims))
    signing_input = ".".join(b64url(text.encode()) for text in texts)
    return f"{signing_input}.{b64url(_signature(signing_input, key))}"


def forge_hmac(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    """Sign with HS256."""
    signing_input = ".".join(b64url(json.dumps(part).encode()) for part in (header, claims))
    mac = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
    return f"{signing_input}.{b64url(mac)}"


def claims_in(token: str) -> dict[str, Any]:
    """The claims of a token, unverified."""
    claims: dict[str, Any] = json.loads(b64url_decode(token.split(".")[1]))
    return claims


def _signature(signing_input: str, key: PrivateKey) -> bytes:
    # Two signatures differ, two verifications do not: our own arithmetic signs any bytes.
    return jws._ALGORITHMS["ES256"].sign(signing_input.encode(), key)
