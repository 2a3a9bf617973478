"""One OCSP question and its answer: what is read, what is said, and what is not."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponseStatus
from hypothesis import given
from hypothesis import strategies as st
from support.authority import HOUR, NOW, Authority
from support.ocsp import (
    NONCE_OID,
    SHA1,
    cert_id,
    extension,
    nonce_of,
    put_together,
    request,
    status_of,
    verified,
)

from accredit_credentials import der
from accredit_credentials.keys import generate_key
from accredit_issuer.authority.profile import new_serial
from accredit_issuer.authority.responder_profile import (
    ResponderProfile,
    ResponderTemplate,
    sign_responder,
)
from accredit_issuer.revocation.ocsp import (
    MAX_REQUEST,
    IssuerHashes,
    Known,
    NotAnswered,
    Question,
    Responder,
    Status,
    decide,
    failure,
    sign_answer,
)

SECOND = timedelta(seconds=1)
AUTHORITY = Authority()
CA = AUTHORITY.issuing.certificate
LEAF = AUTHORITY.issue().svid.leaf
GOOD = request(LEAF, CA)
ID = cert_id(LEAF, CA)
MALFORMED = OCSPResponseStatus.MALFORMED_REQUEST
UNAUTHORIZED = OCSPResponseStatus.UNAUTHORIZED


def responder(*, lifetime: timedelta = HOUR) -> Responder:
    """A responder of the issuing CA."""
    key = generate_key()
    template = ResponderTemplate(
        ca=CA,
        public_key=key.public_key(),
        serial=new_serial(),
        not_before=NOW,
        not_after=NOW + lifetime,
    )
    checked = ResponderProfile(backdate=10 * SECOND, replica=0).check(template, NOW)
    return Responder(sign_responder(checked, AUTHORITY.issuing.key), key)  # type: ignore[arg-type]


def refused(unverified: bytes) -> OCSPResponseStatus:
    """The status that a request is refused with."""
    with pytest.raises(NotAnswered) as error:
        Question.parse(unverified)
    return error.value.status


@pytest.mark.parametrize("algorithm", [SHA1, hashes.SHA256()], ids=["sha1", "sha256"])
@pytest.mark.parametrize("nonce", [None, b"n", b"n" * 16, b"n" * 32, b"n" * 128], ids=str)
def test_a_request_says_what_it_asks(algorithm: hashes.HashAlgorithm, nonce: bytes | None) -> None:
    """CertID and nonce are read, with either hash, and the CertID is that of the CA."""
    question = Question.parse(request(LEAF, CA, algorithm=algorithm, nonce=nonce))
    assert question.asked.serial == LEAF.serial_number
    assert question.nonce == nonce
    IssuerHashes.of(CA).check(question.asked)


def test_no_prefix_of_a_request_is_one() -> None:
    """Cut off anywhere, with something behind it, empty: malformed, and never another error."""
    whole = request(LEAF, CA, nonce=b"n" * 32)
    for cut in range(len(whole)):
        assert refused(whole[:cut]) is MALFORMED
    assert refused(whole + b"\0") is MALFORMED


@pytest.mark.parametrize("depth", range(1, 6))
def test_empty_sequences_are_no_request(depth: int) -> None:
    """However many empty sequences stand in each other, none is a request."""
    nested = der.sequence()
    for _ in range(depth - 1):
        nested = der.sequence(nested)
    assert refused(nested) is MALFORMED


@given(st.binary(max_size=300), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_garbage_is_refused_or_asks_something(garbage: bytes, start: int, end: int) -> None:
    """Whatever stands in place of part of a request: it is a question, or it gets a status."""
    for unverified in (garbage, GOOD[:start] + garbage + GOOD[end:]):
        try:
            Question.parse(unverified)
        except NotAnswered as error:
            assert error.status in {MALFORMED, UNAUTHORIZED}  # noqa: PT017 (or it is a question)


def test_a_request_that_is_too_long_is_not_read() -> None:
    """A well-formed request of MAX_REQUEST bytes is read; with one byte more it is malformed."""

    def padded(size: int) -> bytes:
        return put_together(ID, extensions=extension(b"x" * size))

    room = MAX_REQUEST - len(padded(600)) + 600
    assert len(padded(room)) == MAX_REQUEST
    assert Question.parse(padded(room)).asked.serial == LEAF.serial_number
    assert refused(padded(room + 1)) is MALFORMED
    assert refused(b"\0" * 10_000_000) is MALFORMED


@pytest.mark.parametrize(
    "unverified",
    [
        pytest.param(put_together(), id="about nothing"),
        pytest.param(put_together(ID, ID), id="about two certificates"),
        pytest.param(put_together(ID, extensions=extension(b"x", critical=True)), id="critical"),
        pytest.param(put_together(ID, single=extension(b"x", critical=True)), id="critical single"),
        pytest.param(
            put_together(ID, single=extension(b"x") + extension(b"x", critical=True)),
            id="critical single, the second",
        ),
        pytest.param(put_together(ID, extensions=extension(b"x") * 2), id="one extension twice"),
        pytest.param(
            put_together(ID, extensions=extension(b"\4\0", NONCE_OID)), id="an empty nonce"
        ),
        pytest.param(
            put_together(ID, extensions=extension(der.tlv(4, b"n" * 129), NONCE_OID)),
            id="a nonce of 129 octets",
        ),
        pytest.param(put_together(ID, before=der.tlv(0xA0, der.integer(1))), id="version 2"),
        pytest.param(
            put_together(ID.replace(der.integer(LEAF.serial_number), der.integer(0))),
            id="serial 0",
        ),
        pytest.param(
            put_together(
                der.sequence(
                    bytes.fromhex("300906052b0e03021a0500"),
                    *(der.tlv(4, b"x" * 20),) * 2,
                    der.integer(1 << 159),
                )
            ),
            id="serial of 21 octets",
        ),
    ],
)
def test_what_is_not_understood_is_malformed(unverified: bytes) -> None:
    """A request that means more than a single question that is understood in full is malformed."""
    assert refused(unverified) is MALFORMED


@pytest.mark.parametrize(
    "unverified",
    [
        pytest.param(put_together(ID), id="bare"),
        pytest.param(put_together(ID, extensions=extension(b"x")), id="an extension"),
        pytest.param(put_together(ID, single=extension(b"x")), id="an extension of the single"),
        pytest.param(
            put_together(ID, before=der.tlv(0xA1, der.tlv(0x86, b"http://a.example"))),
            id="a requestor's name",
        ),
    ],
)
def test_what_need_not_be_understood_is_passed_over(unverified: bytes) -> None:
    """The same with what is not critical is a question about the certificate."""
    assert Question.parse(unverified) == Question.parse(GOOD)


@pytest.mark.parametrize(
    "algorithm", [hashes.SHA224(), hashes.SHA384(), hashes.SHA512()], ids=lambda a: a.name
)
def test_a_hash_that_no_ca_is_known_by_is_unauthorized(algorithm: hashes.HashAlgorithm) -> None:
    """Other hashes are well-formed, and whose certificate they mean is not known here."""
    assert refused(request(LEAF, CA, algorithm=algorithm)) is UNAUTHORIZED


def test_a_hash_that_nobody_knows_is_unauthorized() -> None:
    """Nor is it known of MD5, or of an algorithm without a name."""
    for oid in ("06082a864886f70d0205", "06032a0304"):
        unknown = der.sequence(
            der.sequence(bytes.fromhex(oid), b"\5\0"), *(der.tlv(4, b"x" * 16),) * 2, der.integer(1)
        )
        assert refused(put_together(unknown)) is UNAUTHORIZED


@pytest.mark.parametrize("other", ["name", "key", "hash"])
def test_another_ca_is_not_spoken_for(other: str) -> None:
    """A CertID with one hash of another CA, or with the hashes of another algorithm, is refused."""
    same_name = AUTHORITY.ca(below=AUTHORITY.root, path_length=0, common_name="issuing").certificate
    below = request(AUTHORITY.issuing.certificate, AUTHORITY.root.certificate)
    asked = Question.parse(GOOD).asked
    foreign = {
        "name": replace(asked, issuer_name=Question.parse(below).asked.issuer_name),
        "key": Question.parse(request(LEAF, same_name)).asked,
        "hash": replace(asked, algorithm="sha256"),
    }[other]
    hashes_of = IssuerHashes.of(CA)
    hashes_of.check(asked)
    with pytest.raises(NotAnswered) as error:
        hashes_of.check(foreign)
    assert error.value.status is UNAUTHORIZED


RELEASED = Known(expires_at=NOW + HOUR, released=True)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (RELEASED, Status(OCSPCertStatus.GOOD, until=NOW + HOUR)),
        (
            replace(RELEASED, expires_at=NOW + SECOND),
            Status(OCSPCertStatus.GOOD, until=NOW + SECOND),
        ),
        (None, Status(OCSPCertStatus.UNKNOWN)),
        (replace(RELEASED, released=False), Status(OCSPCertStatus.UNKNOWN)),
        (replace(RELEASED, revoked_at=NOW), Status(OCSPCertStatus.REVOKED, NOW)),
        (
            replace(RELEASED, revoked_at=NOW, suspended=True),
            Status(OCSPCertStatus.REVOKED, NOW, suspended=True),
        ),
        (
            Known(expires_at=NOW - HOUR, released=False, revoked_at=NOW),
            Status(OCSPCertStatus.REVOKED, NOW),
        ),
    ],
)
def test_good_is_what_was_released_and_is_not_revoked(
    known: Known | None, expected: Status
) -> None:
    """Everything else is revoked or unknown: good is never a default."""
    assert decide(known, NOW) == expected


def test_nothing_is_said_of_what_has_expired() -> None:
    """In the moment of its end a certificate is not good any more, and its status is refused."""
    with pytest.raises(NotAnswered) as error:
        decide(replace(RELEASED, expires_at=NOW), NOW)
    assert error.value.status is UNAUTHORIZED


@pytest.mark.parametrize("nonce", [None, b"n" * 32])
def test_an_answer_is_signed_by_the_responder(nonce: bytes | None) -> None:
    """It names the certificate that was asked about, its moments and the nonce, by key hash."""
    question = Question.parse(request(LEAF, CA, algorithm=hashes.SHA256(), nonce=nonce))
    answer = sign_answer(
        question, Status(OCSPCertStatus.GOOD), responder(), now=NOW, lifetime=30 * SECOND
    )
    read = verified(answer.der, CA)
    asked = question.asked
    assert (read.serial_number, read.issuer_name_hash, read.issuer_key_hash) == (
        asked.serial,
        asked.issuer_name,
        asked.issuer_key,
    )
    assert read.hash_algorithm.name == "sha256"
    assert read.certificate_status is OCSPCertStatus.GOOD
    assert (read.this_update_utc, read.next_update_utc) == (NOW, NOW + 30 * SECOND)
    assert (answer.this_update, answer.next_update) == (NOW, NOW + 30 * SECOND)
    assert nonce_of(read) == nonce
    assert answer.reusable is (nonce is None)


@pytest.mark.parametrize("suspended", [True, False])
def test_a_revoked_answer_says_since_when(*, suspended: bool) -> None:
    """And it says that it is on hold where it is, and no reason where it is not."""
    status = Status(OCSPCertStatus.REVOKED, NOW - timedelta(seconds=1, microseconds=7), suspended)
    read = verified(
        sign_answer(Question.parse(GOOD), status, responder(), now=NOW, lifetime=30 * SECOND).der,
        CA,
    )
    assert read.certificate_status is OCSPCertStatus.REVOKED
    assert read.revocation_time_utc == NOW - 2 * SECOND
    hold = x509.ReasonFlags.certificate_hold if suspended else None
    assert read.revocation_reason is hold


def test_unknown_is_signed_and_not_kept() -> None:
    """What is not known now may be released in a moment: nobody is told to keep the answer."""
    answer = sign_answer(
        Question.parse(GOOD),
        Status(OCSPCertStatus.UNKNOWN),
        responder(),
        now=NOW,
        lifetime=30 * SECOND,
    )
    assert verified(answer.der, CA).certificate_status is OCSPCertStatus.UNKNOWN
    assert not answer.reusable


@pytest.mark.parametrize(
    ("until", "lifetime"),
    [(NOW + 20 * SECOND, HOUR), (NOW + HOUR, 20 * SECOND), (None, 20 * SECOND)],
)
def test_no_answer_outlives_certificate_or_responder(
    until: datetime | None, lifetime: timedelta
) -> None:
    """Whoever keeps an answer looks at both certificates again: whichever ends first ends it."""
    answer = sign_answer(
        Question.parse(GOOD),
        Status(OCSPCertStatus.GOOD, until=until),
        responder(lifetime=lifetime),
        now=NOW,
        lifetime=30 * SECOND,
    )
    assert answer.next_update == NOW + 20 * SECOND


def test_a_failure_has_no_status_and_no_signature() -> None:
    """``unauthorized`` is five bytes, as RFC 5019 has it."""
    answer = failure(UNAUTHORIZED)
    assert status_of(answer.der) == "unauthorized"
    assert answer.der == bytes.fromhex("30030a0106")
    assert answer.this_update is None
    assert not answer.reusable


def test_nothing_secret_is_shown() -> None:
    """Neither a nonce nor the responder's key stands in what a log could print."""
    question = Question.parse(request(LEAF, CA, nonce=b"secret-nonce-of-somebody"))
    assert "secret" not in repr(question)
    assert "key" not in repr(responder())
    assert ocsp.load_der_ocsp_request(GOOD).serial_number == LEAF.serial_number
