"""What admins do: enrol themselves, register, look, revoke. Each call names its operation."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, Response

from accredit_credentials.errors import CredentialError
from accredit_credentials.revocation import FactKind, Target, TargetKind
from accredit_credentials.spiffe_id import AgentId
from accredit_issuer.api import bodies
from accredit_issuer.api.answers import x509_answer
from accredit_issuer.api.callers import AdminCaller, Caller, Callers
from accredit_issuer.api.strict_route import StrictRoute
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuer import Issuer
from accredit_issuer.metrics import Metrics
from accredit_issuer.registry.listing import Listing, text_of
from accredit_issuer.registry.roles import Admin, Operation, Reach, reach
from accredit_issuer.registry.targets import namespace_of
from accredit_issuer.revocation.preview import Preview
from accredit_issuer.revocation.stated import FactRequest, StatedFact


def routes(issuer: Issuer, callers: Callers, metrics: Metrics) -> APIRouter:  # noqa: C901, PLR0915
    """The calls of this page: many, each a few lines."""
    router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["administration"])
    administration = issuer.administration
    ByAdmin = Annotated[AdminCaller, Depends(callers.admin)]  # noqa: N806 (a type)
    ByAnyClock = Annotated[AdminCaller, Depends(callers.admin_by_any_clock)]  # noqa: N806
    ByAnyone = Annotated[Caller, Depends(callers.anyone)]  # noqa: N806

    def look(connection: Any, by: AdminCaller) -> Listing:
        return Listing(
            connection,
            issuer.config.trust_domain,
            issuer.revocation.facts,
            issuer.clock(),
            by.sees(),
        )

    @router.post("/admins/enrolment", summary="Spend a one-time token for an admin's SVID")
    async def enrolment(body: bodies.Enrolment) -> Response:
        leaf = await metrics.issuing("x509", issuer.issuance.admins.enrol(body.token, body.csr))
        return JSONResponse(x509_answer(leaf))

    @router.get("/whoami", summary="Who the caller is")
    async def whoami(caller: ByAnyone) -> Response:
        role: str | None = None
        namespaces: tuple[str, ...] = ()
        match caller.svid.spiffe_id.segments:
            case ("admin", name):
                admin = issuer.registry.admin(name)
                role, namespaces = admin.role.value, admin.namespaces
        return JSONResponse(
            {
                "spiffe_id": caller.name,
                "role": role,
                "namespaces": list(namespaces),
                "not_after": text_of(caller.svid.not_after),
            }
        )

    @router.get("/admins", summary="All admins")
    def admins(by: ByAdmin) -> Response:
        by.require(Operation.MANAGE_ADMINS, None)
        with issuer.database.read() as connection:
            return JSONResponse({"admins": look(connection, by).admins()})

    @router.post("/admins", summary="Invite an admin", status_code=201)
    def invite(body: bodies.AdminBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_ADMINS, None)
        admin = Admin(body.name, body.role, tuple(body.namespaces))
        invitation = administration.invite(admin, by=actor, now=issuer.guarded_clock())
        return JSONResponse(
            {
                "name": admin.name,
                "role": admin.role.value,
                "namespaces": list(admin.namespaces),
                "enrolment_token": invitation.text,
                "expires_at": text_of(invitation.expires_at),
            },
            status_code=201,
        )

    @router.get("/signers", summary="All signers")
    def signers(by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        with issuer.database.read() as connection:
            return JSONResponse({"signers": look(connection, by).signers()})

    @router.post("/signers", summary="Let a key sign manifests", status_code=201)
    def add_signer(body: bodies.SignerBody, by: ByAdmin) -> Response:
        actor = by.require(Operation.MANAGE_SIGNERS, None)
        administration.add_signer(
            body.name,
            body.public_key,
            tuple(body.namespaces),
            by=actor,
            now=issuer.guarded_clock(),
        )
        with issuer.database.read() as connection:
            signer = next(s for s in look(connection, by).signers() if s["name"] == body.name)
        return JSONResponse(signer, status_code=201)

    @router.get("/manifests", summary="Registered manifests")
    def manifests(
        by: ByAdmin, agent: Annotated[str | None, Query(max_length=127)] = None
    ) -> Response:
        with issuer.database.read() as connection:
            return JSONResponse({"manifests": look(connection, by).manifests(agent)})

    @router.post("/manifests", summary="Register a signed manifest", status_code=201)
    def register(body: bodies.ManifestBody, by: ByAdmin) -> Response:
        now = issuer.guarded_clock()
        manifest = administration.verified(body.envelope, now)
        actor = by.require(Operation.REGISTER, manifest.manifest.agent.namespace)
        administration.register(manifest, by=actor, now=now)
        with issuer.database.read() as connection:
            registered = look(connection, by).manifest(manifest.digest)
        del registered["envelope"]
        return JSONResponse(registered, status_code=201)

    @router.get("/manifests/{digest}", summary="One manifest, with its envelope")
    def manifest(digest: str, by: ByAdmin) -> Response:
        with issuer.database.read() as connection:
            return JSONResponse(look(connection, by).manifest(digest))

    @router.get("/agents", summary="All agents")
    def agents(by: ByAdmin) -> Response:
        with issuer.database.read() as connection:
            return JSONResponse({"agents": look(connection, by).agents()})

    @router.get("/agents/{namespace}/{name}", summary="One agent, its manifests and instances")
    def agent(namespace: str, name: str, by: ByAdmin) -> Response:
        with issuer.database.read() as connection:
            return JSONResponse(look(connection, by).agent(_agent_id(namespace, name)))

    @router.post(
        "/agents/{namespace}/{name}/join-tokens",
        summary="A join token for one instance of an agent",
        status_code=201,
    )
    def enrol(namespace: str, name: str, body: bodies.JoinTokenBody, by: ByAdmin) -> Response:
        agent_id = _agent_id(namespace, name)
        actor = by.require(Operation.ENROL, agent_id.namespace)
        invitation = administration.enrol(
            agent_id, body.ttl_seconds, by=actor, now=issuer.guarded_clock()
        )
        return JSONResponse(
            {
                "token": invitation.text,
                "id": invitation.id,
                "agent": str(agent_id),
                "expires_at": text_of(invitation.expires_at),
            },
            status_code=201,
        )

    def fact_request(body: bodies.RevocationBody, by: AdminCaller) -> FactRequest:
        target = _target(body.target)
        with issuer.database.read() as connection:
            actor = by.require(Operation.REVOKE, namespace_of(connection, target))
        return FactRequest(
            target=target,
            kind=FactKind(body.kind),
            reason=body.reason,
            actor=actor,
            may_overrule=reach(by.admin, Operation.REVOKE) is Reach.ALL,
            keep_newest=body.keep_newest,
        )

    @router.post("/revocations", summary="Revoke, suspend or restore", status_code=201)
    def revoke(body: bodies.RevocationBody, by: ByAnyClock) -> Response:
        stated = issuer.state(fact_request(body, by))
        metrics.facts.labels(body.kind).inc(len(stated))
        return JSONResponse({"facts": list(map(_fact, stated))}, status_code=201)

    # A path of its own: whoever forgets a member of a body must not have revoked by mistake.
    @router.post("/revocations/preview", summary="What a fact would end; nothing is stated")
    def preview(body: bodies.RevocationBody, by: ByAnyClock) -> Response:
        request = fact_request(body, by)
        return JSONResponse(_preview(request, issuer.preview(request)))

    @router.get("/revocations/facts", summary="The facts in force")
    def facts(by: ByAdmin) -> Response:
        by.require(Operation.READ, None)
        with issuer.database.read() as connection:
            return JSONResponse({"facts": look(connection, by).facts()})

    return router


def _agent_id(namespace: str, name: str) -> AgentId:
    try:
        return AgentId.parse(f"{namespace}/{name}")
    except CredentialError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None


def _target(text: str) -> Target:
    try:
        target = Target.parse(text)
        if target.kind is TargetKind.AGENT:
            AgentId.parse(target.value)
    except CredentialError as error:
        raise Refusal(Kind.MALFORMED, str(error)) from None
    return target


def _preview(request: FactRequest, found: Preview) -> dict[str, Any]:
    return {
        "would_be": request.kind.value,
        "targets": [str(each) for each in found.targets],
        "credentials": dict(found.credentials),
        "instances": found.instances,
        "manifests": found.manifests,
        "agents": found.agents,
        "last_end": None if found.last_end is None else text_of(found.last_end),
    }


def _fact(stated: StatedFact) -> dict[str, Any]:
    fact = stated.fact
    return {
        "sequence": fact.sequence,
        "target": str(fact.target),
        "kind": fact.kind.value,
        "at": text_of(fact.at),
        "expires_at": text_of(fact.expires_at),
        "actor": stated.actor,
        "reason": fact.reason,
    }
