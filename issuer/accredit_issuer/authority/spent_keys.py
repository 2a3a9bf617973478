"""Keys that nothing signs with any more: deleted with their authority, or at the next start."""

import structlog
from sqlalchemy import Connection, select

from accredit_issuer.authority.lifecycle import State
from accredit_issuer.errors import Unavailable
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.store import models

SWEPT = 16  # of those removed last, the keys are looked for once more at the start

_log = structlog.get_logger("accredit.authorities")


def delete_key(keys: KeyManager, key_id: str) -> None:
    """Delete a key; where it cannot be done now, the next start does it."""
    try:
        keys.remove(key_id)
    except Unavailable as error:
        # The step stands: nothing signs with the key, and the next start deletes it.
        _log.warning("key not deleted", key=key_id, reason=str(error))


def sweep(keys: KeyManager, connection: Connection) -> None:
    """Delete keys whose authority was removed just before the process died."""
    table = models.authorities
    rows = connection.execute(
        select(table.c.id)
        .where(table.c.state == State.REMOVED.value)
        .order_by(table.c.removed_at.desc())
        .limit(SWEPT)
    )
    for row in rows:
        delete_key(keys, row.id)
