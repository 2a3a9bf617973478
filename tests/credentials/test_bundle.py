"""Trust bundles: what is read, what is ignored, what is refused."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID
from support.authority import Authority, deviating, raw_extension, uri_san

from accredit_credentials.bundle import MAX_BUNDLE_BYTES, MAX_TAINTED, TrustBundle
from accredit_credentials.errors import InvalidBundle
from accredit_credentials.keys import generate_key, jwk_of
from accredit_credentials.spiffe_id import TrustDomain

DOMAIN = TrustDomain.parse("example.org")


def x5c_of(*certificates: x509.Certificate) -> list[str]:
    """Certificates as the member ``x5c``."""
    der = serialization.Encoding.DER
    return [base64.b64encode(c.public_bytes(der)).decode() for c in certificates]


def read(*keys: object, **members: object) -> TrustBundle:
    """Parse a document with these entries."""
    return TrustBundle.parse(DOMAIN, json.dumps({"keys": keys, **members}))


@pytest.fixture
def x509_entry(authority: Authority) -> dict[str, Any]:
    """A good entry of an X.509 authority."""
    return json.loads(authority.bundle.to_json())["keys"][0]  # type: ignore[no-any-return]


@pytest.fixture
def jwt_entry(authority: Authority) -> dict[str, Any]:
    """A good entry of a JWT authority."""
    return json.loads(authority.bundle.to_json())["keys"][1]  # type: ignore[no-any-return]


@pytest.mark.spec("SPIFFE-51")
@pytest.mark.spec("SPIFFE-52")
@pytest.mark.spec("SPIFFE-53")
def test_what_is_written_is_read_back(authority: Authority) -> None:
    """Authorities, sequence and refresh hint survive the way."""
    bundle = authority.bundle
    assert TrustBundle.parse(bundle.trust_domain, bundle.to_json()) == bundle


@pytest.mark.spec("SPIFFE-23")
def test_an_x509_authority_is_written_as_the_specification_says(
    authority: Authority, x509_entry: dict[str, Any]
) -> None:
    """use, no kid, one certificate in standard base64 that is self-signed."""
    assert x509_entry["use"] == "x509-svid"
    assert x509_entry["kty"] == "EC"
    assert "kid" not in x509_entry
    assert x509_entry["x5c"] == x5c_of(authority.root.certificate)
    authority.root.certificate.verify_directly_issued_by(authority.root.certificate)


@pytest.mark.spec("SPIFFE-35")
@pytest.mark.spec("SPIFFE-55")
def test_a_jwt_authority_is_written_with_its_key_id(
    authority: Authority, jwt_entry: dict[str, Any]
) -> None:
    """use, kid, kty and the public numbers, and nothing private."""
    expected = jwk_of(authority.jwt_key.public_key())
    assert jwt_entry == {**expected, "kid": authority.kid, "use": "jwt-svid"}


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())],
    ids=["RSA", "P-384"],
)
def test_authorities_of_every_accepted_kind_survive(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, authority: Authority
) -> None:
    """RSA and P-384 authorities are written and read like P-256 ones."""
    root = authority.ca(key=key).certificate
    bundle = TrustBundle(DOMAIN, (root,), {"k": key.public_key()})
    assert TrustBundle.parse(DOMAIN, bundle.to_json()) == bundle


@pytest.mark.spec("SPIFFE-51")
@pytest.mark.spec("SPIFFE-54")
def test_no_authority_at_all_is_a_bundle(authority: Authority) -> None:
    """``keys`` may be empty: the trust domain then vouches for nothing."""
    assert read() == TrustBundle(DOMAIN)


@pytest.mark.spec("SPIFFE-51")
@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"keys": null}',
        '{"keys": {}}',
        '{"keys": "x"}',
        '{"keys": [], "keys": []}',
        '{"keys": [], "a": NaN}',
        '{"keys": [], "spiffe_sequence": 1e400}',
        '{"keys": [], "a": "\\ud800"}',
        '{"keys": ' + "[" * 5000 + "}",
        b"\xff{}",
    ],
)
def test_what_is_not_a_jwk_set_is_refused(document: str | bytes) -> None:
    """No ``keys``, not an object, or JSON with two meanings."""
    with pytest.raises(InvalidBundle):
        TrustBundle.parse(DOMAIN, document)


def test_a_bundle_has_a_limit() -> None:
    """A document of more than a mebibyte is refused unread."""
    with pytest.raises(InvalidBundle, match="limit"):
        TrustBundle.parse(DOMAIN, "x" * (MAX_BUNDLE_BYTES + 1))


@pytest.mark.spec("SPIFFE-51")
def test_additional_members_are_ignored(
    x509_entry: dict[str, Any], jwt_entry: dict[str, Any], authority: Authority
) -> None:
    """Members that nobody named make no difference, in the document and in its entries."""
    extended = read({**x509_entry, "more": 1}, {**jwt_entry, "alg": "ES256"}, more={"a": []})
    assert extended.x509_authorities == authority.bundle.x509_authorities
    assert extended.jwt_authorities == authority.bundle.jwt_authorities


@pytest.mark.spec("SPIFFE-52")
@pytest.mark.spec("SPIFFE-53")
@pytest.mark.parametrize("name", ["spiffe_sequence", "spiffe_refresh_hint"])
def test_numbers_are_whole_and_fit_64_bits(name: str) -> None:
    """Absent and null are unknown; 0 and the largest are read; the neighbours are refused."""
    attribute = name.removeprefix("spiffe_")
    for value in (None, 0, 1, 2**64 - 1):
        assert getattr(read(**{name: value}), attribute) == value
    assert getattr(read(), attribute) is None
    for value in (-1, 2**64, 1.5, 300.0, True, "300", [300], {}):
        with pytest.raises(InvalidBundle, match=name):
            read(**{name: value})


Entry = Callable[[dict[str, Any]], object]

USELESS_X509: list[Entry] = [
    lambda e: {k: v for k, v in e.items() if k != "x5c"},
    lambda e: {**e, "x5c": []},
    lambda e: {**e, "x5c": None},
    lambda e: {**e, "x5c": "MIIB"},
    lambda e: {**e, "x5c": [1]},
    lambda e: {**e, "x5c": [""]},
    lambda e: {**e, "x5c": ["MIIB"]},
    lambda e: {**e, "x5c": [e["x5c"][0][:-8]]},
    lambda e: {**e, "x5c": [e["x5c"][0].replace("+", "-").replace("/", "_") + "-_"]},
    lambda e: {**e, "x5c": [e["x5c"][0][:40] + "\n" + e["x5c"][0][40:]]},
    lambda e: {**e, "x5c": ["é"]},
    lambda e: {**e, "x5c": ["", *e["x5c"]]},
    lambda e: {k: v for k, v in e.items() if k != "kty"},
    lambda e: {**e, "kty": "OKP"},
    lambda e: {**e, "kty": ["EC"]},
    lambda e: {**e, "kty": {"EC": 1}},
    lambda e: {k: v for k, v in e.items() if k != "use"},
    lambda e: {**e, "use": "sig"},
    lambda e: {**e, "use": "X509-SVID"},
    lambda e: {**e, "use": ["x509-svid"]},
    lambda _: None,
    lambda _: "x509-svid",
    lambda e: [e],
]


@pytest.mark.spec("SPIFFE-24")
@pytest.mark.spec("SPIFFE-55")
@pytest.mark.parametrize("useless", USELESS_X509)
def test_an_x509_entry_that_cannot_be_used_is_ignored_alone(
    useless: Entry, x509_entry: dict[str, Any], authority: Authority
) -> None:
    """Whatever is wrong with one entry, its neighbour is read and nothing is raised."""
    bundle = read(useless(x509_entry), x509_entry)
    assert bundle.x509_authorities == authority.bundle.x509_authorities


@pytest.mark.spec("SPIFFE-24")
def test_a_certificate_that_cannot_be_used_is_ignored_alone(
    x509_entry: dict[str, Any], authority: Authority
) -> None:
    """A leaf, a broken certificate and one with a key that is not accepted are no authorities."""
    root = authority.root
    certificates = [
        *x5c_of(
            authority.issue().svid.leaf,
            deviating(root.certificate, root, without=[x509.BasicConstraints]),
            duplicate_extension(authority),
            empty_constraints(authority),
            x400_name(authority),
            unsuitable_ca(ed25519.Ed25519PrivateKey.generate()),
            unsuitable_ca(ec.generate_private_key(ec.SECP521R1())),
        ),
        unknown_curve(authority),
        unknown_version(authority),
    ]
    for certificate in certificates:
        bundle = read({**x509_entry, "x5c": [certificate]}, x509_entry)
        assert bundle.x509_authorities == (root.certificate,)


USELESS_JWT: list[Entry] = [
    lambda e: {k: v for k, v in e.items() if k != "kid"},
    lambda e: {**e, "kid": ""},
    lambda e: {**e, "kid": 1},
    lambda e: {**e, "kid": ["k"]},
    lambda e: {k: v for k, v in e.items() if k != "kty"},
    lambda e: {**e, "kty": "oct", "k": "AAAA"},
    lambda e: {**e, "kty": ["EC"]},
    lambda e: {**e, "crv": "P-521"},
    lambda e: {**e, "crv": ["P-256"]},
    lambda e: {**e, "x": e["y"]},
    lambda e: {**e, "x": 1},
    lambda e: {**e, "x": "é"},
    lambda e: {**e, "d": "AAAA"},
    lambda _: {"kid": "r", "use": "jwt-svid", "kty": "RSA", "n": "AQAB", "e": "AQAB"},
    lambda _: {"kid": "r", "use": "jwt-svid", "kty": "RSA", "n": "AA", "e": "AA"},
    lambda e: {k: v for k, v in e.items() if k != "use"},
    lambda e: {**e, "use": "sig"},
    lambda e: {**e, "use": "wit-svid"},
]


@pytest.mark.spec("SPIFFE-35")
@pytest.mark.spec("SPIFFE-55")
@pytest.mark.parametrize("useless", USELESS_JWT)
def test_a_jwt_entry_that_cannot_be_used_is_ignored_alone(
    useless: Entry, jwt_entry: dict[str, Any], authority: Authority
) -> None:
    """Without key id, of another use or with a broken key: no authority, and no error."""
    assert read(useless(jwt_entry)).jwt_authorities == {}
    assert read(useless(jwt_entry), jwt_entry).jwt_authorities.keys() == {authority.kid}


@pytest.mark.spec("SPIFFE-24")
def test_only_the_first_certificate_of_an_entry_counts(
    x509_entry: dict[str, Any], authority: Authority, other_authority: Authority
) -> None:
    """A second certificate in ``x5c`` is not an authority."""
    both = x5c_of(authority.root.certificate, other_authority.root.certificate)
    bundle = read({**x509_entry, "x5c": both})
    assert bundle.x509_authorities == (authority.root.certificate,)


@pytest.mark.spec("SPIFFE-24")
def test_the_authorities_are_the_union_of_the_entries(authority: Authority) -> None:
    """Every usable entry is an authority, in the document's order."""
    roots = (authority.root.certificate, authority.ca().certificate)
    entries = json.loads(TrustBundle(DOMAIN, roots).to_json())["keys"]
    assert read(*entries).x509_authorities == roots


@pytest.mark.spec("SPIFFE-24")
@pytest.mark.spec("SPIFFE-35")
def test_each_kind_of_authority_is_read_from_its_own_entries(
    x509_entry: dict[str, Any], jwt_entry: dict[str, Any]
) -> None:
    """A key of one use is never an authority of the other kind."""
    assert read(x509_entry).jwt_authorities == {}
    assert read(jwt_entry).x509_authorities == ()
    assert read({**x509_entry, "use": "jwt-svid"}).jwt_authorities == {}
    assert read({**jwt_entry, "use": "x509-svid"}).x509_authorities == ()


@pytest.mark.spec("SPIFFE-50")
def test_wit_keys_are_read_from_their_own_entries(authority: Authority) -> None:
    """What is written comes back, and a key of one use is never an authority of the other."""
    document = json.loads(authority.bundle_with_wits.to_json())
    assert [(jwk.get("use"), jwk.get("kid")) for jwk in document["keys"]] == [
        ("x509-svid", None),
        ("jwt-svid", authority.kid),
        ("wit-svid", authority.wit_kid),
    ]
    assert TrustBundle.parse(DOMAIN, json.dumps(document)) == authority.bundle_with_wits
    *_, jwt_entry, wit_entry = document["keys"]
    assert (read(jwt_entry).wit_authorities, read(wit_entry).jwt_authorities) == ({}, {})


@pytest.mark.spec("SPIFFE-50")
@pytest.mark.spec("SPIFFE-55")
@pytest.mark.parametrize("useless", USELESS_JWT[:-1])
def test_a_wit_entry_that_cannot_be_used_is_ignored_alone(
    useless: Entry, jwt_entry: dict[str, Any], authority: Authority
) -> None:
    """Without key id or with a broken key: no authority, and no error."""
    entry = {**jwt_entry, "use": "wit-svid"}
    assert read(useless(entry)).wit_authorities == {}
    assert read(entry).wit_authorities.keys() == {authority.kid}


@pytest.mark.spec("SPIFFE-50")
@pytest.mark.parametrize("use", ["jwt-svid", "wit-svid", "x509-svid", "other"])
def test_a_key_id_that_stands_twice_names_no_wit_key(
    use: str, jwt_entry: dict[str, Any], authority: Authority
) -> None:
    """Of two entries with one key id nobody knows which is meant, whatever their uses."""
    entry = {**jwt_entry, "use": "wit-svid"}
    assert read(entry, {**jwt_entry, "kid": "other", "use": use}).wit_authorities.keys() >= {
        authority.kid
    }
    assert read(entry, {**jwt_entry, "use": use}).wit_authorities == {}


def test_the_authorities_as_pem(authority: Authority) -> None:
    """OpenSSL reads the same certificates that the document has."""
    loaded = x509.load_pem_x509_certificates(authority.bundle.x509_pem.encode())
    assert tuple(loaded) == authority.bundle.x509_authorities


def duplicate_extension(authority: Authority) -> x509.Certificate:
    """A CA with two SANs."""
    twin = raw_extension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x00")
    root = authority.root.certificate
    extensions = [*((e.value, e.critical) for e in root.extensions), (twin, False)]
    return unchecked(authority, extensions)


def empty_constraints(authority: Authority) -> x509.Certificate:
    """A CA whose basicConstraints are not even a sequence."""
    broken = raw_extension(ExtensionOID.BASIC_CONSTRAINTS, b"")
    return deviating(authority.root.certificate, authority.root, extensions=[(broken, True)])


def x400_name(authority: Authority) -> x509.Certificate:
    """A CA with a general name of a kind that the library does not know."""
    san = raw_extension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3004a3023000"))
    return deviating(authority.root.certificate, authority.root, extensions=[(san, False)])


def unchecked(
    authority: Authority, extensions: list[tuple[x509.ExtensionType, bool]]
) -> x509.Certificate:
    """The root again, with extensions that the builder would refuse to add."""
    root = authority.root.certificate
    builder = x509.CertificateBuilder(
        root.issuer,
        root.subject,
        root.public_key(),
        root.serial_number,
        root.not_valid_before_utc.replace(tzinfo=None),
        root.not_valid_after_utc.replace(tzinfo=None),
        [x509.Extension(value.oid, critical, value) for value, critical in extensions],
    )
    return authority.root.sign(builder)


def unsuitable_ca(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A CA of a key that is not accepted."""
    template = Authority().root.certificate
    return (
        x509.CertificateBuilder()
        .subject_name(template.subject)
        .issuer_name(template.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(uri_san("spiffe://example.org"), critical=False)
        .sign(key, hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None)
    )


def unknown_curve(authority: Authority) -> str:
    """A CA with a curve that nobody knows, as base64."""
    return patched(authority, "2a8648ce3d030107", "2a8648ce3d030163")


def unknown_version(authority: Authority) -> str:
    """A CA of X.509 version 8, as base64."""
    return patched(authority, "a003020102", "a003020107")


def patched(authority: Authority, old: str, new: str) -> str:
    """The root with some bytes changed; its signature is nobody's any more."""
    der = authority.root.certificate.public_bytes(serialization.Encoding.DER)
    assert bytes.fromhex(old) in der
    return base64.b64encode(der.replace(bytes.fromhex(old), bytes.fromhex(new), 1)).decode()


def test_a_key_is_generated_anew() -> None:
    """The helper keys of these tests differ, so that equal bundles are really equal."""
    assert generate_key().public_key() != generate_key().public_key()


def test_tainted_authorities_travel_with_the_bundle() -> None:
    """Who reads the bundle knows which authorities are about to be removed."""
    bundle = TrustBundle(TrustDomain("example.org"), tainted=frozenset({"ab", "cd"}))
    document = json.loads(bundle.to_json())
    assert document["accredit_tainted"] == ["ab", "cd"]
    assert TrustBundle.parse(bundle.trust_domain, json.dumps(document)) == bundle


def test_tainted_authorities_have_a_bound() -> None:
    """So many ids count, each of at most 64 hex digits: what others write cannot fill us."""
    ids = [f"{n:x}" for n in range(1, 100)]
    document = json.dumps({"keys": [], "accredit_tainted": [*ids, "f" * 64, "f" * 65]})
    tainted = TrustBundle.parse(TrustDomain("example.org"), document).tainted
    assert tainted == frozenset(ids[:MAX_TAINTED])
    document = json.dumps({"keys": [], "accredit_tainted": ["f" * 64, "f" * 65]})
    assert TrustBundle.parse(TrustDomain("example.org"), document).tainted == {"f" * 64}


@pytest.mark.spec("SPIFFE-51")
@pytest.mark.parametrize("value", [None, "ab", 7, {"ab": 1}, [7, None, "", "AB", "xyz"]])
def test_a_foreign_meaning_of_our_parameter_is_ignored(value: object) -> None:
    """Parameters beyond the specification are never required, and never make a bundle unusable."""
    document = json.dumps({"keys": [], "accredit_tainted": value})
    assert TrustBundle.parse(TrustDomain("example.org"), document).tainted == frozenset()
