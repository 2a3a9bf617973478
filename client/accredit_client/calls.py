"""Every call of the issuer's API, as a value (docs/api.md).

In the order of who asks: those who need nothing but trust, agents, admins.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from accredit_client import answers
from accredit_client.answers import Members
from accredit_client.call import Call, Fetched, Refetch
from accredit_client.errors import InvalidAnswer
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import MAX_MAP_BYTES, BundleMap
from accredit_credentials.errors import InvalidBundle, InvalidFederation
from accredit_credentials.federation import Allowance
from accredit_credentials.keys import PrivateKey
from accredit_credentials.revocation_feed import Statement, verify
from accredit_credentials.spiffe_id import AgentId, SpiffeId, TrustDomain

A = TypeVar("A")

_STREAMS = "/v1/ssf/streams"
STATEMENT_LIMIT = 8 * 1024 * 1024  # a snapshot of revocation facts, a CRL


def certificate_request(key: PrivateKey) -> str:
    """A PKCS#10 request that proves possession of ``key``, in PEM.

    It names nobody: the issuer decides the subject from what was attested.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


# Trust


def bundle(trust_domain: TrustDomain) -> Call[TrustBundle]:
    """The trust bundle."""
    return Call(method="GET", path="/v1/bundle", read=lambda body: _bundle(trust_domain, body))


def newest_bundle(
    trust_domain: TrustDomain, known: Fetched[TrustBundle] | None
) -> Refetch[TrustBundle]:
    """The trust bundle, sent again only where it is another than the one that is known."""

    def read(body: bytes) -> Fetched[TrustBundle]:
        return Fetched(_bundle(trust_domain, body))

    return Refetch(method="GET", path="/v1/bundle", read=read, known=known, public=True)


def bundle_map(known: Fetched[BundleMap] | None) -> Refetch[BundleMap]:
    """The bundles of federated trust domains, sent again only where they changed."""

    def read(body: bytes) -> Fetched[BundleMap]:
        try:
            return Fetched(BundleMap.parse(body))
        except (InvalidBundle, InvalidFederation) as error:
            raise InvalidAnswer(f"the issuer's bundle map: {error}") from error

    path = "/v1/federation/bundles"
    return Refetch(method="GET", path=path, read=read, known=known, limit=MAX_MAP_BYTES)


def _bundle(trust_domain: TrustDomain, body: bytes) -> TrustBundle:
    try:
        return TrustBundle.parse(trust_domain, body)
    except InvalidBundle as error:
        raise InvalidAnswer(f"the issuer's trust bundle: {error}") from error


def unverified_bundle() -> Call[bytes]:
    """The trust bundle as it came, for someone who does not know the trust domain yet."""
    return Call(method="GET", path="/v1/bundle", read=bytes)


def crl(authority: str) -> Call[bytes]:
    """The CRL of one issuing CA or root, in DER."""
    path = f"/v1/crl/{quote(authority, safe='')}.crl"
    return Call(method="GET", path=path, read=bytes, limit=STATEMENT_LIMIT)


def crls() -> Call[tuple[bytes, ...]]:
    """The CRLs of all issuing CAs whose leaves may be valid, and of the issuer's roots, in DER."""

    def read(body: bytes) -> tuple[bytes, ...]:
        return Members.parse(body).each("crls", lambda one: one.octets("der"))

    return Call(method="GET", path="/v1/crls", read=read, limit=2 * STATEMENT_LIMIT, public=True)


def revocations(*, after: int, bundle: TrustBundle) -> Call[Statement]:
    """The facts after a sequence number, verified; a snapshot for 0. There may be ``more``."""

    def read(body: bytes) -> Statement:
        return verify(_ascii(body).strip(), bundle=bundle)

    path = _path("/v1/revocations", after=after)
    return Call(method="GET", path=path, read=read, limit=STATEMENT_LIMIT)


def revocation_stream(*, after: int, limit: int = STATEMENT_LIMIT) -> Call[bytes]:
    """The feed of signed statements; to be streamed, not read at once. ``limit`` is of each."""
    path = _path("/v1/revocations/stream", after=after)
    return Call(method="GET", path=path, read=bytes, limit=limit)


def acknowledgement(listener: str, through: int) -> Call[None]:
    """Say up to which fact the listener of a stream applies what it was told."""
    body = {"listener": listener, "through": through}
    return _post("/v1/revocations/acknowledgements", lambda _: None, body)


def log_key() -> Call[str]:
    """The log's verifier key (C2SP vkey)."""
    return Call(method="GET", path="/v1/log/key", read=_ascii)


def log_checkpoint() -> Call[str]:
    """The log's newest signed checkpoint."""
    return Call(method="GET", path="/v1/log/checkpoint", read=_utf8)


def log_tile(level: str, path: str) -> Call[bytes]:
    """A hash tile (``level`` a number) or an entry bundle (``level`` is ``entries``)."""
    where = f"/v1/log/tile/{quote(level, safe='')}/{quote(path, safe='/')}"
    return Call(method="GET", path=where, read=bytes)


# Agents


def nonce() -> Call[answers.NonceAnswer]:
    """A nonce for one attestation."""
    return _post("/v1/attestations/nonce", answers.NonceAnswer.of, {})


def attestation(
    *, nonce: str, csr: str, evidence: Sequence[Mapping[str, Any]]
) -> Call[answers.X509Answer]:
    """A first SVID, against evidence."""
    body = {"nonce": nonce, "csr": csr, "evidence": list(evidence)}
    return _post("/v1/attestations", answers.X509Answer.of, body)


def x509_svid(
    *, csr: str, evidence: Sequence[Mapping[str, Any]] | None = None
) -> Call[answers.X509Answer]:
    """A further SVID for the one that this connection shows, with a new key."""
    body: dict[str, Any] = {"csr": csr}
    if evidence is not None:
        body["evidence"] = list(evidence)
    return _post("/v1/svids/x509", answers.X509Answer.of, body)


def jwt_svid(*, audience: Sequence[str]) -> Call[answers.JwtAnswer]:
    """A JWT-SVID for the holder of this connection's SVID."""
    return _post("/v1/svids/jwt", answers.JwtAnswer.of, {"audience": list(audience)})


def wit_svid(*, csr: str) -> Call[answers.WitAnswer]:
    """A WIT-SVID for the holder of this connection's SVID, and for a new key."""
    return _post("/v1/svids/wit", answers.WitAnswer.of, {"csr": csr})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTokenRequest:
    """What a task token is asked for.

    Attributes:
        resource: as the manifest declares it.
        actions: of that resource.
        purpose: what the task is for, in plain words.
        task_id: an earlier task of this instance, to get a further token for it.
        parent: the task that this one is a part of.
        principal: on whose behalf; None for the agent itself.
        binding: ``certificate``, ``dpop`` or ``bearer``.
        jkt: the thumbprint of the DPoP key, for the binding ``dpop``.
    """

    resource: str
    actions: tuple[str, ...]
    purpose: str
    task_id: str | None = None
    parent: str | None = None
    principal: str | None = None
    binding: str = "certificate"
    jkt: str | None = None


def task_token(request: TaskTokenRequest) -> Call[answers.TaskTokenAnswer]:
    """A task token."""
    binding = {"kind": request.binding}
    if request.jkt is not None:
        binding["jkt"] = request.jkt
    body: dict[str, Any] = {
        "resource": request.resource,
        "actions": list(request.actions),
        "task": {"purpose": request.purpose, "id": request.task_id, "parent": request.parent},
        "binding": binding,
    }
    if request.principal is not None:
        body["principal"] = request.principal
    return _post("/v1/task-tokens", answers.TaskTokenAnswer.of, body)


# Nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRequest:
    """What a node asks for one process that it measured.

    Attributes:
        csr: with the key that is to be certified.
        manifest: the digest of the manifest that the process is of.
        code: the digest that was measured.
        selectors: what was seen of the process, for a new instance.
        instance: the instance that is renewed; None for a new one.
    """

    csr: str = field(repr=False)
    manifest: str
    code: str
    selectors: tuple[str, ...] = ()
    instance: str | None = None

    def to_body(self) -> dict[str, Any]:
        """As the issuer reads it."""
        body: dict[str, Any] = {"csr": self.csr, "manifest": self.manifest, "code": self.code}
        if self.instance is not None:
            return {**body, "instance": self.instance}
        return {**body, "selectors": list(self.selectors)}


def node_attestation(
    *, node: str, nonce: str, csr: str, evidence: Mapping[str, Any]
) -> Call[answers.X509Answer]:
    """A node's SVID, against one piece of evidence. It is renewed by ``x509_svid``."""
    body = {"node": node, "nonce": nonce, "csr": csr, "evidence": [dict(evidence)]}
    return _post("/v1/nodes/attestations", answers.X509Answer.of, body)


def node_instance(request: InstanceRequest) -> Call[answers.X509Answer]:
    """An SVID for a process of the node whose SVID this connection shows."""
    return _post("/v1/nodes/instances", answers.X509Answer.of, request.to_body())


def node_instances(
    requests: Sequence[InstanceRequest],
) -> Call[tuple[answers.X509Answer | answers.InstanceProblem, ...]]:
    """The same for up to 50, in their order: an SVID each, or why there is none."""
    body = {"requests": [request.to_body() for request in requests]}
    path = "/v1/nodes/instances/batch"
    return _post(path, lambda answer: answer.each("results", answers.instance_outcome), body)


def code_changed(
    instance: str, *, reason: str, measured: str | None = None
) -> Call[answers.InstanceState]:
    """Say that the code of an instance changed; it is suspended."""
    body: dict[str, Any] = {"reason": reason}
    if measured is not None:
        body["measured"] = measured
    path = f"/v1/nodes/instances/{quote(instance, safe='')}/changed"
    return _post(path, answers.InstanceState.of, body)


# Administration


def enrolment(*, token: str, csr: str) -> Call[answers.X509Answer]:
    """An admin's first SVID, against the one-time token."""
    return _post("/v1/admins/enrolment", answers.X509Answer.of, {"token": token, "csr": csr})


def whoami() -> Call[answers.WhoamiAnswer]:
    """Who the issuer takes the holder of this connection's SVID for."""
    return _get("/v1/whoami", answers.WhoamiAnswer.of)


def admins() -> Call[tuple[answers.Admin, ...]]:
    """Every admin."""
    return _get("/v1/admins", lambda members: members.each("admins", answers.Admin.of))


def add_admin(*, name: str, role: str, namespaces: Sequence[str]) -> Call[answers.Admin]:
    """A new admin, with the token that enrols them."""
    body = {"name": name, "role": role, "namespaces": list(namespaces)}
    return _post("/v1/admins", answers.Admin.of, body)


def signers() -> Call[tuple[answers.SignerRecord, ...]]:
    """Every signer."""
    return _get("/v1/signers", lambda members: members.each("signers", answers.SignerRecord.of))


def add_signer(
    *, name: str, public_key: str, namespaces: Sequence[str]
) -> Call[answers.SignerRecord]:
    """A new signer; ``public_key`` is PEM."""
    body = {"name": name, "public_key": public_key, "namespaces": list(namespaces)}
    return _post("/v1/signers", answers.SignerRecord.of, body)


def register_manifest(*, envelope: str) -> Call[answers.ManifestRecord]:
    """Register a signed manifest."""
    return _post("/v1/manifests", answers.ManifestRecord.of, {"envelope": envelope})


def manifests(*, agent: AgentId | None = None) -> Call[tuple[answers.ManifestRecord, ...]]:
    """The registered manifests, of one agent or of all."""
    path = _path("/v1/manifests", agent=agent)
    return _get(path, lambda members: members.each("manifests", answers.ManifestRecord.of))


def manifest(digest: str) -> Call[answers.ManifestRecord]:
    """One manifest with its envelope."""
    return _get(f"/v1/manifests/{quote(digest, safe=':')}", answers.ManifestRecord.of)


def agents() -> Call[tuple[answers.AgentRecord, ...]]:
    """Every agent that the caller may see."""
    return _get("/v1/agents", lambda members: members.each("agents", answers.AgentRecord.of))


def agent(agent_id: AgentId) -> Call[answers.AgentRecord]:
    """One agent with its manifests and instances."""
    return _get(f"/v1/agents/{agent_id}", answers.AgentRecord.of)


def join_token(agent_id: AgentId, *, ttl_seconds: int) -> Call[answers.JoinTokenAnswer]:
    """A new join token for an agent."""
    body = {"ttl_seconds": ttl_seconds}
    return _post(f"/v1/agents/{agent_id}/join-tokens", answers.JoinTokenAnswer.of, body)


def revoke(
    *, target: str, kind: str, reason: str, keep_newest: bool = False
) -> Call[tuple[answers.FactRecord, ...]]:
    """Say that from now on nothing matching ``target`` is valid (or is again).

    With ``keep_newest`` each version of an agent is meant but the newest that is in force.
    """
    return _post("/v1/revocations", _facts, _fact(target, kind, reason, keep_newest=keep_newest))


def revocation_preview(
    *, target: str, kind: str, reason: str, keep_newest: bool = False
) -> Call[answers.PreviewAnswer]:
    """What ``revoke`` would end; nothing is stated. An older issuer refuses the path."""
    body = _fact(target, kind, reason, keep_newest=keep_newest)
    return _post("/v1/revocations/preview", answers.PreviewAnswer.of, body)


def confirmations(*, through: int, wait: float = 0.0) -> Call[answers.ConfirmationsAnswer]:
    """Which verifiers apply the facts up to one: once all do, or after ``wait`` seconds."""
    path = _path("/v1/revocations/confirmations", through=through, wait=f"{wait:.3f}")
    return _get(path, answers.ConfirmationsAnswer.of)


def revocation_facts() -> Call[tuple[answers.FactRecord, ...]]:
    """Every fact, as admins see it."""
    return _get("/v1/revocations/facts", _facts)


def status() -> Call[answers.StatusAnswer]:
    """The issuer at one look."""
    return _get("/v1/status", answers.StatusAnswer.of)


def authorities() -> Call[tuple[answers.AuthorityRecord, ...]]:
    """Every key that signs for the trust domain, the oldest first."""
    return _get("/v1/authorities", _authorities)


def prepare_authority(kind: str) -> Call[tuple[answers.AuthorityRecord, ...]]:
    """Another authority: ``root``, ``x509`` or ``jwt``. Each step answers with what it changed."""
    return _post(f"/v1/authorities/{quote(kind, safe='')}/prepare", _authorities, {})


def activate_authority(
    authority: str, *, early: bool = False
) -> Call[tuple[answers.AuthorityRecord, ...]]:
    """Let a prepared authority sign; ``early``: where verifiers may not know it yet, too."""
    return _post(_of_authority(authority, "activate"), _authorities, {"early": early})


def taint_authority(authority: str, *, reason: str) -> Call[tuple[answers.AuthorityRecord, ...]]:
    """Have renewed at once what an authority signed."""
    return _post(_of_authority(authority, "taint"), _authorities, {"reason": reason})


def revoke_authority(authority: str, *, reason: str) -> Call[tuple[answers.AuthorityRecord, ...]]:
    """Remove an authority that signs no more; what it signed is refused from now on."""
    return _post(_of_authority(authority, "revoke"), _authorities, {"reason": reason})


def subordinates() -> Call[tuple[answers.SubordinateRecord, ...]]:
    """Every subordinate issuer."""
    return _get(
        "/v1/subordinates", lambda answer: answer.each("subordinates", answers.SubordinateRecord.of)
    )


def removed_subordinates() -> Call[dict[str, tuple[str, ...]]]:
    """Agents whose name was taken away, with the key ids of those issuing CAs that still live."""
    return _get(
        "/v1/subordinates",
        lambda answer: dict(
            answer.each(
                "removed",
                lambda each: (
                    each.text("agent"),
                    each.each("issuing_cas", lambda ca: ca.text("id")),
                ),
            )
        ),
    )


def add_subordinate(
    agent: AgentId, *, namespaces: Sequence[str], dns_names: Sequence[str] = ()
) -> Call[answers.SubordinateRecord]:
    """Let an agent have issuing CAs for agents of some namespaces."""
    body = {
        "agent": str(agent),
        "namespaces": list(namespaces),
        "dns_names": list(dns_names),
    }
    return _post("/v1/subordinates", answers.SubordinateRecord.of, body)


def remove_subordinate(agent: AgentId) -> Call[answers.SubordinateRecord]:
    """Let it have no further one."""
    return Call(
        method="DELETE",
        path=f"/v1/subordinates/{agent}",
        read=lambda body: answers.SubordinateRecord.of(Members.parse(body)),
    )


def nodes() -> Call[tuple[answers.NodeRecord, ...]]:
    """Every node, by name."""
    return _get("/v1/nodes", lambda answer: answer.each("nodes", answers.NodeRecord.of))


def node(name: str) -> Call[answers.NodeRecord]:
    """One node."""
    return _get(_of_node(name), answers.NodeRecord.of)


def add_node(
    name: str,
    *,
    attestation: str,
    namespaces: Sequence[str],
    ca: str | None = None,
    certificate: str | None = None,
) -> Call[answers.NodeRecord]:
    """List a node; ``ca`` (PEM) and ``certificate`` (a rule) for the attestation x509pop."""
    body: dict[str, Any] = {
        "name": name,
        "attestation": attestation,
        "namespaces": list(namespaces),
    }
    if ca is not None:
        body["ca"] = ca
    if certificate is not None:
        body["certificate"] = certificate
    return _post("/v1/nodes", answers.NodeRecord.of, body)


def change_node(name: str, *, namespaces: Sequence[str]) -> Call[answers.NodeRecord]:
    """Say anew whose agents may run on a node."""
    return Call(
        method="PUT",
        path=f"{_of_node(name)}/namespaces",
        read=lambda body: answers.NodeRecord.of(Members.parse(body)),
        body={"namespaces": list(namespaces)},
    )


def node_join_token(name: str, *, ttl_seconds: int) -> Call[answers.NodeJoinTokenAnswer]:
    """A new join token for a node."""
    body = {"ttl_seconds": ttl_seconds}
    return _post(f"{_of_node(name)}/join-tokens", answers.NodeJoinTokenAnswer.of, body)


def remove_node(name: str) -> Call[None]:
    """End a node, and all that runs there."""
    return Call(method="DELETE", path=_of_node(name), read=lambda _: None)


def federation() -> Call[tuple[answers.RelationshipRecord, ...]]:
    """Every relationship with another trust domain."""
    read = answers.RelationshipRecord.of
    return _get("/v1/federation", lambda members: members.each("relationships", read))


def federate(
    *,
    trust_domain: TrustDomain,
    profile: str,
    endpoint_url: str,
    endpoint_spiffe_id: SpiffeId | None = None,
    bundle: TrustBundle | None = None,
    feed_url: str | None = None,
    allowances: Sequence[Allowance] = (),
) -> Call[answers.RelationshipRecord]:
    """Begin a relationship; ``bundle`` is the first one, for a self-serving https_spiffe."""
    body: dict[str, Any] = {
        "trust_domain": str(trust_domain),
        "profile": profile,
        "endpoint_url": endpoint_url,
        "allows": [each.to_object() for each in allowances],
    }
    if endpoint_spiffe_id is not None:
        body["endpoint_spiffe_id"] = str(endpoint_spiffe_id)
    if bundle is not None:
        body["bundle"] = json.loads(bundle.to_json())
    if feed_url is not None:
        body["feed_url"] = feed_url
    return _post("/v1/federation", answers.RelationshipRecord.of, body)


def allow_federated(
    trust_domain: TrustDomain, allowances: Sequence[Allowance]
) -> Call[answers.RelationshipRecord]:
    """Say anew what agents of another trust domain may ask."""
    return Call(
        method="PUT",
        path=f"/v1/federation/{trust_domain}/allows",
        read=lambda body: answers.RelationshipRecord.of(Members.parse(body)),
        body={"allows": [each.to_object() for each in allowances]},
    )


def refresh_federated(trust_domain: TrustDomain) -> Call[answers.RelationshipRecord]:
    """Have the bundle of another trust domain fetched now."""
    path = f"/v1/federation/{trust_domain}/refresh"
    return _post(path, answers.RelationshipRecord.of, {})


def end_federation(trust_domain: TrustDomain) -> Call[None]:
    """End a relationship."""
    return Call(method="DELETE", path=f"/v1/federation/{trust_domain}", read=lambda _: None)


def streams() -> Call[tuple[answers.StreamRecord, ...]]:
    """Every stream of security events."""
    read = answers.StreamRecord.of
    return _get(_STREAMS, lambda members: members.each("streams", read))


def add_stream(
    name: str,
    *,
    audience: str,
    endpoint_url: str | None = None,
    receiver: SpiffeId | None = None,
) -> Call[answers.StreamRecord]:
    """Tell another receiver of facts: pushed to an endpoint, or polled by a SPIFFE ID."""
    body: dict[str, Any] = {"name": name, "audience": audience}
    if endpoint_url is not None:
        body["endpoint_url"] = endpoint_url
    if receiver is not None:
        body["receiver"] = str(receiver)
    return _post(_STREAMS, answers.StreamRecord.of, body)


def verify_stream(name: str) -> Call[answers.StreamRecord]:
    """Have an event sent that shows that a stream works."""
    return _post(f"{_STREAMS}/{quote(name, safe='')}/verify", answers.StreamRecord.of, {})


def remove_stream(name: str) -> Call[None]:
    """Tell a receiver nothing more."""
    path = f"{_STREAMS}/{quote(name, safe='')}"
    return Call(method="DELETE", path=path, read=lambda _: None)


def log_entries(*, start: int, limit: int) -> Call[answers.LogPage]:
    """Entries of the log, from index ``after``."""
    return _get(_path("/v1/log/entries", start=start, limit=limit), answers.LogPage.of)


def log_explain(subject: str) -> Call[answers.Explanation]:
    """What the log says about a jti, a serial or an instance, with proofs."""
    return _get(f"/v1/log/explain/{quote(subject, safe='')}", answers.Explanation.of)


def _get(path: str, read: Callable[[Members], A]) -> Call[A]:
    return Call(method="GET", path=path, read=lambda body: read(Members.parse(body)))


def _post(path: str, read: Callable[[Members], A], body: Mapping[str, Any]) -> Call[A]:
    return Call(method="POST", path=path, read=lambda text: read(Members.parse(text)), body=body)


def _path(path: str, **query: object) -> str:
    values = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(values)}" if values else path


def _fact(target: str, kind: str, reason: str, *, keep_newest: bool) -> dict[str, Any]:
    # An older issuer refuses the member: it would mean the agent without it.
    kept = {"keep_newest": True} if keep_newest else {}
    return {"target": target, "kind": kind, "reason": reason, **kept}


def _facts(members: Members) -> tuple[answers.FactRecord, ...]:
    return members.each("facts", answers.FactRecord.of)


def _authorities(members: Members) -> tuple[answers.AuthorityRecord, ...]:
    return members.each("authorities", answers.AuthorityRecord.of)


def _of_node(name: str) -> str:
    return f"/v1/nodes/{quote(name, safe='')}"


def _of_authority(authority: str, step: str) -> str:
    return f"/v1/authorities/{quote(authority, safe='')}/{step}"


def _ascii(body: bytes) -> str:
    return _decoded(body, "ascii")


def _utf8(body: bytes) -> str:
    return _decoded(body, "utf-8")


def _decoded(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except UnicodeDecodeError:
        raise InvalidAnswer(f"the issuer's answer must be {encoding} text") from None
