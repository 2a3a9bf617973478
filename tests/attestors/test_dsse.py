"""Envelopes: what is accepted, each with the nearest neighbour that is refused."""

import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OutsideEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from accredit_attestors.dsse import MAX_ENVELOPE_BYTES, MAX_SIGNATURES, Envelope, pae
from accredit_attestors.errors import (
    InvalidEnvelope,
    InvalidSigner,
    UntrustedSigner,
)
from accredit_credentials.keys import SignerPrivateKey, public_key_digest

TYPE = "application/example"
PAYLOAD = b'{"hello":"world"}'


def _ed25519() -> SignerPrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def _p256() -> SignerPrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


KINDS = [_ed25519, _p256]


def _document(envelope: Envelope) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(envelope.to_json())
    return document


def test_pae_is_the_specifications_example() -> None:
    """The pre-authentication encoding is the one in DSSE's own test vector."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("make", KINDS)
def test_signed_envelope_verifies(make: Callable[[], SignerPrivateKey]) -> None:
    """An envelope signed by a trusted key gives back its payload and the key's name."""
    key = make()
    envelope = Envelope.parse(Envelope(TYPE, PAYLOAD).signed_by(key).to_json())
    verified = envelope.verify([key.public_key()], payload_type=TYPE)
    assert verified.payload == PAYLOAD
    assert verified.keyids == (public_key_digest(key.public_key()),)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"payload": base64.b64encode(b'{"hello":"World"}').decode()}, UntrustedSigner),
        ({"payloadType": "application/examplf"}, InvalidEnvelope),
    ],
)
def test_changed_envelope_is_refused(
    make: Callable[[], SignerPrivateKey], changed: dict[str, str], error: type[Exception]
) -> None:
    """One changed character in payload or type ends in a refusal."""
    key = make()
    document = _document(Envelope(TYPE, PAYLOAD).signed_by(key)) | changed
    envelope = Envelope.parse(json.dumps(document).encode())
    with pytest.raises(error):
        envelope.verify([key.public_key()], payload_type=TYPE)


def test_payload_type_is_signed() -> None:
    """A signature for one payload type is none for another, even where the other is expected."""
    key = _ed25519()
    document = _document(Envelope(TYPE, PAYLOAD).signed_by(key)) | {"payloadType": "other"}
    with pytest.raises(UntrustedSigner):
        Envelope.parse(json.dumps(document).encode()).verify(
            [key.public_key()], payload_type="other"
        )


def test_the_signer_reported_is_the_one_that_verified() -> None:
    """Among several signatures, a forged one under a trusted name is never reported."""
    trusted, forged_name, stranger = _ed25519(), _p256(), _ed25519()
    document = _document(Envelope(TYPE, PAYLOAD).signed_by(stranger).signed_by(trusted))
    forged = dict(document["signatures"][0], keyid=public_key_digest(forged_name.public_key()))
    document["signatures"].insert(0, forged)
    verified = Envelope.parse(json.dumps(document).encode()).verify(
        [forged_name.public_key(), trusted.public_key()], payload_type=TYPE
    )
    assert verified.keyids == (public_key_digest(trusted.public_key()),)


def test_nobody_trusted_means_refused() -> None:
    """A valid signature of a stranger is refused, and so is any where no key is trusted."""
    envelope = Envelope(TYPE, PAYLOAD).signed_by(_ed25519())
    for keys in ([], [_ed25519().public_key()]):
        with pytest.raises(UntrustedSigner):
            envelope.verify(keys, payload_type=TYPE)


def test_other_keys_are_refused() -> None:
    """P-384 and RSA keys neither sign nor verify."""
    p384: Any = ec.generate_private_key(ec.SECP384R1())
    large: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    envelope = Envelope(TYPE, PAYLOAD)
    for key in (p384, large):
        with pytest.raises(InvalidSigner):
            envelope.signed_by(key)
        with pytest.raises(InvalidSigner):
            envelope.signed_by(_p256()).verify([key.public_key()], payload_type=TYPE)


def test_signing_again_replaces() -> None:
    """One key has one signature in an envelope."""
    key = _p256()
    assert len(Envelope(TYPE, PAYLOAD).signed_by(key).signed_by(key).signatures) == 1


_SIGNATURE = {"keyid": "k", "sig": "AAAA"}
_GOOD = {"payloadType": TYPE, "payload": "AAAA", "signatures": [_SIGNATURE]}


def test_the_table_of_refusals_starts_from_something_accepted() -> None:
    """The document that the refused ones differ from is itself accepted."""
    assert Envelope.parse(json.dumps(_GOOD).encode()).unverified_payload == b"\0\0\0"


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({k: v for k, v in _GOOD.items() if k != "payload"}, "payload"),
        ({k: v for k, v in _GOOD.items() if k != "payloadType"}, "payloadType"),
        ({k: v for k, v in _GOOD.items() if k != "signatures"}, "signatures"),
        (_GOOD | {"extra": 1}, "extra"),
        (_GOOD | {"payload": 7}, "payload"),
        (_GOOD | {"payload": "AAA"}, "payload"),
        (_GOOD | {"payload": "AAA\n="}, "payload"),
        (_GOOD | {"payload": "AB=="}, "payload"),
        (_GOOD | {"payload": "__8="}, "payload"),
        (_GOOD | {"payload": ""}, "payload"),
        (_GOOD | {"signatures": []}, "signatures"),
        (_GOOD | {"signatures": {}}, "signatures"),
        (_GOOD | {"signatures": [_SIGNATURE, _SIGNATURE]}, "keyid"),
        (_GOOD | {"signatures": [{"sig": "AAAA"}]}, "keyid"),
        (_GOOD | {"signatures": [_SIGNATURE | {"keyid": ""}]}, "keyid"),
        (_GOOD | {"signatures": [_SIGNATURE | {"cert": "x"}]}, "cert"),
        (
            _GOOD | {"signatures": [_SIGNATURE | {"keyid": str(i)} for i in range(9)]},
            str(MAX_SIGNATURES),
        ),
        ([], "envelope"),
    ],
)
def test_malformed_envelope_is_refused(document: object, named: str) -> None:
    """Each departure from the form is refused, and the message names what was wrong."""
    with pytest.raises(InvalidEnvelope, match=named):
        Envelope.parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"[" * 50_000,
        b'{"payload":"AAAA","payload":"AAAA"}',
        b" " * (MAX_ENVELOPE_BYTES + 1),
    ],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    """Bytes that are too many, nested too deep, ambiguous or not JSON are refused as such."""
    with pytest.raises(InvalidEnvelope):
        Envelope.parse(data)


@given(st.binary(max_size=200))
def test_parsing_bytes_is_total(data: bytes) -> None:
    """Any bytes are an envelope or refused, and never fail in another way."""
    with contextlib.suppress(InvalidEnvelope):
        Envelope.parse(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*_GOOD, "x"), _JSON)))
def test_parsing_documents_is_total(document: dict[str, object]) -> None:
    """Any JSON is an envelope or refused, and never fails in another way."""
    with contextlib.suppress(InvalidEnvelope):
        Envelope.parse(json.dumps(_GOOD | document).encode())


@pytest.mark.interop
@pytest.mark.parametrize("make", KINDS)
def test_securesystemslib_verifies_ours(make: Callable[[], SignerPrivateKey]) -> None:
    """An outside implementation accepts what we signed, and refuses it once changed."""
    key = make()
    document = _document(Envelope(TYPE, PAYLOAD).signed_by(key))
    keyid = public_key_digest(key.public_key())
    outside_key = SSlibKey.from_crypto(key.public_key(), keyid=keyid)
    outside = OutsideEnvelope.from_dict(document)
    assert list(outside.verify([outside_key], 1)) == [keyid]
    outside.payload += b" "
    with pytest.raises(VerificationError):
        outside.verify([outside_key], 1)


@pytest.mark.interop
@pytest.mark.parametrize("make", KINDS)
def test_we_verify_securesystemslibs(make: Callable[[], SignerPrivateKey]) -> None:
    """We accept what an outside implementation signed under our name of the key."""
    key = make()
    keyid = public_key_digest(key.public_key())
    outside = OutsideEnvelope(PAYLOAD, TYPE, {})
    outside.sign(CryptoSigner(key, SSlibKey.from_crypto(key.public_key(), keyid=keyid)))
    envelope = Envelope.parse(json.dumps(outside.to_dict()).encode())
    assert envelope.verify([key.public_key()], payload_type=TYPE).payload == PAYLOAD
