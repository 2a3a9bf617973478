"""What ``doctor`` looks at. Opens everything for reading only, and changes nothing."""

import hashlib
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from accredit_credentials.revocation import FactSet, RevocationFact
from accredit_issuer.audit.log import Log, LogDamaged, LogReader
from accredit_issuer.authority.lifecycle import AuthorityKind, Origin, State
from accredit_issuer.authority.opening import open_upstream
from accredit_issuer.authority.parent import ParentIssuer
from accredit_issuer.authority.planning import wanted_kinds
from accredit_issuer.bundle_endpoint import load as load_web_certificate
from accredit_issuer.cli.said import said_of
from accredit_issuer.clock_guard import judge
from accredit_issuer.data_folder import check_present, check_trust_domain
from accredit_issuer.errors import InvalidSettings, IssuerError
from accredit_issuer.federation.fetching import check_ca_file
from accredit_issuer.keys.key_manager import KeyManager, KeyMissing
from accredit_issuer.keys.opening import open_keys
from accredit_issuer.revocation.kept_crls import KeptCrl, read_crls
from accredit_issuer.revocation.projection import unlisted
from accredit_issuer.revocation.stated import fact_of
from accredit_issuer.settings import Config, KeysOnDisk, load
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import Model, authorities, credentials, facts, releases
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


@dataclass(slots=True)
class _Place:
    """What the checks look at. The keys are opened once, whatever came of it: tokens lock."""

    config: Config
    database: Database
    now: datetime
    _keys: KeyManager | None = None
    _failed: IssuerError | None = None

    def keys(self) -> KeyManager:
        """Whoever keeps the keys.

        Raises:
            IssuerError: they cannot be reached; the same the second time, without asking again.
        """
        if self._failed is not None:
            raise self._failed
        if self._keys is None:
            try:
                self._keys = open_keys(self.config)
                self._keys.check()
            except IssuerError as error:
                self._failed = error
                raise
        return self._keys

    @property
    def keys_fail(self) -> bool:
        """Whether the keys were asked for, and cannot be reached."""
        return self._failed is not None

    def close(self) -> None:
        """Let go of everything."""
        if self._keys is not None:
            self._keys.close()
        self.database.close()


def examine(config_file: Path, now: datetime) -> list[Finding]:
    """Look at everything, as far as what comes before it can be read. No damage ends it."""
    try:
        config = load(config_file)
    except IssuerError as error:
        return [Finding("settings", False, said_of(error), "see docs/settings.md")]
    findings = [Finding("settings", True, f"{config_file}, trust domain {config.trust_domain}")]
    try:
        check_present(config)
    except (IssuerError, OSError) as error:
        return [*findings, Finding("database", False, said_of(error))]
    with closing(_Place(config, Database(config.database), now)) as place:
        try:
            _check_trust_domain(place)
        except InvalidSettings as error:
            return [*findings, Finding("trust domain", False, said_of(error))]
        for name, check in _CHECKS.items():
            try:
                findings.extend(check(place))
            except Exception as error:  # noqa: BLE001 (what cannot be read is what is looked for)
                findings.append(Finding(name, False, said_of(error)))
    return findings


def _check_trust_domain(place: _Place) -> None:
    # What else is wrong with the database, or the record, is found by the checks of their own.
    with suppress(SQLAlchemyError, LogDamaged, TypeError), place.database.read() as connection:
        check_trust_domain(place.config, connection)


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


def _permissions(place: _Place) -> Iterator[Finding]:
    config, kept = place.config, place.config.keys
    for path in (config.data, *([kept.folder] if isinstance(kept, KeysOnDisk) else [])):
        mode = stat.S_IMODE(path.stat().st_mode)
        private = not mode & ~0o700
        yield Finding(
            f"permissions of {path.name}",
            private,
            f"{mode:04o}",
            "" if private else f"run: chmod 700 {path}",
        )


def _schema(place: _Place) -> Iterator[Finding]:
    with place.database.read() as connection:
        different = differences(connection)
    yield Finding(
        "schema",
        not different,
        "; ".join(different) or "as the migrations make it",
        "start the issuer once after an update; otherwise see docs/audit.md" if different else "",
    )


def _tables(place: _Place) -> Iterator[Finding]:
    with place.database.read() as connection:
        known = set(inspect(connection).get_table_names())
    missing = sorted(Model.metadata.tables.keys() - known)
    yield Finding(
        "database",
        not missing,
        f"{len(known)} tables" if not missing else f"tables are missing: {', '.join(missing)}",
        "restore the backup; after an upgrade 'run' makes new ones" if missing else "",
    )


def _keys(place: _Place) -> Iterator[Finding]:
    kept = place.config.keys
    clear = isinstance(kept, KeysOnDisk) and kept.passphrase_file is None
    hint = "encrypted is safer: set keys.unencrypted = false before 'init'" if clear else ""
    yield Finding("keys", True, place.keys().check(), hint)


def _authorities(place: _Place) -> Iterator[Finding]:
    with place.database.read() as connection:
        rows = connection.execute(
            select(authorities).where(authorities.c.state != State.REMOVED.value)
        ).all()
    for row in rows:
        left = row.expires_at - place.now
        alive = left.total_seconds() > 0
        yield Finding(
            f"{row.kind} {row.id[:16]}",
            alive or row.state != State.ACTIVE.value,
            f"{row.state}, expires {row.expires_at:%Y-%m-%d %H:%M} UTC"
            + ("" if row.origin == Origin.OWN.value else f", origin {row.origin}"),
            "" if alive else "a running issuer replaces it at once",
        )
    active = {row.kind for row in rows if row.state == State.ACTIVE.value}
    for kind in wanted_kinds(place.config):
        if kind.value not in active:
            yield Finding(f"authorities of the kind {kind.value}", False, "none is active")
    if not place.keys_fail:  # or it was said already
        for row in rows:
            if row.kind != AuthorityKind.ROOT.value or row.origin == Origin.OWN.value:
                yield from _key_of(place.keys(), row.id)


def _key_of(keys: KeyManager, key_id: str) -> Iterator[Finding]:
    try:
        keys.load(key_id)
    except KeyMissing as error:
        yield Finding(f"key of {key_id[:16]}", False, said_of(error), "restore the backup")


def _upstream(place: _Place) -> Iterator[Finding]:
    upstream = open_upstream(place.config, place.now)
    if isinstance(upstream, ParentIssuer):
        found, alive = upstream.describe(place.now)
        yield Finding("upstream", alive, found, "" if alive else "is 'accredit run' running?")
    given = upstream.given
    if given is not None:
        # Nobody but who gave it can make the next one, and that may take weeks.
        soon = given.expires_at - place.now < EXPIRES_SOON
        yield Finding(
            "upstream",
            not soon,
            f"CA {given.id[:16]} from files, expires {given.expires_at:%Y-%m-%d %H:%M} UTC",
            "put another CA with a new key in its place, and restart" if soon else "",
        )


def _log(place: _Place) -> Iterator[Finding]:
    log = Log(place.config.log_origin, place.keys().load_log_key())
    with place.database.read() as connection:
        log.load(connection)
        LogReader(connection).check(log.frontier)
    yield Finding("log", True, f"{log.frontier.size} records under a valid checkpoint")


def _clock(place: _Place) -> Iterator[Finding]:
    with place.database.read() as connection:
        newest = LogReader(connection).newest_moment()
    why = judge(place.now, newest, expected=None)
    yield Finding("clock", why is None, why or "not behind the newest record")


def _crls(place: _Place) -> Iterator[Finding]:
    with place.database.read() as connection:
        in_use = set(
            connection.execute(
                select(authorities.c.id).where(authorities.c.state != State.REMOVED.value)
            ).scalars()
        )
        in_force = FactSet(
            map(fact_of, connection.execute(select(facts).order_by(facts.c.sequence)).all())
        )
        for kept in read_crls(connection):
            missing = (
                unlisted(connection, in_force, kept.row.authority, place.now)
                # Of a removed authority nothing is valid: its last CRL stays as it was.
                if kept.row.authority in in_use
                else []
            )
            yield _crl(kept, [fact for fact, *_ in missing], place.now)


def _crl(kept: KeptCrl, missing: Sequence[RevocationFact], now: datetime) -> Finding:
    row = kept.row
    what = f"CRL of {row.authority[:16]}"
    if kept.problem:
        return Finding(what, False, kept.problem, "restart the issuer: it makes another one")
    if missing:
        return Finding(
            what,
            False,
            f"{len(missing)} certificates are missing, of fact {missing[0].sequence} first",
            "see what 'accredit-issuer audit' finds",
        )
    late = now > row.next_update
    return Finding(
        what,
        not late,
        f"number {row.number}, {len(kept.entries)} entries, next update "
        f"{row.next_update:%Y-%m-%d %H:%M} UTC",
        "a running issuer publishes it anew" if late else "",
    )


def _unfinished(place: _Place) -> Iterator[Finding]:
    """Intents without an outcome: at most what was in the air when the issuer was killed."""
    with place.database.read() as connection:
        number = connection.scalar(
            select(func.count())
            .select_from(credentials.outerjoin(releases, releases.c.number == credentials.c.number))
            .where(releases.c.number.is_(None), credentials.c.expires_at > place.now)
        )
    yield Finding(
        "unreleased intents",
        True,
        f"{number or 0} still unexpired",
        "what was released is examined by 'accredit-issuer audit'",
    )


def _https_web(place: _Place) -> Iterator[Finding]:
    """The certificate that an operator's tools have to renew."""
    https_web, now = place.config.https_web, place.now
    if https_web is None:
        return
    load_web_certificate(https_web)
    certificate = x509.load_pem_x509_certificate(https_web.certificate_file.read_bytes())
    ends = certificate.not_valid_after_utc
    yield Finding(
        "certificate of bundle.https_web",
        ends > now,
        f"expires {ends:%Y-%m-%d %H:%M} UTC",
        "" if ends > now else "renew it: a running issuer takes it within seconds",
    )
    # A group may read it, as many tools that renew certificates set it up; others may not.
    key_file = https_web.key_file
    mode = stat.S_IMODE(key_file.stat().st_mode)
    yield Finding(
        f"permissions of {key_file.name}",
        not mode & 0o007,
        f"{mode:04o}",
        f"run: chmod o-rwx {key_file}" if mode & 0o007 else "",
    )


def _federation(place: _Place) -> Iterator[Finding]:
    """What endpoints of other trust domains are verified with."""
    file = place.config.federation_ca_file
    if file is not None:
        check_ca_file(file)
        yield Finding("federation.ca_file", True, str(file))


_CHECKS: Mapping[str, Callable[[_Place], Iterator[Finding]]] = {
    "permissions": _permissions,
    "database": _tables,
    "schema": _schema,
    "keys": _keys,
    "authorities": _authorities,
    "upstream": _upstream,
    "log": _log,
    "clock": _clock,
    "CRLs": _crls,
    "unreleased intents": _unfinished,
    "bundle.https_web": _https_web,
    "federation.ca_file": _federation,
}
