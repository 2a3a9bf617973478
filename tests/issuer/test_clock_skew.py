"""Clocks that differ by minutes: nothing is taken for fresh or valid that may not be.

The issuer's clock is the test's; the verifier's is so many seconds ahead of it, or behind it. What
a verifier can still accept, and why it refuses the rest, is a table. Within ten seconds nothing
is refused; at five minutes all that is fresh is.
"""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from support.clock import SettableClock
from support.judges import Verdict, openssl, pem_of
from support.ocsp import ask
from support.offline import Offline, offline_issuer
from support.projections import LISTS

from accredit_credentials import jwt_svid, status_list, task_token, x509_svid
from accredit_credentials.errors import CredentialError, Revoked
from accredit_credentials.revocation_feed import FeedState, verify
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.clock import system_clock

MAX_AGE = 30.0  # seconds
NOTES = "https://notes.example.org"
BEHIND, A_MINUTE_BEHIND, A_LITTLE_BEHIND, SAME, A_LITTLE_AHEAD, AHEAD = -300, -59, -9, 0, 20, 300

Check = Callable[[datetime], None]
"""Raises where a verifier with this clock refuses."""


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[Offline]:
    """An issuer with status lists, an hour old."""
    with offline_issuer(tmp_path / "issuer", **LISTS) as offline:
        offline.clock.advance(hours=1)
        yield offline


def feed_check(offline: Offline, svid: X509Svid, *, after_heartbeat: bool) -> Check:
    """A verifier of the feed, which knew everything a moment ago by a clock that was right."""
    issuer, state = offline.issuer, FeedState()
    if after_heartbeat:
        known = verify(issuer.feed.statement(0), bundle=issuer.bundle)
        state.apply(known, now=offline.clock())
        offline.clock.advance(seconds=10)
    through = state.through if after_heartbeat else 0
    statement = verify(issuer.feed.statement(through), bundle=issuer.bundle)

    def check(now: datetime) -> None:
        state.apply(statement, now=now)
        state.check(svid.marks(), now=now, max_age=MAX_AGE)

    return check


def checks(offline: Offline) -> dict[str, Check]:
    """What verifiers look at, of credentials, statements and lists that were made this moment."""
    issuer, old = offline.issuer, offline.agent()
    offline.clock.advance(minutes=20)
    offline.state(f"instance:{offline.agent().instance}")
    heartbeat = feed_check(offline, old, after_heartbeat=True)
    snapshot = feed_check(offline, old, after_heartbeat=False)
    bundle = issuer.bundle
    bundles = {bundle.trust_domain: bundle}
    fresh, token = offline.renew(old), offline.task_token(old)
    jwt = offline.do(issuer.issuance.tokens.jwt_svid(old, (NOTES,)))
    reference = token.content.status
    assert reference is not None
    listed = issuer.status_lists.signed(reference.uri.rpartition("/")[2])
    named = {"bundle": bundle, "issuer": issuer.config.token_issuer}

    def look_up(now: datetime) -> None:
        known = status_list.verify(listed, uri=reference.uri, now=now, **named)
        status_list.check(reference, known, now=now)

    return {
        "snapshot": snapshot,
        "heartbeat": heartbeat,
        "status list": look_up,
        "task token": lambda now: _ignore(
            task_token.verify(token.token, audience=NOTES, now=now, **named)
        ),
        "JWT-SVID": lambda now: _ignore(
            jwt_svid.validate(jwt.token, bundles=bundles, audience=NOTES, now=now)
        ),
        "fresh X.509-SVID": lambda now: _ignore(
            x509_svid.validate(fresh, bundles=bundles, now=now)
        ),
        "X.509-SVID": lambda now: _ignore(x509_svid.validate(old, bundles=bundles, now=now)),
    }


def _ignore(_value: object) -> None: ...


def said(check: Check, now: datetime) -> str:
    """Why it is refused; empty where it is not."""
    try:
        check(now)
    except CredentialError as error:
        assert not isinstance(error, Revoked)  # noqa: PT017 (no is one of two answers)
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize(
    ("skew", "refused"),
    [
        (BEHIND, {
            "snapshot": "from the future: compare the clocks",
            "heartbeat": "from the future: compare the clocks",
            "status list": "not valid before",
            "task token": "not valid before",
            "JWT-SVID": "not valid before",
            "fresh X.509-SVID": "is valid from",
        }),
        (A_MINUTE_BEHIND, {
            "status list": "not valid before",
            "task token": "not valid before",
            "JWT-SVID": "not valid before",
            "fresh X.509-SVID": "is valid from",
        }),
        (A_LITTLE_BEHIND, {}),
        (SAME, {}),
        (A_LITTLE_AHEAD, {}),
        (AHEAD, {
            "snapshot": "seconds old, the limit is 30",
            "heartbeat": "seconds old, the limit is 30",
            "status list": "expired",
            "task token": "expired",
            "JWT-SVID": "expired",
        }),
    ],
)  # fmt: skip
def test_what_a_verifier_with_another_clock_takes(
    listing: Offline, skew: int, refused: dict[str, str]
) -> None:
    """What may not be fresh or valid is refused with the reason; by a right clock all is well."""
    for what, check in checks(listing).items():
        found = said(check, listing.clock() + timedelta(seconds=skew))
        assert (refused[what] in found) if what in refused else not found, (what, found)
    for what, check in checks(listing).items():
        assert not said(check, listing.clock()), what


@pytest.mark.parametrize(
    ("skew", "refused"),
    [(BEHIND, "CRL is not yet valid"), (SAME, ""), (AHEAD, ""), (4 * 3600, "CRL has expired")],
)
def test_what_openssl_with_another_clock_takes_of_a_crl(
    listing: Offline, tmp_path: Path, skew: int, refused: str
) -> None:
    """A CRL of the future or of too long ago refuses everybody; revoked is refused by any clock."""
    good, doomed = listing.agent(), listing.agent()
    listing.clock.advance(minutes=20)
    listing.state(f"serial:{doomed.serial}")
    root, crl = tmp_path / "root.pem", tmp_path / "crl.pem"
    root.write_text(pem_of(*listing.issuer.bundle.x509_authorities))
    crl.write_bytes(listing.crl_of(good).public_bytes(Encoding.PEM))
    moment = int(listing.clock().timestamp()) + skew

    def judged(svid: X509Svid) -> Verdict:
        leaf, chain = tmp_path / "leaf.pem", tmp_path / "chain.pem"
        leaf.write_text(pem_of(svid.leaf))
        chain.write_text(pem_of(*svid.intermediates))
        arguments = ("-CAfile", root, "-untrusted", chain, "-crl_check", "-CRLfile", crl)
        return openssl("verify", "-attime", str(moment), *arguments, leaf)

    found = judged(good)
    assert found.accepted is not bool(refused), found.text
    assert refused in found.text
    assert not judged(doomed).accepted


@pytest.mark.parametrize(
    ("skew", "refused"),
    [(BEHIND, "status not yet valid"), (SAME, ""), (AHEAD, "status expired")],
)
def test_what_openssl_with_another_clock_takes_of_an_ocsp_answer(
    tmp_path: Path, skew: int, refused: str
) -> None:
    """With a minute of leeway an answer of five minutes ahead or ago is none."""
    verifiers = system_clock()  # OpenSSL asks no other
    clock = SettableClock(verifiers - timedelta(minutes=20))
    with offline_issuer(tmp_path / "issuer", clock) as offline:
        svid = offline.agent()
        ask(offline, svid)  # its responder is there
        clock.now = verifiers - timedelta(seconds=skew)
        files = {name: tmp_path / name for name in ("root", "ca", "leaf", "answer")}
        files["root"].write_text(pem_of(*offline.issuer.bundle.x509_authorities))
        files["ca"].write_text(pem_of(*svid.intermediates))
        files["leaf"].write_text(pem_of(svid.leaf))
        files["answer"].write_bytes(ask(offline, svid).der)
    found = openssl(
        *("ocsp", "-issuer", files["ca"], "-cert", files["leaf"], "-respin", files["answer"]),
        *("-CAfile", files["root"], "-validity_period", "60", "-no_nonce"),
    )
    assert "Response verify OK" in found.text, found.text
    assert (refused in found.text) if refused else ("WARNING" not in found.text), found.text
    assert re.search(r"^(\S*leaf: )?good$", found.text, re.MULTILINE), found.text
