"""What each call answers, by example: put into the OpenAPI document.

One example a call; the tests compare the members of these with those of real answers.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

Call = tuple[str, str]

_MOMENT = "2026-11-21T09:30:00Z"
_DIGEST = "sha256:" + "3f" * 32
_AGENT_ID = "spiffe://example.org/ns/support/agent/ticket-summarizer"
_INSTANCE = "11b16c24-3572-45c8-b027-40901a738827"
_ISSUER = "https://issuer.example.org:8443"
_PEM = "-----BEGIN CERTIFICATE-----\n…"

_X509 = {
    "spiffe_id": _AGENT_ID,
    "instance": _INSTANCE,
    "manifest": _DIGEST,
    "serial": "39b6319efb6e1c0d52b7c1d1a3f0e6b2a9c4d801",
    "certificates": _PEM,
    "not_before": _MOMENT,
    "not_after": _MOMENT,
}
_MANIFEST = {
    "digest": _DIGEST,
    "agent": "support/ticket-summarizer",
    "version": "1.0.0",
    "owner": "maria@example.org",
    "purpose": "Summarises open support tickets",
    "signer": "ci-main",
    "assurance": "self",
    "resources": [
        {
            "name": "tickets",
            "audience": "https://tickets.example.org",
            "actions": {"read": "low", "delete": "high"},
        }
    ],
    "registered_at": _MOMENT,
    "expires_at": _MOMENT,
    "state": "active",
}
_AGENT = {
    "agent": "support/ticket-summarizer",
    "spiffe_id": _AGENT_ID,
    "owner": "maria@example.org",
    "version": "1.0.0",
    "manifest": _DIGEST,
    "instances": 1,
    "state": "active",
}
_FACT = {
    "sequence": 1,
    "target": "agent:support/ticket-summarizer",
    "kind": "revoked",
    "at": _MOMENT,
    "expires_at": _MOMENT,
    "actor": "spiffe://example.org/admin/first",
    "reason": "prompt injection, INC-4711",
}
_SIGNER = {
    "name": "ci-main",
    "key_id": _DIGEST,
    "namespaces": ["support"],
    "created_at": _MOMENT,
    "state": "active",
}
_AUTHORITY = {
    "id": "7d9c0b6e2a41f3589c07be1d46a8f25301ce97ab",
    "kind": "jwt",
    "state": "prepared",
    "revoked": False,
    "parent": None,
    "origin": "own",
    "prepared_at": _MOMENT,
    "activates_from": "2026-11-21T09:45:00Z",
    "active_from": "2026-11-21T21:30:00Z",
    "last_use": "2026-11-22T03:45:00Z",
    "tainted_at": None,
    "removal": "2026-11-22T03:50:00Z",
    "expires_at": "2026-11-22T09:30:00Z",
    "planned": ["active_from", "last_use", "removal"],
    "resting": 0,
}
_AUTHORITY_SHOWN = {name: each for name, each in _AUTHORITY.items() if name != "resting"}
_AUTHORITIES = {"authorities": [_AUTHORITY]}
_PEM = "-----BEGIN CERTIFICATE-----\nMIIC…\n-----END CERTIFICATE-----\n"
_SUBORDINATE = {
    "agent": "infra/child",
    "namespaces": ["payments", "search"],
    "dns_names": ["child.example.org"],
    "created_at": _MOMENT,
    "created_by": "spiffe://example.org/admin/maria",
    "issuing_cas": [
        {
            "id": "7d9c0b6e2a41f3589c07be1d46a8f25301ce97ab",
            "serial": "4000b7e9…",
            "root": "1f0c6e2a41f3589c07be1d46a8f25301ce97ab7d",
            "issued_at": _MOMENT,
            "expires_at": _MOMENT,
        }
    ],
}
_RELATIONSHIP = {
    "trust_domain": "b.example",
    "profile": "https_spiffe",
    "endpoint_url": "https://issuer.b.example:8443/v1/bundle",
    "endpoint_spiffe_id": "spiffe://b.example/accredit/issuer",
    "feed_url": "https://issuer.b.example:8443",
    "allows": [
        {
            "agents": "spiffe://b.example/ns/pay/*",
            "resource": "https://ledger.example.org",
            "actions": ["read"],
        }
    ],
    "created_at": _MOMENT,
    "created_by": "spiffe://example.org/admin/first",
    "state": "current",
    "bundle": {
        "digest": "3f" * 32,
        "sequence": 4,
        "x509_authorities": 1,
        "jwt_authorities": 2,
    },
    "fetched_at": _MOMENT,
    "age_seconds": 42,
    "waiting_seconds": None,
    "interval_seconds": 300,
    "attempted_at": _MOMENT,
    "failure": None,
}
_NODE_X509 = {
    **_X509,
    "spiffe_id": "spiffe://example.org/node/build-7",
    "manifest": None,
}
_NODE = {
    "name": "build-7",
    "spiffe_id": "spiffe://example.org/node/build-7",
    "attestation": "x509pop",
    "namespaces": ["support"],
    "ca": _PEM,
    "certificate": "dns:build-7.site.example",
    "created_at": _MOMENT,
    "created_by": "spiffe://example.org/admin/maria",
    "state": "active",
    "svid_expires_at": _MOMENT,
    "instances": 12,
}
_POSITION = {
    "spiffe_id": "spiffe://example.org/node/build-7",
    "instance": "5d0e6a3c-52c2-4c5e-9b42-9f4a6b4f1c11",
    "through": 11,
    "silent_seconds": 12.4,
    "behind_seconds": 0.4,
    "gone": False,
}
_STREAM = {
    "stream_id": "9f0c6e2a41f3589c07be1d46a8f25301",
    "name": "siem",
    "iss": _ISSUER,
    "aud": "https://siem.example.org",
    "delivery": {
        "method": "urn:ietf:rfc:8935",
        "endpoint_url": "https://siem.example.org/events",
    },
    "receiver": None,
    "events_delivered": ["https://schemas.openid.net/secevent/caep/event-type/session-revoked"],
    "created_at": _MOMENT,
    "created_by": "spiffe://example.org/admin/maria",
    "state": "current",
    "through": 12,
    "waiting": 0,
    "waiting_since": None,
    "accepted_at": _MOMENT,
    "failure": None,
}
_ENTRY = {"index": 7, "leaf": "eyJh…", "record": {"kind": "credential.issued"}}

ANSWERS: Mapping[Call, Any] = {
    ("GET", "/.well-known/openid-configuration"): {
        "issuer": _ISSUER,
        "jwks_uri": f"{_ISSUER}/.well-known/jwks.json",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "jti", "agent"],
    },
    ("GET", "/.well-known/oauth-authorization-server"): {
        "issuer": _ISSUER,
        "jwks_uri": f"{_ISSUER}/.well-known/jwks.json",
        "token_endpoint": f"{_ISSUER}/v1/task-tokens",
        "token_endpoint_auth_methods_supported": ["tls_client_auth"],
        "grant_types_supported": ["urn:accredit:grant-type:task"],
        "response_types_supported": ["none"],
        "tls_client_certificate_bound_access_tokens": True,
        "authorization_details_types_supported": ["accredit:resource"],
        "introspection_endpoint": f"{_ISSUER}/v1/introspect",
        "introspection_endpoint_auth_methods_supported": ["tls_client_auth"],
        "service_documentation": f"{_ISSUER}/docs",
        "status_list_aggregation_endpoint": f"{_ISSUER}/v1/status-lists",
    },
    ("GET", "/.well-known/ssf-configuration"): {
        "spec_version": "1_0",
        "issuer": _ISSUER,
        "jwks_uri": f"{_ISSUER}/.well-known/jwks.json",
        "delivery_methods_supported": ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"],
        "verification_endpoint": f"{_ISSUER}/v1/ssf/verify",
        "default_subjects": "ALL",
    },
    ("GET", "/.well-known/jwks.json"): {
        "keys": [
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "f83O…",
                "y": "x_FE…",
                "kid": "9b1f…",
                "use": "sig",
                "alg": "ES256",
            }
        ]
    },
    ("POST", "/v1/attestations/nonce"): {"nonce": "W-BLrfJ-ew…", "expires_at": _MOMENT},
    ("POST", "/v1/attestations"): _X509,
    ("POST", "/v1/svids/x509"): _X509,
    ("POST", "/v1/svids/x509/batch"): {
        "spiffe_id": _AGENT_ID,
        "instance": _INSTANCE,
        "manifest": _DIGEST,
        "not_before": _MOMENT,
        "not_after": _MOMENT,
        "chain": "-----BEGIN CERTIFICATE-----\nMIIB…\n-----END CERTIFICATE-----\n",
        "svids": [
            {
                "serial": "4000b7e9…",
                "certificate": "-----BEGIN CERTIFICATE-----\nMIIC…\n-----END CERTIFICATE-----\n",
            }
        ],
    },
    ("POST", "/v1/nodes/attestations"): _NODE_X509,
    ("POST", "/v1/nodes/instances"): _X509,
    ("POST", "/v1/nodes/instances/batch"): {
        "results": [
            {"svid": _X509},
            {
                "problem": {
                    "type": "urn:accredit:problem:forbidden",
                    "title": "not allowed for this caller",
                    "status": 403,
                    "detail": "the node build-7 may not run agents of payments",
                }
            },
        ]
    },
    ("POST", "/v1/nodes/instances/{instance}/changed"): {
        "instance": _INSTANCE,
        "state": "suspended",
    },
    ("GET", "/v1/nodes"): {"nodes": [_NODE]},
    ("POST", "/v1/nodes"): _NODE,
    ("GET", "/v1/nodes/{name}"): _NODE,
    ("PUT", "/v1/nodes/{name}/namespaces"): _NODE,
    ("POST", "/v1/nodes/{name}/join-tokens"): {
        "token": "accredit-node.h8Jx…",
        "id": "h8JxQ2mT9aLw4vKc",
        "node": "build-7",
        "expires_at": _MOMENT,
    },
    ("GET", "/v1/crls"): {"crls": [{"authority": "5f3a…", "number": 7, "der": "MIIB…"}]},
    ("GET", "/v1/status-lists"): {"status_lists": [f"{_ISSUER}/v1/status-lists/5f3ac1e09b7d2846"]},
    ("POST", "/v1/introspect"): {
        "active": True,
        "token_type": "Bearer",
        "iss": _ISSUER,
        "sub": "user:maria@example.org",
        "client_id": _AGENT_ID,
        "aud": "https://tickets.example.org",
        "jti": "780702f9-0880-48c5-a9b3-e549b924489a",
        "iat": 1795225841,
        "exp": 1795226141,
        "scope": "tickets:read",
        "authorization_details": [
            {
                "type": "accredit:resource",
                "identifier": "tickets",
                "locations": ["https://tickets.example.org"],
                "actions": ["read"],
            }
        ],
        "task": {
            "id": "affb2b33-ddd9-4923-a48e-7751b1fa1f4a",
            "purpose": "summarise ticket 4711",
            "parent": None,
            "depth": 0,
            "ancestors": [],
        },
        "agent": {
            "version": "1.0.0",
            "instance": _INSTANCE,
            "manifest": _DIGEST,
            "assurance": "self",
        },
        "act": {"sub": _AGENT_ID, "iss": _ISSUER, "sub_profile": "ai_agent"},
        "cnf": {"x5t#S256": "2jtNPCYGUd21p0gZfs2DEkmH9YtDwwN1qgBe-Gragq8"},
        "status": {
            "status_list": {"idx": 4711, "uri": f"{_ISSUER}/v1/status-lists/5f3ac1e09b7d2846"}
        },
    },
    ("POST", "/v1/svids/jwt"): {
        "spiffe_id": _AGENT_ID,
        "token": "eyJh…",
        "jti": "780702f9-0880-48c5-a9b3-e549b924489a",
        "expires_at": _MOMENT,
    },
    ("POST", "/v1/svids/wit"): {
        "spiffe_id": _AGENT_ID,
        "token": "eyJh…",
        "jti": "780702f9-0880-48c5-a9b3-e549b924489a",
        "expires_at": _MOMENT,
    },
    ("POST", "/v1/task-tokens"): {
        "access_token": "eyJh…",
        "token_type": "Bearer",
        "expires_in": 300,
        "expires_at": _MOMENT,
        "scope": "tickets:read",
        "audience": "https://tickets.example.org",
        "jti": "780702f9-0880-48c5-a9b3-e549b924489a",
        "task": {"id": "affb2b33-ddd9-4923-a48e-7751b1fa1f4a"},
    },
    ("POST", "/v1/admins/enrolment"): {**_X509, "manifest": None},
    ("GET", "/v1/whoami"): {
        "spiffe_id": "spiffe://example.org/admin/ci",
        "role": "registrar",
        "namespaces": ["support"],
        "not_after": _MOMENT,
    },
    ("GET", "/v1/admins"): {
        "admins": [
            {
                "name": "ci",
                "role": "registrar",
                "namespaces": ["support"],
                "created_at": _MOMENT,
                "state": "active",
            }
        ]
    },
    ("POST", "/v1/admins"): {
        "name": "ci",
        "role": "registrar",
        "namespaces": ["support"],
        "enrolment_token": "accredit-enrol.…",
        "expires_at": _MOMENT,
    },
    ("GET", "/v1/signers"): {"signers": [_SIGNER]},
    ("POST", "/v1/signers"): _SIGNER,
    ("GET", "/v1/manifests"): {"manifests": [_MANIFEST]},
    ("POST", "/v1/manifests"): _MANIFEST,
    ("GET", "/v1/manifests/{digest}"): {**_MANIFEST, "envelope": "{…}"},
    ("GET", "/v1/agents"): {"agents": [_AGENT]},
    ("GET", "/v1/agents/{namespace}/{name}"): {
        **_AGENT,
        "manifests": [_MANIFEST],
        "living_instances": [
            {
                "instance": _INSTANCE,
                "manifest": _DIGEST,
                "expires_at": _MOMENT,
                "state": "active",
            }
        ],
    },
    ("POST", "/v1/agents/{namespace}/{name}/join-tokens"): {
        "token": "accredit-join.…",
        "id": "PZ-QSeF4nZXmAsP2",
        "agent": "support/ticket-summarizer",
        "expires_at": _MOMENT,
    },
    ("POST", "/v1/revocations"): {"facts": [_FACT]},
    ("GET", "/v1/revocations/facts"): {"facts": [_FACT]},
    ("POST", "/v1/revocations/preview"): {
        "would_be": "revoked",
        "targets": ["agent:support/ticket-summarizer"],
        "credentials": {"x509": 4, "jwt": 2, "wit": 0, "task": 6, "ca": 0},
        "instances": 4,
        "manifests": 2,
        "agents": 1,
        "last_end": _MOMENT,
    },
    ("POST", "/v1/revocations/acknowledgements"): {},
    ("GET", "/v1/revocations/confirmations"): {
        "through": 12,
        "complete": False,
        "elapsed_milliseconds": 412.6,
        "named": {
            "listening": 40,
            "confirmed": 39,
            "slowest_milliseconds": 48.3,
            "missing": [_POSITION],
            "gone": [{**_POSITION, "spiffe_id": "spiffe://example.org/node/build-8", "gone": True}],
        },
        "unnamed": {"listening": 3, "confirmed": 3, "slowest_milliseconds": 21.7},
        "silent": 1,
    },
    ("GET", "/v1/authorities"): _AUTHORITIES,
    ("POST", "/v1/authorities/{kind}/prepare"): _AUTHORITIES,
    ("POST", "/v1/authorities/{authority}/activate"): _AUTHORITIES,
    ("POST", "/v1/authorities/{authority}/taint"): _AUTHORITIES,
    ("POST", "/v1/authorities/{authority}/revoke"): _AUTHORITIES,
    ("POST", "/v1/issuing-cas"): {"certificate": _PEM, "chain": "", "roots": _PEM},
    ("GET", "/v1/subordinates"): {
        "subordinates": [_SUBORDINATE],
        "removed": [{"agent": "infra/former", "issuing_cas": _SUBORDINATE["issuing_cas"]}],
    },
    ("POST", "/v1/subordinates"): _SUBORDINATE,
    ("DELETE", "/v1/subordinates/{namespace}/{name}"): _SUBORDINATE,
    ("GET", "/v1/log/entries"): {"size": 50, "entries": [_ENTRY]},
    ("GET", "/v1/log/explain/{identifier}"): {
        "id": "780702f9-0880-48c5-a9b3-e549b924489a",
        "checkpoint": "example.org/accredit-log\n50\n…",
        "entries": [{**_ENTRY, "proof": ["b64…"]}],
    },
    ("GET", "/v1/federation"): {"relationships": [_RELATIONSHIP]},
    ("POST", "/v1/federation"): _RELATIONSHIP,
    ("GET", "/v1/federation/bundles"): {
        "trust_domains": {
            "b.example": {
                "keys": [],
                "spiffe_sequence": 4,
                "accredit": {
                    "allows": _RELATIONSHIP["allows"],
                    "feed_url": _RELATIONSHIP["feed_url"],
                    "fetched_at": _MOMENT,
                },
            }
        },
        "spiffe_refresh_hint": 30,
    },
    ("PUT", "/v1/federation/{trust_domain}/allows"): _RELATIONSHIP,
    ("POST", "/v1/federation/{trust_domain}/refresh"): _RELATIONSHIP,
    ("GET", "/v1/ssf/streams"): {"streams": [_STREAM]},
    ("POST", "/v1/ssf/streams"): _STREAM,
    ("POST", "/v1/ssf/streams/{name}/verify"): _STREAM,
    ("POST", "/v1/ssf/poll/{stream_id}"): {
        "sets": {"9f0c6e2a41f3589c07be1d46a8f25301.13": "eyJh…"},
        "moreAvailable": False,
    },
    ("GET", "/v1/status"): {
        "trust_domain": "example.org",
        "at": _MOMENT,
        "to_do": [{"urgent": False, "text": "the next CRL of 7d9c0b6e2a41 is late: …"}],
        "facts": [{"target": "agent", "revoked": 2, "suspended": 1}],
        "feed": {
            "through": 12,
            "streams": 44,
            "named": 40,
            "unnamed": 3,
            "silent": 1,
            "verifiers": [_POSITION],
        },
        "crls": [
            {
                "authority": "7d9c0b6e2a41f3589c07be1d46a8f25301ce97ab",
                "number": 7,
                "this_update": _MOMENT,
                "next_update": "2026-11-21T15:30:00Z",
                "entries": 3,
                "bytes": 612,
            }
        ],
        "authorities": [_AUTHORITY_SHOWN],
    },
    ("GET", "/health/live"): {"live": True},
    ("GET", "/health/ready"): {"ready": True, "federation_overdue": 0},
}


def install(app: FastAPI) -> None:
    """Put the examples into the application's OpenAPI document."""
    make = app.openapi

    def with_examples() -> dict[str, Any]:
        if app.openapi_schema is None:
            _describe(make())
        return make()

    app.openapi = with_examples  # type: ignore[method-assign]


def _describe(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            example = ANSWERS.get((method.upper(), path))
            if example is None:
                continue
            success = next(status for status in call["responses"] if status.startswith("2"))
            call["responses"][success]["content"] = {"application/json": {"example": example}}
