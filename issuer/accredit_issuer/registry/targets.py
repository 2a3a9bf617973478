"""In which namespace the target of a fact lies: what decides who may revoke it."""

from sqlalchemy import ColumnElement, Connection, select

from accredit_credentials.revocation import Target, TargetKind
from accredit_issuer.store.models import credentials, instances, manifests


def namespace_of(connection: Connection, target: Target) -> str | None:
    """The namespace that everything under the target lies in; None: in none, or in several."""
    match target.kind:
        case TargetKind.NAMESPACE:
            return target.value
        case TargetKind.AGENT:
            return target.value.partition("/")[0]
        case TargetKind.MANIFEST:
            return connection.scalar(
                select(manifests.c.namespace).where(manifests.c.digest == target.value)
            )
    column = _COLUMNS.get(target.kind)
    if column is None:
        return None
    agent = connection.scalar(
        select(instances.c.agent)
        .join(credentials, credentials.c.instance == instances.c.id)
        .where(column == target.value)
        .limit(1)
    )
    return agent.partition("/")[0] if agent else None


_COLUMNS: dict[TargetKind, ColumnElement[str]] = {
    TargetKind.INSTANCE: credentials.c.instance,
    TargetKind.TASK: credentials.c.task,
    TargetKind.SERIAL: credentials.c.id,
    TargetKind.JTI: credentials.c.id,
}
