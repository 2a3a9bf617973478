"""Everything that the issuer keeps, examined over one snapshot of the database.

In order: the log against its signed checkpoint, and against one that was kept elsewhere → every
record: was it possible where it stands, is what it tells of still there → authorities and CRLs →
every credential → every other row of the state against its record. What is wrong with one thing is
said of it, and the next is looked at. Rows are read in batches: what is held in memory are the
facts in force, the authorities, the admins and a little of each manifest.

Reads only, in one transaction: a running issuer goes on meanwhile, and what it writes is not seen.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from accredit_attestors.errors import AttestationError
from accredit_attestors.manifest import verify as verify_manifest
from accredit_attestors.signing import Signer as ManifestSigner
from accredit_credentials import checkpoint as signed_note
from accredit_credentials.errors import CredentialError
from accredit_credentials.merkle import Frontier
from accredit_credentials.revocation import FactKind
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import identity_marks
from accredit_issuer.audit.authority_rows import (
    ReadAuthority,
    ReadCrl,
    check_chain,
    is_older,
    read_authority,
    read_crl,
)
from accredit_issuer.audit.examination import CERTIFICATES, X509, Bounds, Issued, examine
from accredit_issuer.audit.kept_rows import KEPT, TABLES, Kept, KeptTable
from accredit_issuer.audit.log import Log, LogDamaged, LogReader, NodeReader
from accredit_issuer.audit.recorded import InvalidRecord, Recorded
from accredit_issuer.audit.records import RecordKind, written_moment
from accredit_issuer.audit.replay import Replay
from accredit_issuer.audit.report import Report
from accredit_issuer.audit.subordinate_rows import (
    CERTIFIED,
    WITHOUT_CREDENTIAL,
    check_certified,
)
from accredit_issuer.audit.told import Told
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.registry.registry import signer_of
from accredit_issuer.registry.targets import namespace_of
from accredit_issuer.settings import (
    LONGEST_JWT_SVID,
    LONGEST_TASK_TOKEN,
    LONGEST_X509_SVID,
    Config,
)
from accredit_issuer.store.models import (
    admins,
    authorities,
    credentials,
    crls,
    enrolment_tokens,
    facts,
    federations,
    instances,
    join_tokens,
    log_leaves,
    manifests,
    releases,
    revoked_certificates,
    signers,
    subordinates,
)
from accredit_issuer.store.schema import differences

BATCH = 1000
MAX_NAMED = 100  # intents without a release

_SHOWN = "join_token:id:"  # the selector of a join token


def amount(connection: Connection) -> int:
    """How many steps an inspection takes: one a record, one a credential."""
    return sum(
        connection.scalar(select(func.count()).select_from(table)) or 0
        for table in (log_leaves, credentials)
    )


def inspect(
    connection: Connection,
    config: Config,
    log: Log,
    now: datetime,
    *,
    kept: str | None = None,
    step: Callable[[int], None] = lambda _: None,
) -> Report:
    """Examine everything. ``log`` is not loaded yet; ``kept`` is a checkpoint of elsewhere."""
    return _Inspection(connection, config, log, now, step).run(kept)


class _Inspection:
    def __init__(
        self,
        connection: Connection,
        config: Config,
        log: Log,
        now: datetime,
        step: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._trust_domain = config.trust_domain
        self._log = log
        self._now = now
        self._step = step
        self._bounds = Bounds(
            trust_domain=config.trust_domain,
            longest={
                X509: timedelta(seconds=LONGEST_X509_SVID),
                "jwt": timedelta(seconds=LONGEST_JWT_SVID),
                "task": timedelta(seconds=LONGEST_TASK_TOKEN),
            },
            backdate=config.lifetimes.backdate,
        )
        self._report = Report()
        self._told = Told()
        self._replay = Replay(config.trust_domain, lambda each: namespace_of(connection, each))
        self._authorities: dict[str, ReadAuthority] = {}
        self._crls: dict[str, ReadCrl] = {}

    def run(self, kept: str | None) -> Report:
        """Each part as far as its rows can be read; the next one whatever came before."""
        parts: dict[str, Callable[[], None]] = {
            "database": self._storage,
            "log": self._tree,
            "checkpoint": lambda: self._kept_checkpoint(kept),
            "records": self._records,
            "authorities": self._authority_rows,
            "CRLs": self._crl_rows,
            "credentials": self._credentials,
            "state": self._state,
            "join tokens": self._join_tokens,
            "manifests": self._manifests,
            "admins": self._admins,
            "federation": self._federations,
            "subordinates": self._subordinates,
        }
        for name, part in parts.items():
            try:
                part()
            except (SQLAlchemyError, ValueError, TypeError, AttributeError) as error:
                # A column holds what is not of its type: SQLite lets anybody write that.
                why = str(error).partition("\n")[0]
                self._report.add(name, f"cannot be read to the end: {why}")
        return self._report

    def _add(self, about: str, problems: Iterable[str]) -> None:
        self._report.add(about, *problems)

    def _storage(self) -> None:
        """What follows trusts SQLite: that an index names the rows that are there, each once.

        And that a table is one: a view in its place shows what it likes, when it likes.
        """
        self._add("schema", differences(self._connection))
        said = self._connection.scalar(text("PRAGMA integrity_check(1)"))
        if said != "ok":
            self._report.add("database", f"SQLite finds it damaged: {said}")

    def _tree(self) -> None:
        try:
            self._log.load(self._connection)
            LogReader(self._connection).check(self._log.frontier)
        except LogDamaged as error:
            self._report.add("log", str(error))
        self._report.size = self._log.frontier.size
        self._report.checkpoint = self._log.checkpoint

    def _kept_checkpoint(self, kept: str | None) -> None:
        if kept is None:
            return
        try:
            known = signed_note.verify(kept, origin=self._log.origin, keys=[self._log.key])
            size = self._log.frontier.size
            if known.size > size:
                self._report.add(
                    "log", f"it has {size} records, and had {known.size} when a checkpoint was kept"
                )
            elif Frontier.load(known.size, NodeReader(self._connection)).root() != known.root:
                self._report.add("log", f"its first {known.size} records are not those of then")
        except (CredentialError, LookupError) as error:
            self._report.add("checkpoint", f"the one that was kept cannot be compared: {error}")

    # The log's side.

    def _records(self) -> None:
        last = self._connection.scalar(select(func.max(log_leaves.c.index)))
        reader = LogReader(self._connection)
        for start in range(0, -1 if last is None else last + 1, BATCH):
            records = list(self._read(reader, start, min(BATCH, (last or 0) + 1 - start)))
            by_kind: defaultdict[str, list[Recorded]] = defaultdict(list)
            for record in records:
                by_kind[record.kind].append(record)
                try:
                    self._told.note(record, self._now)
                    self._add(f"log entry {record.index}", self._replay.judge(record))
                except InvalidRecord as error:
                    self._report.add(f"log entry {record.index}", str(error))
            for kind, of_it in by_kind.items():
                if kind in KEPT:
                    self._told_of(KEPT[kind], of_it)
            self._report.examined["records"] += len(records)
            self._step(len(records))

    def _read(self, reader: LogReader, start: int, number: int) -> Iterator[Recorded]:
        entries = reader.entries(start, number)
        if len(entries) < number:
            self._report.add("log", f"{number - len(entries)} records from {start} on are missing")
        for entry in entries:
            try:
                yield Recorded.of_leaf(entry.index, entry.leaf)
            except InvalidRecord as error:
                self._report.add(f"log entry {entry.index}", str(error))

    def _told_of(self, kept: Kept, records: Sequence[Recorded]) -> None:
        """Whether what records tell of is still there, and knows its record."""
        keys = {record.index: _plain(kept.key_of(record)) for record in records}
        found = self._connection.execute(kept.indexes.where(kept.key.in_(set(keys.values()))))
        known = {row.key: row.log_index for row in found}
        for record in records:
            key = keys[record.index]
            if key not in known:
                problem = f"it tells of the {kept.name} {key}, which the database does not have"
                self._report.add(f"log entry {record.index}", problem)
            elif known[key] != record.index:
                problem = f"it tells of the {kept.name} {key}, whose row names entry {known[key]}"
                self._report.add(f"log entry {record.index}", problem)

    # Authorities and CRLs.

    def _authority_rows(self) -> None:
        rows = self._connection.execute(select(authorities)).all()
        for row in rows:
            history = self._told.histories.get(row.id, ())
            self._authorities[row.id] = read_authority(row, history)
            self._report.terse += is_older(history)
        roots = {
            each.stored.id: each.stored
            for each in self._authorities.values()
            if each.row.kind == AuthorityKind.ROOT and each.stored is not None
        }
        for authority in self._authorities.values():
            about = f"authority {authority.row.id}"
            self._add(about, (*authority.problems, *check_chain(authority, roots)))
        for missing in self._told.histories.keys() - self._authorities.keys():
            self._report.add(
                f"authority {missing}", "the log tells of it, and the database does not have it"
            )
        self._report.examined["authorities"] = len(rows)

    def _crl_rows(self) -> None:
        for row in self._connection.execute(select(crls)).all():
            read = read_crl(row, self._authorities.get(row.authority))
            self._crls[row.authority] = read
            self._add(f"CRL of {row.authority}", read.problems)
        self._report.examined["crls"] = len(self._crls)
        for row in self._stream(_CRL_ENTRIES):
            problems = self._entry(row)
            if self._has_crl(row.authority) and not self._is_listed(row.authority, row.serial):
                problems.append("it is to be on the CRL of its authority, and is not")
            self._add(f"certificate {row.serial}", problems)

    def _entry(self, row: Row[Any]) -> list[str]:
        """An entry of the next CRL against its credential and the fact that it is of."""
        if row.sequence is None or row.id is None:
            return ["it is to be on the CRL, for no fact or no credential of ours"]
        try:
            marks = _marks(row)
        except CredentialError:
            return []  # the subject: said of the credential
        holds = {
            "authority": row.authority == row.signed_by,
            "expires_at": row.expires_at == row.ends,
            "credential": row.credential == X509,
            "fact": row.target in marks,
            "suspended": row.kind
            == (FactKind.SUSPENDED.value if row.suspended else FactKind.REVOKED.value),
            "at": row.at == row.stated_at or self._was_on_it(row, marks),
        }
        wrong = ", ".join(name for name, same in holds.items() if not same)
        return [f"its entry of the CRL, its row and its fact differ in: {wrong}"] if wrong else []

    def _was_on_it(self, row: Row[Any], marks: frozenset[str]) -> bool:
        """Whether it was suspended at the moment of its entry: revoked then, it keeps that."""
        earlier = select(facts.c.sequence).where(
            facts.c.target.in_(marks), facts.c.at == row.at, facts.c.sequence < row.sequence
        )
        return not row.suspended and self._connection.execute(earlier).first() is not None

    def _has_crl(self, authority: str) -> bool:
        """Whether an authority publishes a CRL; of what a removed one signed, nothing is valid."""
        known = self._authorities.get(authority)
        return known is not None and known.row.state != State.REMOVED

    def _is_listed(self, authority: str, serial: str) -> bool:
        listed = self._crls.get(authority)
        try:
            return listed is not None and int(serial, 16) in listed.serials
        except ValueError:
            return False  # no serial number: said of its entry, or of its credential

    # Credentials.

    def _credentials(self) -> None:
        for row in self._stream(_CREDENTIALS):
            self._step(1)
            if row.released is None:
                self._report.unreleased += 1
                if row.expires_at > self._now and len(self._report.unexpired) < MAX_NAMED:
                    self._report.unexpired.append(row.id)
                continue
            issued = _issued(row)
            authority = self._authorities.get(issued.authority)
            signer = None if authority is None else authority.signer
            problems = examine(issued, signer, self._bounds)
            if issued.kind == X509 and issued.expires_at > self._now:
                problems += self._revoked(issued)
            self._add(issued.what, problems)
            self._report.older += issued.is_older
            self._report.examined["certificates" if issued.kind in CERTIFICATES else "tokens"] += 1
        for row in self._stream(_WITHOUT_INTENT):
            self._report.add(f"release {row.number}", "nothing was decided that it is of")

    def _revoked(self, issued: Issued) -> list[str]:
        """Whether an unexpired certificate that a fact matches is on the CRL, and on the next."""
        try:
            fact = self._told.facts.match(issued.marks())
            if fact is None or not self._has_crl(issued.authority):
                return []
            listed = self._is_listed(issued.authority, issued.id)
        except (CredentialError, ValueError):
            return []  # the subject or the serial: said already
        query = select(revoked_certificates.c.suspended).where(
            revoked_certificates.c.serial == issued.id,
            revoked_certificates.c.authority == issued.authority,
        )
        entry = self._connection.execute(query).first()
        if listed and entry is not None:
            if entry.suspended and fact.kind is FactKind.REVOKED:
                return [f"fact {fact.sequence} revokes it, and it is to be on the CRL as suspended"]
            return []
        which = "next CRL" if listed else "CRL"
        return [f"fact {fact.sequence} matches it, and it is not on the {which} of its authority"]

    # The rest of the state.

    def _state(self) -> None:
        for table in TABLES:
            self._rows(table)

    def _rows(self, table: KeptTable) -> None:
        for row in self._stream(table.rows()):
            about = f"{table.name} {getattr(row, table.key.name)}"
            if table.record == RecordKind.FACT_STATED:
                self._report.examined["facts"] += 1
            try:
                record = _record_of(row)
            except InvalidRecord as error:
                self._report.add(about, f"it has no record: {error}")
                continue
            self._report.terse += table.is_terse(record)
            if different := table.differences(row, record, self._trust_domain):
                self._report.add(
                    about,
                    f"its row and log entry {record.index} differ in: {', '.join(different)}",
                )

    def _join_tokens(self) -> None:
        """Each instance has spent the join token that it was attested with, and nobody else has."""
        for row in self._stream(select(instances.c.id, instances.c.selectors)):
            shown = [each.removeprefix(_SHOWN) for each in row.selectors if each.startswith(_SHOWN)]
            spent = select(join_tokens.c.redeemed_by).where(join_tokens.c.id.in_(shown))
            if self._connection.execute(spent).scalars().all() != [row.id]:
                self._report.add(f"instance {row.id}", "its join token is not spent by it")
        spent_by = (
            select(join_tokens.c.id, join_tokens.c.redeemed_by, instances.c.selectors)
            .outerjoin_from(join_tokens, instances, instances.c.id == join_tokens.c.redeemed_by)
            .where(join_tokens.c.redeemed_by.is_not(None))
        )
        for row in self._stream(spent_by):
            if f"{_SHOWN}{row.id}" not in (row.selectors or ()):
                problem = f"its row says that {row.redeemed_by} spent it, which never showed it"
                self._report.add(f"join token {row.id}", problem)

    def _manifests(self) -> None:
        """Signers' keys are those of their records, and each manifest is what one signed."""
        known: list[ManifestSigner] = []
        for row in self._connection.execute(select(signers)).all():
            try:
                signer = signer_of(row)
            except (AttestationError, ValueError):
                self._report.add(f"signer {row.name}", "its key cannot be read")
                continue
            if signer.keyid != row.key_id:
                self._report.add(f"signer {row.name}", "its key is not the one that its id says")
            known.append(signer)
        for row in self._stream(select(manifests)):
            try:
                verified = verify_manifest(
                    row.envelope.encode(), signers=known, now=row.registered_at
                )
            except AttestationError as error:
                self._report.add(f"manifest {row.digest}", f"its envelope does not verify: {error}")
                continue
            declared = verified.manifest
            holds = {
                "digest": verified.digest == row.digest,
                "agent": str(declared.agent) == row.agent,
                "namespace": declared.agent.namespace == row.namespace,
                "version": declared.version == row.version,
                "owner": declared.owner == row.owner,
                "signer": verified.signer == row.signer,
                "end": declared.expires_at == row.expires_at,
            }
            if wrong := ", ".join(name for name, same in holds.items() if not same):
                self._report.add(
                    f"manifest {row.digest}", f"its row and what was signed differ in: {wrong}"
                )

    def _admins(self) -> None:
        """Admins and their one-time tokens are those that the log says were invited."""
        rows = {row.name: row for row in self._connection.execute(select(admins))}
        for name, row in rows.items():
            record = self._told.invited.get(name)
            if record is None:
                self._report.add(f"admin {name}", "the log does not say that anybody invited it")
            elif different := record.differences(
                {
                    "at": written_moment(row.created_at),
                    "actor": row.created_by,
                    "details.role": row.role,
                    "details.namespaces": row.namespaces,
                }
            ):
                self._report.add(
                    f"admin {name}",
                    f"its row and log entry {record.index} differ in: {', '.join(different)}",
                )
        for missing in self._told.invited.keys() - rows.keys():
            self._report.add(f"admin {missing}", "it was invited, and the database has none")
        self._one_time_tokens()

    def _one_time_tokens(self) -> None:
        """Each one-time token is as its invitation says, and spent if, and by whom, the log says.

        Nothing ever deletes one. Earlier invitations say no end, and then no record tells who
        spent the token: these are counted.
        """
        told = dict(self._told.enrolment)
        for row in self._connection.execute(select(enrolment_tokens)):
            about = f"one-time token {row.id}"
            invitation = told.pop(row.id, None)
            if invitation is None or invitation.subject != row.admin:
                problem = f"the log does not say that {row.admin} was given it"
                self._report.add(about, problem)
                continue
            spent = self._told.spent.get(row.id)
            if "expires_at" not in invitation.details:
                self._report.terse += 1
                if spent is None:
                    continue
            elif invitation.details["expires_at"] != written_moment(row.expires_at):
                self._report.add(about, "its row and its invitation differ in: expires_at")
            if row.redeemed_by != (spent and spent.details.get("instance")):
                self._report.add(about, "its row and the log differ in who spent it")
        for missing in told:
            self._report.add(f"one-time token {missing}", "the database does not have it")

    def _federations(self) -> None:
        """Relationships and bundles of other trust domains are those that the log tells of."""
        told = dict(self._told.federations)
        for row in self._connection.execute(select(federations)):
            about = f"relationship with {row.trust_domain}"
            said = told.pop(f"spiffe://{row.trust_domain}", None)
            if said is None:
                self._report.add(about, "the log does not say that anybody began it")
                continue
            kept = {
                "profile": row.profile,
                "endpoint_url": row.endpoint_url,
                "endpoint_spiffe_id": row.endpoint_spiffe_id,
                "feed_url": row.feed_url,
                "allows": row.allows,
                "bundle": row.bundle and hashlib.sha256(row.bundle.encode()).hexdigest(),
            }
            if wrong := ", ".join(n for n, value in kept.items() if said.get(n) != value):
                self._report.add(about, f"its row and the log differ in: {wrong}")
        for missing in told:
            self._report.add(f"relationship with {missing}", "the database does not have it")

    def _subordinates(self) -> None:
        """Those that may have issuing CAs of ours are those that the log tells of."""
        told = dict(self._told.subordinates)
        for row in self._connection.execute(select(subordinates)):
            said = told.pop(row.agent, None)
            kept = {"namespaces": row.namespaces, "dns_names": row.dns_names}
            if said is None:
                self._report.add(f"subordinate {row.agent}", "the log does not say who named it")
            elif wrong := ", ".join(n for n, value in kept.items() if said.get(n) != value):
                problem = f"its row and the log differ in: {wrong}"
                self._report.add(f"subordinate {row.agent}", problem)
        for missing in told:
            self._report.add(f"subordinate {missing}", "the database does not have it")
        for row in self._stream(CERTIFIED):
            self._add(f"certificate {row.credential}", check_certified(row))
        for row in self._stream(WITHOUT_CREDENTIAL):
            self._report.add(f"certificate {row.serial}", "nothing was decided that it is of")

    def _stream(self, query: Any) -> Iterator[Row[Any]]:
        return iter(self._connection.execute(query, execution_options={"yield_per": BATCH}))


def _plain(key: object) -> str | int | None:
    """A key as the database takes it: what else stands in a record names nothing."""
    return key if isinstance(key, str | int) else None


def _record_of(row: Row[Any]) -> Recorded:
    """The record at a row's ``log_index``.

    Raises:
        InvalidRecord: none is there.
    """
    if row.leaf is None:
        raise InvalidRecord(f"log entry {row.log_index} is not there")
    return Recorded.of_leaf(row.log_index, row.leaf)


def _marks(row: Row[Any]) -> frozenset[str]:
    """What can put a certificate on the CRL.

    Raises:
        InvalidSpiffeId: its subject is none.
    """
    return frozenset(
        {
            f"serial:{row.id}",
            f"authority:{row.signed_by}",
            f"instance:{row.instance}",
            f"manifest:{row.manifest}",
            f"admin:{row.admin}",
            *identity_marks(SpiffeId.parse(row.subject)),
        }
    )


def _issued(row: Row[Any]) -> Issued:
    try:
        record = _record_of(row)
    except InvalidRecord:
        record = None
    return Issued(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        instance=row.instance,
        admin=row.admin,
        task=row.task,
        authority=row.authority,
        decided_at=row.decided_at,
        expires_at=row.expires_at,
        log_index=row.log_index,
        sha256=row.sha256,
        certificate=row.certificate,
        agent=row.agent,
        manifest=row.manifest,
        record=record,
    )


_CREDENTIALS = (
    select(
        credentials,
        releases.c.number.label("released"),
        releases.c.log_index,
        releases.c.sha256,
        releases.c.certificate,
        instances.c.agent,
        instances.c.manifest,
        log_leaves.c.leaf,
    )
    .outerjoin_from(credentials, releases, releases.c.number == credentials.c.number)
    .outerjoin(instances, instances.c.id == credentials.c.instance)
    .outerjoin(log_leaves, log_leaves.c.index == releases.c.log_index)
    .order_by(credentials.c.number)
)
_CRL_ENTRIES = (
    select(
        revoked_certificates,
        facts.c.sequence,
        facts.c.target,
        facts.c.kind,
        facts.c.at.label("stated_at"),
        credentials.c.id,
        credentials.c.kind.label("credential"),
        credentials.c.subject,
        credentials.c.instance,
        credentials.c.admin,
        credentials.c.authority.label("signed_by"),
        credentials.c.expires_at.label("ends"),
        instances.c.manifest,
    )
    .outerjoin_from(revoked_certificates, facts, facts.c.sequence == revoked_certificates.c.fact)
    .outerjoin(credentials, credentials.c.id == revoked_certificates.c.serial)
    .outerjoin(instances, instances.c.id == credentials.c.instance)
)
_WITHOUT_INTENT = (
    select(releases.c.number)
    .outerjoin_from(releases, credentials, credentials.c.number == releases.c.number)
    .where(credentials.c.number.is_(None))
)
