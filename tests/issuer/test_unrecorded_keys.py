"""A key that no record knows does not stay, whoever keeps the keys; nobody else's key goes."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from support.clock import SettableClock
from support.issuer import make_config
from support.softhsm import LABEL, soft_token

from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.upstream import OwnRoot
from accredit_issuer.errors import IssuerError, Unavailable
from accredit_issuer.issuer import Issuer
from accredit_issuer.keys.disk import DiskKeys
from accredit_issuer.keys.key_manager import KeyManager, KeyMissing, ManagedKey
from accredit_issuer.keys.memory import MemoryKeys
from accredit_issuer.keys.pkcs11 import Pkcs11Keys
from accredit_issuer.registry.changes import Local
from accredit_issuer.settings import KeysInToken
from accredit_issuer.store.database import Database

DOMAIN = TrustDomain("example.org")
ADMIN = Local("test")
NO_AUTHORITY = "CREATE TRIGGER t BEFORE INSERT ON authority BEGIN SELECT RAISE(ABORT, 'no'); END"


@pytest.fixture(params=["memory", "disk", "pkcs11"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyManager]:
    """Each kind of key manager."""
    with ExitStack() as stack:
        if request.param == "memory":
            yield MemoryKeys()
        elif request.param == "disk":
            disk = DiskKeys(tmp_path / "keys", None)
            disk.create_folder()
            yield disk
        else:
            token = stack.enter_context(soft_token(tmp_path / "token"))
            kept = KeysInToken(token.module, LABEL, token.pin_file)
            yield stack.enter_context(closing(Pkcs11Keys(kept, DOMAIN)))


@pytest.fixture
def issuer(keys: KeyManager, tmp_path: Path) -> Iterator[Issuer]:
    """An issuer with its first authorities in these keys."""
    config = make_config(tmp_path / "issuer", wit={"enabled": True})
    config.data.mkdir(parents=True, exist_ok=True)
    keys.generate_log_key()
    database = Database(config.database)
    database.migrate()
    with closing(Issuer(config, SettableClock(), database, keys)) as made:
        made.keep_up()
        yield made


@pytest.fixture
def made(keys: KeyManager, monkeypatch: pytest.MonkeyPatch, issuer: Issuer) -> list[str]:
    """The ids of keys that are made from now on."""
    assert issuer.authorities.now_in_force
    ids = list[str]()
    generate = keys.generate

    def noted() -> ManagedKey:
        key = generate()
        ids.append(key.id)
        return key

    monkeypatch.setattr(keys, "generate", noted)
    return ids


def do(issuer: Issuer, statement: str) -> None:
    """Change the database behind the issuer's back."""
    issuer.writer.run(lambda t: t.execute(text(statement)), alone=True).result()


@pytest.mark.parametrize("kind", list(AuthorityKind))
def test_a_key_whose_record_failed_goes_with_the_next_step(
    kind: AuthorityKind, issuer: Issuer, keys: KeyManager, made: list[str]
) -> None:
    """Kept for as long as a crash could still bring its row; then deleted, and no other."""
    of_another = keys.generate().id  # of a replica that prepares it just now
    in_use = [a.id for a in issuer.authorities.now_in_force.authorities]
    do(issuer, NO_AUTHORITY)
    with pytest.raises(Unavailable):
        issuer.rollover.prepare(kind, by=ADMIN)
    failed = made[-1]
    assert keys.load(failed)
    do(issuer, "DROP TRIGGER t")
    issuer.rollover.prepare(kind, by=ADMIN)
    with pytest.raises(KeyMissing):
        keys.load(failed)
    for stays in (*in_use, of_another, made[-1]):
        assert keys.load(stays)


def test_a_key_that_nobody_certified_goes_at_once(
    issuer: Issuer, keys: KeyManager, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kept its certificate from being made: no row was ever to be written."""

    def fails(*_: Any) -> None:
        raise IssuerError("no certificate")

    monkeypatch.setattr(OwnRoot, "certify", fails)
    monkeypatch.setattr("accredit_issuer.authority.upstream.sign_ca", fails)
    for kind in (AuthorityKind.X509, AuthorityKind.ROOT):
        with pytest.raises(IssuerError, match="no certificate"):
            issuer.rollover.prepare(kind, by=ADMIN)
        with pytest.raises(KeyMissing):
            keys.load(made[-1])
    assert len(made) == 2
