"""The sample resource server: tickets, for agents whose task token allows it.

Mutual TLS with its own SVID; every request needs a token for ``tickets`` that is bound to the
client's certificate, within its scope, and against which nothing is known of the revocation feed.

    accredit run --url … --trust … --manifest agent.manifest.json --code-root . \
      --join-token-file … -- python main.py https://localhost:8443 9443
"""

import sys

from fastapi import FastAPI

from accredit_client import (
    AgentIdentity,
    Guard,
    Rule,
    TaskTokenMiddleware,
    TaskTokenVerifier,
    members_of,
)
from accredit_client.serving import serve

AUDIENCE = "https://tickets.example.org"
TICKETS = [
    {
        "id": 4711,
        "subject": "Invoice twice",
        "body": "The invoice of May came twice. I paid the first one. Please cancel the other.",
    },
    {
        "id": 4712,
        "subject": "Cannot log in",
        "body": "Since the update my password is refused. The reset mail never arrives.",
    },
]

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/tickets")
async def read() -> list[dict[str, object]]:
    """All tickets."""
    return TICKETS


def main(issuer_url: str, port: int) -> None:
    """Serve until told to stop."""
    with AgentIdentity.discover(revocations=True, issuer_url=issuer_url) as identity:
        verifier = TaskTokenVerifier(
            audience=AUDIENCE,
            issuer=issuer_url,
            bundle=lambda: identity.bundle,
            facts=identity.facts,
        )
        guarded = TaskTokenMiddleware(
            app,
            Guard(
                verifier,
                public_url=f"https://localhost:{port}",
                refetch=identity.refetch_bundle,
            ),
            rules=[Rule("GET", "/tickets", resource="tickets", action="read")],
        )
        peers = members_of(identity.bundle.trust_domain)
        serve(guarded, identity, host="127.0.0.1", port=port, peer=peers)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
