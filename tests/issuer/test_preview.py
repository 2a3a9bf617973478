"""What a fact would end: the same as it then ends, and nothing is changed by asking."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select
from support.nodes import Nodes
from support.offline import Offline

from accredit_attestors.declaration import Delegation
from accredit_credentials.errors import Revoked
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.revocation_feed import FeedState, verify
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation import preview as module
from accredit_issuer.revocation.preview import Preview
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.store.models import crls, facts

NONE = dict.fromkeys(module.KINDS, 0)


@dataclass
class Issued:
    """An issuer with agents of two namespaces, and everything that it issued."""

    offline: Offline
    svid: X509Svid
    node: X509Svid
    on_node: X509Svid
    jti: str
    task: str
    credentials: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def target(self, name: str) -> str:
        """A target of the first agent, or of what it holds."""
        authority = self.offline.active(AuthorityKind.X509)
        return {
            "namespace": "namespace:support",
            "agent": "agent:support/summarizer",
            "manifest": f"manifest:{self.svid.manifest}",
            "signer": "signer:ci",
            "owner": "owner:maria@example.org",
            "instance": f"instance:{self.svid.instance}",
            "node": "node:build-7",
            "serial": f"serial:{self.svid.serial}",
            "jti": f"jti:{self.jti}",
            "task": f"task:{self.task}",
            "authority": f"authority:{authority}",
            "jwt authority": f"authority:{self.offline.active(AuthorityKind.JWT)}",
        }[name]

    def dead(self) -> dict[str, int]:
        """How many of all that a verifier refuses, by kind."""
        state = FeedState()
        issuer = self.offline.issuer
        statement = verify(issuer.feed.statement(0), bundle=issuer.bundle)
        state.apply(statement, now=self.offline.clock())
        found: Counter[str] = Counter()
        for kind, marks in self.credentials:
            try:
                state.check(marks, now=self.offline.clock(), max_age=60)
            except Revoked:
                found[kind] += 1
        return {**NONE, **found}

    def state(self) -> Any:
        """Whatever may not change by asking."""
        issuer = self.offline.issuer
        with issuer.database.read() as connection:
            return (
                issuer.log.frontier.size,
                issuer.feed.through,
                connection.execute(select(facts)).all(),
                connection.execute(select(crls)).all(),
                tuple(issuer.revocation.facts),
            )


@pytest.fixture
def issued(offline: Offline) -> Issued:
    """Agents with SVIDs and tokens, a node with an instance, neighbours that stay."""
    offline.signer("other", "payments")
    neighbour = offline.agent(
        signer="other", agent=AgentId.parse("payments/summarizer"), owner="m@example.org"
    )
    manifest = offline.register(delegation=Delegation(max_depth=2))
    svid, second = offline.attest(manifest), offline.attest(manifest)
    nodes = Nodes(offline)
    node = nodes.new("build-7")
    on_node = nodes.run(node, offline.register())
    parent = offline.task_token(svid).content
    child = offline.task_token(svid, parent_id=parent.task.id).content
    grandchild = offline.task_token(svid, parent_id=child.task.id).content
    other, wit = offline.task_token(second).content, offline.wit(svid).svid
    made = Issued(offline, svid, node, on_node, child.jti, parent.task.id)
    made.credentials += [("x509", each.marks()) for each in (neighbour, svid, second, on_node)]
    made.credentials.append(("x509", node.marks()))
    authority = f"authority:{offline.active(AuthorityKind.JWT)}"
    tokens = (parent, child, grandchild, other)
    made.credentials += [("task", (*each.marks(), authority)) for each in tokens]
    made.credentials.append(("wit", wit.marks()))
    return made


def asked(offline: Offline, target: str, kind: str = "revoked", **changes: Any) -> Preview:
    """What an admin is told."""
    request = FactRequest(
        target=Target.parse(target),
        kind=FactKind(kind),
        reason=changes.pop("reason", "test"),
        actor=Local("test"),
        **changes,
    )
    return offline.issuer.preview(request)


ALL = ["namespace", "agent", "manifest", "signer", "owner", "instance", "node", "serial", "jti",
       "task", "jwt authority"]  # fmt: skip


@pytest.mark.parametrize("kind", ["revoked", "suspended"])
@pytest.mark.parametrize("name", ALL)
def test_what_is_told_is_what_then_ends(issued: Issued, name: str, kind: str) -> None:
    """Targets and credentials by kind are those of the fact, and those that verifiers refuse."""
    offline, target = issued.offline, issued.target(name)
    before = issued.state()
    found = asked(offline, target, kind)
    assert issued.state() == before, "asking changes nothing"
    stated = offline.state(target, kind)
    assert [each.fact.target for each in stated] == list(found.targets)
    assert stated[0].fact.sequence == before[1] + 1, "no number was used up"
    assert dict(found.credentials) == issued.dead()
    assert sum(found.credentials.values()) > 0


@pytest.mark.parametrize("one_by_one", [False, True])
def test_counts_are_of_what_people_know(
    issued: Issued, monkeypatch: pytest.MonkeyPatch, *, one_by_one: bool
) -> None:
    """Instances, manifests and agents are counted once each, however many queries that takes."""
    monkeypatch.setattr(module, "AT_ONCE", 1 if one_by_one else 500)
    offline = issued.offline
    found = asked(offline, "signer:ci")
    assert (found.instances, found.manifests, found.agents) == (3, 2, 1)
    assert found.last_end is not None
    assert found.last_end >= issued.svid.not_after
    found = asked(offline, "node:build-7")
    assert list(map(str, found.targets)) == ["node:build-7", f"instance:{issued.on_node.instance}"]
    assert (found.instances, found.manifests, found.agents) == (1, 0, 0)
    found = asked(offline, "namespace:payments")
    assert (found.instances, found.manifests, found.agents) == (1, 1, 1)


def test_what_is_over_is_not_counted(issued: Issued) -> None:
    """Once everything has ended by itself, a fact would end nothing, and says so."""
    offline = issued.offline
    offline.clock.advance(hours=30)
    found = asked(offline, "agent:support/summarizer")
    assert dict(found.credentials) == NONE
    assert (found.instances, found.manifests, found.last_end) == (0, 2, None)


def test_a_restoration_tells_what_comes_back(issued: Issued) -> None:
    """Of a signer the manifests come back that went with it, and the one by itself stays."""
    offline = issued.offline
    offline.state(issued.target("manifest"), "suspended")
    offline.clock.advance(seconds=1)
    offline.state("signer:ci", "suspended")
    before = issued.state()
    found = asked(offline, "signer:ci", "restored")
    assert issued.state() == before
    assert issued.target("manifest") not in map(str, found.targets)
    stated = offline.state("signer:ci", "restored")
    assert [each.fact.target for each in stated] == list(found.targets)


@pytest.mark.parametrize(
    ("before", "target", "kind", "expected"),
    [
        ((), "agent:support/nobody", "revoked", Kind.NOT_FOUND),
        ((), "agent:support/summarizer", "restored", Kind.CONFLICT),
        (("revoked",), "agent:support/summarizer", "revoked", Kind.CONFLICT),
        (("revoked",), "agent:support/summarizer", "restored", Kind.CONFLICT),
        (("suspended",), "agent:support/summarizer", "suspended", Kind.CONFLICT),
    ],
)
def test_what_would_be_refused_is_refused(
    issued: Issued, before: tuple[str, ...], target: str, kind: str, expected: Kind
) -> None:
    """A dry run says no where the real one does, in the same words."""
    offline = issued.offline
    for each in before:
        offline.state(target, each)
    with pytest.raises(Refusal) as dry:
        asked(offline, target, kind)
    with pytest.raises(Refusal) as real:
        offline.state(target, kind)
    assert dry.value.kind is real.value.kind is expected
    assert str(dry.value) == str(real.value)


def test_a_reason_that_may_not_stand_in_the_log_is_refused(issued: Issued) -> None:
    """So that the real one does not fail after the dry one went well."""
    with pytest.raises(Refusal, match="reason"):
        asked(issued.offline, "agent:support/summarizer", reason="a\x1b[2J")


def test_somebody_elses_suspension_is_not_previewed_away(issued: Issued) -> None:
    """Whoever may end only its own suspensions is told so by the dry run, too."""
    issued.offline.state("agent:support/summarizer", "suspended")
    request = FactRequest(
        target=Target.parse("agent:support/summarizer"),
        kind=FactKind.RESTORED,
        reason="x",
        actor=Local("somebody"),
        may_overrule=False,
    )
    with pytest.raises(Refusal, match="was suspended by test"):
        issued.offline.issuer.preview(request)


def test_a_dry_run_of_everything_harms_nobody(issued: Issued) -> None:
    """After a dry run of everything the agent still gets its tokens."""
    for name in ALL:
        asked(issued.offline, issued.target(name))
    assert issued.offline.task_token(issued.svid).token
