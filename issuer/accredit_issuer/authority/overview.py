"""The authorities as operators see them: states, moments that were, moments that are planned.

Reads the database only, so that it can be looked at beside a running issuer.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from accredit_issuer.authority.lifecycle import Standing, State
from accredit_issuer.authority.planning import Rules, plan
from accredit_issuer.authority.rows import standing_of
from accredit_issuer.registry.listing import text_of
from accredit_issuer.store.models import authorities, credentials, facts

_KINDS = ("x509", "jwt", "wit", "task", "ca")
REMOVED_SHOWN = 50  # the newest of those that were removed


def read(connection: Connection) -> list[Standing]:
    """All authorities in use and those that were removed last, the oldest first."""
    is_removed = authorities.c.state == State.REMOVED.value
    rows = [
        *connection.execute(select(authorities).where(~is_removed)),
        *connection.execute(
            select(authorities)
            .where(is_removed)
            .order_by(authorities.c.removed_at.desc())
            .limit(REMOVED_SHOWN)
        ),
    ]
    revoked = set(
        connection.scalars(
            select(facts.c.target).where(
                facts.c.target.in_([f"authority:{row.id}" for row in rows]),
                facts.c.kind == "revoked",
            )
        )
    )
    standings = [
        replace(standing_of(row), revoked=f"authority:{row.id}" in revoked) for row in rows
    ]
    return sorted(standings, key=lambda each: (each.prepared_at, each.id))


def resting(connection: Connection, known: Sequence[Standing], now: datetime) -> dict[str, int]:
    """How many unexpired credentials rest on each authority, those below a root on it too.

    Intents are counted: one that was not released is among them. Reads what has not expired, by the
    index, and nothing else.
    """
    table = credentials.c
    counted: dict[str, int] = {
        row.authority: row.number
        for row in connection.execute(
            select(table.authority, func.count().label("number"))
            .where(table.kind.in_(_KINDS), table.expires_at > now)
            .group_by(table.authority)
        )
    }
    return {
        one.id: counted.get(one.id, 0)
        + sum(counted.get(below.id, 0) for below in known if below.parent == one.id)
        for one in known
    }


def view(
    shown: Sequence[Standing], known: Sequence[Standing], rules: Rules, now: datetime
) -> list[dict[str, Any]]:
    """Some authorities among all that are known, as JSON."""
    return [_view(standing, known, rules, now) for standing in shown]


def _view(
    standing: Standing, known: Sequence[Standing], rules: Rules, now: datetime
) -> dict[str, Any]:
    moments = plan(standing, known, rules, now)
    return {
        "id": standing.id,
        "kind": standing.kind.value,
        "state": standing.state.value,
        "revoked": standing.revoked,
        "parent": standing.parent,
        "origin": standing.origin.value,
        "prepared_at": text_of(standing.prepared_at),
        "activates_from": _text(moments.activates_from),
        "active_from": _text(moments.active_from),
        "last_use": _text(moments.last_use),
        "tainted_at": _text(standing.tainted_at),
        "removal": text_of(moments.removal),
        "expires_at": text_of(standing.expires_at),
        "planned": sorted(moments.planned),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else text_of(moment)
