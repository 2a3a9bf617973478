"""py-spiffe as a workload, in a process of its own, as any workload is: what it saw, as JSON."""

import json
import sys
import threading
from typing import Any

from spiffe import WorkloadApiClient

AUDIENCE = "https://tickets"


def say(**found: Any) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main(path: str) -> None:
    """Everything once, then the watcher until it saw two states."""
    with WorkloadApiClient(f"unix://{path}") as client:
        svids = client.fetch_x509_svids()
        tokens = client.fetch_jwt_svids({AUDIENCE})
        valid = client.validate_jwt_svid(tokens[0].token, AUDIENCE)
        x509, jwt = client.fetch_x509_bundles(), client.fetch_jwt_bundles()
        say(
            svids=[str(each.spiffe_id) for each in svids],
            tokens=[str(each.spiffe_id) for each in tokens],
            valid=str(valid.spiffe_id),
            x509=sorted(str(each.trust_domain) for each in x509.bundles),
            jwt=sorted(str(each.trust_domain) for each in jwt.bundles),
        )
        seen, enough = [], threading.Event()

        def changed(context: Any) -> None:
            seen.append([str(each.spiffe_id) for each in context.x509_svids])
            say(seen=seen[-1])
            if len(seen) > 1:
                enough.set()

        watching = client.stream_x509_contexts(changed, lambda error: say(error=repr(error)))
        enough.wait(20)
        watching.cancel()


main(sys.argv[1])
