"""A fact about an authority outlives its certificate, whatever the settings of today say."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from support.issuer import make_config
from support.offline import Offline, offline_issuer

from accredit_client.calls import certificate_request
from accredit_credentials.errors import CredentialError
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation_feed import FeedState, verify
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.subordinates import Subordinate
from accredit_issuer.registry.changes import Local

MONTH = timedelta(days=30)
AGENT = AgentId.parse("support/summarizer")


def lower_lifetimes(offline: Offline) -> None:
    """Start again with the lifetimes that are the default."""
    offline.config = replace(offline.config, lifetimes=make_config(Path("nowhere")).lifetimes)
    offline.reopen()


def own_ca(offline: Offline) -> tuple[str, datetime]:
    """The CA that signs, and its end."""
    ca = offline.issuer.authorities.now_in_force.active(AuthorityKind.X509)
    assert ca.certificate is not None
    return ca.id, ca.certificate.not_valid_after_utc


def subordinates_ca(offline: Offline) -> tuple[str, datetime]:
    """A subordinate's CA, and its end."""
    svid = offline.agent()
    named = Subordinate(agent=AGENT, namespaces=("support",))
    offline.issuer.subordinates.add(named, by=Local("test"), now=offline.clock())
    csr = certificate_request(generate_key())
    made = offline.do(offline.issuer.issuance.issuing_ca(svid, csr)).certificate
    return subject_key_id(made), made.not_valid_after_utc


def hidden_ca(offline: Offline) -> tuple[str, datetime]:
    """The same, and its row is gone."""
    made = subordinates_ca(offline)
    delete = text("DELETE FROM subordinate_ca")
    offline.issuer.writer.run(lambda t: t.execute(delete)).result()
    return made


@pytest.mark.parametrize("which", [own_ca, subordinates_ca, hidden_ca])
def test_a_ca_that_lives_longer_than_the_settings_say(tmp_path: Path, which: object) -> None:
    """Made to live a month: the fact is published until nothing that it signs can be alive."""
    seconds = int(MONTH.total_seconds())
    with offline_issuer(tmp_path / "issuer", lifetimes={"issuing_ca": seconds}) as offline:
        assert callable(which)
        authority, ends = which(offline)
        assert ends == offline.clock() + MONTH
        lower_lifetimes(offline)
        (stated,) = offline.state(f"authority:{authority}")
        longest = offline.config.lifetimes.longest_credential
        assert stated.fact.expires_at == ends + longest
        offline.clock.now = ends
        offline.issuer.revocation.forget_expired(offline.issuer.writer, offline.clock())
        check_refused(offline, authority)
        offline.clock.now = ends + longest
        offline.issuer.revocation.forget_expired(offline.issuer.writer, offline.clock())
        assert len(heard(offline)) == 0


def test_a_ca_that_lives_as_the_settings_say(tmp_path: Path) -> None:
    """Of any other target a fact ends as before: with the longest credential."""
    with offline_issuer(tmp_path / "issuer") as offline:
        svid, lifetimes = offline.agent(), offline.config.lifetimes
        (stated,) = offline.state(f"instance:{svid.instance}")
        longest = lifetimes.longest_credential
        assert stated.fact.expires_at == offline.clock() + longest + lifetimes.backdate
        authority, ends = own_ca(offline)
        (stated,) = offline.state(f"authority:{authority}")
        assert stated.fact.expires_at == max(ends, offline.clock() + lifetimes.issuing_ca) + longest


def heard(offline: Offline) -> FeedState:
    """What a verifier knows that asks now."""
    state = FeedState()
    statement = verify(offline.issuer.feed.statement(0), bundle=offline.issuer.bundle)
    state.apply(statement, now=offline.clock())
    return state


def check_refused(offline: Offline, authority: str) -> None:
    """Decide that a verifier refuses what this authority signed."""
    with pytest.raises(CredentialError, match="is revoked"):
        heard(offline).check((f"authority:{authority}",), now=offline.clock(), max_age=30)
