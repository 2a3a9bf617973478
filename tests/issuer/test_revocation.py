"""Revocation: what is said holds at once, in every projection, and past a restart."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import select
from support.clock import SettableClock
from support.offline import DIGEST, Offline, offline_issuer, task_request

from accredit_client.calls import certificate_request
from accredit_credentials.errors import Revoked
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.revocation_feed import FeedState, verify
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.errors import Kind, Refusal, Unavailable
from accredit_issuer.registry.changes import Local
from accredit_issuer.registry.roles import Admin, Role
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.store.models import facts, releases


def verifier(offline: Offline) -> FeedState:
    """A verifier that has just asked for everything."""
    state = FeedState()
    statement = verify(offline.issuer.feed.statement(0), bundle=offline.issuer.bundle)
    state.apply(statement, now=offline.clock())
    return state


def is_accepted(offline: Offline, svid: X509Svid) -> bool:
    """Whether a verifier that follows the feed accepts the SVID."""
    try:
        verifier(offline).check(svid.marks(), now=offline.clock(), max_age=60)
    except Revoked:
        return False
    return True


def gets_a_token(offline: Offline, svid: X509Svid) -> bool:
    """Whether the issuer still gives its holder something."""
    try:
        offline.task_token(svid)
    except Refusal as refusal:
        assert refusal.kind is Kind.REVOKED  # noqa: PT017 (no is one of two answers)
        return False
    return True


def check_everywhere(offline: Offline, svid: X509Svid, *, valid: bool) -> None:
    """The issuer's decision, the feed and the CRL say the same."""
    assert gets_a_token(offline, svid) is valid
    assert is_accepted(offline, svid) is valid
    assert offline.is_on_crl(svid) is not valid


def targets_of(offline: Offline, svid: X509Svid) -> dict[str, str]:
    """Everything that a fact can be about and that means this SVID."""
    authority = offline.issuer.authorities.now_in_force.active(AuthorityKind.X509).id
    return {
        "namespace": "namespace:support",
        "agent": "agent:support/summarizer",
        "manifest": f"manifest:{svid.manifest}",
        "signer": "signer:ci",
        "owner": "owner:maria@example.org",
        "instance": f"instance:{svid.instance}",
        "serial": f"serial:{svid.serial}",
        "authority": f"authority:{authority}",
    }


KINDS = ["namespace", "agent", "manifest", "signer", "owner", "instance", "serial", "authority"]


@pytest.mark.parametrize("name", KINDS)
def test_each_target_ends_what_it_means(offline: Offline, name: str) -> None:
    """A fact about any target of an SVID ends it in decision, feed and CRL, and past a restart."""
    svid = offline.agent()
    check_everywhere(offline, svid, valid=True)
    offline.state(targets_of(offline, svid)[name])
    check_everywhere(offline, svid, valid=False)
    offline.reopen()
    check_everywhere(offline, svid, valid=False)


@pytest.mark.parametrize(
    "name", ["namespace", "agent", "manifest", "signer", "owner", "instance", "serial"]
)
def test_the_nearest_neighbour_stays(offline: Offline, name: str) -> None:
    """A fact ends nothing of another namespace, agent, manifest, signer, owner or instance."""
    offline.signer("other", "payments", "support")
    neighbour = offline.agent(
        signer="other", agent=_agent("payments/summarizer"), owner="m@example.org"
    )
    svid = offline.agent()
    offline.state(targets_of(offline, svid)[name])
    check_everywhere(offline, neighbour, valid=True)
    check_everywhere(offline, svid, valid=False)


@pytest.mark.parametrize("name", KINDS)
def test_a_suspension_can_be_ended(offline: Offline, name: str) -> None:
    """Suspended is refused everywhere, restored is accepted everywhere, each past a restart too."""
    svid = offline.agent()
    target = targets_of(offline, svid)[name]
    offline.state(target, "suspended")
    check_everywhere(offline, svid, valid=False)
    offline.reopen()
    check_everywhere(offline, svid, valid=False)
    offline.state(target, "restored")
    check_everywhere(offline, svid, valid=True)
    offline.reopen()
    check_everywhere(offline, svid, valid=True)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_overlapping_suspensions(
    tmp_path_factory: pytest.TempPathFactory, first: str, second: str
) -> None:
    """Of two suspensions over one SVID, ending one leaves the other in force, in either order."""
    if first == second:
        return
    if {first, second} & {"signer", "owner"} and "manifest" in {first, second}:
        return  # one mark for both: the tests below say what happens
    with offline_issuer(tmp_path_factory.mktemp("issuer") / "i") as offline:
        svid = offline.agent()
        targets = targets_of(offline, svid)
        for order in ((first, second), (second, first)):
            for name in (first, second):
                offline.clock.advance(seconds=1)
                offline.state(targets[name], "suspended")
            offline.state(targets[order[0]], "restored")
            check_everywhere(offline, svid, valid=False)
            offline.state(targets[order[1]], "restored")
            check_everywhere(offline, svid, valid=True)


@pytest.mark.parametrize("above", ["signer", "owner"])
def test_a_manifest_suspended_by_itself_stays_so(offline: Offline, above: str) -> None:
    """Restoring signer or owner does not restore a manifest that was suspended by itself before."""
    svid = offline.agent()
    targets = targets_of(offline, svid)
    offline.state(targets["manifest"], "suspended")
    offline.clock.advance(seconds=1)
    offline.state(targets[above], "suspended")
    offline.state(targets[above], "restored")
    check_everywhere(offline, svid, valid=False)
    offline.state(targets["manifest"], "restored")
    check_everywhere(offline, svid, valid=True)


@pytest.mark.parametrize("above", ["signer", "owner"])
def test_a_manifest_is_not_restored_from_under_its_signer(offline: Offline, above: str) -> None:
    """While signer or owner is suspended, its manifest cannot be restored by itself."""
    svid = offline.agent()
    targets = targets_of(offline, svid)
    offline.state(targets[above], "suspended")
    with pytest.raises(Refusal, match=f"{above}:.* is suspended") as refused:
        offline.state(targets["manifest"], "restored")
    assert refused.value.kind is Kind.CONFLICT
    check_everywhere(offline, svid, valid=False)


def test_a_revocation_outlives_a_suspension(offline: Offline) -> None:
    """What was suspended and then revoked stays revoked when the suspension elsewhere ends."""
    svid = offline.agent()
    offline.state("agent:support/summarizer", "suspended")
    offline.state(f"serial:{svid.serial}", "revoked")
    offline.state("agent:support/summarizer", "restored")
    check_everywhere(offline, svid, valid=False)
    entry = offline.crl_of(svid).get_revoked_certificate_by_serial_number(svid.leaf.serial_number)
    assert entry is not None
    assert not list(entry.extensions), "revoked, and not on hold"


@pytest.mark.parametrize(
    ("before", "kind", "expected"),
    [
        ([], "restored", Kind.CONFLICT),
        (["revoked"], "revoked", Kind.CONFLICT),
        (["revoked"], "suspended", Kind.CONFLICT),
        (["revoked"], "restored", Kind.CONFLICT),
        (["suspended"], "suspended", Kind.CONFLICT),
        (["suspended", "restored"], "restored", Kind.CONFLICT),
        (["suspended", "revoked"], "restored", Kind.CONFLICT),
        (["suspended"], "revoked", None),
        (["suspended", "restored"], "suspended", None),
    ],
)
def test_what_can_be_said_after_what(
    offline: Offline, before: list[str], kind: str, expected: Kind | None
) -> None:
    """Twice the same, and what would weaken a revocation, is refused and changes nothing."""
    offline.agent()
    for each in before:
        offline.state("agent:support/summarizer", each)
    size, through = offline.issuer.log.frontier.size, offline.issuer.feed.through
    if expected is None:
        assert offline.state("agent:support/summarizer", kind)
        return
    with pytest.raises(Refusal) as refused:
        offline.state("agent:support/summarizer", kind)
    assert refused.value.kind is expected
    assert (offline.issuer.log.frontier.size, offline.issuer.feed.through) == (size, through)


@pytest.mark.parametrize(
    "target",
    [
        "namespace:suppor",
        "agent:support/summarize",
        "manifest:sha256:" + "0" * 64,
        "signer:nobody",
        "owner:nobody@example.org",
        "instance:0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11",
        "task:0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11",
        "serial:7f",
        "jti:0b8f7c1e-5a44-4c0e-9d3a-2f6f1f0a7b11",
        "authority:" + "0" * 40,
        "admin:nobody",
        "node:anything",
        "agent:support/%",
    ],
)
def test_an_unknown_target_is_not_found(offline: Offline, target: str) -> None:
    """Nothing is stated about what does not exist: a typing error must not look like a success."""
    offline.agent()
    with pytest.raises(Refusal) as refused:
        offline.state(target)
    assert refused.value.kind is Kind.NOT_FOUND
    assert offline.issuer.feed.through == 0


def test_a_serial_is_no_jti(offline: Offline) -> None:
    """A token is not found as a serial, nor an SVID as a jti; a root cannot be revoked."""
    svid = offline.agent()
    token = offline.task_token(svid)
    root = offline.issuer.authorities.now_in_force.active(AuthorityKind.ROOT).id
    for target in (f"jti:{svid.serial}", f"serial:{token.content.jti}", f"authority:{root}"):
        with pytest.raises(Refusal, match="is known"):
            offline.state(target)
    assert offline.state(f"jti:{token.content.jti}")


def test_a_signer_is_expanded_into_its_manifests(offline: Offline) -> None:
    """One fact about a signer becomes one for it and one for each manifest, of one moment."""
    first, second = offline.register(), offline.register()
    offline.signer("other", "support")
    offline.register(signer="other")
    stated = offline.state("signer:ci", "suspended", "key lost")
    assert {str(each.fact.target) for each in stated} == {
        "signer:ci",
        f"manifest:{first.digest}",
        f"manifest:{second.digest}",
    }
    assert [each.fact.sequence for each in stated] == [1, 2, 3]
    assert {(each.fact.at, each.fact.reason) for each in stated} == {(offline.clock(), "key lost")}


def test_what_is_revoked_cannot_be_registered(offline: Offline) -> None:
    """A new manifest of a revoked signer, owner, agent or namespace is refused."""
    offline.register()
    for target in ("signer:ci", "owner:maria@example.org", "agent:support/summarizer",
                   "namespace:support"):  # fmt: skip
        offline.state(target, "suspended")
        with pytest.raises(Refusal) as refused:
            offline.register()
        assert refused.value.kind is Kind.REVOKED
        offline.state(target, "restored")
    assert offline.register()


def test_crl_numbers_grow_and_entries_stay(offline: Offline) -> None:
    """CRL numbers of a CA grow, and what is revoked and unexpired is on each of them."""
    manifest = offline.register()
    svids = [offline.attest(manifest) for _ in range(6)]
    numbers = [_number(offline.crl_of(svids[0]))]
    for position, svid in enumerate(svids):
        offline.state(f"serial:{svid.serial}", reason=f"incident {position}")
        numbers.append(_number(offline.crl_of(svid)))
        assert [offline.is_on_crl(each) for each in svids] == [
            at <= position for at in range(len(svids))
        ]
    for minutes in (20, 20, 15):
        offline.clock.advance(minutes=minutes)
        offline.reopen()
        numbers.append(_number(offline.crl_of(svids[0])))
        assert all(offline.is_on_crl(svid) for svid in svids)
    assert numbers == sorted(numbers)
    assert len(set(numbers)) > len(svids)


def test_an_expired_entry_leaves_the_crl_at_last(offline: Offline) -> None:
    """An expired certificate is on one more CRL at least, and on none for ever."""
    manifest = offline.register()
    svid = offline.attest(manifest)
    offline.state(f"serial:{svid.serial}")
    offline.clock.now = svid.not_after + timedelta(seconds=1)
    offline.issuer.keep_up()
    assert offline.is_on_crl(svid)
    offline.clock.advance(hours=3)
    offline.issuer.keep_up()
    offline.clock.advance(hours=1)
    offline.issuer.keep_up()
    assert not offline.is_on_crl(svid)


def test_crls_are_published_while_authorities_cannot_be_rotated(
    offline: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent that is away is an alarm, and keeps no CRL from being renewed."""
    svid = offline.agent()
    offline.state(f"serial:{svid.serial}")
    before = offline.crl_of(svid).last_update_utc

    def away(*_: object) -> None:
        raise Unavailable("the parent is away")

    monkeypatch.setattr(offline.issuer.authorities, "advance", away)
    offline.clock.advance(hours=3)
    with pytest.raises(Unavailable, match="the parent is away"):
        offline.issuer.keep_up()
    assert offline.crl_of(svid).last_update_utc > before


def test_a_crl_is_of_its_ca(offline: Offline) -> None:
    """The CRL verifies with the CA's key, names it, is of now, and has the required extensions."""
    svid = offline.agent()
    offline.state(f"serial:{svid.serial}")
    crl, ca = offline.crl_of(svid), svid.intermediates[0]
    assert crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    assert crl.issuer == ca.subject
    assert crl.last_update_utc <= offline.clock() < (crl.next_update_utc or offline.clock())
    identifier = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    expected = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert identifier.key_identifier == expected


def test_each_kind_is_on_the_crl_of_its_own_ca(offline: Offline) -> None:
    """After a rotation a fact about an agent reaches the CRLs of the old CA and of the new one."""
    manifest = offline.register()
    old = offline.attest(manifest)
    offline.clock.now = old.not_after - timedelta(seconds=1)
    while True:
        new = offline.attest(manifest)
        if new.intermediates != old.intermediates:
            break
        old = new
        offline.clock.now = old.not_after - timedelta(minutes=5)
        offline.issuer.keep_up()
    offline.state("agent:support/summarizer")
    assert offline.is_on_crl(old)
    assert offline.is_on_crl(new)
    assert offline.crl_of(old).issuer != offline.crl_of(new).issuer


@pytest.mark.parametrize("what", ["x509", "jwt", "task"])
@pytest.mark.parametrize("target", ["agent:support/summarizer", "signer:ci", "namespace:support"])
def test_what_is_revoked_while_it_is_made_is_not_released(
    offline: Offline, what: str, target: str
) -> None:
    """A fact that comes between signature and outcome wins: no release, no record of one."""
    manifest = offline.register()
    svid = offline.attest(manifest)
    issuance, authorities = offline.issuer.issuance, offline.issuer.authorities
    request = offline.attestation(manifest)
    released = _released(offline)
    loop_free = asyncio.run

    def revoke_then(sign: Any) -> Any:
        def signing(*arguments: Any) -> Any:
            signed = sign(*arguments)
            offline.state(target)
            return signed

        return signing

    if what == "x509":
        authorities.sign_leaf = revoke_then(authorities.sign_leaf)  # type: ignore[method-assign]
        work: Any = issuance.agents.attest(request)
    else:
        # The signer is fetched after the decision and before the intent: as good a moment.
        authorities.jwt_signer = revoke_then(authorities.jwt_signer)  # type: ignore[method-assign]
        offline.issuer.feed._authorities = _Frozen(authorities)  # type: ignore[assignment]
        work = (
            issuance.tokens.jwt_svid(svid, ("a",))
            if what == "jwt"
            else issuance.tokens.task_token(svid, task_request())
        )
    with pytest.raises(Refusal) as refused:
        loop_free(work)
    assert refused.value.kind is Kind.REVOKED
    assert _released(offline) == released


class _Frozen:
    """Authorities as the feed sees them."""

    def __init__(self, authorities: Any) -> None:
        self.jwt_signer = type(authorities).jwt_signer.__get__(authorities)


def test_a_revoked_task_stays_revoked(offline: Offline) -> None:
    """A task's fact ends its tokens and those of tasks below it, and no further one comes, ever."""
    svid = offline.agent()
    parent = offline.task_token(svid).content
    child = offline.task_token(svid, parent_id=parent.task.id).content
    sibling = offline.task_token(svid).content
    offline.state(f"task:{parent.task.id}")
    state = verifier(offline)
    for token in (parent, child):
        with pytest.raises(Revoked):
            state.check(token.marks(), now=offline.clock(), max_age=60)
    state.check(sibling.marks(), now=offline.clock(), max_age=60)
    for _ in range(30):
        svid = offline.renew(svid)
        for again in ({"task_id": parent.task.id}, {"parent_id": child.task.id}):
            with pytest.raises(Refusal) as refused:
                offline.task_token(svid, **again)
            assert refused.value.kind is Kind.REVOKED
        offline.clock.advance(minutes=59)
        offline.reopen()


def test_a_suspension_does_not_outlive_its_end(offline: Offline) -> None:
    """Ended by a clock that was set back, it is not told again when the end is forgotten."""
    svid = offline.agent()
    offline.state(f"instance:{svid.instance}", "suspended")
    offline.clock.advance(hours=-5)
    offline.state(f"instance:{svid.instance}", "restored")
    offline.clock.advance(hours=5)
    suspended, restored = offline.issuer.feed.facts
    while restored.expires_at >= offline.clock() or suspended.expires_at >= offline.clock():
        check_everywhere(offline, svid, valid=True)
        offline.clock.advance(minutes=30)
        offline.issuer.keep_up()
        svid = offline.renew(svid)
    offline.reopen()
    check_everywhere(offline, svid, valid=True)


def test_lasting_facts_outlive_everything(offline: Offline) -> None:
    """After months and a restart a revoked agent is still refused, though no credential is left."""
    manifest = offline.register()
    offline.attest(manifest)
    token = offline.join_token(manifest)
    offline.state("agent:support/summarizer")
    offline.clock.advance(days=100)
    offline.reopen()
    assert offline.issuer.feed.facts == ()
    offline.clock.now -= timedelta(days=100)
    offline.issuer.confirm_clock("test")
    with pytest.raises(Refusal) as refused:
        offline.do(
            offline.issuer.issuance.agents.attest(offline.attestation(manifest, token=token))
        )
    assert refused.value.kind is Kind.REVOKED


def test_what_nobody_can_match_is_forgotten(offline: Offline) -> None:
    """Facts about single credentials leave memory once those are over: the set stays small."""
    manifest = offline.register()
    for _ in range(20):
        offline.state(f"serial:{offline.attest(manifest).serial}")
    assert len(offline.issuer.revocation.facts) == 20
    offline.clock.advance(days=1)
    offline.issuer.keep_up()
    assert len(offline.issuer.revocation.facts) == 0
    assert offline.issuer.feed.facts == ()
    with offline.issuer.database.read() as connection:
        assert len(connection.execute(select(facts)).all()) == 20


def test_an_admin_is_ended_too(offline: Offline) -> None:
    """A revoked admin gets no SVID for a token that is still unspent, and the token stays so."""
    issuer = offline.issuer
    token = issuer.administration.invite(
        Admin("ann", Role.VIEWER), by=Local("test"), now=offline.clock()
    ).text
    offline.state("admin:ann", "suspended")
    csr = certificate_request(generate_key())
    with pytest.raises(Refusal) as refused:
        offline.do(issuer.issuance.admins.enrol(token, csr))
    assert refused.value.kind is Kind.REVOKED
    offline.state("admin:ann", "restored")
    assert offline.do(issuer.issuance.admins.enrol(token, csr))


@pytest.mark.parametrize("reason", ["", "a\nb", "\x1b[2J", "x" * 501, "\u202egnp"])
def test_a_reason_can_be_printed(offline: Offline, reason: str) -> None:
    """A reason that is empty, too long or does not print is refused."""
    offline.agent()
    with pytest.raises(Refusal) as refused:
        offline.state("agent:support/summarizer", reason=reason)
    assert refused.value.kind is Kind.MALFORMED


def test_each_fact_is_a_record(offline: Offline) -> None:
    """Facts and log tell the same: sequence, target, kind, actor and reason."""
    offline.agent()
    stated = offline.state("signer:ci", "suspended", "why")
    stated += offline.state("signer:ci", "restored", "done")
    records = [leaf.decode() for leaf in offline.leaves() if b'"fact.stated"' in leaf]
    assert len(records) == len(stated)
    for each, text in zip(stated, records, strict=True):
        for part in (f'"subject":"{each.fact.target}"', f'"sequence":{each.fact.sequence}',
                     f'"fact":"{each.fact.kind}"', '"actor":"test"'):  # fmt: skip
            assert part in text
    assert [each.fact.kind for each in stated][-1] is FactKind.RESTORED


def test_evidence_of_one_is_not_evidence_of_another(offline: Offline) -> None:
    """Evidence for A's serial does not renew B, and A's evidence renews A."""
    manifest = offline.register()
    one, other = offline.attest(manifest), offline.attest(manifest)
    evidence = {"kind": "code_digest", "nonce": one.serial, "payload": {"digest": DIGEST}}
    csr = certificate_request(generate_key())
    with pytest.raises(Refusal) as refused:
        offline.do(offline.issuer.issuance.agents.renew(other, csr, [evidence]))
    assert refused.value.kind is Kind.ATTESTATION_REFUSED
    renewed = offline.do(offline.issuer.issuance.agents.renew(one, csr, [evidence]))
    assert renewed.template.instance == one.instance


def test_a_clock_that_stands_changes_nothing(offline: Offline) -> None:
    """Two facts of one moment keep their order and their own sequence."""
    assert isinstance(offline.clock, SettableClock)
    first, second = offline.agent(), offline.agent()
    offline.state(f"serial:{first.serial}")
    offline.state(f"serial:{second.serial}")
    assert [fact.sequence for fact in offline.issuer.feed.facts] == [1, 2]


def _agent(name: str) -> Any:
    from accredit_credentials.spiffe_id import AgentId  # noqa: PLC0415

    return AgentId.parse(name)


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _released(offline: Offline) -> int:
    with offline.issuer.database.read() as connection:
        return len(connection.execute(select(releases)).all())


def test_a_suspension_of_somebody_else_is_not_overruled(offline: Offline) -> None:
    """Who may not overrule others ends its own suspensions, and nobody else's."""
    svid = offline.agent()
    target = Target.parse(f"instance:{svid.instance}")

    def say(kind: FactKind, actor: str) -> None:
        request = FactRequest(
            target=target,
            kind=kind,
            reason="r",
            actor=Local(actor),
            may_overrule=actor == "security",
        )
        offline.issuer.state(request)

    say(FactKind.SUSPENDED, "security")
    with pytest.raises(Refusal, match="suspended by security") as refused:
        say(FactKind.RESTORED, "owner")
    assert refused.value.kind is Kind.FORBIDDEN
    check_everywhere(offline, svid, valid=False)
    say(FactKind.RESTORED, "security")
    say(FactKind.SUSPENDED, "owner")
    say(FactKind.RESTORED, "owner")
    check_everywhere(offline, svid, valid=True)
