"""The authorities as the database has them, at the start: checked before any of them is used.

In order: the root that is given, if one is, may be used here → each row is of the key that is
held → each issuing CA was certified by a root that was ours.
"""

from typing import Any

from sqlalchemy import Connection, Row, select

from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.authority.rows import pem_of, standing_of
from accredit_issuer.authority.snapshot import Authority
from accredit_issuer.authority.stored import Stored, check_certified, check_held
from accredit_issuer.authority.upstream import Upstream
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.store import models

_GIVEN_STATES = frozenset({State.PREPARED.value, State.ACTIVE.value})


def load_authorities(
    connection: Connection, keys: KeyManager, upstream: Upstream
) -> tuple[Authority, ...]:
    """Read the authorities that were not removed.

    Raises:
        AuthorityDamaged: the database holds other ones than were made.
        InvalidSettings: the root that is given was in use before, and is not any more.
        KeyMissing: an authority's key is not there.
        Unavailable: nobody can be asked for keys now.
    """
    _check_given(connection, upstream)
    rows = connection.execute(
        select(models.authorities).where(models.authorities.c.state != State.REMOVED.value)
    ).all()
    loaded = tuple(_of_row(row, keys) for row in rows)
    check_certified(map(Stored.of_row, rows), _roots_of(connection))
    return loaded


def _check_given(connection: Connection, upstream: Upstream) -> None:
    """Decide whether the root that is given may be used: a key that was retired is not."""
    given = upstream.given
    if given is None:
        return
    row = connection.execute(
        select(models.authorities).where(models.authorities.c.id == given.id)
    ).one_or_none()
    if row is None:
        return
    if row.origin != upstream.origin.value or row.state not in _GIVEN_STATES:
        raise InvalidSettings(
            f"upstream.certificate_file: the CA with the key id {given.id} is {row.state} "
            "here already, and no key is used again: give a CA with a new key"
        )
    if row.public + row.chain != pem_of((given.certificate, *given.above)):
        raise InvalidSettings(
            f"upstream.certificate_file: the CA with the key id {given.id} is in use here "
            "with other certificates: give a CA with a new key, or those certificates"
        )


def _of_row(row: Row[Any], keys: KeyManager) -> Authority:
    stored = Stored.of_row(row)
    # Of a root that was given the upstream has the key, for as long as it is given.
    key = None if stored.is_given else keys.load(row.id)
    if key is not None:
        check_held(stored, key)
    return Authority(standing_of(row), stored.public, stored.certificate, key, stored.chain)


def _roots_of(connection: Connection) -> dict[str, Stored]:
    """All roots that were ever published: an issuing CA may outlive its root by a moment."""
    table = models.authorities
    rows = connection.execute(select(table).where(table.c.kind == AuthorityKind.ROOT.value))
    return {row.id: Stored.of_row(row) for row in rows}
