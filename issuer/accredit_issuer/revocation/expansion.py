"""What a fact is about: whether it may be stated, and the targets that it is expanded into.

Nothing is written here. A fact about a signer, an owner, or an agent's former versions becomes
facts about manifests, and one about a node becomes facts about what runs there, too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, select

from accredit_credentials.revocation import (
    EXPANDED,
    FactKind,
    FactSet,
    RevocationFact,
    Target,
    TargetKind,
)
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation.known_authorities import end_of_authority
from accredit_issuer.revocation.stated import FactRequest, standing_about
from accredit_issuer.store import models
from accredit_issuer.store.models import credentials, facts, instances, manifests
from accredit_issuer.store.writer import Transaction


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds at the moment of a fact.

    Attributes:
        facts: in force.
        since: what ends after this may be alive.
    """

    transaction: Transaction = field(repr=False)
    facts: FactSet = field(repr=False)
    now: datetime
    since: datetime

    def about(self, target: Target) -> RevocationFact | None:
        """The fact that stands about a target."""
        return standing_about(self.transaction, self.facts, target)


def targets_of(request: FactRequest, standing: Standing) -> list[Target]:
    """What a fact would be about if it were stated now.

    Raises:
        Refusal: an unknown target, nothing to restore, or revoked already.
    """
    if request.keep_newest:
        return _former_versions(standing, request)
    _check_possible(standing, request)
    return [request.target, *_expanded(standing, request)]


def _former_versions(standing: Standing, request: FactRequest) -> list[Target]:
    """The manifests of an agent but for the one that was registered last of those in force."""
    agent = request.target
    if agent.kind is not TargetKind.AGENT or request.kind is FactKind.RESTORED:
        raise Refusal(Kind.MALFORMED, "only an agent's former versions can be ended together")
    _check_exists(standing, agent)
    registered = standing.transaction.execute(
        select(manifests.c.digest)
        .where(
            manifests.c.agent == agent.value,
            manifests.c.expires_at > standing.since,
        )
        .order_by(manifests.c.registered_at, manifests.c.log_index)
    ).scalars()
    versions = [Target(TargetKind.MANIFEST, digest) for digest in registered]
    known = {each: standing.facts.match([str(each)]) for each in versions}
    in_force = [each for each in versions if known[each] is None]
    if not in_force:
        raise Refusal(Kind.CONFLICT, f"no version of {agent.value} is in force to be kept")
    ended = [
        each
        for each in versions
        if each != in_force[-1]
        and ((fact := known[each]) is None or _strengthens(request.kind, fact))
    ]
    if not ended:
        raise Refusal(Kind.CONFLICT, f"only one version of {agent.value} is in force")
    return ended


def _check_possible(standing: Standing, request: FactRequest) -> None:
    target = request.target
    _check_exists(standing, target)
    if request.kind is FactKind.RESTORED and target.kind is TargetKind.MANIFEST:
        _check_not_covered(standing, target)
    if request.kind is FactKind.RESTORED and target.kind is TargetKind.INSTANCE:
        _check_node_stands(standing, target)
    known = standing.about(target)
    if request.kind is FactKind.RESTORED:
        if known is None:
            raise Refusal(Kind.CONFLICT, f"{target} is not suspended")
        if known.kind is FactKind.REVOKED:
            raise Refusal(Kind.CONFLICT, f"{target} is revoked: only a suspension can be restored")
        if not request.may_overrule:
            _check_own(standing.transaction, known, request.actor.name)
    elif known is not None and (known.kind is FactKind.REVOKED or known.kind is request.kind):
        raise Refusal(Kind.CONFLICT, f"{target} is {known.kind.value} already")


def _check_not_covered(standing: Standing, target: Target) -> None:
    """Decide whether a manifest's suspension can be ended by itself.

    Raises:
        Refusal: its signer or owner is suspended or revoked, and that covers it.
    """
    manifest = standing.transaction.execute(
        select(manifests.c.signer, manifests.c.owner).where(manifests.c.digest == target.value)
    ).one()
    above = standing.facts.match([f"signer:{manifest.signer}", f"owner:{manifest.owner}"])
    if above is not None:
        raise Refusal(Kind.CONFLICT, f"{above.target} is {above.kind.value}, which covers it")


def _check_node_stands(standing: Standing, target: Target) -> None:
    """Decide whether an instance's suspension can be ended by itself.

    Raises:
        Refusal: its node is suspended or revoked, and that covers it.
    """
    node = standing.transaction.execute(
        select(instances.c.node).where(instances.c.id == target.value)
    ).scalar()
    above = None if node is None else standing.facts.match([f"node:{node}"])
    if above is not None:
        raise Refusal(Kind.CONFLICT, f"{above.target} is {above.kind.value}, which covers it")


def _check_own(transaction: Transaction, suspension: RevocationFact, actor: str) -> None:
    """Decide whether a suspension is the actor's own.

    Raises:
        Refusal: somebody else stated it.
    """
    stated_by = transaction.execute(
        select(facts.c.actor).where(facts.c.sequence == suspension.sequence)
    ).scalar()
    if stated_by != actor:
        raise Refusal(
            Kind.FORBIDDEN,
            f"{suspension.target} was suspended by {stated_by}: to end that takes a role over all",
        )


def _expanded(standing: Standing, request: FactRequest) -> list[Target]:
    """What a target that no credential carries means in targets that they do."""
    target = request.target
    if target.kind is TargetKind.NODE:
        return _instances_on(standing, request)
    if target.kind not in EXPANDED:
        return []
    column = manifests.c.signer if target.kind is TargetKind.SIGNER else manifests.c.owner
    rows = standing.transaction.execute(
        select(manifests.c.digest, manifests.c.signer, manifests.c.owner).where(
            column == target.value
        )
    ).all()
    if request.kind is FactKind.RESTORED:
        return [
            Target(TargetKind.MANIFEST, row.digest)
            for row in rows
            if _is_lifted(standing, row, target)
        ]
    found = [Target(TargetKind.MANIFEST, row.digest) for row in rows]
    if request.kind is FactKind.REVOKED:
        return found
    # A suspension that is there already stays the one that has to be ended.
    return [each for each in found if standing.facts.match([str(each)]) is None]


def _instances_on(standing: Standing, request: FactRequest) -> list[Target]:
    """The instances that a fact about their node is about, as far as something of them lives.

    What has nothing left gets nothing new either: whoever asks for it is asked for the node.
    """
    if request.kind is FactKind.RESTORED:
        # Suspended through the node, not by themselves: they have one moment in common.
        suspension = standing.facts.match([str(request.target)])
        at = standing.now if suspension is None else suspension.at
        with_it = select(facts.c.target).where(
            facts.c.at == at, facts.c.kind == FactKind.SUSPENDED.value
        )
        found = set(standing.transaction.execute(with_it).scalars())
        all_on_it = select(instances.c.id).where(instances.c.node == request.target.value)
        return [
            Target(TargetKind.INSTANCE, each)
            for each in standing.transaction.execute(all_on_it).scalars()
            if f"instance:{each}" in found
            and (known := standing.about(Target(TargetKind.INSTANCE, each)))
            and known.kind is FactKind.SUSPENDED
        ]
    return [
        Target(TargetKind.INSTANCE, each)
        for each in living_on(standing.transaction, request.target.value, standing.since)
        # A suspension that is there already stays the one that has to be ended.
        if (known := standing.facts.match([f"instance:{each}"])) is None
        or _strengthens(request.kind, known)
    ]


def _is_lifted(standing: Standing, manifest: Row[Any], restored: Target) -> bool:
    """Whether a manifest is valid again once this signer or owner is restored."""
    above = [f"signer:{manifest.signer}", f"owner:{manifest.owner}"]
    known = standing.facts.match([f"manifest:{manifest.digest}"])
    if known is None or standing.facts.match(m for m in above if m != str(restored)) is not None:
        return False
    # Suspended through signer or owner, not by itself: they have one moment in common.
    return bool(
        standing.transaction.execute(
            select(func.count())
            .select_from(facts)
            .where(
                facts.c.target.in_(above),
                facts.c.kind == FactKind.SUSPENDED.value,
                facts.c.at == known.at,
            )
        ).scalar()
    )


def _strengthens(kind: FactKind, known: RevocationFact) -> bool:
    return known.kind is FactKind.SUSPENDED and kind is FactKind.REVOKED


def living_on(transaction: Transaction, node: str, now: datetime) -> list[str]:
    """The ids of a node's instances of which anything lives, in order."""
    alive = (
        select(credentials.c.number)
        .where(credentials.c.instance == instances.c.id, credentials.c.expires_at > now)
        .exists()
    )
    query = select(instances.c.id).where(instances.c.node == node, alive).order_by(instances.c.id)
    return list(transaction.execute(query).scalars())


_EXISTS: dict[TargetKind, Callable[[str], tuple[Any, ColumnElement[bool]]]] = {
    TargetKind.NAMESPACE: lambda v: (manifests, manifests.c.namespace == v),
    TargetKind.AGENT: lambda v: (manifests, manifests.c.agent == v),
    TargetKind.MANIFEST: lambda v: (manifests, manifests.c.digest == v),
    TargetKind.SIGNER: lambda v: (models.signers, models.signers.c.name == v),
    TargetKind.OWNER: lambda v: (manifests, manifests.c.owner == v),
    TargetKind.INSTANCE: lambda v: (credentials, credentials.c.instance == v),
    TargetKind.TASK: lambda v: (models.tasks, models.tasks.c.id == v),
    TargetKind.SERIAL: lambda v: (
        credentials,
        and_(credentials.c.id == v, credentials.c.kind == "x509"),
    ),
    TargetKind.JTI: lambda v: (
        credentials,
        and_(credentials.c.id == v, credentials.c.kind.in_(("jwt", "wit", "task"))),
    ),
    TargetKind.ADMIN: lambda v: (models.admins, models.admins.c.name == v),
    TargetKind.NODE: lambda v: (models.nodes, models.nodes.c.name == v),
}


def _check_exists(standing: Standing, target: Target) -> None:
    """Decide whether there is, or was, such a thing.

    Raises:
        Refusal: there is not.
    """
    if target.kind is TargetKind.AUTHORITY:
        found = end_of_authority(standing.transaction, target.value, standing.now) is not None
    else:
        table, condition = _EXISTS[target.kind](target.value)
        counted = select(func.count()).select_from(table).where(condition)
        found = bool(standing.transaction.execute(counted).scalar())
    if not found:
        raise Refusal(Kind.NOT_FOUND, f"no {target.kind.value} {target.value} is known")
