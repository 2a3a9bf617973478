"""The signed manifest: its wire form, who may sign it, and the manifest as evidence."""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from accredit_attestors.contract import CollectContext, Evidence, VerifyContext
from accredit_attestors.dsse import Envelope
from accredit_attestors.errors import (
    AttestationError,
    CannotCollect,
    InvalidEnvelope,
    InvalidEvidence,
    InvalidManifest,
    InvalidSigner,
    ManifestExpired,
    UntrustedSigner,
    WrongNonce,
)
from accredit_attestors.manifest import (
    ATTESTOR,
    Action,
    Assurance,
    Manifest,
    Resource,
    Risk,
    Signer,
    VerifiedManifest,
    manifest_digest,
    sign,
    unverified_manifest,
    verify,
)
from accredit_attestors.statement import PAYLOAD_TYPE, parse, to_bytes
from accredit_credentials.keys import generate_key

Document = dict[str, Any]


def _paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a document, the root first."""
    yield path
    items = dict(enumerate(value)) if isinstance(value, list) else value
    for key, below in items.items() if isinstance(items, dict) else ():
        yield from _paths(below, (*path, key))


def _at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def test_statement_reads_back(manifest: Manifest) -> None:
    """A manifest survives its wire form, and the digest is that of the bytes."""
    payload = to_bytes(manifest)
    assert parse(payload) == manifest
    assert manifest_digest(payload).startswith("sha256:")
    assert to_bytes(replace(manifest, version="1.4.1")) != payload


def test_statement_is_an_in_toto_statement(manifest: Manifest) -> None:
    """The subject is agent and version with the code digest, for any tool that reads in-toto."""
    document = json.loads(to_bytes(manifest))
    assert document["_type"] == "https://in-toto.io/Statement/v1"
    assert document["predicateType"] == "https://accredit.dev/agent-manifest/v1"
    assert document["subject"] == [
        {"name": "payments/refund-agent@1.4.0", "digest": {"sha256": "c0" * 32}}
    ]


def test_unknown_key_is_refused_at_every_level(manifest: Manifest) -> None:
    """A key that nobody knows is refused wherever it stands, and named."""
    document = json.loads(to_bytes(manifest))
    objects = [path for path in _paths(document) if isinstance(_at(document, path), dict)]
    assert len(objects) > 8
    for path in objects:
        changed = copy.deepcopy(document)
        _at(changed, path)["surprise"] = True
        with pytest.raises(InvalidManifest, match="surprise"):
            parse(rfc8785.dumps(changed))


def test_missing_key_is_refused_at_every_level(manifest: Manifest) -> None:
    """On the wire nothing is implied: each key that is left out is missed by name."""
    document = json.loads(to_bytes(manifest))
    for path in _paths(document):
        if path and isinstance(key := path[-1], str):
            changed = copy.deepcopy(document)
            del _at(changed, path[:-1])[key]
            with pytest.raises(InvalidManifest, match=key):
                parse(rfc8785.dumps(changed))


@pytest.mark.parametrize("wrong", [None, True, 1.5, 7, "", "x", [], {}, [[]], "\x00"])
def test_wrong_type_is_refused_at_every_place(manifest: Manifest, wrong: object) -> None:
    """A value of another type in any place is refused, and never fails in another way."""
    document = json.loads(to_bytes(manifest))
    for path in _paths(document):
        old = _at(document, path)
        if not path or type(old) is type(wrong):
            continue
        changed = copy.deepcopy(document)
        _at(changed, path[:-1])[path[-1]] = wrong
        with pytest.raises(InvalidManifest):
            parse(rfc8785.dumps(changed))


def _subject_name(document: Document) -> None:
    document["subject"][0]["name"] = "payments/refund-agent@1.4.1"


def _subject_digest(document: Document) -> None:
    document["subject"][0]["digest"]["sha256"] = "c1" * 32


def _two_subjects(document: Document) -> None:
    document["subject"] *= 2


def _old_type(document: Document) -> None:
    document["_type"] = "https://in-toto.io/Statement/v0.1"


def _other_predicate(document: Document) -> None:
    document["predicateType"] = "https://slsa.dev/provenance/v1"


def _impossible_date(document: Document) -> None:
    document["predicate"]["issued_at"] = "2026-02-30T12:00:00Z"


def _local_date(document: Document) -> None:
    document["predicate"]["issued_at"] = "2026-02-28T12:00:00+00:00"


def _bad_agent(document: Document) -> None:
    document["predicate"]["agent"] = "payments"


def _bad_assurance(document: Document) -> None:
    document["predicate"]["assurance"] = "trust-me"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_subject_name, "1.4.1"),
        (_subject_digest, "subject has the digest"),
        (_two_subjects, "2 subjects"),
        (_old_type, "_type"),
        (_other_predicate, "predicateType"),
        (_impossible_date, "issued_at"),
        (_local_date, "issued_at"),
        (_bad_agent, "agent"),
        (_bad_assurance, "assurance"),
    ],
)
def test_statement_that_contradicts_itself_is_refused(
    manifest: Manifest, change: Callable[[Document], None], named: str
) -> None:
    """What in-toto's tools read and what Accredit reads must be one and the same."""
    document = json.loads(to_bytes(manifest))
    change(document)
    with pytest.raises(InvalidManifest, match=named):
        parse(rfc8785.dumps(document))


def test_only_the_canonical_spelling_is_accepted(manifest: Manifest) -> None:
    """Spaces, another order, escapes or a repeated key make another text, which is refused."""
    payload = to_bytes(manifest)
    document = json.loads(payload)
    twins = [
        json.dumps(document).encode(),
        payload + b"\n",
        payload.replace(b'"bearer":false', b'"bearer":false,"bearer":false'),
        payload.replace(b'"max_depth":2', b'"max_depth":2.0'),
        payload.replace("€".encode(), b"\\u20ac"),
        b"\xef\xbb\xbf" + payload,
    ]
    for twin in twins:
        assert twin != payload
        with pytest.raises(InvalidManifest):
            parse(twin)


@given(st.data())
def test_parsing_a_damaged_statement_is_total(manifest: Manifest, data: st.DataObject) -> None:
    """A statement with any damage reads as a manifest or is refused, and never fails otherwise."""
    payload = bytearray(to_bytes(manifest))
    start = data.draw(st.integers(0, len(payload) - 1))
    end = data.draw(st.integers(start, min(len(payload), start + 20)))
    payload[start:end] = data.draw(st.binary(max_size=20))
    with contextlib.suppress(InvalidManifest):
        assert to_bytes(parse(bytes(payload))) == payload


@pytest.mark.parametrize("make", [ed25519.Ed25519PrivateKey.generate, generate_key])
def test_signed_manifest_verifies(manifest: Manifest, now: datetime, make: Any) -> None:
    """A manifest signed by a signer of its namespace verifies, with Ed25519 and with P-256."""
    key = make()
    envelope = sign(manifest, key)
    signer = Signer("ci", key.public_key(), ("payments",))
    verified = verify(envelope, signers=[signer], now=now)
    assert verified.manifest == manifest
    assert verified.digest == manifest_digest(to_bytes(manifest))
    assert verified.signer == "ci"
    assert verified.envelope == envelope


@pytest.mark.parametrize(
    "namespaces", [(), ("payment",), ("payments2",), ("pay*",), ("refund-agent",)]
)
def test_signer_of_another_namespace_is_refused(
    envelope: bytes, key: ed25519.Ed25519PrivateKey, now: datetime, namespaces: tuple[str, ...]
) -> None:
    """A signer speaks for the namespaces it names, exactly; none means none."""
    with pytest.raises((UntrustedSigner, InvalidSigner)):
        verify(envelope, signers=[Signer("other-ci", key.public_key(), namespaces)], now=now)


def test_signer_of_every_namespace_is_accepted(
    envelope: bytes, key: ed25519.Ed25519PrivateKey, now: datetime
) -> None:
    """The one pattern is ``*`` alone."""
    signer = Signer("root", key.public_key(), ("*",))
    assert verify(envelope, signers=[signer], now=now).signer == "root"


def test_signer_reported_speaks_for_the_namespace(
    manifest: Manifest, key: ed25519.Ed25519PrivateKey, signer: Signer, now: datetime
) -> None:
    """Of several who signed, the one reported is one who may; one key may have several names."""
    stranger = generate_key()
    envelope = Envelope(PAYLOAD_TYPE, to_bytes(manifest)).signed_by(stranger).signed_by(key)
    others = [
        Signer("other", stranger.public_key(), ("search",)),
        Signer("payments-old", key.public_key(), ("search",)),
        signer,
    ]
    assert verify(envelope.to_json(), signers=others, now=now).signer == "payments-ci"
    with pytest.raises(UntrustedSigner, match="other, payments-old may not sign for"):
        verify(envelope.to_json(), signers=others[:2], now=now)


def test_untrusted_signatures_are_refused_first(
    manifest: Manifest, signer: Signer, now: datetime
) -> None:
    """A stranger's manifest is refused for its signature, before a word of it is read."""
    stranger = generate_key()
    for payload in (to_bytes(manifest), b"not a statement"):
        envelope = Envelope(PAYLOAD_TYPE, payload).signed_by(stranger).to_json()
        for signers in ([signer], []):
            with pytest.raises(UntrustedSigner):
                verify(envelope, signers=signers, now=now)


def test_signed_nonsense_is_refused(
    key: ed25519.Ed25519PrivateKey, signer: Signer, now: datetime, manifest: Manifest
) -> None:
    """A trusted signature makes neither a manifest nor another type of payload acceptable."""
    with pytest.raises(InvalidManifest):
        verify(Envelope(PAYLOAD_TYPE, b"{}").signed_by(key).to_json(), signers=[signer], now=now)
    other = Envelope("application/json", to_bytes(manifest)).signed_by(key).to_json()
    with pytest.raises(InvalidEnvelope, match="payloadType"):
        verify(other, signers=[signer], now=now)
    with pytest.raises(InvalidManifest, match="payloadType"):
        unverified_manifest(other)


def test_manifest_out_of_time_is_refused(
    envelope: bytes, manifest: Manifest, signer: Signer
) -> None:
    """An expired manifest and one from the future are refused."""
    for moment in (manifest.expires_at, manifest.issued_at - timedelta(seconds=61)):
        with pytest.raises(ManifestExpired):
            verify(envelope, signers=[signer], now=moment)


def test_manifest_too_big_is_not_signed(manifest: Manifest, key: ed25519.Ed25519PrivateKey) -> None:
    """What no verifier would read is refused before it is signed."""
    long = "https://a.example/" + "x" * 2000
    resources = tuple(
        Resource(f"r{i}", f"{long}{i}", (Action("read", Risk.LOW),)) for i in range(64)
    )
    with pytest.raises(InvalidManifest, match="65536"):
        sign(replace(manifest, resources=resources), key)


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a\n"])
def test_signer_name_is_refused(key: ed25519.Ed25519PrivateKey, name: str) -> None:
    """A signer's name stands in selectors, so it has the form of a name."""
    with pytest.raises(InvalidSigner):
        Signer(name, key.public_key(), ("payments",))


def test_signer_key_is_refused() -> None:
    """A signer's key is Ed25519 or P-256."""
    with pytest.raises(InvalidSigner, match="secp384r1"):
        Signer("ci", ec.generate_private_key(ec.SECP384R1()).public_key(), ("payments",))


def test_manifest_file_is_collected_and_attested(
    envelope: bytes, tmp_path: Path, context: VerifyContext, verified: VerifiedManifest, nonce: str
) -> None:
    """The manifest file becomes evidence, and the evidence selectors with assurance self."""
    path = tmp_path / "agent.manifest.json"
    path.write_bytes(envelope)
    evidence = ATTESTOR.collect(CollectContext(nonce=nonce, manifest_file=path))
    assert evidence is not None
    for given_manifest in (verified, None):
        attested = ATTESTOR.verify(evidence, replace(context, manifest=given_manifest))
        assert attested.assurance is Assurance.SELF
        assert attested.selectors == (
            "manifest:agent:payments/refund-agent",
            "manifest:version:1.4.0",
            f"manifest:digest:{verified.digest}",
            "manifest:signer:payments-ci",
        )


def test_nothing_is_collected_without_a_manifest(tmp_path: Path, nonce: str) -> None:
    """No manifest file means not mine; a file that is missing, a FIFO or not text is an error."""
    assert ATTESTOR.collect(CollectContext(nonce=nonce)) is None
    binary, big = tmp_path / "binary", tmp_path / "big"
    binary.write_bytes(b"\xff")
    big.write_bytes(b" " * 65537)
    for path in (tmp_path / "missing", tmp_path, binary, big):
        with pytest.raises(CannotCollect):
            ATTESTOR.collect(CollectContext(nonce=nonce, manifest_file=path))


def test_manifest_evidence_is_refused(
    envelope: bytes, context: VerifyContext, nonce: str, verified: VerifiedManifest
) -> None:
    """Another nonce, kind, payload, time or signer: each alone is a reason to refuse."""
    evidence = Evidence("manifest", nonce, {"envelope": envelope.decode()})
    assert ATTESTOR.verify(evidence, context)
    late = replace(context, now=verified.manifest.expires_at)
    twins: list[tuple[Evidence, VerifyContext, type[AttestationError]]] = [
        (replace(evidence, nonce=nonce + "x"), context, WrongNonce),
        (evidence, replace(context, nonce=nonce[:-1]), WrongNonce),
        (replace(evidence, kind="code_digest"), context, InvalidEvidence),
        (replace(evidence, payload={}), context, InvalidEvidence),
        (replace(evidence, payload={"envelope": 1}), context, InvalidEvidence),
        (
            replace(evidence, payload={**evidence.payload, "more": 1}),
            context,
            InvalidEvidence,
        ),
        (evidence, late, ManifestExpired),
        (evidence, replace(late, manifest=None), ManifestExpired),
        (evidence, replace(context, manifest=None, signers=()), UntrustedSigner),
        (
            replace(evidence, payload={"envelope": envelope.decode() + " "}),
            replace(context, signers=()),
            UntrustedSigner,
        ),
    ]
    for twin, its_context, error in twins:
        with pytest.raises(error):
            ATTESTOR.verify(twin, its_context)
