"""What the daemon's messages are believed for, and its CRLs: each good one beside its twins."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from support.authority import Authority, Signer
from support.workload import state_of

from accredit_client.daemon import messages as written
from accredit_client.errors import InvalidAnswer
from accredit_client.workload.messages import jwt_state, x509_state
from accredit_client.workload.revoked import RevocationLists
from accredit_credentials.errors import Revoked, Stale
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Svid

AGENT = "/ns/support/agent/triage"


def message(authority: Authority, **fields: Any) -> Any:
    """A good message of FetchX509SVID."""
    return written.x509_svids(state_of(authority, AGENT, "/ns/support/agent/second", **fields))


@pytest.mark.spec("SPIFFE-70")
def test_each_trust_domain_has_the_authorities_at_its_own_name(
    authority: Authority, other_authority: Authority
) -> None:
    """The own bundle stands beside the SVID, others in the map; none speaks for another."""
    other = other_authority.trust_domain
    good = message(authority, federated={other: other_authority.bundle})
    good.federated_bundles["spiffe://example.org"] = good.federated_bundles[str(other.id)]
    good.federated_bundles["spiffe://third.example"] = b"\x30\x03abc"
    good.federated_bundles["spiffe://fourth.example/path"] = b""
    state = x509_state(good, spiffe_id=None, now=authority.now)
    assert state is not None
    assert state.identity.svid.spiffe_id == authority.id(AGENT)
    assert state.bundle.x509_authorities == (authority.root.certificate,)
    assert set(state.federated) == {other}
    good.svids[0].bundle = good.federated_bundles[str(other.id)]
    with pytest.raises(InvalidAnswer, match="no path to an authority"):
        x509_state(good, spiffe_id=None, now=authority.now)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda one, _: setattr(one, "bundle", b""), "bundle must have a certificate"),
        (lambda one, _: setattr(one, "x509_svid", b""), "SVID must have a certificate"),
        (lambda one, _: setattr(one, "x509_svid", one.x509_svid[:-1]), "DER ends"),
        (lambda one, two: setattr(one, "x509_svid", two.x509_svid), "is of spiffe"),
        (lambda one, two: setattr(one, "x509_svid_key", two.x509_svid_key), "does not belong"),
        (lambda one, _: setattr(one, "x509_svid_key", b"key"), "unencrypted PKCS#8"),
        (lambda one, _: setattr(one, "x509_svid_key", b""), "unencrypted PKCS#8"),
        (lambda one, _: setattr(one, "spiffe_id", ""), "SPIFFE ID"),
        (lambda one, _: setattr(one, "bundle", one.bundle * 129), "more than 128"),
    ],
)
def test_a_message_with_one_thing_wrong_is_not_believed(
    authority: Authority, change: Callable[[Any, Any], None], why: str
) -> None:
    """Chain, name, key and bundle have to fit; the error says which, and shows no key."""
    bad = message(authority)
    change(*bad.svids)
    with pytest.raises(InvalidAnswer, match=why):
        x509_state(bad, spiffe_id=None, now=authority.now)


def test_an_identity_is_named_or_the_first(authority: Authority) -> None:
    """The default one stands first; one that is not there was withdrawn; one may be over."""
    good = message(authority)
    second = authority.id("/ns/support/agent/second")
    state = x509_state(good, spiffe_id=second, now=authority.now)
    assert state is not None
    assert state.identity.svid.spiffe_id == second
    assert x509_state(good, spiffe_id=authority.id("/x"), now=authority.now) is None
    del good.svids[:]
    assert x509_state(good, spiffe_id=None, now=authority.now) is None
    with pytest.raises(InvalidAnswer, match="valid from"):
        x509_state(message(authority), spiffe_id=None, now=authority.now + timedelta(hours=2))


def test_keys_of_tokens_are_read_by_trust_domain(authority: Authority) -> None:
    """A document that cannot be read leaves its own trust domain without keys, and no other."""
    document = written.jwt_bundles(state_of(authority)).bundles["spiffe://example.org"]
    found = jwt_state({"spiffe://example.org": document, "spiffe://b.example": b"[]"})
    assert set(found) == {authority.trust_domain}
    assert set(found[authority.trust_domain].jwt_authorities) == {authority.kid}


def crl(
    authority: Authority,
    *serials: int,
    signer: Signer | None = None,
    of: Signer | None = None,
    critical: bool = False,
) -> bytes:
    """A CRL in the name of the issuing CA, or ``of`` another, that holds for an hour."""
    named = of or authority.issuing
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(named.certificate.subject)
        .last_update(authority.now)
        .next_update(authority.now + timedelta(hours=1))
        .add_extension(x509.CRLNumber(1), critical=critical)
    )
    for each in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(each)
        builder = builder.add_revoked_certificate(entry.revocation_date(authority.now).build())
    key = (signer or named).key
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_peer_on_its_own_cas_list_is_refused(authority: Authority) -> None:
    """Listed or not is what counts, whether lists are required or not."""
    good, listed = authority.issue().svid, authority.issue().svid
    lists = RevocationLists([crl(authority, listed.leaf.serial_number)])
    for required in (True, False):
        lists.check(good, authority.bundle, now=authority.now, required=required)
        with pytest.raises(Revoked):
            lists.check(listed, authority.bundle, now=authority.now, required=required)


def test_a_peer_whose_ca_is_on_its_roots_list_is_refused(authority: Authority) -> None:
    """Whether its own CA has a list or not; a stranger's list of the same name says nothing."""
    svid, issuing = authority.issue().svid, authority.issuing.certificate.serial_number
    stranger = Signer(authority.root.certificate, generate_key())
    for leaves in ([], [crl(authority)]):
        lists = RevocationLists([*leaves, crl(authority, issuing, of=authority.root)])
        with pytest.raises(Revoked, match="a CA above"):
            lists.check(svid, authority.bundle, now=authority.now, required=False)
        for neighbour in (
            crl(authority, issuing + 1, of=authority.root),
            crl(authority, issuing, of=authority.root, signer=stranger),
            crl(authority, issuing),
        ):
            lists = RevocationLists([*leaves, neighbour])
            lists.check(svid, authority.bundle, now=authority.now, required=False)


def test_a_roots_list_alone_is_no_list_of_leaves(authority: Authority) -> None:
    """Where a list has to be there it is that of the CA that signed the leaf."""
    svid = authority.issue().svid
    roots = crl(authority, of=authority.root)
    with pytest.raises(Stale):
        RevocationLists([roots]).check(svid, authority.bundle, now=authority.now, required=True)
    RevocationLists([roots, crl(authority)]).check(
        svid, authority.bundle, now=authority.now, required=True
    )


def test_a_list_that_says_nothing_is_none(authority: Authority) -> None:
    """Another's signature, an extension that is not understood, garbage, over: nobody knows."""
    svid: X509Svid = authority.issue().svid
    number = svid.leaf.serial_number
    stranger = Signer(authority.issuing.certificate, generate_key())
    useless = [
        crl(authority, number, signer=stranger),
        crl(authority, number, critical=True),
        b"no list",
    ]
    for contents in ([], useless):
        lists = RevocationLists(contents)
        lists.check(svid, authority.bundle, now=authority.now, required=False)
        with pytest.raises(Stale):
            lists.check(svid, authority.bundle, now=authority.now, required=True)
    lists = RevocationLists([crl(authority)])
    hour = timedelta(hours=1)
    lists.check(svid, authority.bundle, now=authority.now + hour, required=True)
    with pytest.raises(Stale):
        lists.check(
            svid, authority.bundle, now=authority.now + hour + timedelta(seconds=1), required=True
        )
