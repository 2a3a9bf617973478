"""What ``doctor`` looks at. Opens everything for reading only, and changes nothing."""

import hashlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from accredit_issuer.audit.log import Log, LogReader
from accredit_issuer.authority.key_store import KeyStore, read_passphrase
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.clock_guard import judge
from accredit_issuer.errors import IssuerError
from accredit_issuer.issuer import LOG_KEY
from accredit_issuer.settings import Config, load
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import authorities, credentials, crls, releases


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    hint: str = ""

    def view(self) -> dict[str, Any]:
        """As JSON."""
        return {"what": self.what, "ok": self.ok, "found": self.found, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Root:
    """A root certificate and what clients pin of it."""

    certificate: x509.Certificate

    @property
    def pin(self) -> str:
        """``sha256:<hex>`` of the DER."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        return "sha256:" + hashlib.sha256(der).hexdigest()


def examine(config_file: Path, now: datetime) -> list[Finding]:
    """Look at everything, as far as what comes before it can be read."""
    findings: list[Finding] = []
    try:
        config = load(config_file)
    except IssuerError as error:
        return [Finding("settings", False, str(error), "see docs/settings.md")]
    findings.append(Finding("settings", True, f"{config_file}, trust domain {config.trust_domain}"))
    if not config.database.exists():
        return [
            *findings,
            Finding("database", False, f"no issuer in {config.data}", "run 'accredit-issuer init'"),
        ]
    database = Database(config.database)
    checks: tuple[Callable[[Config, Database, datetime], Iterator[Finding]], ...] = (
        _permissions,
        _keys,
        _log,
        _clock,
        _crls,
        _unfinished,
    )
    for check in checks:
        try:
            findings.extend(check(config, database, now))
        except (IssuerError, SQLAlchemyError, OSError) as error:
            findings.append(Finding(check.__name__.strip("_"), False, str(error)))
    database.close()
    return findings


def root_certificates(config: Config) -> list[Root]:
    """The active roots of an issuer."""
    database = Database(config.database)
    try:
        with database.read() as connection:
            rows = connection.execute(
                select(authorities.c.public).where(
                    authorities.c.kind == AuthorityKind.ROOT.value,
                    authorities.c.state == State.ACTIVE.value,
                )
            )
            return [Root(x509.load_pem_x509_certificate(row.public.encode())) for row in rows]
    finally:
        database.close()


def _permissions(config: Config, _database: Database, _now: datetime) -> Iterator[Finding]:
    for path, limit in ((config.data, 0o700), (config.keys, 0o700)):
        mode = stat.S_IMODE(path.stat().st_mode)
        yield Finding(
            f"permissions of {path.name}",
            not mode & ~limit,
            f"{mode:04o}",
            "" if not mode & ~limit else f"run: chmod {limit:o} {path}",
        )


def _keys(config: Config, database: Database, now: datetime) -> Iterator[Finding]:
    keys = KeyStore(config.keys, read_passphrase(config.passphrase_file))
    keys.load_log_key(LOG_KEY)
    yield Finding(
        "keys encrypted",
        True,
        "yes" if config.passphrase_file else "no, file permissions only",
        "" if config.passphrase_file else "set keys.passphrase_file before 'init'",
    )
    with database.read() as connection:
        rows = connection.execute(
            select(authorities).where(authorities.c.state != State.REMOVED.value)
        ).all()
    for row in rows:
        keys.load(row.id)
        left = row.expires_at - now
        alive = left.total_seconds() > 0
        yield Finding(
            f"{row.kind} {row.id[:16]}",
            alive or row.state != State.ACTIVE.value,
            f"{row.state}, expires {row.expires_at:%Y-%m-%d %H:%M} UTC",
            "" if alive else "a running issuer replaces it at once",
        )


def _log(config: Config, database: Database, _now: datetime) -> Iterator[Finding]:
    keys = KeyStore(config.keys, read_passphrase(config.passphrase_file))
    log = Log(config.log_origin, keys.load_log_key(LOG_KEY))
    with database.read() as connection:
        log.load(connection)
        LogReader(connection).check(log.frontier)
    yield Finding("log", True, f"{log.frontier.size} records under a valid checkpoint")


def _clock(config: Config, database: Database, now: datetime) -> Iterator[Finding]:
    keys = KeyStore(config.keys, read_passphrase(config.passphrase_file))
    log = Log(config.log_origin, keys.load_log_key(LOG_KEY))
    with database.read() as connection:
        log.load(connection)
        newest = LogReader(connection).newest_moment(log.frontier.size)
    why = judge(now, newest, expected=None)
    yield Finding("clock", why is None, why or "not behind the newest record")


def _crls(_config: Config, database: Database, now: datetime) -> Iterator[Finding]:
    with database.read() as connection:
        # Of a removed authority nothing is valid: its last CRL stays as it was.
        published = select(authorities.c.id).where(authorities.c.state != State.REMOVED.value)
        rows = connection.execute(select(crls).where(crls.c.authority.in_(published))).all()
    for row in rows:
        late = (now - row.next_update).total_seconds() > 0
        yield Finding(
            f"CRL of {row.authority[:16]}",
            not late,
            f"number {row.number}, next update {row.next_update:%Y-%m-%d %H:%M} UTC",
            "a running issuer publishes it anew" if late else "",
        )


def _unfinished(_config: Config, database: Database, now: datetime) -> Iterator[Finding]:
    """Intents without an outcome: at most what was in the air when the issuer was killed."""
    with database.read() as connection:
        number = connection.scalar(
            select(func.count())
            .select_from(credentials.outerjoin(releases, releases.c.credential == credentials.c.id))
            .where(releases.c.credential.is_(None), credentials.c.expires_at > now)
        )
    yield Finding("unreleased intents", True, f"{number or 0} still unexpired")
