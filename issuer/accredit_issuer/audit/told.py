"""What the log tells of facts, authorities, admins, nodes, streams and federation.

It is little, and kept in memory.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from accredit_credentials.errors import CredentialError
from accredit_credentials.revocation import FactKind, FactSet, RevocationFact, Target
from accredit_issuer.audit.authority_rows import PREFIX
from accredit_issuer.audit.recorded import InvalidRecord, Recorded
from accredit_issuer.audit.records import RecordKind
from accredit_issuer.revocation.revocation import LASTING

_FEDERATION_CHANGES = (RecordKind.FEDERATION_CHANGED, RecordKind.FEDERATION_BUNDLE_CHANGED)
_OF_ADMINS = (RecordKind.ADMIN_INVITED, RecordKind.ADMIN_ENROLLED)
_OF_NODES = (
    RecordKind.NODE_ADDED,
    RecordKind.NODE_CHANGED,
    RecordKind.NODE_REMOVED,
    RecordKind.NODE_ATTESTED,
)
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Told:
    """What the records said so far; they are noted in the order of the log.

    Attributes:
        facts: those in force.
        histories: the records of each authority.
        invited: the first invitation of each admin: a further one changes nothing of it.
        enrolment: the invitation that each one-time token belongs to.
        spent: who spent it.
        federations: what holds of each relationship, by the other trust domain's ID.
        nodes: what each listed node was granted, by its name.
        node_instances: those that a node of a name ever had, as ``name`` and ``instance``.
        node_spent: the join tokens that nodes attested with, and for which instance.
        subordinates: what each subordinate issuer was granted, by its agent.
        streams: whom each stream of security events is for, by its name.
    """

    facts: FactSet = field(default_factory=FactSet)
    histories: defaultdict[str, list[Recorded]] = field(default_factory=lambda: defaultdict(list))
    invited: dict[str, Recorded] = field(default_factory=dict)
    enrolment: dict[str, Recorded] = field(default_factory=dict)
    spent: dict[str, Recorded] = field(default_factory=dict)
    federations: dict[str, dict[str, Any]] = field(default_factory=dict)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    node_instances: set[tuple[str, str]] = field(default_factory=set)
    node_spent: dict[str, str] = field(default_factory=dict)
    subordinates: dict[str, dict[str, Any]] = field(default_factory=dict)
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)

    def note(self, record: Recorded, now: datetime) -> None:
        """Take in one record.

        Raises:
            InvalidRecord: it is a fact's, and says none.
        """
        if record.kind == RecordKind.FACT_STATED:
            fact = fact_of(record)
            if fact.expires_at > now or fact.target.kind in LASTING:
                self.facts.apply(fact)
        elif record.kind in _OF_ADMINS:
            self._note_admin(record)
        elif record.kind in _OF_NODES:
            self._note_node(record)
        elif record.kind == RecordKind.STREAM_ADDED:
            self.streams[record.subject] = _with_origin(record)
        elif record.kind == RecordKind.STREAM_REMOVED:
            self.streams.pop(record.subject, None)
        elif record.kind.startswith(PREFIX):
            self.histories[record.subject].append(record)
        else:
            self._note_grant(record)

    def _note_grant(self, record: Recorded) -> None:
        if record.kind == RecordKind.SUBORDINATE_ADDED:
            self.subordinates[record.subject] = dict(record.details)
        elif record.kind == RecordKind.SUBORDINATE_REMOVED:
            self.subordinates.pop(record.subject, None)
        elif record.kind == RecordKind.FEDERATION_ADDED:
            self.federations[record.subject] = dict(record.details)
        elif record.kind == RecordKind.FEDERATION_REMOVED:
            self.federations.pop(record.subject, None)
        elif record.kind in _FEDERATION_CHANGES:
            self.federations.setdefault(record.subject, {}).update(record.details)

    def _note_node(self, record: Recorded) -> None:
        name, details = record.subject, record.details
        match record.kind:
            case RecordKind.NODE_ADDED:
                self.nodes[name] = _with_origin(record)
                self.node_instances.add((name, str(details.get("instance"))))
            case RecordKind.NODE_CHANGED:
                self.nodes.setdefault(name, {}).update(details)
            case RecordKind.NODE_REMOVED:
                self.nodes.pop(name, None)
            case _:
                if (token := details.get("join_token")) is not None:
                    self.node_spent[str(token)] = str(details.get("instance"))

    def _note_admin(self, record: Recorded) -> None:
        token = str(record.details.get("enrolment_token"))
        if record.kind == RecordKind.ADMIN_ENROLLED:
            self.spent[token] = record
        else:
            self.invited.setdefault(record.subject, record)
            self.enrolment[token] = record


def _with_origin(record: Recorded) -> dict[str, Any]:
    """What a record says, with when, by whom and where it says so."""
    return {
        **record.details,
        "created_at": record.at,
        "created_by": record.actor,
        "log_index": record.index,
    }


def fact_of(record: Recorded) -> RevocationFact:
    """The fact that a record tells of.

    Raises:
        InvalidRecord: it says none.
    """
    try:
        return RevocationFact(
            sequence=int(record.details["sequence"]),
            target=Target.parse(record.subject),
            kind=FactKind(record.details["fact"]),
            at=datetime.fromisoformat(record.at),
            # Earlier records do not say it: nothing that such a fact matches can be forgotten.
            expires_at=datetime.fromisoformat(record.details["expires_at"])
            if "expires_at" in record.details
            else NEVER,
            reason=str(record.details["reason"]),
        )
    except (CredentialError, ValueError, TypeError, KeyError):
        raise InvalidRecord("it is not a revocation fact") from None
