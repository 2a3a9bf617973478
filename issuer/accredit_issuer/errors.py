"""What the issuer says no with: a closed set of kinds, mapped to HTTP in ``api.problems``.

IssuerError
├── Refusal            a decision: this request gets no, for this reason
├── Unavailable        cannot record or sign now; nothing was released
└── InvalidSettings    the configuration cannot hold
"""

from enum import Enum


class Kind(Enum):
    """The kinds of refusal: name on the wire, HTTP status, title."""

    MALFORMED = ("malformed", 400, "a value is wrong")
    TOO_LARGE = ("too-large", 413, "the body is too large")
    UNSUPPORTED_MEDIA_TYPE = ("unsupported-media-type", 415, "the body is of another type")
    UNAUTHENTICATED = ("unauthenticated", 401, "no accepted SVID")
    FORBIDDEN = ("forbidden", 403, "not allowed for this caller")
    ATTESTATION_REFUSED = ("attestation-refused", 403, "the evidence does not prove it")
    NOT_DECLARED = ("not-declared", 403, "not declared in the manifest")
    APPROVAL_REQUIRED = ("approval-required", 403, "a human has to approve it")
    REVOKED = ("revoked", 403, "revoked or suspended")
    NOT_FOUND = ("not-found", 404, "no such thing")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "the path has no such method")
    CONFLICT = ("conflict", 409, "it exists already, or was used up")
    BUSY = ("busy", 429, "too much is waiting")
    INTERNAL = ("internal", 500, "our fault")
    NOT_IMPLEMENTED = ("not-implemented", 501, "not offered here")
    UNAVAILABLE = ("unavailable", 503, "cannot record or sign now")

    def __init__(self, wire: str, status: int, title: str) -> None:
        self.wire = wire
        self.status = status
        self.title = title


class IssuerError(Exception):
    """Root of all errors raised by ``accredit_issuer``."""


class Refusal(IssuerError):
    """A decision against a request. The text goes to the caller: no secret may be in it."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class Unavailable(IssuerError):
    """Nothing can be recorded or signed now, and so nothing was released."""


class InvalidSettings(IssuerError):
    """The configuration cannot hold; the text names the setting, its value and what is expected."""
