"""What requests carry, with examples for the documentation. Unknown members are refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from accredit_credentials.federation import MAX_ALLOWANCES, MAX_URL_LENGTH
from accredit_credentials.revocation import MAX_REASON_LENGTH
from accredit_issuer.federation.rules import Profile
from accredit_issuer.registry.roles import Role
from accredit_issuer.signals.streams import MAX_AUDIENCE_LENGTH, MAX_STATE_LENGTH

MAX_BATCH = 100
MAX_INSTANCES = 50  # of a node in one call
MAX_ACKNOWLEDGED = 1000  # events in one call

Csr = Annotated[
    str,
    Field(
        max_length=8192,
        description="PKCS #10 request, PEM, without extensions",
        examples=["-----BEGIN CERTIFICATE REQUEST-----\nMIH…\n-----END CERTIFICATE REQUEST-----\n"],
    ),
]
Evidence = Annotated[
    list[dict[str, Any]],
    Field(
        max_length=8,
        examples=[[{"kind": "code_digest", "nonce": "…", "payload": {"digest": "sha256:…"}}]],
    ),
]
Text = Annotated[str, Field(min_length=1, max_length=512)]


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Empty(Body):
    """``{}``."""


class Attestation(Body):
    """Evidence and a key."""

    nonce: Annotated[str, Field(max_length=128, examples=["pJ0tN…"])]
    csr: Csr
    evidence: Evidence


class Renewal(Body):
    """A new key and, for agents, the code digest measured again."""

    csr: Csr
    evidence: Evidence = []


class Batch(Body):
    """Several keys of one instance, and the code digest measured again, once for all."""

    csrs: Annotated[list[Csr], Field(min_length=1, max_length=MAX_BATCH)]
    evidence: Evidence


class NodeAttestation(Body):
    """Which node, a key, and one piece of evidence."""

    node: Annotated[str, Field(max_length=63, examples=["build-7"])]
    nonce: Annotated[str, Field(max_length=128, examples=["pJ0tN…"])]
    csr: Csr
    evidence: Annotated[
        list[dict[str, Any]],
        Field(
            max_length=8,
            examples=[
                [
                    {
                        "kind": "join_token",
                        "nonce": "…",
                        "payload": {"token": "accredit-node.…"},
                    }
                ]
            ],
        ),
    ]


Digest = Annotated[str, Field(max_length=71, examples=["sha256:3f3f…"])]


class NodeInstance(Body):
    """A process that a node measured: a new instance, or one that is renewed."""

    csr: Csr
    manifest: Digest
    code: Annotated[Digest, Field(description="what the node measured")]
    selectors: Annotated[
        list[str],
        Field(
            max_length=64,
            description="at the birth of an instance only",
            examples=[["unix:uid:1001", "systemd:unit:summarizer.service"]],
        ),
    ] = []
    instance: Annotated[
        str | None, Field(max_length=36, description="that is to be renewed; a new one without it")
    ] = None


class NodeInstances(Body):
    """Several processes of one node, each with a key of its own."""

    requests: Annotated[list[NodeInstance], Field(min_length=1, max_length=MAX_INSTANCES)]


class CodeChanged(Body):
    """What a node found where an instance's code was."""

    reason: Annotated[str, Field(max_length=300, examples=["main.py changed"])]
    measured: Annotated[str | None, Field(pattern="^sha256:[0-9a-f]{64}$")] = None


class NodeBody(Body):
    """A host with a node daemon, and how far it may go."""

    name: Annotated[str, Field(max_length=63, examples=["build-7"])]
    attestation: Annotated[str, Field(max_length=63, examples=["x509pop"])]
    namespaces: Annotated[list[str], Field(max_length=64, examples=[["support"]])]
    ca: Annotated[
        str | None,
        Field(max_length=32 * 1024, description="the site's CA certificates, PEM, for x509pop"),
    ] = None
    certificate: Annotated[
        str | None,
        Field(
            max_length=512,
            description="which certificate of that CA is the node's",
            examples=["dns:build-7.site.example"],
        ),
    ] = None


class NodeNamespacesBody(Body):
    """Whose agents may run on a node from now on."""

    namespaces: Annotated[list[str], Field(max_length=64, examples=[["support"]])]


class JwtRequest(Body):
    """Whom a JWT-SVID is for."""

    audience: Annotated[list[str], Field(examples=[["https://api.example.org"]])]


class WitRequest(Body):
    """The key that a WIT-SVID is for."""

    csr: Csr


class TaskBody(Body):
    """The task that a token is for."""

    purpose: Annotated[str, Field(max_length=500, examples=["summarise ticket 4711"])]
    id: Annotated[str | None, Field(max_length=36)] = None
    parent: Annotated[str | None, Field(max_length=36)] = None


class BindingBody(Body):
    """How the holder will show that the token is its own."""

    kind: Literal["certificate", "dpop", "bearer"] = "certificate"
    jkt: Annotated[str | None, Field(pattern="^[A-Za-z0-9_-]{43}$")] = None


class TaskTokenBody(Body):
    """Actions on one resource, for one task."""

    resource: Annotated[str, Field(max_length=63, examples=["tickets"])]
    actions: Annotated[list[str], Field(max_length=64, examples=[["read"]])]
    task: TaskBody
    principal: Annotated[str | None, Field(max_length=254, examples=["user:maria@example.org"])] = (
        None
    )
    binding: BindingBody = BindingBody()


class Enrolment(Body):
    """A one-time token and a key."""

    token: Annotated[str, Field(max_length=128, repr=False)]
    csr: Csr


class AdminBody(Body):
    """An admin to invite."""

    name: Annotated[str, Field(max_length=63, examples=["ci"])]
    role: Annotated[Role, Field(examples=["registrar"])]
    namespaces: Annotated[list[str], Field(max_length=64, examples=[["support"]])] = []


class SignerBody(Body):
    """A key that may sign manifests."""

    name: Annotated[str, Field(max_length=63, examples=["ci-main"])]
    public_key: Annotated[str, Field(max_length=4096, examples=["-----BEGIN PUBLIC KEY-----\n…"])]
    namespaces: Annotated[list[str], Field(max_length=64, examples=[["support"]])]


class ManifestBody(Body):
    """A signed manifest."""

    envelope: Annotated[str, Field(max_length=64 * 1024, description="DSSE envelope, JSON text")]


class JoinTokenBody(Body):
    """A join token to make."""

    ttl_seconds: Annotated[int | None, Field(ge=1, le=3600, examples=[600])] = None


class SubordinateBody(Body):
    """An agent that runs an issuer of its own, and how far that may reach."""

    agent: Annotated[str, Field(max_length=127, examples=["infra/child"])]
    namespaces: Annotated[list[str], Field(max_length=64, examples=[["payments", "search"]])]
    dns_names: Annotated[
        list[str],
        Field(
            max_length=64,
            description="that may stand in its own server's certificate",
            examples=[["child.example.org"]],
        ),
    ] = []


class IssuingCaBody(Body):
    """The key of an issuing CA."""

    csr: Csr


Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_LENGTH)]


class ActivationBody(Body):
    """An authority that is to sign from now on."""

    early: Annotated[
        bool, Field(description="also where verifiers may not know it yet", examples=[False])
    ] = False


class TaintBody(Body):
    """Why whoever holds something of an authority should renew."""

    reason: Annotated[Reason, Field(examples=["key seen in a backup, INC-4712"])]


class RemovalBody(Body):
    """Why nothing that an authority signed is to be accepted any more."""

    reason: Annotated[Reason, Field(examples=["everybody has renewed, INC-4712"])]


class RevocationBody(Body):
    """A fact to state."""

    target: Annotated[Text, Field(examples=["agent:support/ticket-summarizer"])]
    kind: Literal["revoked", "suspended", "restored"] = "revoked"
    reason: Annotated[
        str,
        Field(min_length=1, max_length=MAX_REASON_LENGTH, examples=["prompt injection, INC-4711"]),
    ]
    keep_newest: Annotated[
        bool,
        Field(description="each version of the agent but the newest in force, in its place"),
    ] = False


class Acknowledgement(Body):
    """Up to which fact a verifier applies what the feed says."""

    listener: Annotated[
        str,
        Field(
            pattern="^[A-Za-z0-9_-]{22}$",
            description="with which its stream began",
            repr=False,
            examples=["kOCzZ0bDqvq1cUNYRjpHcg"],
        ),
    ]
    through: Annotated[int, Field(ge=0, le=2**63 - 1, strict=True, examples=[4711])]


Allows = Annotated[
    list[dict[str, Any]],
    Field(
        max_length=MAX_ALLOWANCES,
        description="what agents of the other trust domain may ask; empty is nothing",
        examples=[
            [
                {
                    "agents": "spiffe://b.example/ns/pay/*",
                    "resource": "https://ledger.example.org",
                    "actions": ["read"],
                }
            ]
        ],
    ),
]
Url = Annotated[str, Field(max_length=MAX_URL_LENGTH)]
Jti = Annotated[str, Field(max_length=128)]


class FederationBody(Body):
    """A relationship with another trust domain."""

    trust_domain: Annotated[str, Field(max_length=255, examples=["b.example"])]
    profile: Profile
    endpoint_url: Annotated[Url, Field(examples=["https://issuer.b.example:8443/v1/bundle"])]
    endpoint_spiffe_id: Annotated[
        str | None, Field(max_length=2048, examples=["spiffe://b.example/accredit/issuer"])
    ] = None
    bundle: Annotated[
        dict[str, Any] | None,
        Field(description="its current bundle, for https_spiffe", examples=[{"keys": []}]),
    ] = None
    feed_url: Annotated[Url | None, Field(examples=["https://issuer.b.example:8443"])] = None
    allows: Allows = []


class AllowsBody(Body):
    """What agents of another trust domain may ask from now on."""

    allows: Allows


class StreamBody(Body):
    """A stream of security events: pushed to an endpoint, or polled by a receiver."""

    name: Annotated[str, Field(max_length=63, examples=["siem"])]
    audience: Annotated[
        str,
        Field(
            max_length=MAX_AUDIENCE_LENGTH,
            description="whom its events are for, as the receiver calls itself",
            examples=["https://siem.example.org"],
        ),
    ]
    endpoint_url: Annotated[
        Url | None,
        Field(description="where to push", examples=["https://siem.example.org/events"]),
    ] = None
    receiver: Annotated[
        str | None,
        Field(
            max_length=2048,
            description="the SPIFFE ID that may poll, where nothing is pushed",
            examples=[None],
        ),
    ] = None


class PollBody(Body):
    """What a receiver has, and what it wants (RFC 8936 §2.2)."""

    maxEvents: Annotated[int | None, Field(ge=0, strict=True, examples=[100])] = None  # noqa: N815
    returnImmediately: Annotated[bool, Field(strict=True)] = False  # noqa: N815
    ack: Annotated[list[Jti], Field(max_length=MAX_ACKNOWLEDGED, examples=[[]])] = []
    setErrs: Annotated[  # noqa: N815
        dict[Jti, dict[str, Any]],
        Field(max_length=MAX_ACKNOWLEDGED, description="events that it cannot take, and why"),
    ] = {}


class VerificationBody(Body):
    """A verification event that a receiver wants (SSF §8.1.4)."""

    stream_id: Annotated[str, Field(max_length=64, examples=["9f0c…"])]
    state: Annotated[str | None, Field(max_length=MAX_STATE_LENGTH, examples=["mine"])] = None
