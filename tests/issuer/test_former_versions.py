"""All but the newest version of an agent: the old ones end together, the newest goes on."""

import pytest
from support.offline import Offline

from accredit_attestors.manifest import VerifiedManifest
from accredit_credentials.errors import Revoked
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.revocation_feed import FeedState, verify
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation.stated import FactRequest, StatedFact

AGENT = "agent:support/summarizer"


def request(kind: str = "revoked", target: str = AGENT) -> FactRequest:
    """What an admin asks for."""
    return FactRequest(
        target=Target.parse(target),
        kind=FactKind(kind),
        reason="CVE in all but the newest",
        actor=Local("test"),
        keep_newest=True,
    )


def state(offline: Offline, kind: str = "revoked", target: str = AGENT) -> list[StatedFact]:
    """State it."""
    issuer = offline.issuer
    return issuer.revocation.state(request(kind, target), issuer.changes, offline.clock())


def targets(stated: list[StatedFact]) -> list[str]:
    """What the facts are about."""
    return [str(each.fact.target) for each in stated]


def versions(offline: Offline, number: int) -> list[VerifiedManifest]:
    """Versions of one agent, the newest last."""
    made = []
    for _ in range(number):
        made.append(offline.register())
        offline.clock.advance(seconds=1)
    return made


def is_accepted(offline: Offline, svid: X509Svid) -> bool:
    """Whether a verifier that follows the feed accepts the SVID."""
    state, now = FeedState(), offline.clock()
    state.apply(verify(offline.issuer.feed.statement(0), bundle=offline.issuer.bundle), now=now)
    try:
        state.check(svid.marks(), now=now, max_age=60)
    except Revoked:
        return False
    return True


@pytest.mark.parametrize("kind", ["revoked", "suspended"])
def test_every_version_ends_but_the_newest(offline: Offline, kind: str) -> None:
    """Instances of the old ones are refused everywhere, the newest and the neighbour are not."""
    offline.signer("other", "payments")
    neighbour = offline.agent(
        signer="other", agent=AgentId.parse("payments/summarizer"), owner="m@example.org"
    )
    known = versions(offline, 3)
    svids = [offline.attest(manifest) for manifest in known]
    told = offline.issuer.preview(request(kind))
    assert list(map(str, told.targets)) == [f"manifest:{each.digest}" for each in known[:2]]
    assert dict(told.credentials)["x509"] == 2
    assert targets(state(offline, kind)) == list(map(str, told.targets))
    for svid, valid in [*zip(svids, (False, False, True), strict=True), (neighbour, True)]:
        assert is_accepted(offline, svid) is valid
        assert offline.is_on_crl(svid) is not valid
    with pytest.raises(Refusal):
        offline.attest(known[0])
    offline.attest(known[-1])


def test_what_comes_later_is_newer(offline: Offline) -> None:
    """A version that is registered afterwards is not meant; the next time it is what is kept."""
    first, second = versions(offline, 2)
    assert targets(state(offline)) == [f"manifest:{first.digest}"]
    third = offline.register()
    assert is_accepted(offline, offline.attest(third))
    assert targets(state(offline)) == [f"manifest:{second.digest}"]


def test_a_newest_that_was_taken_back_is_not_kept(offline: Offline) -> None:
    """The newest in force is: whoever revoked a bad release does not lose the good one by this."""
    first, second, third = versions(offline, 3)
    offline.state(f"manifest:{third.digest}", "suspended")
    assert targets(state(offline, "suspended")) == [f"manifest:{first.digest}"]
    assert is_accepted(offline, offline.attest(second))
    # To revoke is more than to suspend: what sleeps is ended for good.
    assert targets(state(offline)) == [f"manifest:{each.digest}" for each in (first, third)]


def test_where_nothing_would_be_ended_or_kept_it_is_refused(offline: Offline) -> None:
    """One version only, none in force, no such agent: a conflict says so, and nothing is stated."""
    with pytest.raises(Refusal) as refused:
        state(offline)
    assert refused.value.kind is Kind.NOT_FOUND
    (only,) = versions(offline, 1)
    with pytest.raises(Refusal, match="only one version") as refused:
        state(offline)
    assert refused.value.kind is Kind.CONFLICT
    offline.state(f"manifest:{only.digest}")
    with pytest.raises(Refusal, match=r"no version .* is in force"):
        state(offline)
    assert offline.issuer.feed.through == 1


@pytest.mark.parametrize(
    ("kind", "target"),
    [("restored", AGENT), ("revoked", "namespace:support"), ("revoked", "signer:ci")],
)
def test_only_an_agents_versions_end_together(offline: Offline, kind: str, target: str) -> None:
    """Nothing else has versions; and suspended ones are restored one by one."""
    known = versions(offline, 2)
    offline.state(f"manifest:{known[0].digest}", "suspended")
    with pytest.raises(Refusal) as refused:
        state(offline, kind, target)
    assert refused.value.kind is Kind.MALFORMED
