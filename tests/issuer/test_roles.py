"""Who may do what: the table of docs/api.md, written down a second time, cell by cell."""

import itertools
from pathlib import Path

import pytest

from accredit_issuer.registry.roles import Admin, Operation, Reach, Role, may, reach

# role: read, register, enrol, revoke, manage signers, admins, authorities, subordinates, nodes,
# streams, federate.
# A: all, o: own, -: not.
TABLE = {
    "viewer": "A----------",
    "registrar": "Aoo--------",
    "security": "A--A--A-AA-",
    "owner": "oooo-------",
    "admin": "AAAAAAAAAAA",
}
OPERATIONS = [
    "read", "register", "enrol", "revoke", "manage signers", "manage admins", "manage authorities",
    "manage subordinates", "manage nodes", "manage streams",
    "federate",
]  # fmt: skip
WHERE = {"own": "support", "foreign": "payments", "none": None}
ALLOWED = {"A": {"own", "foreign", "none"}, "o": {"own"}, "-": set[str]()}

CELLS = [
    (role, operation, where, where in ALLOWED[cell])
    for role, cells in TABLE.items()
    for operation, cell in zip(OPERATIONS, cells, strict=True)
    for where in WHERE
]


@pytest.mark.parametrize(("role", "operation", "where", "allowed"), CELLS)
def test_each_cell_of_the_table(role: str, operation: str, where: str, *, allowed: bool) -> None:
    """Role by operation by namespace: allowed where the table says so, and nowhere else."""
    admin = Admin("someone", Role(role), ("support", "sales"))
    assert may(admin, Operation(operation), WHERE[where]) is allowed


def test_the_table_is_whole() -> None:
    """A role or an operation that the table does not know fails here."""
    assert set(TABLE) == {role.value for role in Role}
    assert [operation.value for operation in Operation] == OPERATIONS


def test_the_documentation_has_the_same_table() -> None:
    """docs/api.md says of each role and operation what the code does."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.partition("### Roles")[2].splitlines()
        if line.startswith("|")
    ]
    words = {"": None, "own": Reach.OWN, "✓": Reach.ALL}
    roles = [cell.split()[0] for cell in rows[0][1:]]
    operations = (Operation.READ, *list(Operation)[1:])
    for operation, row in zip(operations, rows[2:], strict=True):
        for role, cell in zip(roles, row[1:], strict=True):
            assert reach(Admin("a", Role(role)), operation) is words[cell], (operation, role)


@pytest.mark.parametrize(("role", "operation"), [*itertools.product(Role, Operation)])
def test_without_namespaces_own_is_nothing(role: Role, operation: Operation) -> None:
    """Empty means no: who was given no namespace has no own one."""
    admin = Admin("someone", role)
    if reach(admin, operation) is Reach.OWN:
        assert not may(admin, operation, "support")
        assert not may(admin, operation, "")


@pytest.mark.parametrize(
    "namespace", ["suppor", "supports", "Support", "support/", "*", " support"]
)
def test_a_namespace_is_compared_as_a_whole(namespace: str) -> None:
    """No prefix, suffix, case or pattern of a name is that name."""
    owner = Admin("someone", Role.OWNER, ("support", "*"))
    assert may(owner, Operation.REVOKE, namespace) is (namespace == "*")
