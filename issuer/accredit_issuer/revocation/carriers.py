"""Which stored credentials carry a target: what a fact means, said in SQL.

A verifier decides by the marks of what is shown to it. CRLs, status lists and dry runs ask the
database which credentials have such a mark; whatever they do with the answer, it is this one.
Signers and owners are in no credential: a fact about one was expanded into others.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import ColumnElement, and_, func, or_, select

from accredit_credentials.revocation import TargetKind
from accredit_issuer.store.models import credentials, instances, manifests, nodes, tasks

CERTIFICATE = "x509"
TASK_TOKEN = "task"  # noqa: S105 (a kind of credential)
TOKENS = ("jwt", "wit", TASK_TOKEN)

# What is found by an index of its own.
_LOOKED_UP = frozenset(
    {
        TargetKind.NAMESPACE,
        TargetKind.AGENT,
        TargetKind.MANIFEST,
        TargetKind.NODE,
        TargetKind.INSTANCE,
        TargetKind.SERIAL,
        TargetKind.JTI,
    }
)


def carry(
    kind: TargetKind, values: Sequence[str], among: Collection[str]
) -> ColumnElement[bool] | None:
    """The credentials of the kinds ``among`` that carry one of these targets; None where none can.

    The instance of a node carries the node; what runs there does not.
    """
    condition = _CARRIED.get(kind)
    if condition is None:
        return None
    column = credentials.c.kind
    # SQLite would prefer the index of kinds and ends, and read all that lives.
    said = column.concat("") if kind in _LOOKED_UP else column
    return and_(said.in_(among), condition(values))


def _of_instances(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return credentials.c.instance.in_(select(instances.c.id).where(condition))


def _of_namespaces(values: Sequence[str]) -> ColumnElement[bool]:
    of_them = select(manifests.c.digest).where(manifests.c.namespace.in_(values))
    return _of_instances(instances.c.manifest.in_(of_them))


def _of_nodes(values: Sequence[str]) -> ColumnElement[bool]:
    return credentials.c.instance.in_(select(nodes.c.instance).where(nodes.c.name.in_(values)))


def _of_tasks(values: Sequence[str]) -> ColumnElement[bool]:
    """Tokens of a task, and of those below it."""
    above = func.json_each(tasks.c.ancestors).table_valued("value")
    below = (
        select(tasks.c.id)
        .select_from(tasks.join(above, above.c.value.in_(values)))
        .where(tasks.c.id == credentials.c.task)
        .correlate(credentials)
    )
    return or_(credentials.c.task.in_(values), below.exists())


_CARRIED: Mapping[TargetKind, Callable[[Sequence[str]], ColumnElement[bool]]] = {
    TargetKind.NAMESPACE: _of_namespaces,
    TargetKind.AGENT: lambda values: _of_instances(instances.c.agent.in_(values)),
    TargetKind.MANIFEST: lambda values: _of_instances(instances.c.manifest.in_(values)),
    TargetKind.NODE: _of_nodes,
    TargetKind.INSTANCE: credentials.c.instance.in_,
    TargetKind.SERIAL: lambda values: and_(
        credentials.c.kind.concat("") == CERTIFICATE, credentials.c.id.in_(values)
    ),
    TargetKind.JTI: lambda values: and_(
        credentials.c.kind.concat("").in_(TOKENS), credentials.c.id.in_(values)
    ),
    TargetKind.TASK: _of_tasks,
    TargetKind.AUTHORITY: credentials.c.authority.in_,
    TargetKind.ADMIN: credentials.c.admin.in_,
}
