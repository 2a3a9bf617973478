"""Every error of this package, as one tree.

    ClientError
    ├── IssuerUnreachable      nobody answered, in time and in full
    ├── IssuerUntrusted        somebody answered who is not the issuer of the trust domain
    ├── IssuerRefused          the issuer said no; ``kind`` says why (docs/api.md, Problems)
    ├── InvalidAnswer          the issuer's answer is not of the documented form
    ├── InvalidTrust           a file or a pin that trust cannot start from
    ├── InvalidFolder          an identity folder that is missing, unsafe or torn
    ├── InvalidEndpoint        an address of the node daemon's socket that is none
    ├── DaemonUnreachable      nobody serves at the address of the node daemon's socket
    ├── MissingExtra           packages of an extra are needed and not installed
    ├── InvalidPeer            nobody, or nonsense, where a peer has to be named
    ├── NotReady               used before its first success
    ├── Closed                 used after its end, or in a forked process
    ├── IdentityExpired        the SVID is over and could not be renewed
    ├── IdentityRefused        the issuer has taken the identity back
    ├── ProofRefused           a DPoP proof that does not prove this request
    │   └── Replayed           one that was used before
    ├── ReplayMemoryFull       no room to remember a proof: refused rather than forgotten
    ├── TooMuch                another trust domain's feed is larger than is looked at
    ├── CallerRefused          a process on the daemon's socket that cannot be told for sure
    │   ├── CallerGone         it has ended, or its connection has no process any more
    │   └── CallerChanged      it runs another program, or as somebody else, than at its connecting
    ├── InvalidSelector        not a selector that a process can have
    ├── CannotMeasure          code that could not be read just now, which says nothing about it
    ├── Writable               code that the agent itself could write, so that its measure is void
    ├── LaunchRefused          a process that the daemon does not start, or could not
    ├── daemon.provider.Refused         the calling process has no identity, or not any more
    ├── daemon.provider.NotYet          nothing can be said yet: ask again later
    └── daemon.socket_file.SocketRefused    the daemon cannot listen there

What ``accredit_credentials`` refuses keeps its own names (``Expired``, ``Revoked``, …). A message
says which value was wrong and what was expected; advice stands apart, in ``hint``. Neither carries
a token, a key or any other secret.
"""


class ClientError(Exception):
    """Root of all errors raised by ``accredit_client``."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class IssuerUnreachable(ClientError):
    """Nobody answered, in time and in full."""


class IssuerUntrusted(ClientError):
    """Somebody answered who is not the issuer of the trust domain."""


class IssuerRefused(ClientError):
    """The issuer said no.

    Attributes:
        kind: the last part of the problem's type, as ``not-declared``.
        detail: what was wrong, in the issuer's words.
        status: the HTTP status.
        retry_after: seconds after which to ask again, where the issuer said so.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        status: int,
        *,
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"the issuer refused ({kind}): {detail}", hint=hint)
        self.kind = kind
        self.detail = detail
        self.status = status
        self.retry_after = retry_after

    @property
    def for_good(self) -> bool:
        """Whether asking again with the same identity is pointless."""
        return self.kind in {"revoked", "forbidden"}

    @property
    def for_now(self) -> bool:
        """Whether the issuer could not, rather than would not."""
        return self.status >= 500 or self.kind == "busy"  # noqa: PLR2004 (RFC 9110 §15.6)


class InvalidAnswer(ClientError):
    """The issuer's answer is not of the documented form."""


class InvalidTrust(ClientError):
    """Trust cannot start from this file or pin."""


class InvalidFolder(ClientError):
    """The identity folder is missing, unsafe or torn."""


class InvalidEndpoint(ClientError):
    """It is no address of a Workload API that can be used here."""


class DaemonUnreachable(ClientError):
    """Nobody serves at the address of the node daemon's socket."""


class MissingExtra(ClientError):
    """The packages of an extra are needed, and not installed."""


class InvalidPeer(ClientError):
    """Nobody, or nonsense, stands where a peer has to be named."""


class NotReady(ClientError):
    """It was used before its first success."""


class Closed(ClientError):
    """It was used after its end, or in a process forked from its own."""


class IdentityExpired(ClientError):
    """The SVID is over and could not be renewed."""


class IdentityRefused(ClientError):
    """The issuer has taken the identity back."""


class ProofRefused(ClientError):
    """The DPoP proof does not prove this request."""


class Replayed(ProofRefused):
    """The DPoP proof was used before."""


class ReplayMemoryFull(ClientError):
    """No room is left to remember a proof."""


class TooMuch(ClientError):
    """A trust domain sent more of its revocation feed than is looked at."""


class CallerRefused(ClientError):
    """The process on the daemon's socket cannot be told for sure."""


class CallerGone(CallerRefused):
    """The process has ended, or the connection has no process any more."""


class CallerChanged(CallerRefused):
    """The process runs another program, or as somebody else, than when it connected."""


class InvalidSelector(ClientError):
    """The text is not a selector that a process can have."""


class CannotMeasure(ClientError):
    """The code could not be read just now: nothing is known of it, and it is tried again."""


class Writable(ClientError):
    """The agent itself could write the code that is measured."""


class LaunchRefused(ClientError):
    """The daemon does not start the process, or could not."""
