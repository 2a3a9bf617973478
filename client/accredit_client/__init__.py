"""The client: holds an identity and renews it, and checks what others present.

Imports ``accredit_credentials`` and ``accredit_attestors``; meets the issuer only over the wire.
Read from the bottom up::

    serving   fastapi   asgi   http          edges: servers, applications, HTTP clients
    guard   identity   async_identity        effects: requests, threads, tasks
    base_identity   wire   transports        effects: contexts, sockets
    revocations   files                      effects: the feed, the folder
    verify   keeper   workload               decisions; the daemon's socket
    task_tokens   trust                      decisions
    federation   peers   renewal   replay    decisions
    tls   calls                              decisions
    answers   effects   thumbprint   errors  vocabulary

The names below are loaded when they are first used: importing this package costs a millisecond.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accredit_client.answers import JwtAnswer, TaskTokenAnswer, X509Answer
    from accredit_client.asgi import Open, Rule, TaskTokenMiddleware
    from accredit_client.async_identity import AsyncAgentIdentity
    from accredit_client.call import Call
    from accredit_client.calls import TaskTokenRequest
    from accredit_client.errors import (
        ClientError,
        Closed,
        IdentityExpired,
        IdentityRefused,
        InvalidAnswer,
        InvalidEndpoint,
        InvalidFolder,
        InvalidPeer,
        InvalidTrust,
        IssuerRefused,
        IssuerUnreachable,
        IssuerUntrusted,
        MissingExtra,
        NotReady,
    )
    from accredit_client.federation import FederatedStatus, Federation
    from accredit_client.guard import Guard
    from accredit_client.http import TaskTokenAuth
    from accredit_client.identity import AgentIdentity
    from accredit_client.keeper import Status
    from accredit_client.renewal import State
    from accredit_client.revocations import AsyncRevocationFeed, RevocationFeed
    from accredit_client.tls import members_of
    from accredit_client.trust import Trust
    from accredit_client.verify import UNCHECKED, TaskTokenVerifier, TokenRequest
    from accredit_client.wire import AsyncIssuer, Issuer, Timeouts

__all__ = [
    "UNCHECKED",
    "AgentIdentity",
    "AsyncAgentIdentity",
    "AsyncIssuer",
    "AsyncRevocationFeed",
    "Call",
    "ClientError",
    "Closed",
    "FederatedStatus",
    "Federation",
    "Guard",
    "IdentityExpired",
    "IdentityRefused",
    "InvalidAnswer",
    "InvalidEndpoint",
    "InvalidFolder",
    "InvalidPeer",
    "InvalidTrust",
    "Issuer",
    "IssuerRefused",
    "IssuerUnreachable",
    "IssuerUntrusted",
    "JwtAnswer",
    "MissingExtra",
    "NotReady",
    "Open",
    "RevocationFeed",
    "Rule",
    "State",
    "Status",
    "TaskTokenAnswer",
    "TaskTokenAuth",
    "TaskTokenMiddleware",
    "TaskTokenRequest",
    "TaskTokenVerifier",
    "Timeouts",
    "TokenRequest",
    "Trust",
    "X509Answer",
    "members_of",
]

_MODULES = {
    "answers": ("JwtAnswer", "TaskTokenAnswer", "X509Answer"),
    "asgi": ("Open", "Rule", "TaskTokenMiddleware"),
    "async_identity": ("AsyncAgentIdentity",),
    "call": ("Call",),
    "calls": ("TaskTokenRequest",),
    "errors": (
        "ClientError",
        "Closed",
        "IdentityExpired",
        "IdentityRefused",
        "InvalidAnswer",
        "InvalidEndpoint",
        "InvalidFolder",
        "InvalidPeer",
        "InvalidTrust",
        "IssuerRefused",
        "IssuerUnreachable",
        "IssuerUntrusted",
        "MissingExtra",
        "NotReady",
    ),
    "federation": ("FederatedStatus", "Federation"),
    "guard": ("Guard",),
    "http": ("TaskTokenAuth",),
    "identity": ("AgentIdentity",),
    "keeper": ("Status",),
    "renewal": ("State",),
    "revocations": ("AsyncRevocationFeed", "RevocationFeed"),
    "tls": ("members_of",),
    "trust": ("Trust",),
    "verify": ("UNCHECKED", "TaskTokenVerifier", "TokenRequest"),
    "wire": ("AsyncIssuer", "Issuer", "Timeouts"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
