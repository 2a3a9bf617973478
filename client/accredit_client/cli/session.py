"""The issuer, as an admin who has logged in.

An admin's SVID past its half life is renewed before the command goes on; one that is over means
logging in again. Whatever the issuer answers is verified before it is kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from accredit_client import calls
from accredit_client.cli.problems import NotLoggedIn
from accredit_client.cli.profile import Profile
from accredit_client.effects import utc_now
from accredit_client.errors import InvalidAnswer, IssuerRefused
from accredit_client.files import FolderContent
from accredit_client.trust import Trust, newer
from accredit_client.wire import Issuer
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.checkpoint import LogKey
from accredit_credentials.keys import PrivateKey, generate_key
from accredit_credentials.x509_svid import X509Identity, X509Svid, parse_pem, validate

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
    if not _is_due(content.identity.svid, now):
        return content
    with profile.locked():
        content = profile.read()  # another command may have renewed it meanwhile
        if _is_due(content.identity.svid, now):
            content = _renewed(profile, content, now)
    return content


def _is_due(svid: X509Svid, now: datetime) -> bool:
    return now >= svid.not_before + (svid.not_after - svid.not_before) / 2


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
    return Issuer.at(content.issuer_url, bundle=content.bundle, identity=content.identity)
