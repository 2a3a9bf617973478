"""How a call ends that does not succeed: each of our errors as a gRPC status, in one place.

Workload Endpoint §6 and Appendix A: Unavailable while nothing can be known, PermissionDenied for
who has no identity, InvalidArgument for a request that nobody could answer, Unimplemented for what
is not served. No call that was broken off ends with OK.
"""

import logging

from grpclib import GRPCError, Status

from accredit_client.daemon.provider import NotYet, Refused
from accredit_client.errors import IssuerRefused, IssuerUnreachable, NotReady
from accredit_credentials.errors import CredentialError

log = logging.getLogger(__name__)

MAX_MESSAGE = 500
STOPPING = "the daemon stops: connect again"


def invalid(text: str) -> GRPCError:
    """The request is wrong, whoever asks."""
    return GRPCError(Status.INVALID_ARGUMENT, text[:MAX_MESSAGE])


def denied(text: str) -> GRPCError:
    """The caller may not have it."""
    return GRPCError(Status.PERMISSION_DENIED, text[:MAX_MESSAGE])


def unavailable(text: str) -> GRPCError:
    """Not now."""
    return GRPCError(Status.UNAVAILABLE, text[:MAX_MESSAGE])


def unimplemented(text: str) -> GRPCError:
    """Not here."""
    return GRPCError(Status.UNIMPLEMENTED, text[:MAX_MESSAGE])


def status_of(error: Exception) -> GRPCError:
    """What a caller is told of an error. What was not foreseen is logged, and told as nothing."""
    match error:
        case GRPCError():
            found = error
        case IssuerRefused() if not error.for_now:
            found = denied(str(error))
        case Refused():
            found = denied(str(error))
        case NotYet() | IssuerUnreachable() | IssuerRefused() | NotReady():
            found = unavailable(str(error))
        case TimeoutError():
            found = unavailable("no answer in time")
        case CredentialError():
            found = invalid(str(error))
        case _:
            log.error("a call failed", exc_info=error)
            found = GRPCError(Status.INTERNAL, "the daemon failed; its log says why")
    return found
