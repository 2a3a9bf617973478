"""Agents that attest at a real issuer for themselves, and the server that some of them are."""

from pathlib import Path
from typing import Any

from support.issuer import (
    AGENT_TOML,
    Admin,
    RunningIssuer,
    join_token_file,
    register,
    write_agent,
)

from accredit_attestors.manifest import generate_signer_key
from accredit_client.asgi import Rule, TaskTokenMiddleware
from accredit_client.guard import Guard
from accredit_client.identity import AgentIdentity
from accredit_client.trust import Trust
from accredit_client.verify import TaskTokenVerifier
from accredit_issuer.clock import system_clock

AUDIENCE = "https://tickets.example.org"
PATIENCE = 60.0  # seconds; nothing takes as long unless something is broken


def start_agent(
    running: RunningIssuer, admin: Admin, folder: Path, name: str, **options: Any
) -> AgentIdentity:
    """An agent of the namespace ``support`` with a signer of its own, as in production.

    Its jitter alone is taken away. Whoever starts it closes it.
    """
    toml = AGENT_TOML.replace('"support/summarizer"', f'"support/{name}"', 1)
    agent = write_agent(folder / name, key=generate_signer_key(), now=system_clock(), toml=toml)
    register(running, admin, agent, signer=f"ci-{name}")
    identity = AgentIdentity(
        issuer_url=running.url,
        trust=Trust.from_bundle(running.bundle),
        manifest_file=agent.manifest_file,
        code_root=agent.root,
        join_token_file=join_token_file(admin, agent),
        revocations=True,
        draw=lambda: 0.0,
        **options,
    ).start()
    assert identity.feed is not None
    identity.feed.wait_fresh(PATIENCE)
    return identity


def ticket_server(running: RunningIssuer, identity: AgentIdentity) -> TaskTokenMiddleware:
    """Tickets that are read and commented on; there are none."""
    assert identity.facts is not None
    verifier = TaskTokenVerifier(
        audience=AUDIENCE,
        issuer=running.issuer.config.url,
        bundle=lambda: identity.bundle,
        facts=identity.facts,
        federation=identity.federation,
    )
    return TaskTokenMiddleware(
        _no_tickets,
        Guard(verifier, public_url=AUDIENCE, refetch=identity.refetch_bundle),
        rules=[
            Rule("GET", "/tickets", resource="tickets", action="read"),
            Rule("POST", "/tickets", resource="tickets", action="comment"),
        ],
    )


async def _no_tickets(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
