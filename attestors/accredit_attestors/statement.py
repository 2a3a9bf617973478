"""The manifest's wire form: an in-toto Statement v1 in RFC 8785 JSON.

One manifest has one spelling. On the wire nothing is implied: every key is present at every level,
no other is allowed, and the bytes must be those that ``to_bytes`` would write. So the digest of a
statement names a manifest, and two readers cannot read two things in it. Reading decides only
whether the bytes are a manifest; ``signing`` decides whether to believe them.

Specification: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime

import rfc8785

from accredit_attestors.declaration import (
    Action,
    Artefact,
    Code,
    Delegation,
    Limits,
    Manifest,
    Resource,
    Role,
    check_digest,
)
from accredit_attestors.errors import InvalidLevel, InvalidManifest, shown
from accredit_attestors.levels import Assurance, Risk
from accredit_attestors.strict import Members, load_json
from accredit_credentials.errors import InvalidSpiffeId
from accredit_credentials.spiffe_id import AgentId

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://accredit.dev/agent-manifest/v1"

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_LIMITS = ("x509_svid_seconds", "jwt_svid_seconds", "task_token_seconds")


def to_bytes(manifest: Manifest) -> bytes:
    """The statement's bytes, which are what is signed."""
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {
                    "name": f"{manifest.agent}@{manifest.version}",
                    "digest": {"sha256": manifest.code.digest.removeprefix("sha256:")},
                }
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "agent": str(manifest.agent),
                "version": manifest.version,
                "owner": manifest.owner,
                "purpose": manifest.purpose,
                "code": {
                    "digest": manifest.code.digest,
                    "include": list(manifest.code.include),
                    "exclude": list(manifest.code.exclude),
                },
                "artefacts": [
                    {"role": each.role.value, "name": each.name, "digest": each.digest}
                    for each in manifest.artefacts
                ],
                "resources": [
                    {
                        "name": each.name,
                        "audience": each.audience,
                        "bearer": each.bearer,
                        "actions": [
                            {"name": action.name, "risk": str(action.risk)}
                            for action in each.actions
                        ],
                    }
                    for each in manifest.resources
                ],
                "delegation": {
                    "max_depth": manifest.delegation.max_depth,
                    "to": [str(agent) for agent in manifest.delegation.to],
                },
                "limits": {name: getattr(manifest.limits, name) for name in _LIMITS},
                "assurance": str(manifest.assurance),
                "instance_in_path": manifest.instance_in_path,
                "issued_at": _written(manifest.issued_at),
                "expires_at": _written(manifest.expires_at),
            },
        }
    )


def parse(payload: bytes) -> Manifest:
    """Read a statement's bytes.

    Raises:
        InvalidManifest: another type, a key unknown, missing, repeated or of the wrong type, a
            value out of bounds, or another spelling than the canonical one.
    """
    statement = Members.of(
        load_json(payload, what="statement", error=InvalidManifest),
        where="statement",
        error=InvalidManifest,
        known=("_type", "subject", "predicateType", "predicate"),
    )
    for key, expected in (("_type", STATEMENT_TYPE), ("predicateType", PREDICATE_TYPE)):
        if statement.text(key) != expected:
            raise InvalidManifest(f"{key} {shown(statement.text(key))} must be {expected}")
    try:
        manifest = _manifest(statement)
    except (InvalidSpiffeId, InvalidLevel) as error:
        raise InvalidManifest(str(error)) from None
    _check_subject(statement, manifest)
    if to_bytes(manifest) != payload:
        raise InvalidManifest("statement must be in canonical JSON (RFC 8785)")
    return manifest


def manifest_digest(payload: bytes) -> str:
    """``sha256:<hex>`` of a statement's bytes: how Accredit names a manifest."""
    return f"sha256:{hashlib.sha256(payload).hexdigest()}"


def agents(names: Iterable[str]) -> tuple[AgentId, ...]:
    """Parse agents' names, in the order given.

    Raises:
        InvalidSpiffeId: one of them is not ``namespace/name``.
    """
    return tuple(AgentId.parse(name) for name in names)


def _manifest(statement: Members) -> Manifest:
    predicate = statement.members(
        "predicate",
        known=(
            *("agent", "version", "owner", "purpose", "code", "artefacts", "resources"),
            *("delegation", "limits", "assurance", "instance_in_path", "issued_at", "expires_at"),
        ),
    )
    code = predicate.members("code", known=("digest", "include", "exclude"))
    delegation = predicate.members("delegation", known=("max_depth", "to"))
    limits = predicate.members("limits", known=_LIMITS)
    return Manifest(
        agent=AgentId.parse(predicate.text("agent")),
        version=predicate.text("version"),
        owner=predicate.text("owner"),
        purpose=predicate.text("purpose"),
        code=Code(code.text("digest"), code.texts("include"), code.texts("exclude")),
        artefacts=tuple(
            Artefact(Role.parse(each.text("role")), each.text("name"), each.text("digest"))
            for each in predicate.each("artefacts", known=("role", "name", "digest"))
        ),
        resources=tuple(
            _resource(each)
            for each in predicate.each("resources", known=("name", "audience", "bearer", "actions"))
        ),
        delegation=Delegation(delegation.integer("max_depth"), agents(delegation.texts("to"))),
        limits=Limits(**{name: limits.integer(name) for name in _LIMITS}),
        assurance=Assurance.parse(predicate.text("assurance")),
        instance_in_path=predicate.flag("instance_in_path"),
        issued_at=_moment(predicate, "issued_at"),
        expires_at=_moment(predicate, "expires_at"),
    )


def _resource(members: Members) -> Resource:
    return Resource(
        name=members.text("name"),
        audience=members.text("audience"),
        bearer=members.flag("bearer"),
        actions=tuple(
            Action(each.text("name"), Risk.parse(each.text("risk")))
            for each in members.each("actions", known=("name", "risk"))
        ),
    )


def _check_subject(statement: Members, manifest: Manifest) -> None:
    """What tools of in-toto read must say the same as what Accredit reads."""
    subjects = statement.each("subject", known=("name", "digest"))
    if len(subjects) != 1:
        raise InvalidManifest(f"statement has {len(subjects)} subjects, expected 1")
    name = subjects[0].text("name")
    if name != f"{manifest.agent}@{manifest.version}":
        raise InvalidManifest(
            f"subject {shown(name)} must be {manifest.agent}@{manifest.version}, as the predicate"
        )
    hexadecimal = subjects[0].members("digest", known=("sha256",)).text("sha256")
    if check_digest(f"sha256:{hexadecimal}", "subject's digest") != manifest.code.digest:
        raise InvalidManifest(
            f"subject has the digest sha256:{hexadecimal}, the predicate {manifest.code.digest}"
        )


def _moment(members: Members, key: str) -> datetime:
    text = members.text(key)
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass  # the thirtieth of February: refused below with all other forms
    raise InvalidManifest(f"{key} {shown(text)} must have the form 2026-01-31T12:00:00Z")


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
