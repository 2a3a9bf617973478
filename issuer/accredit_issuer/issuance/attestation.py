"""From evidence to an attested claimant: which evidence is needed, and what it proves together.

Every attestation shows a signed manifest (what should run), a code digest (what runs) and a join
token (that somebody who may said "this one"). An instance whose SVID is over shows that SVID's key
in place of the token, and stays the instance that it was (``former``). Other kinds, from plugins,
may add selectors and a higher assurance; they replace none of the three. Pure: what has to be
looked up is passed in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from typing import Any

from accredit_attestors import code_digest, former_svid, join_token, manifest
from accredit_attestors.contract import (
    Attested,
    Attestor,
    Evidence,
    FormerRecord,
    JoinTokenRecord,
    VerifyContext,
)
from accredit_attestors.errors import AttestationError, NotAttested
from accredit_attestors.levels import Assurance
from accredit_attestors.signing import Signer, VerifiedManifest, verify
from accredit_issuer.errors import Kind, Refusal

MAX_EVIDENCE = 8

MANIFEST = manifest.ATTESTOR.kind
CODE_DIGEST = code_digest.ATTESTOR.kind
JOIN_TOKEN = join_token.ATTESTOR.kind
FORMER_SVID = former_svid.KIND

Lookup = Callable[[str], JoinTokenRecord | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What the evidence proves."""

    manifest: VerifiedManifest
    selectors: tuple[str, ...]
    assurance: Assurance
    join_token_id: str | None


def parse_evidence(values: Sequence[Any]) -> dict[str, Evidence]:
    """Read the evidence of a request, by kind.

    Raises:
        Refusal: too much, malformed, or two of one kind.
    """
    if len(values) > MAX_EVIDENCE:
        raise Refusal(Kind.MALFORMED, f"evidence has {len(values)} parts, at most {MAX_EVIDENCE}")
    try:
        parsed = [Evidence.parse(value) for value in values]
    except AttestationError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None
    evidence = {each.kind: each for each in parsed}
    if len(evidence) != len(parsed):
        raise Refusal(Kind.MALFORMED, "evidence must have each kind once")
    return evidence


def attest(
    evidence: Mapping[str, Evidence],
    *,
    attestors: Mapping[str, Attestor],
    nonce: str,
    signers: tuple[Signer, ...],
    join_token_record: Lookup,
    now: datetime,
) -> Attestation:
    """Decide what a first attestation proves.

    Raises:
        Refusal: a kind is missing or unknown, or one of them does not hold.
    """
    _require(evidence, MANIFEST, CODE_DIGEST, JOIN_TOKEN)
    try:
        envelope = evidence[MANIFEST].members("envelope").text("envelope").encode()
        verified = verify(envelope, signers=signers, now=now)
        token_id = join_token.token_id(evidence[JOIN_TOKEN])
        context = VerifyContext(
            nonce=nonce,
            now=now,
            signers=signers,
            manifest=verified,
            join_token=join_token_record(token_id),
        )
    except AttestationError as error:
        raise refusal_of(error) from None
    proofs = _verify_all(evidence, attestors, context)
    return Attestation(
        manifest=verified,
        selectors=tuple(selector for proof in proofs for selector in proof.selectors),
        assurance=max(proof.assurance for proof in proofs),
        join_token_id=token_id,
    )


def attest_former(
    evidence: Mapping[str, Evidence],
    *,
    attestors: Mapping[str, Attestor],
    nonce: str,
    signers: tuple[Signer, ...],
    former: FormerRecord | None,
    public_key: bytes,
    now: datetime,
) -> VerifiedManifest:
    """Decide whether the holder of an SVID that is over attests anew; returns what it runs.

    Whether that SVID still counts, and whether the manifest is its own, is decided elsewhere.

    Raises:
        Refusal: a kind is missing, unknown or too much, or one of them does not hold.
    """
    _require(evidence, MANIFEST, CODE_DIGEST, FORMER_SVID)
    if JOIN_TOKEN in evidence:
        raise Refusal(Kind.MALFORMED, "show a join token or a former SVID: they are two instances")
    try:
        envelope = evidence[MANIFEST].members("envelope").text("envelope").encode()
        verified = verify(envelope, signers=signers, now=now)
    except AttestationError as error:
        raise refusal_of(error) from None
    context = VerifyContext(
        nonce=nonce,
        now=now,
        signers=signers,
        manifest=verified,
        former=former,
        public_key=public_key,
    )
    _verify_all(evidence, attestors, context)
    return verified


def attest_again(
    evidence: Mapping[str, Evidence],
    *,
    attestors: Mapping[str, Attestor],
    nonce: str,
    manifest: VerifiedManifest,
    now: datetime,
) -> None:
    """Decide whether the evidence at a renewal proves that what runs is still what was signed.

    Raises:
        Refusal: no code digest, an unknown kind, or one that does not hold.
    """
    _require(evidence, CODE_DIGEST)
    _verify_all(evidence, attestors, VerifyContext(nonce=nonce, now=now, manifest=manifest))


def join_token_shown(evidence: Mapping[str, Evidence], lookup: Lookup) -> JoinTokenRecord | None:
    """The record of a join token of ours that the evidence holds, be it spent or over."""
    try:
        token = join_token.JoinToken.parse(evidence[JOIN_TOKEN].members("token").text("token"))
    except (KeyError, AttestationError):
        return None
    record = lookup(token.id)
    if record is None:
        return None
    shown = join_token.record_of(token, agent=record.agent, expires_at=record.expires_at)
    return record if compare_digest(shown.secret_sha256, record.secret_sha256) else None


def _require(evidence: Mapping[str, Evidence], *kinds: str) -> None:
    if missing := [kind for kind in kinds if kind not in evidence]:
        raise Refusal(Kind.ATTESTATION_REFUSED, f"evidence of {', '.join(missing)} is missing")


def _verify_all(
    evidence: Mapping[str, Evidence], attestors: Mapping[str, Attestor], context: VerifyContext
) -> list[Attested]:
    if unknown := [kind for kind in evidence if kind not in attestors]:
        raise Refusal(Kind.ATTESTATION_REFUSED, f"evidence of {', '.join(unknown)} is not known")
    try:
        return [attestors[kind].verify(each, context) for kind, each in evidence.items()]
    except AttestationError as error:
        raise refusal_of(error) from None


def refusal_of(error: AttestationError) -> Refusal:
    """What evidence that does not hold means to the one who sent it."""
    kind = Kind.ATTESTATION_REFUSED if isinstance(error, NotAttested) else Kind.MALFORMED
    return Refusal(kind, str(error))
