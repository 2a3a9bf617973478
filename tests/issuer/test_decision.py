"""The decisions before issuance: requested ⊆ declared, nothing narrowed, empty means no."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from support.clock import NOW
from support.offline import sample_manifest

from accredit_attestors.declaration import Delegation, Limits
from accredit_attestors.levels import Assurance
from accredit_attestors.signing import VerifiedManifest
from accredit_credentials.revocation import FactKind, FactSet, RevocationFact, Target
from accredit_credentials.task_token import BEARER, Binding, BindingKind
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import (
    Claimant,
    TaskRequest,
    check_text,
    decide_jwt_svid,
    decide_task_token,
    decide_wit_svid,
    decide_x509_svid,
)
from accredit_issuer.settings import Lifetimes

HOUR = timedelta(hours=1)
LIFETIMES = Lifetimes(
    root=3650 * 24 * HOUR,
    issuing_ca=24 * HOUR,
    jwt_key=24 * HOUR,
    x509_svid=HOUR,
    jwt_svid=timedelta(seconds=300),
    wit_svid=timedelta(seconds=900),
    task_token=timedelta(seconds=300),
    admin_svid=8 * HOUR,
    join_token=HOUR,
    enrolment_token=HOUR,
    nonce=timedelta(seconds=60),
    grace=24 * HOUR,
)
MINUTE = timedelta(minutes=1)
NOTHING = FactSet()
CERTIFICATE = Binding(BindingKind.CERTIFICATE, "x" * 43)


def claimant(
    *,
    assurance: Assurance = Assurance.SELF,
    not_after: datetime | None = NOW + HOUR,
    marks: tuple[str, ...] = ("agent:support/summarizer",),
    **changes: Any,
) -> Claimant:
    """An agent of a good manifest, with ``changes`` to the manifest."""
    manifest = VerifiedManifest(sample_manifest(NOW, **changes), "sha256:" + "a" * 64, "ci", b"")
    return Claimant(
        manifest=manifest, instance="i", assurance=assurance, not_after=not_after, marks=marks
    )


def request(**changes: Any) -> TaskRequest:
    """A good request, with ``changes``."""
    good = TaskRequest(
        resource="tickets",
        actions=("read",),
        purpose="summarise",
        principal=None,
        depth=0,
        binding=CERTIFICATE,
    )
    return replace(good, **changes)


def decide(
    asked: TaskRequest, who: Claimant | None = None, facts: FactSet = NOTHING, now: datetime = NOW
) -> Any:
    """Decide about a task token."""
    return decide_task_token(who or claimant(), asked, facts=facts, lifetimes=LIFETIMES, now=now)


def facts(target: str, kind: FactKind = FactKind.REVOKED) -> FactSet:
    """One fact in force."""
    return FactSet(
        [
            RevocationFact(
                sequence=1,
                target=Target.parse(target),
                kind=kind,
                at=NOW,
                expires_at=NOW + HOUR,
                reason="incident 1",
            )
        ]
    )


@pytest.mark.parametrize(
    "actions", [("read",), ("comment",), ("read", "comment"), ("comment", "read")]
)
def test_what_is_declared_is_granted_as_it_was_asked(actions: tuple[str, ...]) -> None:
    """The grant is exactly the request: nothing more, nothing less, in its order."""
    granted = decide(request(actions=actions))
    assert granted.grant.actions == actions
    assert (granted.grant.resource, granted.audience) == ("tickets", "https://tickets.example.org")


@pytest.mark.parametrize(
    ("changes", "kind", "named"),
    [
        ({"resource": "payroll"}, Kind.NOT_DECLARED, "'payroll'"),
        ({"resource": "ticket"}, Kind.NOT_DECLARED, "'ticket'"),
        ({"resource": "ticketss"}, Kind.NOT_DECLARED, "'ticketss'"),
        ({"resource": "Tickets"}, Kind.NOT_DECLARED, "'Tickets'"),
        ({"resource": "https://tickets.example.org"}, Kind.NOT_DECLARED, "https://tickets"),
        ({"resource": "*"}, Kind.NOT_DECLARED, "'*'"),
        ({"resource": ""}, Kind.NOT_DECLARED, "''"),
        ({"actions": ("write",)}, Kind.NOT_DECLARED, "tickets:write"),
        ({"actions": ("Read",)}, Kind.NOT_DECLARED, "tickets:Read"),
        ({"actions": ("*",)}, Kind.NOT_DECLARED, "tickets:*"),
        ({"actions": ("read ",)}, Kind.NOT_DECLARED, "tickets:read "),
        # The last of N is looked at as the first is (Boulder 2020).
        ({"actions": ("read", "comment", "write")}, Kind.NOT_DECLARED, "tickets:write"),
        ({"actions": ("read", "comment", "purge")}, Kind.APPROVAL_REQUIRED, "tickets:purge"),
        ({"actions": ("purge",)}, Kind.APPROVAL_REQUIRED, "tickets:purge"),
        # An action of another resource is none of this one.
        ({"resource": "notes", "actions": ("comment",)}, Kind.NOT_DECLARED, "notes:comment"),
        ({"actions": ()}, Kind.MALFORMED, "at least one action"),
        ({"actions": ("read", "read")}, Kind.MALFORMED, "each action once"),
        ({"binding": BEARER}, Kind.NOT_DECLARED, "tickets"),
        ({"depth": 3}, Kind.NOT_DECLARED, "3 below"),
        ({"purpose": ""}, Kind.MALFORMED, "task purpose"),
        ({"purpose": "x" * 501}, Kind.MALFORMED, "task purpose"),
        ({"purpose": "a\nb"}, Kind.MALFORMED, "task purpose"),
        ({"purpose": "\x1b[31m"}, Kind.MALFORMED, "task purpose"),
        ({"principal": ""}, Kind.MALFORMED, "principal"),
        ({"principal": "x" * 255}, Kind.MALFORMED, "principal"),
        ({"principal": "a\r"}, Kind.MALFORMED, "principal"),
        ({"principal": "spiffe://example.org/ns/a/agent/b"}, Kind.MALFORMED, "SPIFFE ID"),
        ({"principal": "SPIFFE://example.org/ns/a/agent/b"}, Kind.MALFORMED, "SPIFFE ID"),
        ({"principal": " spiffe://example.org/ns/a/agent/b"}, Kind.MALFORMED, "SPIFFE ID"),
        ({"principal": "  Spiffe://example.org/ns/a/agent/b "}, Kind.MALFORMED, "SPIFFE ID"),
        ({"principal": "\u00a0spiffe://example.org/ns/a/agent/b"}, Kind.MALFORMED, "principal"),
        ({"principal": "\u017fpiffe://example.org/ns/a/agent/b"}, Kind.MALFORMED, "SPIFFE ID"),
        ({"principal": "spi\ufb00e://example.org/ns/a/agent/b"}, Kind.MALFORMED, "SPIFFE ID"),
    ],
)
def test_what_is_too_much_is_refused_by_its_name(
    changes: dict[str, Any], kind: Kind, named: str
) -> None:
    """A request beyond the manifest is refused as a whole, and the refusal names what it was."""
    with pytest.raises(Refusal) as refused:
        decide(request(**changes))
    assert refused.value.kind is kind
    assert named in refused.value.detail


@pytest.mark.parametrize(
    "principal", ["user:maria", " user:maria", "spiffe", "spiffy:maria", "user:spiffe://a/b"]
)
def test_a_principal_that_is_no_spiffe_id(principal: str) -> None:
    """What only looks a little like one is anybody's name."""
    assert decide(request(principal=principal))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_task_stands_as_deep_as_declared(depth: int) -> None:
    """Each depth up to the manifest's is granted."""
    assert decide(request(depth=depth))


def test_a_depth_of_zero_is_no_depth() -> None:
    """A manifest that delegates nothing has first tasks only: zero never means unlimited."""
    who = claimant(delegation=Delegation(max_depth=0))
    assert decide(request(depth=0), who)
    with pytest.raises(Refusal, match="1 below"):
        decide(request(depth=1), who)


def test_bearer_only_where_the_manifest_says_so() -> None:
    """A token that is bound to nothing is for the resources that declare it."""
    assert decide(request(resource="notes", binding=BEARER)).grant.resource == "notes"


def test_a_manifest_without_resources_grants_none() -> None:
    """Empty means no, and the refusal says that nothing is declared."""
    with pytest.raises(Refusal, match="declared: none"):
        decide(request(), claimant(resources=()))


@pytest.mark.parametrize(
    ("bound", "not_after", "limit", "manifest_life", "seconds"),
    [
        ("the issuer's own limit", HOUR, 300, 30 * 24 * HOUR, 300),
        ("the manifest's limit", HOUR, 7, 30 * 24 * HOUR, 7),
        ("the SVID", timedelta(seconds=41), 300, 30 * 24 * HOUR, 41),
        ("the manifest's end", HOUR, 300, timedelta(seconds=13), 13),
        ("an SVID that ends within a second", timedelta(seconds=1.9), 300, HOUR, 1),
    ],
)
def test_a_token_ends_with_the_first_of_its_bounds(
    bound: str, not_after: timedelta, limit: int, manifest_life: timedelta, seconds: int
) -> None:
    """A token lives no longer than the setting, the limit, the SVID and the manifest."""
    who = claimant(
        not_after=NOW + not_after,
        limits=Limits(task_token_seconds=limit, jwt_svid_seconds=limit),
        expires_at=NOW + manifest_life,
    )
    expected = NOW + timedelta(seconds=seconds)
    assert decide(request(), who).expires_at == expected, bound
    jwt = decide_jwt_svid(who, ("a",), facts=NOTHING, lifetimes=LIFETIMES, now=NOW)
    assert jwt.expires_at == expected, bound


@pytest.mark.parametrize(
    ("ca", "limit", "manifest_life", "expected"),
    [
        (24 * HOUR, 86400, 300 * 24 * HOUR, HOUR),
        (24 * HOUR, 60, 300 * 24 * HOUR, timedelta(seconds=60)),
        (timedelta(minutes=7), 86400, 300 * 24 * HOUR, timedelta(minutes=7)),
        (24 * HOUR, 86400, timedelta(minutes=5), timedelta(minutes=5)),
    ],
)
def test_an_svid_ends_with_its_ca_and_its_manifest(
    ca: timedelta, limit: int, manifest_life: timedelta, expected: timedelta
) -> None:
    """An X.509-SVID lives no longer than the setting, the limit, the CA and the manifest."""
    who = claimant(limits=Limits(x509_svid_seconds=limit), expires_at=NOW + manifest_life)
    granted = decide_x509_svid(who, facts=NOTHING, lifetimes=LIFETIMES, ca_ends=NOW + ca, now=NOW)
    assert granted.expires_at == NOW + expected


@pytest.mark.parametrize(
    ("svid", "key", "manifest_life", "expected"),
    [
        (HOUR, 24 * HOUR, 300 * 24 * HOUR, 15 * MINUTE),
        (7 * MINUTE, 24 * HOUR, 300 * 24 * HOUR, 7 * MINUTE),
        (HOUR, 6 * MINUTE, 300 * 24 * HOUR, 6 * MINUTE),
        (HOUR, 24 * HOUR, 5 * MINUTE, 5 * MINUTE),
    ],
)
def test_a_wit_svid_ends_with_the_first_of_its_bounds(
    svid: timedelta, key: timedelta, manifest_life: timedelta, expected: timedelta
) -> None:
    """A WIT-SVID lives no longer than the setting, the SVID, its key and the manifest."""
    who = claimant(not_after=NOW + svid, expires_at=NOW + manifest_life)
    granted = decide_wit_svid(who, facts=NOTHING, lifetimes=LIFETIMES, key_ends=NOW + key, now=NOW)
    assert granted.expires_at == NOW + expected


@pytest.mark.parametrize("gone", [timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=900)])
def test_nothing_is_issued_on_what_is_over(gone: timedelta) -> None:
    """An SVID or a CA with less than a second to live is no ground for anything."""
    with pytest.raises(Refusal, match="valid any more"):
        decide(request(), claimant(not_after=NOW + gone))
    with pytest.raises(Refusal, match="valid any more"):
        decide_x509_svid(
            claimant(), facts=NOTHING, lifetimes=LIFETIMES, ca_ends=NOW + gone, now=NOW
        )


Decision = Callable[[Claimant, FactSet, datetime], object]
EVERY: dict[str, Decision] = {
    "x509": lambda who, facts, now: decide_x509_svid(
        who, facts=facts, lifetimes=LIFETIMES, ca_ends=NOW + 24 * HOUR, now=now
    ),
    "jwt": lambda who, facts, now: decide_jwt_svid(
        who, ("a",), facts=facts, lifetimes=LIFETIMES, now=now
    ),
    "wit": lambda who, facts, now: decide_wit_svid(
        who, facts=facts, lifetimes=LIFETIMES, key_ends=NOW + 24 * HOUR, now=now
    ),
    "task": lambda who, facts, now: decide(request(), who, facts, now),
}


@pytest.mark.parametrize("decision", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("kind", [FactKind.REVOKED, FactKind.SUSPENDED])
def test_a_fact_is_a_no_to_everything(decision: Decision, kind: FactKind) -> None:
    """Revoked and suspended alike end every kind of issuance, with the reason that was given."""
    with pytest.raises(Refusal, match="incident 1") as refused:
        decision(claimant(), facts("agent:support/summarizer", kind), NOW)
    assert refused.value.kind is Kind.REVOKED
    assert decision(claimant(), facts("agent:support/summarizer2", kind), NOW)


@pytest.mark.parametrize("decision", EVERY.values(), ids=EVERY)
def test_a_manifest_has_its_time(decision: Decision) -> None:
    """Nothing is issued from the end of a manifest on, nor a minute before its begin."""
    end = NOW + HOUR
    who = claimant(expires_at=end, not_after=None)
    assert decision(who, NOTHING, end - timedelta(seconds=2))
    for moment in (end, end + HOUR, NOW - timedelta(seconds=61)):
        with pytest.raises(Refusal) as refused:
            decision(who, NOTHING, moment)
        assert refused.value.kind is Kind.ATTESTATION_REFUSED


@pytest.mark.parametrize("decision", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("has", list(Assurance))
@pytest.mark.parametrize("needs", list(Assurance))
def test_assurance_is_a_least(decision: Decision, has: Assurance, needs: Assurance) -> None:
    """An instance that was measured by less than the manifest demands gets nothing at all."""
    who = claimant(assurance=has)
    manifest = replace(who.manifest, manifest=replace(who.declared, assurance=needs))
    who = replace(who, manifest=manifest)
    if list(Assurance).index(has) >= list(Assurance).index(needs):
        assert decision(who, NOTHING, NOW)
    else:
        with pytest.raises(Refusal, match=f"requires assurance {needs}"):
            decision(who, NOTHING, NOW)


@pytest.mark.parametrize(
    "audience", [(), ("",), ("a",) * 9, ("a", "b\n"), ("x" * 2049,), ("\x00",)]
)
def test_a_jwt_svid_has_one_to_eight_audiences(audience: tuple[str, ...]) -> None:
    """No audience, too many, or one that cannot be printed: refused."""
    with pytest.raises(Refusal) as refused:
        decide_jwt_svid(claimant(), audience, facts=NOTHING, lifetimes=LIFETIMES, now=NOW)
    assert refused.value.kind is Kind.MALFORMED


@pytest.mark.parametrize("text", ["\u202e", "a\u2028b", "\x7f", "\x9b31m", "\ud800", "tab\there"])
def test_what_does_not_print_stands_nowhere(text: str) -> None:
    """Marks that turn text around, separators, escapes and lone surrogates are refused."""
    with pytest.raises(Refusal):
        check_text("reason", text, 100)


def test_a_yes_says_why() -> None:
    """The reasons name the manifest, its signer, the assurance and each action's risk."""
    reasons = " | ".join(decide(request(actions=("read", "comment"))).reasons)
    for part in (
        "sha256:aaa",
        "signed by ci",
        "assurance self",
        "read is declared with the risk low",
        "comment is declared with the risk medium",
    ):
        assert part in reasons
