"""Records: what one leaf of the log says.

A leaf is JSON in one canonical spelling (RFC 8785: sorted members, no spaces; members are ASCII,
numbers are integers), so that anybody can hash it again. No secret is ever in a record: no token,
no nonce, no private key.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

VERSION = 1


class RecordKind(StrEnum):
    """What can happen."""

    ISSUER_INITIALISED = "issuer.initialised"
    AUTHORITY_PREPARED = "authority.prepared"
    AUTHORITY_ACTIVATED = "authority.activated"
    AUTHORITY_RETIRED = "authority.retired"
    AUTHORITY_TAINTED = "authority.tainted"
    AUTHORITY_REMOVED = "authority.removed"
    AUTHORITY_REVOKED = "authority.revoked"
    RESPONDER_CERTIFIED = "responder.certified"
    CLOCK_CONFIRMED = "clock.confirmed"
    ADMIN_INVITED = "admin.invited"
    ADMIN_ENROLLED = "admin.enrolled"
    SIGNER_ADDED = "signer.added"
    MANIFEST_REGISTERED = "manifest.registered"
    AGENT_ENROLLED = "agent.enrolled"
    INSTANCE_ATTESTED = "instance.attested"
    CREDENTIAL_ISSUED = "credential.issued"
    INSTANCE_CHANGED = "instance.changed"
    NODE_ADDED = "node.added"
    NODE_CHANGED = "node.changed"
    NODE_REMOVED = "node.removed"
    NODE_ENROLLED = "node.enrolled"
    NODE_ATTESTED = "node.attested"
    SUBORDINATE_ADDED = "subordinate.added"
    SUBORDINATE_REMOVED = "subordinate.removed"
    REQUEST_REFUSED = "request.refused"
    FACT_STATED = "fact.stated"
    STREAM_ADDED = "stream.added"
    STREAM_REMOVED = "stream.removed"
    FEDERATION_ADDED = "federation.added"
    FEDERATION_CHANGED = "federation.changed"
    FEDERATION_REMOVED = "federation.removed"
    FEDERATION_BUNDLE_CHANGED = "federation.bundle_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record.

    Attributes:
        kind: what happened.
        at: when the issuer decided it.
        actor: the SPIFFE ID, or the name, of who made it happen.
        subject: what it happened to.
        details: everything else, as JSON without floats.
    """

    kind: RecordKind
    at: datetime
    actor: str
    subject: str
    details: dict[str, Any]

    def leaf(self) -> bytes:
        """The record as the log keeps it."""
        value = {
            "v": VERSION,
            "kind": self.kind.value,
            "at": written_moment(self.at),
            "actor": self.actor,
            "subject": self.subject,
            "details": self.details,
        }
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def read_leaf(leaf: bytes) -> tuple[RecordKind | None, datetime]:
    """What kind of record a leaf is, None for one that we do not know, and its moment."""
    value = json.loads(leaf)
    known = value["kind"] in set(RecordKind)
    return RecordKind(value["kind"]) if known else None, datetime.fromisoformat(value["at"])


def written_moment(at: datetime) -> str:
    """A moment as a record says it: UTC, milliseconds."""
    return f"{at.isoformat(timespec='milliseconds')[:23]}Z"
