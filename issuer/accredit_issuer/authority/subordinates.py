"""Other issuers of the trust domain: who may have an issuing CA of us, and how far it reaches.

``decide`` is the decision about one request. ``Subordinates`` keeps who was named by an admin;
naming and unnaming are records in the log. What was certified is in the table ``subordinate_ca``,
by which a revocation fact about an authority finds it, and in the ledger like any credential.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.keys import PublicKey
from accredit_credentials.reach import MAX_NAMESPACE_LENGTH
from accredit_credentials.revocation import FactSet
from accredit_credentials.spiffe_id import AgentId, check_name
from accredit_credentials.x509_template import CaTemplate
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.profile import new_serial
from accredit_issuer.authority.upstream import RootCa, key_id_of_public
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.decision import check_not_revoked
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.registry.listing import text_of
from accredit_issuer.settings import Config
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import manifests, subordinate_cas, subordinates
from accredit_issuer.store.writer import Transaction

MAX_NAMESPACES = 16  # of one subordinate: each is in every chain below it
MAX_DNS_NAMES = 16
MAX_DNS_NAME = 253
SHOWN_CAS = 8  # of one subordinate, the newest

_DNS_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subordinate:
    """An agent that runs an issuer of its own.

    Attributes:
        namespaces: whose agents it may issue for.
        dns_names: that may stand in its own server's certificate, themselves or below.
    """

    agent: AgentId
    namespaces: tuple[str, ...]
    dns_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaAsked:
    """A request for an issuing CA: by whom, and for which key.

    Attributes:
        agent: who asks, proved by its SVID.
        marks: what a revocation fact about it can match.
    """

    agent: AgentId
    public_key: PublicKey
    marks: tuple[str, ...]


def decide(
    asked: CaAsked,
    named: Subordinate | None,
    root: RootCa,
    *,
    facts: FactSet,
    config: Config,
    now: datetime,
) -> CaTemplate:
    """Decide whether somebody gets an issuing CA, and what it says.

    Raises:
        Refusal: not named, revoked, a key that was revoked, or a root that ends.
    """
    if named is None or named.agent != asked.agent:
        raise Refusal(Kind.FORBIDDEN, f"{asked.agent} was not named a subordinate issuer")
    key_id = key_id_of_public(asked.public_key)
    check_not_revoked((*asked.marks, f"authority:{key_id}"), facts)
    expires_at = min(now + config.lifetimes.issuing_ca, root.expires_at).replace(microsecond=0)
    if expires_at <= now:
        raise Refusal(Kind.UNAVAILABLE, "the root is about to end")
    return CaTemplate(
        trust_domain=config.trust_domain,
        common_name=f"Accredit subordinate CA {key_id[:16]}",
        public_key=asked.public_key,
        serial=new_serial(config.replica),
        not_before=(now - config.lifetimes.backdate).replace(microsecond=0),
        not_after=expires_at,
        path_length=0,
        issuer=root.certificate,
        namespaces=named.namespaces,
        dns_names=named.dns_names,
    )


def check_still_named(transaction: Transaction, decided_by: Subordinate) -> None:
    """Decide, where nothing comes in between, whether what was granted is granted still.

    Raises:
        Refusal: the name was taken away, or given anew with other values.
    """
    row = _row(transaction, str(decided_by.agent))
    if row is None or _of(row) != decided_by:
        raise Refusal(
            Kind.FORBIDDEN,
            f"{decided_by.agent} is not named a subordinate issuer as it was when it asked",
        )


def check_named(named: Subordinate) -> None:
    """Decide whether such a subordinate can be named at all.

    Raises:
        Refusal: no namespace, too many, or a name that is none.
    """
    if not 1 <= len(set(named.namespaces)) == len(named.namespaces) <= MAX_NAMESPACES:
        raise Refusal(
            Kind.MALFORMED, f"namespaces must name 1 to {MAX_NAMESPACES} namespaces, each once"
        )
    try:
        for namespace in named.namespaces:
            check_name(namespace, "namespace")
    except InvalidSpiffeId as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None
    if too_long := [each for each in named.namespaces if len(each) > MAX_NAMESPACE_LENGTH]:
        raise Refusal(
            Kind.MALFORMED,
            f"namespace {too_long[0]} has {len(too_long[0])} characters: a certificate holds "
            f"{MAX_NAMESPACE_LENGTH}",
        )
    if len(named.dns_names) > MAX_DNS_NAMES or not all(map(_is_dns_name, named.dns_names)):
        raise Refusal(
            Kind.MALFORMED, f"dns_names must be at most {MAX_DNS_NAMES} DNS names in lower case"
        )


def _is_dns_name(name: str) -> bool:
    labels = name.split(".")
    return len(name) <= MAX_DNS_NAME and all(
        label and _DNS_LABEL.issuperset(label) and label.strip("-") == label for label in labels
    )


class Subordinates:
    """Those that were named."""

    def __init__(self, changes: Changes, database: Database) -> None:
        self._changes = changes
        self._database = database

    def add(self, named: Subordinate, *, by: Actor, now: datetime) -> dict[str, Any]:
        """Name an agent a subordinate issuer.

        Raises:
            Refusal: wrong values, no such agent, or it is named with other ones.
            Unavailable: it could not be recorded.
        """
        check_named(named)

        def work(transaction: Transaction) -> None:
            agent = str(named.agent)
            known = _row(transaction, agent)
            if known is not None:
                if _of(known) == named:
                    return
                raise Refusal(Kind.CONFLICT, f"{agent} is a subordinate already: remove it first")
            if not transaction.execute(
                select(func.count()).select_from(manifests).where(manifests.c.agent == agent)
            ).scalar():
                raise Refusal(Kind.NOT_FOUND, f"no agent {agent} is registered")
            names = {"namespaces": list(named.namespaces), "dns_names": list(named.dns_names)}
            index = transaction.record(
                Record(
                    kind=RecordKind.SUBORDINATE_ADDED,
                    at=now,
                    actor=by.name,
                    subject=agent,
                    details=names,
                )
            )
            transaction.execute(
                insert(subordinates).values(
                    agent=agent, created_at=now, created_by=by.name, log_index=index, **names
                )
            )

        self._changes.make(work, by=by, about=(f"agent:{named.agent}",))
        return self.one(str(named.agent))

    def remove(self, agent: AgentId, *, by: Actor, now: datetime) -> dict[str, Any]:
        """Take the name away: no further issuing CA. Those it has stay, until a fact ends them.

        Raises:
            Refusal: it is none.
            Unavailable: it could not be recorded.
        """
        removed = self.one(str(agent))

        def work(transaction: Transaction) -> None:
            done = transaction.execute(
                delete(subordinates).where(subordinates.c.agent == str(agent))
            )
            if done.rowcount != 1:
                raise _not_named(str(agent))
            transaction.record(
                Record(
                    kind=RecordKind.SUBORDINATE_REMOVED,
                    at=now,
                    actor=by.name,
                    subject=str(agent),
                    details={},
                )
            )

        self._changes.make(work, by=by)
        return removed

    def named(self, agent: AgentId) -> Subordinate | None:
        """What an agent was named; None where it was not."""
        with self._database.read() as connection:
            row = _row(connection, str(agent))
        return None if row is None else _of(row)

    def one(self, agent: str) -> dict[str, Any]:
        """One subordinate, as JSON.

        Raises:
            Refusal: it is none.
        """
        for each in self.all():
            if each["agent"] == agent:
                return each
        raise _not_named(agent)

    def all(self) -> list[dict[str, Any]]:
        """All subordinates and the newest of their issuing CAs, as JSON."""
        with self._database.read() as connection:
            rows = connection.execute(select(subordinates).order_by(subordinates.c.agent)).all()
            return [_view(connection, row) for row in rows]

    def removed(self, now: datetime) -> list[dict[str, Any]]:
        """The agents whose name was taken away and that have an issuing CA which lives, as JSON.

        These CAs sign until a fact ends them; each is listed, however many there are.
        """
        table = subordinate_cas
        query = (
            select(table)
            .where(table.c.expires_at > now, table.c.agent.not_in(select(subordinates.c.agent)))
            .order_by(table.c.agent, table.c.issued_at.desc(), table.c.serial)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [
            {"agent": agent, "issuing_cas": [_ca_view(each) for each in of_it]}
            for agent, of_it in groupby(rows, key=attrgetter("agent"))
        ]


def living_below(
    source: Transaction | Connection, roots: Sequence[str], now: datetime
) -> list[str]:
    """The ids of issuing CAs of subordinates that these roots certified, as far as they live."""
    rows = source.execute(
        select(subordinate_cas.c.id)
        .where(subordinate_cas.c.root.in_(roots), subordinate_cas.c.expires_at > now)
        .distinct()
    )
    return [row.id for row in rows]


def _row(source: Transaction | Connection, agent: str) -> Row[Any] | None:
    return source.execute(select(subordinates).where(subordinates.c.agent == agent)).first()


def _of(row: Row[Any]) -> Subordinate:
    return Subordinate(
        agent=AgentId.parse(row.agent),
        namespaces=tuple(row.namespaces),
        dns_names=tuple(row.dns_names),
    )


def _view(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    table = subordinate_cas
    cas = connection.execute(
        select(table)
        .where(table.c.agent == row.agent)
        .order_by(table.c.issued_at.desc(), table.c.serial)
        .limit(SHOWN_CAS)
    )
    return {
        "agent": row.agent,
        "namespaces": row.namespaces,
        "dns_names": row.dns_names,
        "created_at": text_of(row.created_at),
        "created_by": row.created_by,
        "issuing_cas": [_ca_view(each) for each in cas],
    }


def _ca_view(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "serial": row.serial,
        "root": row.root,
        "issued_at": text_of(row.issued_at),
        "expires_at": text_of(row.expires_at),
    }


def _not_named(agent: str) -> Refusal:
    return Refusal(Kind.NOT_FOUND, f"{agent} is no subordinate issuer")
