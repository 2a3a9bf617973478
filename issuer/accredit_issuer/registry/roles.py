"""What each role may do: one table, and the decision made from it.

Default deny: an operation that does not stand beside a role is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from accredit_issuer.errors import Kind, Refusal


class Role(StrEnum):
    """Roles of admins."""

    VIEWER = "viewer"
    REGISTRAR = "registrar"  # CI pipelines
    SECURITY = "security"
    OWNER = "owner"  # of the namespaces that it was given
    ADMIN = "admin"


class Operation(StrEnum):
    """What an admin can do."""

    READ = "read"
    REGISTER = "register"
    ENROL = "enrol"
    REVOKE = "revoke"
    MANAGE_SIGNERS = "manage signers"
    MANAGE_ADMINS = "manage admins"
    MANAGE_AUTHORITIES = "manage authorities"
    MANAGE_SUBORDINATES = "manage subordinates"
    MANAGE_NODES = "manage nodes"
    MANAGE_STREAMS = "manage streams"
    FEDERATE = "federate"


class Reach(Enum):
    """How far a role's permission goes."""

    OWN = "own"  # the namespaces that the admin was given
    ALL = "all"


PERMISSIONS: Mapping[Role, Mapping[Operation, Reach]] = {
    Role.VIEWER: {Operation.READ: Reach.ALL},
    Role.REGISTRAR: {
        Operation.READ: Reach.ALL,
        Operation.REGISTER: Reach.OWN,
        Operation.ENROL: Reach.OWN,
    },
    Role.SECURITY: {
        Operation.READ: Reach.ALL,
        Operation.REVOKE: Reach.ALL,
        Operation.MANAGE_AUTHORITIES: Reach.ALL,  # who may end a key has to be able to replace it
        Operation.MANAGE_NODES: Reach.ALL,
        Operation.MANAGE_STREAMS: Reach.ALL,  # who states facts says who is told of them
    },
    Role.OWNER: {
        Operation.READ: Reach.OWN,
        Operation.REGISTER: Reach.OWN,
        Operation.ENROL: Reach.OWN,
        Operation.REVOKE: Reach.OWN,
    },
    Role.ADMIN: dict.fromkeys(Operation, Reach.ALL),
}


@dataclass(frozen=True, slots=True)
class Admin:
    """A human or pipeline with a role."""

    name: str
    role: Role
    namespaces: tuple[str, ...] = ()


def reach(admin: Admin, operation: Operation) -> Reach | None:
    """How far the admin may go with an operation; None: not at all."""
    return PERMISSIONS[admin.role].get(operation)


def may(admin: Admin, operation: Operation, namespace: str | None) -> bool:
    """Decide whether an admin may do something in a namespace.

    ``namespace`` is None for what belongs to no namespace; only a reach over all goes there.
    """
    match reach(admin, operation):
        case Reach.ALL:
            return True
        case Reach.OWN:
            return namespace is not None and namespace in admin.namespaces
        case None:
            return False


def check_may(admin: Admin, operation: Operation, namespace: str | None) -> None:
    """As ``may``.

    Raises:
        Refusal: the role does not go so far.
    """
    if not may(admin, operation, namespace):
        where = f" in namespace {namespace}" if namespace else ""
        raise Refusal(
            Kind.FORBIDDEN,
            f"the role {admin.role.value} of {admin.name} does not allow to "
            f"{operation.value}{where}",
        )
