"""The database's answer to who carries a target is the verifier's."""

import pytest
from sqlalchemy import select
from support.nodes import Nodes
from support.offline import Offline

from accredit_attestors.declaration import Delegation
from accredit_credentials.revocation import Target, TargetKind
from accredit_credentials.spiffe_id import AgentId
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.revocation.carriers import CERTIFICATE, TASK_TOKEN, carry
from accredit_issuer.store.models import credentials

IN_NO_CREDENTIAL = (TargetKind.SIGNER, TargetKind.OWNER)
Marks = dict[str, frozenset[str]]


def carriers(offline: Offline, target: Target, *among: str) -> set[str]:
    """The ids of what carries a target."""
    condition = carry(target.kind, ["another", target.value], among)
    assert condition is not None
    with offline.issuer.database.read() as connection:
        return set(connection.execute(select(credentials.c.id).where(condition)).scalars())


@pytest.fixture
def issued(offline: Offline) -> Marks:
    """What verifiers see on certificates and task tokens of all kinds of holders, by id."""
    offline.signer("other", "payments")
    neighbour = offline.agent(
        signer="other", agent=AgentId.parse("payments/summarizer"), owner="m@example.org"
    )
    manifest = offline.register(delegation=Delegation(max_depth=2))
    svid, second = offline.attest(manifest), offline.attest(manifest)
    nodes = Nodes(offline)
    node = nodes.new("build-7")
    on_node = nodes.run(node, offline.register())
    first = offline.task_token(svid).content
    below = offline.task_token(svid, parent_id=first.task.id).content
    tokens = (
        *(first, below, offline.task_token(svid, parent_id=below.task.id).content),
        offline.task_token(second).content,
    )
    signed_by = f"authority:{offline.active(AuthorityKind.JWT)}"
    svids = (neighbour, svid, second, node, on_node)
    return {
        **{each.serial: frozenset(each.marks()) for each in svids},
        **{each.jti: frozenset((*each.marks(), signed_by)) for each in tokens},
    }


def test_who_carries_a_target_is_who_shows_its_mark(offline: Offline, issued: Marks) -> None:
    """For each mark of each credential: those that the database names have it, and no others."""
    every = {Target.parse(mark) for marks in issued.values() for mark in marks}
    # A certificate has every name that its authorities' keys may be given; facts use the issuer's.
    used = {offline.active(kind) for kind in (AuthorityKind.X509, AuthorityKind.JWT)}
    asked = {each for each in every if each.kind is not TargetKind.AUTHORITY or each.value in used}
    assert {each.kind for each in asked} == {*TargetKind} - {*IN_NO_CREDENTIAL, TargetKind.ADMIN}
    for target in asked:
        expected = {each for each, marks in issued.items() if str(target) in marks}
        found = carriers(offline, target, CERTIFICATE, TASK_TOKEN)
        assert found & issued.keys() == expected, target


def test_a_serial_number_is_no_token_id(offline: Offline, issued: Marks) -> None:
    """A fact about the one does not mean the other that is written the same way."""
    swapped = {TargetKind.SERIAL: TargetKind.JTI, TargetKind.JTI: TargetKind.SERIAL}
    for mark in frozenset().union(*issued.values()):
        target = Target.parse(mark)
        if target.kind in swapped:
            other = Target(swapped[target.kind], target.value)
            assert carriers(offline, target, CERTIFICATE, TASK_TOKEN) == {target.value}
            assert carriers(offline, other, CERTIFICATE, TASK_TOKEN) == set()


def test_only_the_kinds_that_are_asked_for_are_found(offline: Offline, issued: Marks) -> None:
    """An agent's certificates and its tokens are two questions."""
    agent = Target.parse("agent:support/summarizer")
    certificates = carriers(offline, agent, CERTIFICATE)
    tokens = carriers(offline, agent, TASK_TOKEN)
    assert (len(certificates), len(tokens)) == (3, 4)
    assert certificates | tokens == {each for each, marks in issued.items() if str(agent) in marks}


@pytest.mark.parametrize("kind", IN_NO_CREDENTIAL)
def test_what_no_credential_carries_is_nobodys(kind: TargetKind) -> None:
    """Signers and owners were expanded before."""
    assert carry(kind, ["x"], [CERTIFICATE]) is None
