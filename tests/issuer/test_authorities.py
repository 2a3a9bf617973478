"""Authorities that really rotate: nothing that was issued becomes invalid before its end."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.clock import SettableClock
from support.offline import Offline, offline_issuer, task_request

from accredit_credentials import jwt_svid, task_token
from accredit_credentials.errors import Untrusted
from accredit_credentials.x509_svid import X509Svid, validate
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.authority.planning import wanted_kinds
from accredit_issuer.errors import Unavailable

SHORT: dict[str, Any] = {
    "lifetimes": {
        "root": 3600,
        "issuing_ca": 1200,
        "jwt_key": 1200,
        "x509_svid": 300,
        "jwt_svid": 100,
        "task_token": 100,
        "admin_svid": 300,
    },
    "bundle": {"refresh_hint": 10},
    "revocation": {"crl": 600},
}


def check_valid(offline: Offline, svid: X509Svid) -> None:
    """Validate with the bundle as it is published now."""
    bundle = offline.issuer.bundle
    validate(svid, bundles={bundle.trust_domain: bundle}, now=offline.clock())


@pytest.mark.spec("SPIFFE-81")
def test_what_was_issued_stays_valid_to_its_end(tmp_path: Path) -> None:
    """Through rotations of root, CA and JWT key, each SVID and token validates until it expires."""
    with offline_issuer(tmp_path / "issuer", **SHORT) as offline:
        issuer, clock = offline.issuer, offline.clock
        manifest = offline.register()
        svids: list[X509Svid] = []
        tokens: list[tuple[Any, str]] = []
        began = clock()
        roots, jwt_keys = set[str](), set[str]()
        while clock() < began + timedelta(hours=2):
            issuer.keep_up()
            roots.add(issuer.authorities.now_in_force.active(AuthorityKind.ROOT).id)
            svid = offline.attest(manifest)
            svids.append(svid)
            issued = offline.do(issuer.issuance.tokens.jwt_svid(svid, ("a",)))
            tokens.append((issued.svid.expires_at, issued.token))
            jwt_keys.add(issued.svid.authority or "")
            svids = [each for each in svids if clock() < each.not_after]
            tokens = [each for each in tokens if clock() < each[0]]
            for each in svids:
                check_valid(offline, each)
            for _, token in tokens:
                jwt_svid.validate(
                    token,
                    bundles={issuer.bundle.trust_domain: issuer.bundle},
                    audience="a",
                    now=clock(),
                )
            later = issuer.authorities.next_due(clock())
            clock.now = min(later, clock() + timedelta(seconds=110))
        assert len(roots) >= 4, "the roots did not rotate"
        assert len(jwt_keys) >= 8


def test_an_issuing_ca_ends_with_its_root(tmp_path: Path) -> None:
    """No issuing CA is valid longer than the root above it."""
    with offline_issuer(tmp_path / "issuer", **SHORT) as offline:
        for _ in range(60):
            offline.clock.now = offline.issuer.authorities.next_due(offline.clock())
            offline.issuer.keep_up()
            snapshot = offline.issuer.authorities.now_in_force
            ends = {
                a.certificate.subject: a.certificate.not_valid_after_utc
                for a in snapshot.published(AuthorityKind.ROOT)
                if a.certificate
            }
            for ca in snapshot.published(AuthorityKind.X509):
                assert ca.certificate is not None
                assert ca.certificate.issuer in ends, "its root is published no more"
                assert ca.certificate.not_valid_after_utc <= ends[ca.certificate.issuer]


@pytest.mark.spec("SPIFFE-81")
def test_a_new_key_is_in_the_bundle_before_it_signs(tmp_path: Path) -> None:
    """A JWT key and a root stand in the bundle for three refresh hints before they sign."""
    with offline_issuer(tmp_path / "issuer", **SHORT) as offline:
        issuer, clock = offline.issuer, offline.clock
        known_since = {a.id: clock() for a in issuer.authorities.now_in_force.authorities}
        first = set(known_since)
        for _ in range(80):
            clock.now = issuer.authorities.next_due(clock())
            issuer.keep_up()
            snapshot = issuer.authorities.now_in_force
            for kid in snapshot.bundle.jwt_authorities:
                known_since.setdefault(kid, clock())
            for kind in (AuthorityKind.ROOT, AuthorityKind.JWT):
                for authority in snapshot.published(kind):
                    known_since.setdefault(authority.id, clock())
                active = snapshot.active(kind)
                if active.id not in first:
                    assert clock() - known_since[active.id] >= timedelta(seconds=30)


@pytest.mark.spec("SPIFFE-52")
def test_the_bundle_counts_its_versions(tmp_path: Path) -> None:
    """Each change of the bundle has a higher sequence number, restarts included."""
    with offline_issuer(tmp_path / "issuer", **SHORT) as offline:
        seen = {offline.issuer.bundle.sequence: offline.issuer.bundle.to_json()}
        for _ in range(20):
            offline.clock.now = offline.issuer.authorities.next_due(offline.clock())
            offline.reopen()
            bundle = offline.issuer.bundle
            assert bundle.sequence >= max(seen)
            assert seen.setdefault(bundle.sequence, bundle.to_json()) == bundle.to_json()
        assert len(seen) > 10


@pytest.mark.parametrize("days", [1, 40, 4000])
def test_downtime_is_caught_up_with(tmp_path: Path, days: int) -> None:
    """After any time asleep the issuer has one active authority of each kind, and issues."""
    with offline_issuer(tmp_path / "issuer", **SHORT) as offline:
        offline.clock.advance(days=days)
        offline.reopen()
        states = [
            (a.kind, a.state)
            for a in offline.issuer.authorities.now_in_force.authorities
            if a.state is State.ACTIVE
        ]
        assert sorted(states) == sorted(
            (kind, State.ACTIVE) for kind in wanted_kinds(offline.config)
        )
        check_valid(offline, offline.agent())


def test_a_removed_key_leaves_the_disk(tmp_path: Path) -> None:
    """Where nothing that a key signed is valid any more, its file is gone."""
    with offline_issuer(tmp_path / "issuer", **SHORT) as offline:
        before = set(offline.config.keys.folder.iterdir())
        offline.clock.advance(days=2)
        offline.issuer.keep_up()
        after = set(offline.config.keys.folder.iterdir())
        assert {path.name for path in before & after} == {"log.pem"}
        assert len(after) == len(before)


def test_a_foreign_domain_of_the_same_name_is_not_this_one(tmp_path: Path) -> None:
    """Two issuers of one trust domain's name do not vouch for each other's SVIDs."""
    with (
        offline_issuer(tmp_path / "a") as one,
        offline_issuer(tmp_path / "b", SettableClock()) as other,
    ):
        svid = one.agent()
        check_valid(one, svid)
        with pytest.raises(Untrusted):
            check_valid(other, svid)


def test_a_revoked_ca_signs_no_more(offline: Offline) -> None:
    """While its CA is revoked nobody gets an SVID of it: not released, whoever asks."""
    manifest = offline.register()
    ca = offline.issuer.authorities.now_in_force.active(AuthorityKind.X509)
    offline.state(f"authority:{ca.id}")
    with pytest.raises(Exception, match="is revoked since"):
        offline.attest(manifest)


def test_task_tokens_verify_after_rotation(tmp_path: Path) -> None:
    """A token that was signed just before its key was retired verifies until it is over."""
    with offline_issuer(tmp_path / "issuer", **SHORT) as offline:
        issuer, clock = offline.issuer, offline.clock
        svid = offline.agent()
        first = issuer.authorities.jwt_signer()[1]
        while issuer.authorities.jwt_signer()[1] == first:
            if clock() >= svid.not_after - timedelta(seconds=100):
                svid = offline.renew(svid)
            issued = offline.do(issuer.issuance.tokens.task_token(svid, task_request()))
            clock.advance(seconds=5)
            issuer.keep_up()
        assert issued.content.authority == first
        clock.now = issued.content.expires_at - timedelta(seconds=1)
        issuer.keep_up()
        task_token.verify(
            issued.token,
            bundle=issuer.bundle,
            issuer=issuer.config.url,
            audience="https://notes.example.org",
            now=clock(),
        )


def test_nothing_is_signed_with_a_key_that_is_gone(offline: Offline) -> None:
    """A certificate whose key is not held cannot be signed for."""
    certificate = offline.issuer.authorities.now_in_force.active(AuthorityKind.X509).certificate
    assert certificate is not None
    offline.clock.advance(days=3)
    offline.issuer.keep_up()
    with pytest.raises(Unavailable):
        offline.issuer.authorities.x509_key(certificate)
