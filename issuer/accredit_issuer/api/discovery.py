"""Where relying parties that know OpenID Connect or OAuth, and nothing of SPIFFE, find our keys.

Four documents under ``/.well-known``, all public: OpenID Connect Discovery 1.0 §3 for JWT-SVIDs,
the keys as a plain JWK Set (RFC 7517 §5), authorization server metadata (RFC 8414 §2) for task
tokens, and the transmitter's configuration for receivers of security events. They state what is
true and leave out the rest:

- There is no authorization endpoint, and nobody logs in: a JWT-SVID is asked for by its agent.
- Task tokens are asked for in JSON (docs/api.md), which no grant of RFC 6749 describes: the grant
  type is a name of our own, so that nobody's library tries one that it knows.
- A DPoP key is named in the request, and no proof is read there, as
  ``dpop_signing_alg_values_supported`` would promise (RFC 9449 §5.1).
"""

from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.keys import PublicKey, jwk_of, jws_algorithms
from accredit_credentials.task_token import DETAIL_TYPE
from accredit_issuer.api.documents import Document, Kept, answer
from accredit_issuer.api.introspection import PATH as INTROSPECTION
from accredit_issuer.issuer import Issuer
from accredit_issuer.revocation.status_lists import PATH as STATUS_LISTS
from accredit_issuer.settings import Config
from accredit_issuer.signals.streams import Method

OPENID = "/.well-known/openid-configuration"
SSF = "/.well-known/ssf-configuration"
OAUTH = "/.well-known/oauth-authorization-server"
JWKS = "/.well-known/jwks.json"
VERIFICATION_PATH = "/v1/ssf/verify"
TASK_GRANT = "urn:accredit:grant-type:task"

_CLAIMS = ["iss", "sub", "aud", "exp", "iat", "jti", "agent"]


def routes(issuer: Issuer) -> APIRouter:
    """The calls of this page."""
    router = APIRouter(tags=["trust"])
    config = issuer.config

    def serve(path: str, summary: str, kept: Kept[TrustBundle]) -> None:
        async def document(request: Request) -> Response:
            return answer(kept.now, request)

        router.get(path, summary=summary, name=path)(document)
        router.head(path, include_in_schema=False)(document)

    def kept(make: Callable[[TrustBundle], dict[str, Any]]) -> Kept[TrustBundle]:
        return Kept(
            lambda: issuer.bundle,
            lambda bundle: Document.of_json(make(bundle), max_age=config.refresh_hint),
        )

    serve(OPENID, "OpenID Connect Discovery", kept(lambda b: openid_configuration(config, b)))
    serve(OAUTH, "Authorization server metadata", kept(lambda _: authorization_server(config)))
    serve(SSF, "Shared Signals transmitter", kept(lambda _: ssf_configuration(config)))
    serve(JWKS, "The keys of JWT-SVIDs and task tokens", kept(jwks))
    return router


def openid_configuration(config: Config, bundle: TrustBundle) -> dict[str, Any]:
    """What an OpenID Connect relying party has to know (OpenID Connect Discovery 1.0 §3)."""
    return {
        "issuer": config.token_issuer,
        "jwks_uri": config.token_issuer + JWKS,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": _algorithms(bundle.jwt_authorities.values()),
        "claims_supported": _CLAIMS,
    }


def authorization_server(config: Config) -> dict[str, Any]:
    """What an OAuth client or resource server has to know (RFC 8414 §2)."""
    lists = config.status_list_url
    return {
        "issuer": config.token_issuer,
        "jwks_uri": config.token_issuer + JWKS,
        # Where agents are, which know the issuer by its SVID: not under another name.
        "token_endpoint": f"{config.url}/v1/task-tokens",
        "token_endpoint_auth_methods_supported": ["tls_client_auth"],
        "grant_types_supported": [TASK_GRANT],
        "response_types_supported": ["none"],  # required, and there is nothing that would respond
        "tls_client_certificate_bound_access_tokens": True,
        "authorization_details_types_supported": [DETAIL_TYPE],
        "introspection_endpoint": config.url + INTROSPECTION,
        "introspection_endpoint_auth_methods_supported": ["tls_client_auth"],
        "service_documentation": f"{config.url}/docs",
        **({"status_list_aggregation_endpoint": lists + STATUS_LISTS} if lists else {}),
    }


def ssf_configuration(config: Config) -> dict[str, Any]:
    """What a receiver of security events has to know (Shared Signals Framework 1.0 §7.1).

    There is no configuration endpoint: streams are made by admins.
    """
    return {
        "spec_version": "1_0",
        "issuer": config.token_issuer,
        "jwks_uri": config.token_issuer + JWKS,
        "delivery_methods_supported": [each.value for each in Method],
        # For receivers that hold an SVID of ours: not under another name.
        "verification_endpoint": f"{config.url}{VERIFICATION_PATH}",
        "default_subjects": "ALL",
    }


def jwks(bundle: TrustBundle) -> dict[str, Any]:
    """The keys that sign tokens, as software that knows nothing of SPIFFE reads them.

    The bundle itself will not do: ``use`` is a SPIFFE word there, and it has X.509 authorities too.
    """
    return {"keys": [_jwk(kid, key) for kid, key in bundle.jwt_authorities.items()]}


def _jwk(kid: str, key: PublicKey) -> dict[str, str]:
    algorithms = _algorithms([key])
    named = {"alg": algorithms[0]} if len(algorithms) == 1 else {}
    return {**jwk_of(key), "kid": kid, "use": "sig", **named}


def _algorithms(keys: Iterable[PublicKey]) -> list[str]:
    return sorted({name for key in keys for name in jws_algorithms(key)})
