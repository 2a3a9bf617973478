"""The decisions before issuance: pure functions of request, manifest, facts and time.

Each returns what is granted together with its reasons, which go into the log, or raises
``Refusal`` naming what was too much. Nothing is narrowed in silence: what is requested is declared,
or the answer is no. Empty means no.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from accredit_attestors.declaration import Manifest, Resource
from accredit_attestors.errors import AttestationError
from accredit_attestors.levels import Assurance, Risk
from accredit_attestors.signing import VerifiedManifest
from accredit_credentials.errors import Revoked
from accredit_credentials.revocation import FactSet
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.task_token import Binding, BindingKind, Grant
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.settings import Lifetimes

MAX_AUDIENCES = 8
MAX_AUDIENCE_LENGTH = 2048
MAX_PURPOSE_LENGTH = 500
MAX_PRINCIPAL_LENGTH = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Who asks, as far as it was proved.

    Attributes:
        manifest: of the agent, its signature verified.
        instance: a UUID.
        assurance: of the measurement.
        not_after: the end of the SVID it came with; None at attestation.
        marks: what a revocation fact about it can match.
    """

    manifest: VerifiedManifest
    instance: str
    assurance: Assurance
    not_after: datetime | None
    marks: tuple[str, ...]

    @property
    def declared(self) -> Manifest:
        """What its manifest declares."""
        return self.manifest.manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A yes: until when, and why."""

    expires_at: datetime
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """What was asked for: actions on one resource, for one task."""

    resource: str
    actions: tuple[str, ...]
    purpose: str
    principal: str | None
    depth: int
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGranted(Granted):
    """A yes to a task token."""

    grant: Grant
    audience: str


def check_standing(claimant: Claimant, facts: FactSet, now: datetime) -> tuple[str, ...]:
    """Decide whether this agent may have anything at all now; returns the reasons.

    Raises:
        Refusal: revoked, its manifest is over, or it was measured by too weak a verifier.
    """
    check_not_revoked(claimant.marks, facts)
    declared = claimant.declared
    try:
        declared.check_valid_at(now)
    except AttestationError as error:
        raise Refusal(Kind.ATTESTATION_REFUSED, str(error)) from None
    if claimant.assurance < declared.assurance:
        raise Refusal(
            Kind.ATTESTATION_REFUSED,
            f"the manifest requires assurance {declared.assurance}, "
            f"the instance has {claimant.assurance}",
        )
    manifest = claimant.manifest
    return (
        *_declared(manifest.digest, manifest.signer, declared.agent, declared.version),
        *_holds(declared.expires_at, claimant.assurance, declared.assurance),
    )


@lru_cache(maxsize=4096)  # an agent asks again and again
def _declared(digest: str, signer: str, agent: AgentId, version: str) -> tuple[str, str]:
    return f"manifest {digest} declares {agent}@{version}", f"it is signed by {signer}"


@lru_cache(maxsize=4096)
def _holds(expires_at: datetime, has: Assurance, needs: Assurance) -> tuple[str, str, str]:
    return (
        f"it is valid to {expires_at:%Y-%m-%d}",
        f"assurance {has} meets the required {needs}",
        "no revocation fact matches",
    )


def decide_x509_svid(
    claimant: Claimant, *, facts: FactSet, lifetimes: Lifetimes, ca_ends: datetime, now: datetime
) -> Granted:
    """Decide about an X.509-SVID. It lives no longer than its CA and its manifest."""
    reasons = check_standing(claimant, facts, now)
    wanted = min(lifetimes.x509_svid, seconds(claimant.declared.limits.x509_svid_seconds))
    return Granted(
        expires_at=_end(now, wanted, ca_ends, claimant.declared.expires_at), reasons=reasons
    )


def decide_jwt_svid(
    claimant: Claimant,
    audience: tuple[str, ...],
    *,
    facts: FactSet,
    lifetimes: Lifetimes,
    now: datetime,
) -> Granted:
    """Decide about a JWT-SVID. It lives no longer than the SVID that asked for it."""
    if not 1 <= len(audience) <= MAX_AUDIENCES:
        raise Refusal(Kind.MALFORMED, f"audience must name 1 to {MAX_AUDIENCES} audiences")
    for name in audience:
        check_text("audience", name, MAX_AUDIENCE_LENGTH)
    reasons = check_standing(claimant, facts, now)
    wanted = min(lifetimes.jwt_svid, seconds(claimant.declared.limits.jwt_svid_seconds))
    return Granted(
        expires_at=_end(now, wanted, claimant.not_after, claimant.declared.expires_at),
        reasons=reasons,
    )


def decide_wit_svid(
    claimant: Claimant, *, facts: FactSet, lifetimes: Lifetimes, key_ends: datetime, now: datetime
) -> Granted:
    """Decide about a WIT-SVID. It lives no longer than its key and the SVID that asked for it.

    A manifest has no limit of its own for it: as that SVID it is bound to a key, and within it.
    """
    reasons = check_standing(claimant, facts, now)
    ends = (claimant.not_after, claimant.declared.expires_at, key_ends)
    return Granted(expires_at=_end(now, lifetimes.wit_svid, *ends), reasons=reasons)


def decide_task_token(
    claimant: Claimant, request: TaskRequest, *, facts: FactSet, lifetimes: Lifetimes, now: datetime
) -> TaskGranted:
    """Decide about a task token: requested ⊆ declared, and nothing of high risk without a human.

    Raises:
        Refusal: naming the resource, the action or the binding that was too much.
    """
    check_text("task purpose", request.purpose, MAX_PURPOSE_LENGTH)
    if request.principal is not None:
        _check_principal(request.principal)
    reasons = check_standing(claimant, facts, now)
    declared = claimant.declared
    resource = _declared_resource(declared, request.resource)
    risks = _declared_risks(resource, request.actions)
    if high := [action for action, risk in risks.items() if risk >= Risk.HIGH]:
        raise Refusal(
            Kind.APPROVAL_REQUIRED,
            f"{_listed(f'{resource.name}:{action}' for action in high)} has the risk high: "
            "a human has to approve it, and no approval was given",
        )
    if request.binding.kind is BindingKind.BEARER and not resource.bearer:
        raise Refusal(
            Kind.NOT_DECLARED,
            f"the manifest declares no bearer tokens for {resource.name}; "
            "bind the token to a certificate or a DPoP key",
        )
    if request.depth > declared.delegation.max_depth:
        raise Refusal(
            Kind.NOT_DECLARED,
            f"the task would stand {request.depth} below the first one, the manifest allows "
            f"{declared.delegation.max_depth}",
        )
    wanted = min(lifetimes.task_token, seconds(declared.limits.task_token_seconds))
    return TaskGranted(
        expires_at=_end(now, wanted, claimant.not_after, declared.expires_at),
        reasons=(
            *reasons,
            *(
                f"{resource.name}:{action} is declared with the risk {risk}"
                for action, risk in risks.items()
            ),
            f"the token is bound by {request.binding.kind.value}",
        ),
        grant=Grant(
            resource=resource.name, location=resource.audience, actions=tuple(request.actions)
        ),
        audience=resource.audience,
    )


def check_not_revoked(marks: Iterable[str], facts: FactSet) -> None:
    """Decide whether a fact is against it.

    Raises:
        Refusal: with the fact's target, moment and reason.
    """
    try:
        facts.check(marks)
    except Revoked as error:
        raise Refusal(Kind.REVOKED, str(error)) from None


def check_text(name: str, text: str, limit: int) -> None:
    """Decide whether a free text may stand in a credential and in the log.

    Raises:
        Refusal: empty, too long, or with characters that do not print.
    """
    if not text or len(text) > limit or not text.isprintable():
        raise Refusal(Kind.MALFORMED, f"{name} must be 1 to {limit} printable characters")


def _check_principal(principal: str) -> None:
    check_text("principal", principal, MAX_PRINCIPAL_LENGTH)
    # It becomes ``sub``, as the agent says it, under the keys that sign JWT-SVIDs. Relying parties
    # that look at issuer and subject only, and not at ``typ``, would take it for another agent: as
    # it is, or as one reads it who trims it and knows no case (a long s is an s then).
    if principal.strip().casefold().startswith("spiffe:"):
        raise Refusal(
            Kind.MALFORMED,
            "principal must not be a SPIFFE ID; an agent that acts for itself leaves it out",
        )


def seconds(number: int) -> timedelta:
    """A duration."""
    return timedelta(seconds=number)


def _declared_resource(declared: Manifest, name: str) -> Resource:
    resource = declared.resource(name)
    if resource is None:
        known = _listed(r.name for r in declared.resources) or "none"
        raise Refusal(
            Kind.NOT_DECLARED, f"resource {name[:63]!r} is not declared; declared: {known}"
        )
    return resource


def _declared_risks(resource: Resource, actions: tuple[str, ...]) -> dict[str, Risk]:
    if not actions:
        raise Refusal(Kind.MALFORMED, "actions must name at least one action")
    if len(set(actions)) != len(actions):
        raise Refusal(Kind.MALFORMED, "actions must name each action once")
    risks = {action.name: action.risk for action in resource.actions}
    if foreign := [action for action in actions if action not in risks]:
        raise Refusal(
            Kind.NOT_DECLARED,
            f"{_listed(f'{resource.name}:{_shown(name)}' for name in foreign)} is not declared; "
            f"declared: {_listed(f'{resource.name}:{action}' for action in risks)}",
        )
    return {action: risks[action] for action in actions}


def _end(now: datetime, wanted: timedelta, *bounds: datetime | None) -> datetime:
    """The earliest of all ends, in whole seconds.

    Raises:
        Refusal: one of them is now.
    """
    end = min([now + wanted, *(bound for bound in bounds if bound is not None)])
    end = end.replace(microsecond=0)
    if end <= now:
        raise Refusal(Kind.ATTESTATION_REFUSED, "nothing of what it depends on is valid any more")
    return end


def _shown(name: str) -> str:
    # Into an error body and a log: no escape sequence, nothing that turns text around.
    return name[:63] if name.isprintable() else ascii(name[:63])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
