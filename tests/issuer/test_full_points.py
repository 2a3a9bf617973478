"""The database fills up at any moment of stating a fact: nothing is half written or half told.

Each statement to the database fails once as it does on a full disk, and so does the commit. After
each the issuer goes on with the same files, as if there were no room at all; then there is room.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from support.audit_world import audited
from support.offline import Offline, offline_issuer
from support.projections import LISTS, add_stream, projections, stated_of

from accredit_issuer.errors import Unavailable

ENOUGH = 8  # places: fewer would mean that they are not seen


@contextmanager
def full_at(engine: Engine, place: int) -> Iterator[list[int]]:
    """No room from the statement of this number on; gives where it was noticed."""
    numbers, noticed = count(), []

    def fill(*_: object) -> None:
        number = next(numbers)
        if number >= place:
            noticed.append(number)
            raise sqlite3.OperationalError("database or disk is full")

    event.listen(engine, "before_cursor_execute", fill)
    event.listen(engine, "commit", fill)
    try:
        yield noticed
    finally:
        event.remove(engine, "before_cursor_execute", fill)
        event.remove(engine, "commit", fill)


def told(offline: Offline) -> dict[str, Any]:
    """What is public, to the byte."""
    issuer = offline.issuer
    return {
        "log": issuer.log.head,
        "newest": issuer.feed.through,
        "facts": issuer.feed.facts,
        "crls": [crl.der for crl in issuer.revocation.crls.current],
        "recorded": stated_of(offline),
    }


def refusal(offline: Offline, target: str, kind: str) -> str | None:
    """Why a fact could not be stated; None where it was."""
    try:
        offline.state(target, kind)
    except Unavailable as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("before", "kind"),
    [(None, "revoked"), (None, "suspended"), ("suspended", "revoked"), ("suspended", "restored")],
)
def test_full_at_any_moment_no_projection_has_the_fact(
    tmp_path: Path, before: str | None, kind: str
) -> None:
    """A clear error each time and all of them as before; all have it once there is room."""
    with offline_issuer(tmp_path / "issuer", **LISTS) as offline:
        manifest = offline.register()
        svid, neighbour = offline.attest(manifest), offline.attest(manifest)
        token, other = (offline.task_token(each) for each in (svid, neighbour))
        add_stream(offline)
        target = f"instance:{svid.instance}"
        if before is not None:
            offline.state(target, before)
        offline.issuer.keep_up()
        # Once before: whoever asks first for OCSP makes a responder, which is a record.
        expected = projections(offline, svid, token)
        assert set(expected.values()) == {before is not None}
        public = told(offline)
        for place in count():
            with full_at(offline.issuer.database.writing, place) as noticed:
                said = refusal(offline, target, kind)
            assert (said is None) is (not noticed)
            if said is None:
                break
            assert said == "could not be recorded: the database cannot be written"
            assert told(offline) == public
            assert projections(offline, svid, token) == expected
        assert place >= ENOUGH
        for _ in range(2):
            assert set(projections(offline, svid, token).values()) == {kind != "restored"}
            assert not any(projections(offline, neighbour, other).values())
            assert len(stated_of(offline)) == len(public["recorded"]) + 1
            offline.reopen()
    assert not audited(offline).findings
