"""The issuer, as an admin who has logged in.

An admin's SVID past its half life, or of an authority that is tainted, is renewed before the
command goes on; one that is over means logging in again. The bundle is asked for again once it is
older than its hint: an admin who rotates the root must be among the first to know the next one.
Whatever the issuer answers is verified before it is kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from accredit_client import calls
from accredit_client.call import Call
from accredit_client.cli.problems import NotLoggedIn
from accredit_client.cli.profile import Profile
from accredit_client.effects import utc_now
from accredit_client.errors import InvalidAnswer, IssuerRefused, IssuerUnreachable
from accredit_client.files import FolderContent
from accredit_client.trust import Trust, newer
from accredit_client.wire import Issuer
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.checkpoint import LogKey
from accredit_credentials.keys import PrivateKey, generate_key
from accredit_credentials.x509_svid import X509Identity, parse_pem, validate

A = TypeVar("A")

LONGEST_HINT = 30  # seconds that a bundle is used without asking for it again

_EXPIRED_HINT = "another admin makes a new token with: accredit admin invite NAME --role ROLE"


@dataclass(frozen=True, slots=True)
class Session:
    """A login in use."""

    profile: Profile
    content: FolderContent
    issuer: Issuer


@contextmanager
def open_session(profile_name: str) -> Iterator[Session]:
    """Open the issuer with a login.

    Raises:
        NotLoggedIn: there is no login, or it is over.
        IssuerUnreachable, IssuerUntrusted, IssuerRefused: the SVID was due and not renewed.
    """
    profile = Profile.named(profile_name)
    content = _fresh(profile, utc_now())
    with _issuer(content) as issuer:
        yield Session(profile, content, issuer)


@contextmanager
def open_issuer(profile_name: str) -> Iterator[Issuer]:
    """As ``open_session``, for commands that need nothing but the issuer."""
    with open_session(profile_name) as session:
        yield session.issuer


def ask(profile_name: str, call: Call[A]) -> A:
    """Send one call, for commands that need no more; raises as ``open_session``."""
    with open_issuer(profile_name) as issuer:
        return issuer.send(call)


def enrol(*, url: str, trust: Trust, token: str) -> tuple[FolderContent, LogKey]:
    """Spend an admin's one-time token; returns the login and the key of the issuer's log.

    Raises:
        IssuerUnreachable, IssuerUntrusted, IssuerRefused: the issuer was not reached, or said no.
        CredentialError: its answer does not hold.
    """
    bundle = trust.establish(url)
    key = generate_key()
    with Issuer.at(url, bundle=bundle) as issuer:
        # Before the token is spent: whatever can fail without it should.
        log_key = LogKey.parse(issuer.send(calls.log_key()).strip())
        csr = calls.certificate_request(key)
        answer = issuer.send(calls.enrolment(token=token, csr=csr))
        identity = _accepted(answer.certificates, key, bundle)
        return FolderContent(issuer.url, bundle, identity), log_key


def _fresh(profile: Profile, now: datetime) -> FolderContent:
    content = profile.read()
    if _is_due(content, now) or _is_old(profile, content, now):
        with profile.locked():
            content = profile.read()  # another command may have been here meanwhile
            if _is_old(profile, content, now):
                content = _with_newest_bundle(profile, content, now)
            if _is_due(content, now):
                content = _renewed(profile, content, now)
    return content


def _is_due(content: FolderContent, now: datetime) -> bool:
    svid = content.identity.svid
    half = svid.not_before + (svid.not_after - svid.not_before) / 2
    return now >= half or not content.bundle.tainted.isdisjoint(svid.authorities)


def _is_old(profile: Profile, content: FolderContent, now: datetime) -> bool:
    hint = min(content.bundle.refresh_hint or LONGEST_HINT, LONGEST_HINT)
    # A clock that was set back is no reason to wait.
    return not 0 <= (now - profile.asked_at()).total_seconds() < hint


def _with_newest_bundle(profile: Profile, content: FolderContent, now: datetime) -> FolderContent:
    # Without the SVID: it may be over, and the bundle is for everybody.
    with Issuer.at(content.issuer(), bundle=content.bundle) as issuer:
        try:
            fetched = issuer.send(calls.bundle(content.bundle.trust_domain))
        except IssuerUnreachable:
            return content  # the command itself says so
    profile.asked(now)
    if newer(content.bundle, fetched) != content.bundle:
        content = replace(content, bundle=fetched)
        profile.write(content)
    return content


def _renewed(profile: Profile, content: FolderContent, now: datetime) -> FolderContent:
    held = content.identity.svid
    if now > held.not_after:
        raise NotLoggedIn(
            f"the login of {held.spiffe_id} expired at {held.not_after:%Y-%m-%dT%H:%M:%SZ}",
            hint=_EXPIRED_HINT,
        )
    key = generate_key()
    with _issuer(content) as issuer:
        bundle = newer(content.bundle, issuer.send(calls.bundle(content.bundle.trust_domain)))
        try:
            answer = issuer.send(calls.x509_svid(csr=calls.certificate_request(key)))
        except IssuerRefused as refused:
            if refused.for_now:
                return content  # still good: the next command tries again
            raise
    identity = _accepted(answer.certificates, key, bundle)
    if identity.svid.spiffe_id != held.spiffe_id:
        raise InvalidAnswer(f"the issuer renewed {held.spiffe_id} as {identity.svid.spiffe_id}")
    renewed = replace(content, bundle=bundle, identity=identity)
    profile.write(renewed)
    return renewed


def _accepted(certificates: str, key: PrivateKey, bundle: TrustBundle) -> X509Identity:
    identity = X509Identity.of(parse_pem(certificates), key)
    # Below a subordinate issuer's CA an admin counts at that issuer only: here it is ourselves.
    validate(identity.svid, bundles={bundle.trust_domain: bundle}, now=utc_now(), any_reach=True)
    return identity


def _issuer(content: FolderContent) -> Issuer:
    return Issuer.at(content.issuer(), bundle=content.bundle, identity=content.identity)
