"""The issuer as one thing: its parts, opened in order and closed in the other.

The only place that wires effects (database, keys, clock) to decisions.
"""

import contextlib
import fcntl
import os
from datetime import datetime, timedelta
from pathlib import Path

from accredit_attestors.plugins import load_attestors, load_node_attestors
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.revocation import TargetKind
from accredit_issuer.audit.log import Log, LogReader
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.authority.opening import open_upstream
from accredit_issuer.authority.planning import rules_of
from accredit_issuer.authority.recorded import check_recorded
from accredit_issuer.authority.rollover import Rollover
from accredit_issuer.authority.subordinates import Subordinates
from accredit_issuer.authority.upstream import Upstream
from accredit_issuer.clock import Clock
from accredit_issuer.clock_guard import ClockGuard, ClockWrong, Steady, steady_clock
from accredit_issuer.data_folder import check_present, check_trust_domain
from accredit_issuer.errors import InvalidSettings, Unavailable
from accredit_issuer.federation.fetching import check_ca_file
from accredit_issuer.federation.polling import Polling
from accredit_issuer.federation.relationships import Relationships
from accredit_issuer.issuance.issuance import Issuance
from accredit_issuer.issuance.parts import Parts
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.keys.opening import create_keys, open_keys
from accredit_issuer.registry.administration import Administration, Invitation
from accredit_issuer.registry.changes import Changes, Local
from accredit_issuer.registry.nodes import Nodes
from accredit_issuer.registry.registry import Registry
from accredit_issuer.registry.roles import Admin, Role
from accredit_issuer.revocation.feed import Feed
from accredit_issuer.revocation.introspection import Introspection
from accredit_issuer.revocation.ocsp_answers import OcspAnswers
from accredit_issuer.revocation.preview import Preview, preview
from accredit_issuer.revocation.responders import Responders
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.revocation.stated import FactRequest, StatedFact
from accredit_issuer.revocation.status_lists import StatusLists
from accredit_issuer.settings import Config
from accredit_issuer.signals.polling import Polling as StreamPolling
from accredit_issuer.signals.posting import CA_FILE
from accredit_issuer.signals.pushing import Pushing
from accredit_issuer.signals.streams import Streams
from accredit_issuer.store.database import Database
from accredit_issuer.store.writer import Writer

FIRST_ADMIN = "first"
UNSIGNED_AGAIN = timedelta(seconds=10)  # until a CRL is tried again whose key did not answer
SELF = Local("issuer")


class Issuer:
    """Everything that one running issuer consists of.

    ``clock`` tells the time; ``guarded_clock`` refuses to where it cannot be believed, and dates
    whatever is signed.
    """

    def __init__(
        self,
        config: Config,
        clock: Clock,
        database: Database,
        keys: KeyManager,
        steady: Steady | None = None,
        *,
        upstream: Upstream | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.database = database
        self.keys = keys
        self.log = Log(config.log_origin, keys.load_log_key())
        with database.read() as connection:
            self.log.load(connection)
            newest = LogReader(connection).newest_moment()
        self.guarded_clock = ClockGuard(clock, newest, steady)
        self.writer = Writer(database.writing, self.log)
        self.authorities = Authorities(config, keys, upstream)
        self.feed = Feed(
            config.trust_domain,
            self.authorities,
            clock,
            config.heartbeat,
            steady=steady or steady_clock,
        )
        self.registry = Registry(database)
        self.revocation = Revocation(
            config, self.authorities, self.feed, self.guarded_clock.at_most
        )
        self.authorities.heed(
            lambda key_id: self.revocation.facts.match((f"authority:{key_id}",)) is not None
        )
        with database.read() as connection:
            self.revocation.load(connection, clock())
            check_recorded(connection, self.log.frontier)
            self.authorities.load(connection)
            self.revocation.crls.load(connection)
        # In this order: node daemons that hear of another bundle ask for the CRLs.
        self.authorities.on_change(self._publish_missing_crls)
        self.authorities.on_change(self.feed.bundle_changed)
        self.status_lists = StatusLists(
            config,
            database=database,
            authorities=self.authorities,
            revocation=self.revocation,
            feed=self.feed,
            clock=clock,
        )
        self.introspection = Introspection(config, database, self.authorities, self.revocation)
        self.changes = Changes(self.writer, lambda: self.revocation.facts)
        self.responders = Responders(config, self.authorities, self.changes, SELF)
        self.ocsp = OcspAnswers(
            config, self.authorities, self.responders, database, self.guarded_clock
        )
        self.revocation.on_facts = self.ocsp.forget
        self.rollover = Rollover(
            authorities=self.authorities,
            revocation=self.revocation,
            changes=self.changes,
            database=database,
            rules=rules_of(config),
            clock=clock,
            guarded_clock=self.guarded_clock,
        )
        self.administration = Administration(config, self.changes, self.registry, self.revocation)
        self.subordinates = Subordinates(self.changes, database)
        node_attestors = load_node_attestors()
        self.nodes = Nodes(
            config, self.changes, database, self.revocation, frozenset(node_attestors)
        )
        self.relationships = Relationships(config.trust_domain, database, self.changes)
        self.polling = Polling(
            self.relationships,
            own_bundle=lambda: self.bundle,
            clock=self.guarded_clock,
            ca_file=config.federation_ca_file,
        )
        self.streams = Streams(
            config,
            database,
            self.changes,
            self.writer,
            feed=self.feed,
            authorities=self.authorities,
            clock=clock,
            at_most=self.guarded_clock.at_most,
        )
        self.stream_polling = StreamPolling(self.streams)
        self.pushing = Pushing(self.streams, ca_file=config.signals_ca_file)
        self.issuance = Issuance(
            Parts(
                config=config,
                clock=self.guarded_clock,
                database=database,
                writer=self.writer,
                authorities=self.authorities,
                registry=self.registry,
                revocation=self.revocation,
                status_lists=self.status_lists,
                subordinates=self.subordinates,
                attestors=load_attestors(),
                nodes=self.nodes,
                node_attestors=node_attestors,
                unguarded_clock=clock,
            )
        )

    @property
    def bundle(self) -> TrustBundle:
        """The trust bundle as published."""
        return self.authorities.now_in_force.bundle

    def state(self, request: FactRequest) -> list[StatedFact]:
        """State a revocation fact; an authority that it is about is replaced at once.

        Raises:
            Refusal: an unknown target, nothing to restore, or revoked already.
            Unavailable: it could not be recorded.
        """
        stated = self.revocation.state(request, self.changes, self.clock())
        if request.target.kind is TargetKind.AUTHORITY:
            # Whatever the clock says the fact stands, and by a wrong one nothing is signed.
            with contextlib.suppress(ClockWrong):
                self.keep_up()
        return stated

    def preview(self, request: FactRequest) -> Preview:
        """What ``state`` would do, counted; nothing is stated.

        Raises:
            Refusal: as ``state``.
        """
        return preview(self.revocation, self.changes, self.database, request, self.clock())

    def keep_up(self) -> None:
        """Do what is due: rotate authorities, publish CRLs, renew responders, forget what expired.

        Raises:
            Unavailable: it could not be recorded, or the clock cannot be believed.
        """
        now = self.guarded_clock()
        try:
            self.authorities.advance(self.changes, now, SELF)
        finally:
            # A parent that is away keeps nobody from learning what was revoked.
            self.revocation.publish_crls(self.writer, now)
            self.revocation.forget_expired(self.writer, now)
            self.responders.renew(now)

    def _publish_missing_crls(self) -> None:
        """Make the CRL of a new CA before it signs: who looks leaves up would refuse its first."""
        if self.revocation.crls.is_one_missing:
            with contextlib.suppress(Unavailable):  # then by schedule
                self.revocation.publish_crls(self.writer, self.guarded_clock())

    def confirm_clock(self, by: str) -> None:
        """Believe the clock as it is, and record that an operator said so.

        Raises:
            Unavailable: it could not be recorded.
        """
        now, behind = self.clock(), self.guarded_clock.confirm()
        self.writer.run(
            lambda t: t.record(
                Record(
                    kind=RecordKind.CLOCK_CONFIRMED,
                    at=now,
                    actor=by,
                    subject=str(self.config.trust_domain.id),
                    details={"behind_seconds": int(behind.total_seconds())},
                )
            ),
            alone=True,
        ).result()

    def next_due(self, now: datetime) -> datetime:
        """The next moment at which ``keep_up`` can have something to do."""
        unsigned = self.revocation.crls.unsigned
        crls = UNSIGNED_AGAIN if unsigned else self.config.crl_lifetime / 4
        return min(self.authorities.next_due(now), now + crls)

    def close(self) -> None:
        """Finish what is waiting and close everything."""
        self.polling.close()
        self.pushing.close()
        self.stream_polling.close()
        self.feed.close()
        self.status_lists.close()
        self.ocsp.close()
        self.writer.close()
        self.keys.close()
        self.database.close()


class Lock:
    """One issuer a data folder: two would write two histories."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / "issuer.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise InvalidSettings(f"an issuer is running on {folder}: stop it first") from None

    def release(self) -> None:
        """Let another one run."""
        os.close(self._descriptor)


def initialise(config: Config, clock: Clock) -> Invitation:
    """Make a new issuer: folder, keys, database, first authorities, first admin.

    Returns the one-time token of the first admin.

    Raises:
        InvalidSettings: there is one already, or what keeps the keys cannot be opened.
        KeyExists: the token has keys of this trust domain already.
        Unavailable: nobody can make keys, or certify an issuing CA, now.
    """
    if config.database.exists():
        raise InvalidSettings(f"there is an issuer in {config.data} already")
    upstream = open_upstream(config, clock())
    upstream.probe()
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = create_keys(config)
    keys.generate_log_key()
    database = Database(config.database)
    database.migrate()
    issuer = Issuer(config, clock, database, keys, upstream=upstream)
    try:
        now = clock()
        issuer.writer.run(
            lambda t: t.record(
                Record(
                    kind=RecordKind.ISSUER_INITIALISED,
                    at=now,
                    actor=SELF.name,
                    subject=str(config.trust_domain.id),
                    details={"log": config.log_origin},
                )
            )
        ).result()
        issuer.keep_up()
        return issuer.administration.invite(Admin(FIRST_ADMIN, Role.ADMIN), by=SELF, now=now)
    finally:
        issuer.close()


def open_issuer(
    config: Config,
    clock: Clock,
    steady: Steady | None = None,
    *,
    keys: KeyManager | None = None,
    confirmed_by: str | None = None,
) -> Issuer:
    """Open the issuer that ``initialise`` made, its schema and authorities brought up to date.

    ``keys`` are those that the settings name, unless they are given. ``confirmed_by`` is who says
    that the clock is right, whatever the log says.

    Raises:
        InvalidSettings: there is none, or a file that the settings name cannot be used.
        KeyMissing, LogDamaged, SchemaDamaged, AuthorityDamaged: what is there cannot be used.
        ClockWrong: the clock is behind the newest record.
        Unavailable: whoever keeps the keys does not answer.
    """
    check_present(config)
    check_ca_file(config.federation_ca_file)
    check_ca_file(config.signals_ca_file, CA_FILE)
    upstream = open_upstream(config, clock())
    database = Database(config.database)
    database.migrate()
    with database.read() as connection:
        check_trust_domain(config, connection)
    issuer = Issuer(config, clock, database, keys or open_keys(config), steady, upstream=upstream)
    try:
        if confirmed_by is not None:
            issuer.confirm_clock(confirmed_by)
        issuer.keep_up()
    except BaseException:
        issuer.close()
        raise
    return issuer
