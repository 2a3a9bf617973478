"""Tokens of agents: JWT-SVIDs, WIT-SVIDs and task tokens."""

import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from accredit_credentials import jwt_svid, task_token, wit_svid
from accredit_credentials.jws import usual_algorithm
from accredit_credentials.jwt_svid import AgentBlock, JwtSvid
from accredit_credentials.keys import SubjectKey, jwk_thumbprint
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.task_token import Binding, TaskToken
from accredit_credentials.wit_svid import WitSvid
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority.token_profile import TokenProfile, WitProfile
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.claimants import claimant_of
from accredit_issuer.issuance.cycle import Cycle, Intent, Signed
from accredit_issuer.issuance.decision import (
    Claimant,
    TaskRequest,
    decide_jwt_svid,
    decide_task_token,
    decide_wit_svid,
)
from accredit_issuer.issuance.parts import Parts
from accredit_issuer.issuance.tasks import TaskChoice, choose_task
from accredit_issuer.issuance.together import Together


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTokenRequest:
    """A task token that is asked for."""

    resource: str
    actions: tuple[str, ...]
    purpose: str
    task_id: str | None
    parent_id: str | None
    principal: str | None
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedJwt:
    """A released JWT-SVID."""

    svid: JwtSvid
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedWit:
    """A released WIT-SVID."""

    svid: WitSvid
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTaskToken:
    """A released task token."""

    content: TaskToken
    token: str = field(repr=False)


class Tokens:
    """Issues the tokens of agents."""

    def __init__(
        self, parts: Parts, cycle: Cycle, key_of_request: Together[str, SubjectKey]
    ) -> None:
        self._parts = parts
        self._key_of_request = key_of_request
        self._config = parts.config
        self._cycle = cycle
        lifetimes = parts.config.lifetimes
        profile = partial(
            TokenProfile,
            trust_domain=parts.config.trust_domain,
            issuer=parts.config.token_issuer,
        )
        self._jwt_svids = profile(max_lifetime=lifetimes.jwt_svid)
        self._task_tokens = profile(max_lifetime=lifetimes.task_token)
        self._wit_svids = WitProfile(
            trust_domain=parts.config.trust_domain,
            max_lifetime=lifetimes.wit_svid,
            backdate=lifetimes.backdate,
        )

    async def jwt_svid(self, svid: X509Svid, audience: tuple[str, ...]) -> IssuedJwt:
        """A JWT-SVID for an instance.

        Raises:
            Refusal: no audience, or the agent may have nothing now.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = claimant_of(self._parts.registry, svid)
        granted = decide_jwt_svid(
            claimant,
            audience,
            facts=self._parts.revocation.facts,
            lifetimes=self._config.lifetimes,
            now=now,
        )
        key, kid = self._parts.authorities.jwt_signer()
        content = JwtSvid(
            spiffe_id=svid.spiffe_id,
            audience=audience,
            expires_at=granted.expires_at,
            issued_at=now,
            issuer=self._config.token_issuer,
            jti=str(uuid.uuid4()),
            agent=_agent_block(claimant),
            authority=kid,
        )
        intent = _intent(
            claimant,
            id=content.jti or "",
            kind="jwt",
            subject=svid.spiffe_id,
            authority=kid,
            decided_at=now,
            expires_at=granted.expires_at,
            marks=(*content.marks(), *claimant.marks),
            reasons=granted.reasons,
            details={"audience": list(audience)},
        )
        checked = self._jwt_svids.check(content, kid, now)
        token = await self._cycle.issue(
            intent, lambda: _signed(jwt_svid.sign(checked.content, key, checked.authority))
        )
        return IssuedJwt(svid=content, token=token)

    async def wit_svid(self, svid: X509Svid, csr: str) -> IssuedWit:
        """A WIT-SVID for an instance, for a new key that it proves to hold.

        Raises:
            Refusal: none are issued here, the key does not hold or is that of the SVID, or the
                agent may have nothing now.
            Unavailable: it could not be recorded or signed.
        """
        if not self._config.wit_svids:
            raise Refusal(Kind.NOT_FOUND, "this issuer issues no WIT-SVIDs")
        now = self._parts.clock()
        claimant = claimant_of(self._parts.registry, svid)
        public = (await self._key_of_request(csr)).key
        # A key that serves two credentials could be made to prove the one with the other.
        if public == svid.leaf.public_key():
            raise Refusal(Kind.MALFORMED, "csr must have another key than the X.509-SVID")
        key, authority = self._parts.authorities.wit_signer()
        granted = decide_wit_svid(
            claimant,
            facts=self._parts.revocation.facts,
            lifetimes=self._config.lifetimes,
            key_ends=authority.expires_at,
            now=now,
        )
        content = WitSvid(
            spiffe_id=svid.spiffe_id,
            key=public,
            algorithm=usual_algorithm(public),
            expires_at=granted.expires_at,
            not_before=now - self._config.lifetimes.backdate,
            issued_at=now,
            jti=str(uuid.uuid4()),
            agent=_agent_block(claimant),
            authority=authority.id,
        )
        intent = _intent(
            claimant,
            id=content.jti or "",
            kind="wit",
            subject=svid.spiffe_id,
            authority=authority.id,
            decided_at=now,
            expires_at=granted.expires_at,
            marks=(*content.marks(), *claimant.marks),
            reasons=granted.reasons,
            details={"confirms": jwk_thumbprint(public)},
        )
        checked = self._wit_svids.check(content, authority, now)
        token = await self._cycle.issue(
            intent, lambda: _signed(wit_svid.sign(checked.content, key, checked.authority))
        )
        return IssuedWit(svid=content, token=token)

    async def task_token(self, svid: X509Svid, request: TaskTokenRequest) -> IssuedTaskToken:
        """A task token for an instance.

        Raises:
            Refusal: more than was declared, a high risk, or a task that is not the instance's.
            Unavailable: it could not be recorded or signed.
        """
        now = self._parts.clock()
        claimant = claimant_of(self._parts.registry, svid)
        choice = self._choose_task(claimant, svid, request)
        granted = decide_task_token(
            claimant,
            TaskRequest(
                resource=request.resource,
                actions=request.actions,
                purpose=request.purpose,
                principal=request.principal,
                depth=choice.task.depth,
                binding=request.binding,
            ),
            facts=self._parts.revocation.facts,
            lifetimes=self._config.lifetimes,
            now=now,
        )
        key, kid = self._parts.authorities.jwt_signer()
        place = self._parts.status_lists.take(granted.expires_at)
        content = TaskToken(
            issuer=self._config.token_issuer,
            principal=choice.principal,
            client=svid.spiffe_id,
            audience=granted.audience,
            jti=str(uuid.uuid4()),
            issued_at=now,
            expires_at=granted.expires_at,
            grants=(granted.grant,),
            task=choice.task,
            agent=_agent_block(claimant),
            binding=request.binding,
            authority=kid,
            status=None if place is None else place.reference,
        )
        intent = _intent(
            claimant,
            id=content.jti,
            kind="task",
            subject=svid.spiffe_id,
            authority=kid,
            decided_at=now,
            expires_at=granted.expires_at,
            marks=(*content.marks(), *claimant.marks),
            reasons=granted.reasons,
            task=choice.task.id,
            status=None if place is None else (place.list_id, place.index),
            details={
                "audience": granted.audience,
                "scope": content.scope,
                "principal": choice.principal,
                "purpose": choice.task.purpose,
                "task": choice.task.id,
                "parent": choice.task.parent,
            },
        )
        checked = self._task_tokens.check(content, kid, now)
        token = await self._cycle.issue(
            intent,
            lambda: _signed(task_token.sign(checked.content, key, checked.authority)),
            beside=lambda t: choice.record(t, claimant.instance, now),
        )
        return IssuedTaskToken(content=content, token=token)

    def _choose_task(
        self, claimant: Claimant, svid: X509Svid, request: TaskTokenRequest
    ) -> TaskChoice:
        return choose_task(
            self._parts.database,
            instance=claimant.instance,
            purpose=request.purpose,
            principal=request.principal or str(svid.spiffe_id),
            task_id=request.task_id,
            parent_id=request.parent_id,
        )


def _intent(claimant: Claimant, *, subject: SpiffeId, **rest: Any) -> Intent:
    return Intent(
        subject=str(subject),
        instance=claimant.instance,
        manifest=claimant.manifest.digest,
        **rest,
    )


def _signed(token: str) -> Signed[str]:
    return Signed(token, token.encode())


def _agent_block(claimant: Claimant) -> AgentBlock:
    return AgentBlock(
        version=claimant.declared.version,
        instance=claimant.instance,
        manifest=claimant.manifest.digest,
        assurance=str(claimant.assurance),
    )
