"""An issuer killed at any moment of stating a fact: every projection has it afterwards, or none.

What a killed process leaves are its files as the kernel has them. So the folder is copied, on the
thread that writes, before each statement to the database, before the commit and before each call
that follows it; an issuer is opened on every copy, as if it had been killed there. Events that wait
for their receivers and what may be confirmed are among what is asked.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from support.issuer import make_config
from support.offline import Offline, offline_issuer
from support.projections import LISTS, add_stream, projections

from accredit_issuer.issuer import open_issuer
from accredit_issuer.store import writer

LEFT_OUT = shutil.ignore_patterns("*-shm", "issuer.lock")  # a new process makes its own
ENOUGH = 8  # moments: fewer would mean that they are not seen


class Moments:
    """Copies of the folder, in the order in which they were taken."""

    def __init__(self, folder: Path, into: Path) -> None:
        self._folder = folder
        self._into = into
        self.copies: list[Path] = []

    def take(self, *_: object) -> None:
        """Copy it as it is now."""
        copy = self._into / f"killed-{len(self.copies)}"
        shutil.copytree(self._folder, copy, ignore=LEFT_OUT, symlinks=True)
        self.copies.append(copy)


@contextmanager
def every_moment(
    offline: Offline, into: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Moments]:
    """Every moment at which the writing thread could be killed with another outcome."""
    moments = Moments(offline.config.data.parent, into)
    engine = offline.issuer.database.writing

    def tell(outcomes: list[writer._Outcome]) -> None:
        for *_, calls in outcomes:
            for call in calls:
                moments.take()
                call()
        moments.take()

    event.listen(engine, "before_cursor_execute", moments.take)
    event.listen(engine, "commit", moments.take)
    with monkeypatch.context() as patched:
        patched.setattr(writer, "_tell", tell)
        yield moments
    event.remove(engine, "before_cursor_execute", moments.take)
    event.remove(engine, "commit", moments.take)


@pytest.mark.parametrize(
    ("before", "kind"),
    [(None, "revoked"), (None, "suspended"), ("suspended", "revoked"), ("suspended", "restored")],
)
def test_killed_at_any_moment_every_projection_has_the_fact_or_none_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, kind: str
) -> None:
    """No kill makes one of them forget or run ahead, and none takes back what another had said."""
    with offline_issuer(tmp_path / "issuer", **LISTS) as offline:
        manifest = offline.register()
        svid, neighbour = offline.attest(manifest), offline.attest(manifest)
        token, other = (offline.task_token(each) for each in (svid, neighbour))
        add_stream(offline)
        target = f"instance:{svid.instance}"
        if before is not None:
            offline.state(target, before)
        offline.issuer.keep_up()
        with every_moment(offline, tmp_path, monkeypatch) as moments:
            offline.state(target, kind)
    assert len(moments.copies) >= ENOUGH
    found = []
    for copy in moments.copies:
        config = make_config(copy, **LISTS)
        with closing(open_issuer(config, offline.clock)) as issuer:
            opened = Offline(config, offline.clock, issuer)
            said = projections(opened, svid, token)
            assert len(set(said.values())) == 1, said
            assert not any(projections(opened, neighbour, other).values())
            found.append(said["crl"])
    first, last = before is not None, kind != "restored"
    after = [each for each in found if each is last]
    assert (found[0], found[-1]) == (first, last)
    if first != last:
        assert found == [first] * (len(found) - len(after)) + [last] * len(after)
        assert len(after) > 1, "moments after the commit are among them"
