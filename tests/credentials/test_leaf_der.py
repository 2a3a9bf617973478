"""The hand-made leaf: byte for byte the library's, and read again before it is signed."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from support.authority import HOUR, NOW, Authority

from accredit_credentials import der
from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.keys import SubjectKey
from accredit_credentials.leaf_der import IssuingCa, SignedLeaf, pem_of, tbs_of
from accredit_credentials.leaf_lint import LintedLeaf, lint
from accredit_credentials.leaf_signing import sign_leaf
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import validate
from accredit_credentials.x509_template import LeafTemplate, check_signed_leaf, leaf_builder

AUTHORITY = Authority()
CA = IssuingCa(AUTHORITY.issuing.certificate)
MANIFEST = "sha256:" + "5e" * 32
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
OTHER_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
KEYS = [
    OTHER_KEY,
    ec.generate_private_key(ec.SECP384R1()).public_key(),
    rsa.generate_private_key(65537, 2048).public_key(),
    rsa.generate_private_key(65537, 3072).public_key(),
]
SECONDS = st.integers(0, 80 * 365 * 86400)
SEGMENT = st.text("abcXYZ019.-_", min_size=1, max_size=200).filter(lambda s: s not in {".", ".."})
NAME = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,10}){0,3}\Z")

templates = st.builds(
    LeafTemplate,
    spiffe_id=st.lists(SEGMENT, min_size=1, max_size=6).map(
        lambda parts: SpiffeId.parse("spiffe://example.org/" + "/".join(parts))
    ),
    subject_key=st.sampled_from(KEYS).map(SubjectKey.of),
    serial=st.integers(1, (1 << 159) - 1),
    not_before=SECONDS.map(lambda s: datetime(1990, 1, 1, tzinfo=UTC) + timedelta(seconds=s)),
    not_after=SECONDS.map(lambda s: datetime(2075, 1, 1, tzinfo=UTC) + timedelta(seconds=s)),
    instance=st.uuids().map(str),
    manifest=st.none() | st.just(MANIFEST),
    dns_names=st.lists(NAME, max_size=5).map(tuple),
    crl_url=st.none() | st.just("https://crl.example.org/v1/crl/" + "a" * 300 + ".crl"),
    ocsp_url=st.none() | st.just("https://ocsp.example.org/v1/ocsp/" + "a" * 300),
)


def template(**changes: Any) -> LeafTemplate:
    """A leaf with everything that one can have."""
    everything: dict[str, Any] = {
        "subject_key": SubjectKey.of(KEY),
        "manifest": MANIFEST,
        "crl_url": "http://crl.example.org/1.crl",
        "ocsp_url": "http://ocsp.example.org/1",
    }
    return AUTHORITY.template(**{**everything, "dns_names": ("localhost",), **changes})


def signed(wanted: LeafTemplate) -> SignedLeaf:
    """A leaf on the fast path."""
    return sign_leaf(lint(tbs_of(wanted, CA), wanted, CA), AUTHORITY.issuing.key)


@given(templates)
@settings(max_examples=300, deadline=None)
def test_the_bytes_are_the_librarys(wanted: LeafTemplate) -> None:
    """Whatever the template, the hand-made TBSCertificate is the library's, byte for byte."""
    library = AUTHORITY.issuing.sign(leaf_builder(wanted, CA.certificate))
    made = tbs_of(wanted, CA)
    assert made == library.tbs_certificate_bytes
    assert lint(made, wanted, CA).tbs == made


@given(templates)
@settings(max_examples=50, deadline=None)
def test_the_library_path_stays_the_check(wanted: LeafTemplate) -> None:
    """What was signed by hand passes the library's comparison, field by field."""
    leaf = signed(wanted)
    svid = leaf.svid()
    assert check_signed_leaf(svid.leaf, wanted, CA.certificate) == svid
    svid.leaf.verify_directly_issued_by(CA.certificate)
    assert leaf.pem == svid.pem
    assert leaf.serial == svid.serial


def test_a_signed_leaf_is_an_svid() -> None:
    """The chain of the fast path validates as an X.509-SVID of its trust domain."""
    leaf = signed(template(dns_names=()))
    pem = leaf.pem.encode()
    chain = x509.load_pem_x509_certificates(pem)
    assert chain[0].public_bytes(Encoding.DER) == leaf.der
    assert validate(leaf.svid(), bundles=AUTHORITY.bundles, now=NOW) == leaf.svid()


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": 4712},
        {"not_before": NOW - timedelta(seconds=11)},
        {"not_after": NOW + HOUR + timedelta(seconds=1)},
        {"instance": "0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b12"},
        {"manifest": "sha256:" + "5f" * 32},
        {"manifest": None},
        {"subject_key": SubjectKey.of(OTHER_KEY)},
        {"spiffe_id": SpiffeId.parse("spiffe://example.org/ns/support/agent/triagf")},
        {"dns_names": ()},
        {"dns_names": ("localhosu",)},
        {"dns_names": ("localhost", "localhost")},
        {"crl_url": None},
        {"crl_url": "http://crl.example.org/2.crl"},
        {"ocsp_url": None},
        {"ocsp_url": "http://ocsp.example.org/2"},
        {"crl_url": "http://ocsp.example.org/1", "ocsp_url": "http://crl.example.org/1.crl"},
    ],
)
def test_the_lint_notices_every_field(changes: dict[str, Any]) -> None:
    """Bytes that say one thing else than their template are not signed, in either direction."""
    meant, other = template(serial=4711), template(**{"serial": 4711, **changes})
    assert lint(tbs_of(meant, CA), meant, CA)
    for bytes_of, against in ((meant, other), (other, meant)):
        with pytest.raises(InvalidCertificate):
            lint(tbs_of(bytes_of, CA), against, CA)


def test_the_lint_notices_another_ca() -> None:
    """A leaf that was made for one CA is not signed by another of the same name."""
    wanted = template()
    twin = IssuingCa(
        AUTHORITY.ca(below=AUTHORITY.root, path_length=0, common_name="issuing").certificate
    )
    assert twin.subject == CA.subject
    with pytest.raises(InvalidCertificate, match="authorityKeyIdentifier"):
        lint(tbs_of(wanted, twin), wanted, CA)
    other = IssuingCa(
        AUTHORITY.ca(below=AUTHORITY.root, path_length=0, common_name="x").certificate
    )
    with pytest.raises(InvalidCertificate, match="issuer"):
        lint(tbs_of(wanted, other), wanted, CA)


def test_no_byte_can_be_changed() -> None:
    """Each bit of each byte matters: any change is noticed before it is signed."""
    wanted = template()
    good = tbs_of(wanted, CA)
    for at in range(len(good)):
        for bit in (0x01, 0x80):
            bad = bytearray(good)
            bad[at] ^= bit
            with pytest.raises(InvalidCertificate):
                lint(bytes(bad), wanted, CA)
    for bad_bytes in (good[:-1], good + b"\0", b"", good[:2]):
        with pytest.raises(InvalidCertificate):
            lint(bad_bytes, wanted, CA)


@pytest.mark.parametrize("not_after", [NOW - timedelta(seconds=10), NOW - timedelta(seconds=11)])
def test_a_leaf_has_a_life(not_after: datetime) -> None:
    """A leaf that ends before it begins, or as it begins, is not signed."""
    wanted = template(not_before=NOW - timedelta(seconds=10), not_after=not_after)
    with pytest.raises(InvalidCertificate, match="notBefore must come before notAfter"):
        lint(tbs_of(wanted, CA), wanted, CA)


@pytest.mark.parametrize("serial", [0, 1 << 159])
def test_a_serial_number_fits(serial: int) -> None:
    """RFC 5280 §4.1.2.2: positive, and of at most 20 octets."""
    wanted = template(serial=serial)
    with pytest.raises(InvalidCertificate, match="serial number"):
        lint(tbs_of(wanted, CA), wanted, CA)
    for good in (1, (1 << 159) - 1):
        assert lint(tbs_of(template(serial=good), CA), template(serial=good), CA)


@pytest.mark.parametrize(
    "text", ["265131000000Z", "2601010000Z", "260101000000+0000", "26010100000ZZ"]
)
def test_a_time_has_one_spelling(text: str) -> None:
    """Another spelling of a time than RFC 5280's, or a day that is none, is not signed."""
    wanted = template()
    good = tbs_of(wanted, CA)
    at = good.index(b"\x17\x0d")
    bad = good[:at] + der.tlv(der.UTC_TIME, text.encode()) + good[at + 15 :]
    with pytest.raises(InvalidCertificate):
        lint(bad, wanted, CA)


def test_a_linted_leaf_is_what_was_linted() -> None:
    """The proof carries the very bytes, template and CA that were compared."""
    wanted = template()
    tbs = tbs_of(wanted, CA)
    assert lint(tbs, wanted, CA) == LintedLeaf(tbs, wanted, CA)


@given(st.binary(max_size=2000))
def test_pem_has_its_form(content: bytes) -> None:
    """RFC 7468 §2: lines of 64 characters, the last one shorter, and the content comes back."""
    text = pem_of(content)
    lines = text.splitlines()
    assert lines[0] == "-----BEGIN CERTIFICATE-----"
    assert lines[-1] == "-----END CERTIFICATE-----"
    assert all(len(line) == 64 for line in lines[1:-2])
    assert base64.b64decode("".join(lines[1:-1]), validate=True) == content


@given(st.integers(0, 1 << 170), st.binary(max_size=70_000))
def test_der_reads_what_it_wrote(number: int, content: bytes) -> None:
    """An INTEGER and a value of any length come back as they were."""
    data = der.integer(number) + der.tlv(der.OCTET_STRING, content)
    begin, end = der.read(data, 0, len(data), der.INTEGER)
    assert int.from_bytes(data[begin:end], signed=True) == number
    begin, end = der.read(data, end, len(data), der.OCTET_STRING)
    assert (data[begin:end], end) == (content, len(data))
    assert der.next_tag(data, end, len(data)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04",
        b"\x05\x01x",
        b"\x04\x02x",
        b"\x04\x80x\0\0",
        b"\x04\x81\x01x",
        b"\x04\x81\x7f" + b"x" * 127,
        b"\x04\x82\x00\x80" + b"x" * 128,
        b"\x04\x81\x81" + b"x" * 128,
        b"\x04\xff" + b"\xff" * 127,
    ],
)
def test_der_has_one_spelling(data: bytes) -> None:
    """Another tag, an end too early, an indefinite or a longer length than needed is refused."""
    with pytest.raises(InvalidCertificate):
        der.read(data, 0, len(data), der.OCTET_STRING)


def test_a_long_tag_is_refused() -> None:
    """Tags of several bytes do not occur."""
    with pytest.raises(InvalidCertificate, match="long tag"):
        der.next_tag(b"\x1f\x81\x01\x00", 0, 4)
