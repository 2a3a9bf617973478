"""The hand-made CRL: byte for byte the library's."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from support.authority import Authority
from support.crl_builder import Listed, library_crl

from accredit_credentials.crl_der import Times, crl_of, entry_of, tbs_pieces
from accredit_credentials.leaf_der import IssuingCa

AUTHORITY = Authority("example.org")
CA = IssuingCa(AUTHORITY.issuing.certificate)
SECOND = timedelta(seconds=1)

moments = st.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001 (the strategy adds the time zone)
    datetime(2090, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
listed = st.builds(Listed, serial=st.integers(1, 2**159 - 1), at=moments, suspended=st.booleans())
times_of_a_crl = st.builds(
    Times,
    number=st.integers(0, 2**64),
    this_update=moments,
    next_update=moments,
)


def signed(entries: list[Listed], times: Times) -> x509.CertificateRevocationList:
    """As the library makes it."""
    return library_crl(CA.certificate, AUTHORITY.issuing.key, entries, times)


@given(st.lists(listed, max_size=20, unique_by=lambda each: each.serial), times_of_a_crl)
@settings(max_examples=300, deadline=None)
def test_the_bytes_are_the_librarys(entries: list[Listed], times: Times) -> None:
    """Whatever is on it, the hand-made CRL is the library's, byte for byte."""
    times = replace(times, next_update=max(times.this_update, times.next_update) + SECOND)
    library = signed(entries, times)
    made = tbs_pieces(CA, (entry_of(e.serial, e.at, suspended=e.suspended) for e in entries), times)
    assert b"".join(made) == library.tbs_certlist_bytes
    assert x509.load_der_x509_crl(crl_of(made, library.signature)) == library


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 2000])
def test_entries_may_come_joined(size: int) -> None:
    """Entries one by one and the same joined make the same CRL, of any length of a length."""
    at = datetime(2026, 6, 1, tzinfo=UTC)
    times = Times(number=7, this_update=at, next_update=at + timedelta(hours=1))
    entries = [entry_of(2**150 + each, at, suspended=False) for each in range(size)]
    whole = b"".join(tbs_pieces(CA, [b"".join(entries)], times))
    assert whole == b"".join(tbs_pieces(CA, entries, times))
    library = signed([Listed(2**150 + each, at, suspended=False) for each in range(size)], times)
    assert whole == library.tbs_certlist_bytes


def test_one_byte_of_an_entry_is_another_crl() -> None:
    """The signature is over the entries: a moment later, or a hold, is not what was signed."""
    at = datetime(2026, 6, 1, tzinfo=UTC)
    times = Times(number=7, this_update=at, next_update=at + timedelta(hours=1))
    signature = signed([Listed(77, at, suspended=False)], times).signature
    for changed in (
        entry_of(78, at, suspended=False),
        entry_of(77, at + SECOND, suspended=False),
        entry_of(77, at, suspended=True),
    ):
        crl = x509.load_der_x509_crl(crl_of(tbs_pieces(CA, [changed], times), signature))
        assert not crl.is_signature_valid(CA.certificate.public_key())  # type: ignore[arg-type]
    same = tbs_pieces(CA, [entry_of(77, at, suspended=False)], times)
    crl = x509.load_der_x509_crl(crl_of(same, signature))
    assert crl.is_signature_valid(CA.certificate.public_key())  # type: ignore[arg-type]
