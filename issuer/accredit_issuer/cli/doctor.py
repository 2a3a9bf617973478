"""What ``doctor`` looks at. Opens everything for reading only, and changes nothing."""

import hashlib
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from accredit_issuer.audit.log import Log, LogReader
from accredit_issuer.authority.lifecycle import AuthorityKind, Origin, State
from accredit_issuer.authority.opening import open_upstream
from accredit_issuer.authority.parent import ParentIssuer
from accredit_issuer.bundle_endpoint import load as load_web_certificate
from accredit_issuer.clock_guard import judge
from accredit_issuer.errors import IssuerError
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.keys.opening import open_keys
from accredit_issuer.settings import Config, KeysOnDisk, load
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import authorities, credentials, crls, releases
from accredit_issuer.store.schema import differences

EXPIRES_SOON = timedelta(days=30)  # of a CA that somebody else has to replace


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
        _schema,
        _keys,
        _upstream,
        _log,
        _clock,
        _crls,
        _unfinished,
        _https_web,
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
                select(authorities.c.public, authorities.c.chain).where(
                    authorities.c.kind == AuthorityKind.ROOT.value,
                    authorities.c.state == State.ACTIVE.value,
                )
            )
            # Of a root that was given, clients know the last certificate above it.
            return [
                Root(x509.load_pem_x509_certificates(f"{row.public}{row.chain}".encode())[-1])
                for row in rows
            ]
    finally:
        database.close()


def _permissions(config: Config, _database: Database, _now: datetime) -> Iterator[Finding]:
    kept = config.keys
    for path in (config.data, *([kept.folder] if isinstance(kept, KeysOnDisk) else [])):
        mode = stat.S_IMODE(path.stat().st_mode)
        private = not mode & ~0o700
        yield Finding(
            f"permissions of {path.name}",
            private,
            f"{mode:04o}",
            "" if private else f"run: chmod 700 {path}",
        )


def _schema(_config: Config, database: Database, _now: datetime) -> Iterator[Finding]:
    with database.read() as connection:
        different = differences(connection)
    yield Finding(
        "schema",
        not different,
        "; ".join(different) or "as the migrations make it",
        "start the issuer once after an update; otherwise see docs/audit.md" if different else "",
    )


def _keys(config: Config, database: Database, now: datetime) -> Iterator[Finding]:
    with closing(open_keys(config)) as keys:
        clear = isinstance(config.keys, KeysOnDisk) and config.keys.passphrase_file is None
        hint = "encrypted is safer: set keys.unencrypted = false before 'init'" if clear else ""
        yield Finding("keys", True, keys.check(), hint)
        keys.load_log_key()
        yield from _authorities(keys, database, now)


def _authorities(keys: KeyManager, database: Database, now: datetime) -> Iterator[Finding]:
    with database.read() as connection:
        rows = connection.execute(
            select(authorities).where(authorities.c.state != State.REMOVED.value)
        ).all()
    for row in rows:
        if row.kind != AuthorityKind.ROOT.value or row.origin == Origin.OWN.value:
            keys.load(row.id)
        left = row.expires_at - now
        alive = left.total_seconds() > 0
        yield Finding(
            f"{row.kind} {row.id[:16]}",
            alive or row.state != State.ACTIVE.value,
            f"{row.state}, expires {row.expires_at:%Y-%m-%d %H:%M} UTC"
            + ("" if row.origin == Origin.OWN.value else f", origin {row.origin}"),
            "" if alive else "a running issuer replaces it at once",
        )


def _upstream(config: Config, _database: Database, now: datetime) -> Iterator[Finding]:
    upstream = open_upstream(config, now)
    if isinstance(upstream, ParentIssuer):
        found, alive = upstream.describe(now)
        yield Finding("upstream", alive, found, "" if alive else "is 'accredit run' running?")
    given = upstream.given
    if given is not None:
        # Nobody but who gave it can make the next one, and that may take weeks.
        soon = given.expires_at - now < EXPIRES_SOON
        yield Finding(
            "upstream",
            not soon,
            f"CA {given.id[:16]} from files, expires {given.expires_at:%Y-%m-%d %H:%M} UTC",
            "put another CA with a new key in its place, and restart" if soon else "",
        )


def _log(config: Config, database: Database, _now: datetime) -> Iterator[Finding]:
    with closing(open_keys(config)) as keys, database.read() as connection:
        log = Log(config.log_origin, keys.load_log_key())
        log.load(connection)
        LogReader(connection).check(log.frontier)
    yield Finding("log", True, f"{log.frontier.size} records under a valid checkpoint")


def _clock(_config: Config, database: Database, now: datetime) -> Iterator[Finding]:
    with database.read() as connection:
        newest = LogReader(connection).newest_moment()
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
            .select_from(credentials.outerjoin(releases, releases.c.number == credentials.c.number))
            .where(releases.c.number.is_(None), credentials.c.expires_at > now)
        )
    yield Finding(
        "unreleased intents",
        True,
        f"{number or 0} still unexpired",
        "what was released is examined by 'accredit-issuer audit'",
    )


def _https_web(config: Config, _database: Database, now: datetime) -> Iterator[Finding]:
    """The certificate that an operator's tools have to renew."""
    if config.https_web is None:
        return
    load_web_certificate(config.https_web)
    certificate = x509.load_pem_x509_certificate(config.https_web.certificate_file.read_bytes())
    ends = certificate.not_valid_after_utc
    yield Finding(
        "certificate of bundle.https_web",
        ends > now,
        f"expires {ends:%Y-%m-%d %H:%M} UTC",
        "" if ends > now else "renew it: a running issuer takes it within seconds",
    )
    # A group may read it, as many tools that renew certificates set it up; others may not.
    key_file = config.https_web.key_file
    mode = stat.S_IMODE(key_file.stat().st_mode)
    yield Finding(
        f"permissions of {key_file.name}",
        not mode & 0o007,
        f"{mode:04o}",
        f"run: chmod o-rwx {key_file}" if mode & 0o007 else "",
    )
