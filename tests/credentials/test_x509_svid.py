"""X.509-SVIDs: their form, and who vouches for them when."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from support.authority import (
    HOUR,
    INSTANCE,
    MANIFEST,
    NOW,
    Authority,
    Signer,
    deviating,
    key_usage,
    raw_extension,
    uri_san,
)

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import (
    CredentialError,
    Expired,
    InvalidCertificate,
    InvalidKey,
    Untrusted,
)
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import (
    MAX_CHAIN,
    MAX_CHAIN_BYTES,
    X509Identity,
    X509Svid,
    check_leaf,
    parse_der,
    parse_pem,
    unverified_svid,
    validate,
)

ID = "spiffe://example.org/ns/support/agent/triage"
BOTH = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
EMPTY = x509.Name([])


def check(svid: X509Svid, authority: Authority, **changes: Any) -> X509Svid:
    """Form and path at the good time."""
    assert check_leaf(svid.leaf)
    return validate(svid, **{"bundles": authority.bundles, "now": NOW, **changes})


# --- form ---------------------------------------------------------------------------------------


@pytest.mark.spec("SPIFFE-11")
@pytest.mark.spec("SPIFFE-12")
@pytest.mark.spec("SPIFFE-16")
@pytest.mark.spec("SPIFFE-17")
@pytest.mark.spec("SPIFFE-19")
@pytest.mark.spec("SPIFFE-20")
def test_what_accredit_issues_has_the_form_of_a_leaf(authority: Authority) -> None:
    """One URI SAN with a path, not a CA, critical keyUsage of digitalSignature, both EKUs."""
    leaf = authority.issue().svid.leaf
    assert str(check_leaf(leaf)) == ID
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert usage.critical
    assert usage.value == key_usage("digital_signature")
    assert constraints.value == x509.BasicConstraints(ca=False, path_length=None)
    assert list(extended.value) == BOTH


@pytest.mark.parametrize(
    "deviation",
    [
        {"subject": EMPTY, "extensions": [(uri_san(ID), True)]},
        {"extensions": [(uri_san(ID), True)]},
        {"extensions": [(uri_san("SPIFFE://Example.ORG/ns/support/agent/triage"), False)]},
        {"dns_names": ("agents.example",)},
        {"without": [x509.ExtendedKeyUsage]},
        {"without": [x509.SubjectKeyIdentifier]},
        {"extensions": [(x509.ExtendedKeyUsage(BOTH), True)]},
        {"extensions": [(x509.ExtendedKeyUsage([*BOTH, ExtendedKeyUsageOID.OCSP_SIGNING]), False)]},
        {"extensions": [(x509.BasicConstraints(ca=False, path_length=None), False)]},
        {"extensions": [(key_usage("digital_signature", "key_encipherment"), True)]},
        {"key": ec.generate_private_key(ec.SECP384R1())},
        {"key": rsa.generate_private_key(65537, 2048)},
        {"crl_url": "http://crl.example/1.crl"},
        {"ocsp_url": "http://ocsp.example/1"},
    ],
)
def test_every_svid_of_the_specification_is_valid(
    deviation: dict[str, Any], authority: Authority
) -> None:
    """What X509-SVID and RFC 5280 allow is accepted, though Accredit writes it otherwise."""
    assert check(authority.issue(**deviation).svid, authority)


@pytest.mark.spec("SPIFFE-22")
@pytest.mark.parametrize(
    ("deviation", "reason"),
    [
        pytest.param(
            {"without": [x509.SubjectAlternativeName]},
            "exactly one URI SAN",
            marks=pytest.mark.spec("SPIFFE-11"),
        ),
        pytest.param(
            {"extensions": [(uri_san(ID, f"{ID}2"), False)]},
            "exactly one URI SAN",
            marks=pytest.mark.spec("SPIFFE-11"),
        ),
        pytest.param(
            {"extensions": [(uri_san(ID, ID), False)]},
            "exactly one URI SAN",
            marks=pytest.mark.spec("SPIFFE-11"),
        ),
        pytest.param(
            {"extensions": [(uri_san(ID, "https://agents.example/"), False)]},
            "exactly one URI SAN",
            marks=pytest.mark.spec("SPIFFE-11"),
        ),
        pytest.param(
            {"extensions": [(x509.SubjectAlternativeName([x509.DNSName("a.example")]), False)]},
            "exactly one URI SAN",
            marks=pytest.mark.spec("SPIFFE-11"),
        ),
        ({"extensions": [(uri_san("https://example.org/ns/a"), False)]}, "spiffe://"),
        ({"extensions": [(uri_san("spiffe://example.org/a/../b"), False)]}, "segments"),
        ({"extensions": [(uri_san("spiffe://example.org/a?b"), False)]}, "segment"),
        pytest.param(
            {"extensions": [(uri_san("spiffe://example.org"), False)]},
            "path",
            marks=pytest.mark.spec("SPIFFE-12"),
        ),
        pytest.param(
            {"extensions": [(uri_san("spiffe://example.org/"), False)]},
            "path",
            marks=pytest.mark.spec("SPIFFE-12"),
        ),
        pytest.param({"subject": EMPTY}, "critical SAN", marks=pytest.mark.spec("SPIFFE-13")),
        pytest.param(
            {"extensions": [(x509.BasicConstraints(ca=True, path_length=None), True)]},
            "must not be a CA",
            marks=pytest.mark.spec("SPIFFE-16"),
        ),
        pytest.param(
            {"without": [x509.BasicConstraints]},
            "basicConstraints",
            marks=pytest.mark.spec("SPIFFE-16"),
        ),
        pytest.param({"without": [x509.KeyUsage]}, "keyUsage", marks=pytest.mark.spec("SPIFFE-17")),
        pytest.param(
            {"extensions": [(key_usage("digital_signature"), False)]},
            "critical keyUsage",
            marks=pytest.mark.spec("SPIFFE-17"),
        ),
        pytest.param(
            {"extensions": [(key_usage("key_encipherment"), True)]},
            "digitalSignature",
            marks=pytest.mark.spec("SPIFFE-19"),
        ),
        pytest.param(
            {"extensions": [(key_usage("digital_signature", "key_cert_sign"), True)]},
            "keyCertSign",
            marks=pytest.mark.spec("SPIFFE-19"),
        ),
        pytest.param(
            {"extensions": [(key_usage("digital_signature", "crl_sign"), True)]},
            "cRLSign",
            marks=pytest.mark.spec("SPIFFE-19"),
        ),
        *(
            pytest.param(
                {"extensions": [(x509.ExtendedKeyUsage(usages), False)]},
                "serverAuth and clientAuth",
                marks=pytest.mark.spec("SPIFFE-20"),
            )
            for usages in (
                [ExtendedKeyUsageOID.SERVER_AUTH],
                [ExtendedKeyUsageOID.CLIENT_AUTH],
                [ExtendedKeyUsageOID.OCSP_SIGNING],
                [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
            )
        ),
        ({"key": ec.generate_private_key(ec.SECP521R1())}, "curve"),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, "kind"),
        ({"key": rsa.generate_private_key(3, 2048)}, "exponent"),
    ],
)
def test_a_leaf_of_another_form_is_refused(
    deviation: dict[str, Any], reason: str, authority: Authority
) -> None:
    """One rule broken is enough, however good the signature, and the message names the rule."""
    leaf = authority.issue(**deviation).svid.leaf
    with pytest.raises(InvalidCertificate, match=reason):
        check_leaf(leaf)


EXTENSIONS = [
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.CRL_DISTRIBUTION_POINTS,
    ExtensionOID.NAME_CONSTRAINTS,
]
X400_NAME = bytes.fromhex("3004a3023000")


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"\x04\x00", b"\x03\x01\x00", X400_NAME])
@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("oid", EXTENSIONS, ids=lambda oid: oid._name)
def test_an_empty_extension_surprises_nobody(
    oid: x509.ObjectIdentifier, critical: bool, der: bytes, authority: Authority
) -> None:
    """Empty and broken extensions, in leaf and signer, end in an answer, never in another error."""
    broken = [(raw_extension(oid, der), critical)]
    bad_leaf = authority.issue(extensions=broken).svid
    bad_signer = deviating(authority.issuing.certificate, authority.root, extensions=broken)
    for svid in (bad_leaf, authority.issue(chain=(bad_signer,)).svid):
        try:
            check(svid, authority)
        except (InvalidCertificate, Untrusted):
            continue
        assert der in (b"\x30\x00", b"\x04\x00")  # an empty value that means nothing


def test_a_critical_extension_that_nobody_knows_is_refused(authority: Authority) -> None:
    """A condition that is not understood is not fulfilled; beside it, a mere note is ignored."""
    note = raw_extension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x30\x00")
    check(authority.issue(extensions=[(note, False)]).svid, authority)
    with pytest.raises(Untrusted):
        check(authority.issue(extensions=[(note, True)]).svid, authority)


def patched(der: bytes, old: bytes, new: bytes) -> bytes:
    """The certificate with some bytes changed."""
    assert old in der
    return der.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030163")),
        (bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0207")),
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020101")),
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020107")),
        (b"spiffe://", b"\xffpiffe://"),
        (b"\x13\x47sha256", b"\x0c\x47\xff\xfe\xfd56"),
        (b"\x13\x47sha256", b"\x1e\x47sha256"),
    ],
    ids=["curve", "key", "version 2", "version 8", "URI", "UTF-8 subject", "BMP subject"],
)
def test_a_certificate_that_cannot_be_read_is_refused(
    old: bytes, new: bytes, authority: Authority
) -> None:
    """Unknown versions, curves and keys and broken texts are refused like any other form."""
    der = authority.issue().svid.der[0]
    with pytest.raises(InvalidCertificate):
        parse_der(patched(der, old, new))


def test_pem_and_der_are_read_back(authority: Authority) -> None:
    """A chain survives both encodings, leaf first."""
    svid = authority.issue().svid
    assert parse_pem(svid.pem) == svid
    assert parse_der(*svid.der[:1], svid.der[1:]) == svid


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN CERTIFICATE-----", "\ud800", "x" * (MAX_CHAIN_BYTES + 1)]
)
def test_what_is_not_pem_is_refused(text: str) -> None:
    """Nothing, nonsense, half a certificate and too much are refused alike."""
    with pytest.raises(InvalidCertificate):
        parse_pem(text)


def test_what_is_not_der_is_refused(authority: Authority) -> None:
    """A certificate with a byte too many or too few is none, nor is a mass of bytes."""
    der = authority.issue().svid.der[0]
    for broken in (b"", der[:-1], der + b"\x00", b"\x30" * (MAX_CHAIN_BYTES + 1)):
        with pytest.raises(InvalidCertificate):
            parse_der(broken)
        with pytest.raises(InvalidCertificate):
            parse_der(der, (broken,))


def test_a_chain_has_a_limit(authority: Authority) -> None:
    """A thousand certificates are refused before any of them is verified."""
    svid = authority.issue().svid
    ca = authority.issuing.certificate
    assert unverified_svid([svid.leaf] + [ca] * (MAX_CHAIN - 1))
    for count in (MAX_CHAIN, 1000):
        with pytest.raises(InvalidCertificate, match="expected 1 to 8"):
            unverified_svid([svid.leaf] + [ca] * count)
    with pytest.raises(InvalidCertificate):
        unverified_svid([])


# --- path ---------------------------------------------------------------------------------------


@pytest.mark.spec("SPIFFE-21")
def test_a_chain_to_an_authority_is_trusted(authority: Authority) -> None:
    """Through the issuing CA, with the root sent along, with a useless CA, or from the root."""
    root, issuing = authority.root.certificate, authority.issuing.certificate
    check(authority.issue().svid, authority)
    check(authority.issue(chain=(issuing, root)).svid, authority)
    check(authority.issue(chain=(root, issuing)).svid, authority)
    check(authority.issue(chain=(authority.ca(below=authority.root).certificate, issuing)).svid,
          authority)  # fmt: skip
    check(authority.issue(signer=authority.root, chain=()).svid, authority)


@pytest.mark.spec("SPIFFE-21")
def test_an_authority_need_not_be_self_signed(authority: Authority) -> None:
    """A bundle may name the issuing CA itself."""
    bundle = TrustBundle(authority.trust_domain, (authority.issuing.certificate,))
    svid = authority.issue(chain=()).svid
    check(svid, authority, bundles={authority.trust_domain: bundle})


def impostor_of(signer: Signer, authority: Authority) -> Signer:
    """Another key under the same name and serial number."""
    return authority.ca(
        common_name=signer.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    )


def self_signed(authority: Authority) -> X509Svid:
    """A leaf that names the issuing CA and signed itself."""
    key = generate_key()
    return authority.issue(key=key, signer=Signer(authority.issuing.certificate, key)).svid


def below_a_leaf(authority: Authority) -> X509Svid:
    """A good SVID uses its own key to issue another."""
    holder = authority.issue()
    leaf_as_ca = Signer(holder.svid.leaf, holder.key)
    chain = (holder.svid.leaf, authority.issuing.certificate)
    return authority.issue(authority.id("/admin/root"), signer=leaf_as_ca, chain=chain).svid


def too_deep(authority: Authority) -> X509Svid:
    """A CA that the issuing CA must not make."""
    below = authority.ca(below=authority.issuing, path_length=0)
    chain = (below.certificate, authority.issuing.certificate)
    return authority.issue(signer=below, chain=chain).svid


def with_issuing(authority: Authority, *extensions: tuple[x509.ExtensionType, bool]) -> X509Svid:
    """An SVID of an issuing CA that deviates."""
    certificate = deviating(
        authority.issuing.certificate, authority.root, extensions=list(extensions)
    )
    return authority.issue(signer=Signer(certificate, authority.issuing.key)).svid


PATHS: dict[str, Callable[[Authority], X509Svid]] = {
    "issuing CA not sent": lambda a: a.issue(chain=()).svid,
    "root sent instead": lambda a: a.issue(chain=(a.root.certificate,)).svid,
    "signed by nobody": lambda a: a.issue(signer=Signer(a.issuing.certificate)).svid,
    "root of the same name and serial": lambda a: (
        a.issue(signer=impostor_of(a.root, a), chain=()).svid
    ),
    "that root sent along": lambda a: (
        a.issue(signer=impostor_of(a.root, a), chain=(impostor_of(a.root, a).certificate,)).svid
    ),
    "CA below that root": lambda a: a.issue(signer=a.ca(below=impostor_of(a.root, a))).svid,
    "self-signed": self_signed,
    "a leaf as issuing CA": below_a_leaf,
    "a CA below an issuing CA of path length 0": too_deep,
    "an expired issuing CA": lambda a: (
        a.issue(signer=a.ca(below=a.root, not_after=NOW - timedelta(seconds=1))).svid
    ),
    "an issuing CA of tomorrow": lambda a: (
        a.issue(signer=a.ca(below=a.root, not_before=NOW + timedelta(seconds=1))).svid
    ),
    "an issuing CA that is none": lambda a: with_issuing(
        a, (x509.BasicConstraints(ca=False, path_length=None), True)
    ),
    "an issuing CA that may not sign": lambda a: with_issuing(a, (key_usage("crl_sign"), True)),
}


@pytest.mark.spec("SPIFFE-21")
@pytest.mark.parametrize("case", PATHS)
def test_any_other_chain_is_not_trusted(case: str, authority: Authority) -> None:
    """Good form, no path: each near miss of RFC 5280 path validation is refused."""
    svid = PATHS[case](authority)
    assert check_leaf(svid.leaf)
    with pytest.raises(Untrusted):
        check(svid, authority)


@pytest.mark.spec("SPIFFE-15")
@pytest.mark.spec("SPIFFE-22")
def test_a_signing_certificate_authenticates_nobody(authority: Authority) -> None:
    """Neither the root nor the issuing CA is accepted as somebody's SVID."""
    named = deviating(
        authority.issuing.certificate, authority.root, extensions=[(uri_san(ID), False)]
    )
    for ca in (authority.root.certificate, authority.issuing.certificate, named):
        with pytest.raises(InvalidCertificate):
            unverified_svid([ca])


@pytest.mark.spec("SPIFFE-14")
@pytest.mark.parametrize(
    ("uri", "accepted"),
    [
        ("spiffe://example.org", True),
        (None, True),
        ("spiffe://other.example", False),
        ("spiffe://example.org/ca", False),
        ("spiffe://example.org.evil.example", False),
    ],
)
def test_a_signing_certificate_is_of_the_trust_domain(
    uri: str | None, accepted: bool, authority: Authority
) -> None:
    """A CA's SPIFFE ID has no path and is of the trust domain of its leaves, or is absent."""
    extensions = [(uri_san(uri), False)] if uri else []
    certificate = deviating(
        authority.issuing.certificate,
        authority.root,
        without=[x509.SubjectAlternativeName],
        extensions=extensions,
    )
    svid = authority.issue(signer=Signer(certificate, authority.issuing.key)).svid
    if accepted:
        check(svid, authority)
    else:
        with pytest.raises(Untrusted, match="signing certificate"):
            check(svid, authority)


def test_another_trust_domain_cannot_speak_for_ours(
    authority: Authority, other_authority: Authority
) -> None:
    """Its CA signs a leaf with our ID: refused, though both bundles are known."""
    bundles = authority.bundles | other_authority.bundles
    check(other_authority.issue().svid, other_authority, bundles=bundles)
    stolen = other_authority.issue(authority.id()).svid
    with pytest.raises(Untrusted):
        check(stolen, authority, bundles=bundles)
    unmarked = Signer(
        deviating(
            other_authority.issuing.certificate,
            other_authority.root,
            without=[x509.SubjectAlternativeName],
        ),
        other_authority.issuing.key,
    )
    with pytest.raises(Untrusted):
        check(other_authority.issue(authority.id(), signer=unmarked).svid, authority,
              bundles=bundles)  # fmt: skip


@pytest.mark.parametrize(
    "extension",
    [
        x509.AuthorityKeyIdentifier(b"\x01" * 20, None, None),
        x509.AuthorityKeyIdentifier(None, None, None),
        None,
    ],
    ids=["another", "empty", "absent"],
)
def test_a_leaf_names_the_authority_that_signed_it(
    extension: x509.AuthorityKeyIdentifier | None, authority: Authority
) -> None:
    """A stolen issuing key cannot issue leaves that the fact about it would not match."""
    deviation: dict[str, Any] = {"without": [x509.AuthorityKeyIdentifier]}
    if extension is not None:
        deviation = {"extensions": [(extension, False)]}
    with pytest.raises(Untrusted):
        check(authority.issue(**deviation).svid, authority)


@pytest.mark.spec("SPIFFE-24")
@pytest.mark.spec("SPIFFE-54")
def test_without_authorities_nothing_is_valid(authority: Authority) -> None:
    """No bundle, an empty one and one with JWT authorities only refuse every SVID."""
    domain = authority.trust_domain
    jwt_only = replace(authority.bundle, x509_authorities=())
    for bundles in ({}, {domain: TrustBundle(domain)}, {domain: jwt_only}):
        with pytest.raises(Untrusted, match=r"no X\.509 authorities"):
            check(authority.issue().svid, authority, bundles=bundles)


@pytest.mark.parametrize("offset", [-11, 0, 14])
@pytest.mark.parametrize(
    ("moment", "valid"),
    [
        (NOW - timedelta(seconds=10), True),
        (NOW - timedelta(seconds=10, microseconds=1), False),
        (NOW + HOUR, True),
        (NOW + HOUR + timedelta(microseconds=1), False),
        (NOW + timedelta(days=3650), False),
    ],
)
def test_an_svid_lives_from_its_first_to_its_last_second(
    moment: datetime, valid: bool, offset: int, authority: Authority
) -> None:
    """Both ends belong to its life, whatever time zone the clock is in."""
    now = moment.astimezone(timezone(timedelta(hours=offset)))
    svid = authority.issue().svid
    if valid:
        check(svid, authority, now=now)
    else:
        with pytest.raises(Expired):
            check(svid, authority, now=now)


def test_an_authority_ends(authority: Authority) -> None:
    """A root that expired vouches for nobody, in the bundle or not."""
    root = authority.ca(
        key=authority.root.key,
        common_name="example.org root",
        not_after=NOW - timedelta(seconds=1),
    )
    bundle = TrustBundle(authority.trust_domain, (root.certificate,))
    with pytest.raises(Untrusted):
        check(authority.issue().svid, authority, bundles={authority.trust_domain: bundle})


def test_a_naive_moment_is_not_guessed(authority: Authority) -> None:
    """A clock without time zone is a programming error, never an answer."""
    with pytest.raises(TypeError):
        check(authority.issue().svid, authority, now=NOW.replace(tzinfo=None))


# --- what it carries ----------------------------------------------------------------------------


def test_an_svid_can_be_revoked_by_all_it_carries(authority: Authority) -> None:
    """Its marks name serial, authority, instance, manifest, agent and namespace."""
    svid = authority.issue(serial=0xAB12).svid
    key_identifier = authority.issuing.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    ).value.digest
    assert f"authority:{key_identifier.hex()}" in svid.marks()
    others = {mark for mark in svid.marks() if not mark.startswith("authority:")}
    assert others == {
        "serial:ab12",
        f"instance:{INSTANCE}",
        f"manifest:{MANIFEST}",
        "agent:support/triage",
        "namespace:support",
    }


@pytest.mark.parametrize("path", ["/ns/UPPER/agent/x", "/ns/a/agent/b/else", "/ns/a/agent/b"])
def test_marks_follow_from_any_identity(path: str, authority: Authority) -> None:
    """A valid SVID has marks, even with an ID that Accredit would not give to an agent."""
    assert f"namespace:{path.split('/')[2]}" in authority.issue(authority.id(path)).svid.marks()


def test_a_node_is_a_mark_of_its_own_svid_alone(authority: Authority) -> None:
    """``node:<name>`` matches /node/<name>, and nothing that is longer, shorter or an agent."""
    assert "node:build-7" in authority.issue(authority.id("/node/build-7")).svid.marks()
    for path in ("/node/build-7/x", "/ns/node/agent/build-7", "/nodes/build-7", "/node"):
        marks = authority.issue(authority.id(path)).svid.marks()
        assert not [mark for mark in marks if mark.startswith("node:")], path


def test_an_svid_without_our_fields_is_an_svid(authority: Authority) -> None:
    """Instance and manifest are ours alone: without a subject they are absent."""
    svid = authority.issue(subject=EMPTY, extensions=[(uri_san(ID), True)]).svid
    assert (svid.instance, svid.manifest) == (None, None)
    assert check(svid, authority)


def test_a_key_belongs_to_its_svid(authority: Authority) -> None:
    """An SVID is joined with the key that it certifies and with no other."""
    identity = authority.issue()
    assert X509Identity.of(identity.svid, identity.key) == identity
    with pytest.raises(InvalidKey, match="does not belong"):
        X509Identity.of(identity.svid, generate_key())


def test_a_key_shows_in_no_repr_and_in_no_error(authority: Authority) -> None:
    """Whatever is printed of an identity says whose it is and nothing else."""
    identity = authority.issue()
    assert ID.rpartition("/")[2] in repr(identity)
    body = identity.key_pem.decode().splitlines()[1]
    number = str(identity.key.private_numbers().private_value)  # type: ignore[union-attr]
    with pytest.raises(CredentialError) as caught:
        X509Identity.of(authority.issue().svid, identity.key)
    for shown in (repr(identity), str(identity), f"{identity.svid}", str(caught.value)):
        assert "BEGIN" not in shown
        assert "key=" not in shown
        assert body not in shown
        assert number not in shown
    loaded = serialization.load_pem_private_key(identity.key_pem, None)
    assert loaded.public_key() == identity.svid.leaf.public_key()


def test_a_hostile_subject_reaches_no_message(authority: Authority) -> None:
    """Line breaks and escapes of somebody's certificate do not end in our log."""
    hostile = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\r\n\x1b[31mFORGED")])
    note = raw_extension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x30\x00")
    deviations: list[dict[str, Any]] = [
        {"subject": hostile, "signer": Signer(authority.issuing.certificate)},
        {"subject": hostile, "extensions": [(note, True)]},
        {"subject": hostile, "without": [x509.AuthorityKeyIdentifier]},
    ]
    for deviation in deviations:
        with pytest.raises(Untrusted) as caught:
            check(authority.issue(**deviation).svid, authority)
        assert str(caught.value).isprintable()
