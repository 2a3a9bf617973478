"""The sample agent: reads the tickets of a server over mutual TLS, with a token for this task.

Started by ``accredit run``, it finds its identity by itself and holds no secret of its own:

    accredit run --url … --trust … --manifest agent.manifest.json --code-root . \
      --join-token-file … -- python main.py https://localhost:9443

Prints one JSON object a line: what it is, what it read, and when it was refused.
"""

import json
import signal
import sys
import threading
import time
from typing import Any

import httpx2
from summarize import one_line

from accredit_client import AgentIdentity, TaskTokenAuth
from accredit_client.errors import ClientError
from accredit_credentials.errors import CredentialError

SERVER_ID = "spiffe://example.org/ns/support/agent/ticket-server"
PAUSE = 0.02  # seconds between two looks at the tickets


def main(base_url: str) -> None:
    """Read the tickets again and again, until refused or told to stop."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with AgentIdentity.discover() as identity:
        svid = identity.x509.svid
        say("identity", spiffe_id=str(svid.spiffe_id), instance=svid.instance)
        jwt = identity.fetch_jwt_svid("https://models.example.org")
        say("jwt_svid", jti=jwt.jti)
        identity.on_renewal(lambda new: say("renewed", serial=new.svid.serial))
        auth = TaskTokenAuth(
            identity, resource="tickets", actions=["read"], purpose="summarise the open tickets"
        )
        with httpx2.Client(
            base_url=base_url,
            transport=identity.transport(peer=SERVER_ID),
            auth=auth,
            event_hooks={"response": [say_if_refused]},
        ) as client:
            summaries = summarise(client)
            for summary in summaries:
                say("summary", text=summary)
            while summaries:
                told_to_stop = stopping.wait(PAUSE)
                summaries = summarise(client)  # once more after SIGTERM: the work at hand is ended
                if told_to_stop:
                    return


def summarise(client: httpx2.Client) -> list[str]:
    """One line a ticket; none where somebody said no."""
    try:
        response = client.get("/tickets")
    except (ClientError, CredentialError, httpx2.HTTPError) as error:
        say("over", why=str(error))
        return []
    if response.status_code != httpx2.codes.OK:
        return []
    return [one_line(ticket["subject"], ticket["body"]) for ticket in response.json()]


def say_if_refused(response: httpx2.Response) -> None:
    """The server's no, as soon as it comes."""
    if response.status_code != httpx2.codes.OK:
        response.read()
        say("refused", status=response.status_code, why=response.json()["detail"])


def say(event: str, **details: Any) -> None:
    """One line for whoever watches."""
    print(json.dumps({"event": event, "at": time.time(), **details}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
