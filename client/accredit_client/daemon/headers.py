"""The one header of the Workload Endpoint, and whether a request has it (§3, §6).

It shows that the request was made by who speaks this protocol: a proxy or a fetcher of URLs that
was talked into reaching the socket cannot set it.
"""

from collections.abc import Sequence

SECURITY_HEADER = "workload.spiffe.io"


def fault_of(values: Sequence[str | bytes]) -> str | None:
    """Why a request with these values of the header is refused; None where it is not."""
    match list(values):
        case []:
            return f"metadata must have {SECURITY_HEADER}: true"
        case ["true"]:
            return None
        case [_]:
            return f"metadata {SECURITY_HEADER} must be true, in lower case"
    return f"metadata must have {SECURITY_HEADER} once"
