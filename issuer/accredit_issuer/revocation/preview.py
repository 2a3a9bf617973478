"""What a fact would end, counted; nothing is stated, recorded or published.

What it would be about is decided by the very code that states it (``Revocation.targets``), in its
turn among facts. What carries one of these targets is then counted over a connection that cannot
write.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from sqlalchemy import ColumnElement, Connection, and_, false, func, select

from accredit_credentials.revocation import MAX_REASON_LENGTH, Target, TargetKind
from accredit_issuer.issuance.decision import check_text
from accredit_issuer.registry.changes import Changes
from accredit_issuer.revocation.carriers import CERTIFICATE, TOKENS, carry
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import credentials, instances, manifests

KINDS = (CERTIFICATE, *TOKENS, "ca")
AT_ONCE = 500  # targets in one query


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a fact would be about, and what would end with it, or come back.

    Attributes:
        targets: what it would be about, with those that it would be expanded into, in their order.
        credentials: unexpired ones by kind, whether or not another fact is against them already.
        instances: of agents, that hold some of them.
        manifests: unexpired ones that nothing could attest with any more.
        agents: whose manifests these are.
        last_end: when the last of the credentials would end by itself.
    """

    targets: tuple[Target, ...]
    credentials: Mapping[str, int]
    instances: int
    manifests: int
    agents: int
    last_end: datetime | None


def preview(
    revocation: Revocation,
    changes: Changes,
    database: Database,
    request: FactRequest,
    now: datetime,
) -> Preview:
    """Decide and count as if the fact were stated now.

    Raises:
        Refusal: it would be refused; for the same reason.
    """
    check_text("reason", request.reason, MAX_REASON_LENGTH)
    targets = changes.make(
        lambda t: revocation.targets(t, request, now), by=request.actor, alone=True
    )
    with database.read() as connection:
        return count(connection, targets, revocation.living_since(now))


def count(connection: Connection, targets: Sequence[Target], now: datetime) -> Preview:
    """What carries one of these targets, of which no two are carried by one credential."""
    by_kind = dict.fromkeys(KINDS, 0)
    living_instances, ends = 0, list[datetime]()
    registered, agents = 0, set[str]()
    for kind, values in _groups(targets):
        carried = carry(kind, values, KINDS)
        living = and_(credentials.c.expires_at > now, false() if carried is None else carried)
        query = select(
            credentials.c.kind,
            func.count().label("number"),
            func.max(credentials.c.expires_at, type_=credentials.c.expires_at.type).label("end"),
        )
        for row in connection.execute(query.where(living).group_by(credentials.c.kind)):
            by_kind[row.kind] += row.number
            ends.append(row.end)
        held = select(func.count(credentials.c.instance.distinct())).join(
            instances, instances.c.id == credentials.c.instance
        )
        living_instances += connection.scalar(held.where(living)) or 0
        covered = select(manifests.c.agent, func.count().label("number")).where(
            manifests.c.expires_at > now, _cover(kind, values)
        )
        for row in connection.execute(covered.group_by(manifests.c.agent)):
            registered += row.number
            agents.add(row.agent)
    return Preview(
        targets=tuple(targets),
        credentials=by_kind,
        instances=living_instances,
        manifests=registered,
        agents=len(agents),
        last_end=max(ends, default=None),
    )


def _groups(targets: Sequence[Target]) -> Iterator[tuple[TargetKind, list[str]]]:
    ordered = sorted(targets, key=lambda each: each.kind)
    for kind, group in groupby(ordered, key=lambda each: each.kind):
        values = [each.value for each in group]
        for start in range(0, len(values), AT_ONCE):
            yield kind, values[start : start + AT_ONCE]


def _cover(kind: TargetKind, values: list[str]) -> ColumnElement[bool]:
    column = {
        TargetKind.NAMESPACE: manifests.c.namespace,
        TargetKind.AGENT: manifests.c.agent,
        TargetKind.MANIFEST: manifests.c.digest,
    }.get(kind)
    return false() if column is None else column.in_(values)
