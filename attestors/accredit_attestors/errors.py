"""Every error of this package, as one tree.

    AttestationError
    ├── InvalidLevel           no assurance or risk has this name
    ├── InvalidSigner          a signer's name, key or namespaces are not acceptable
    ├── InvalidManifest        not an agent manifest, whoever signed it
    │   └── InvalidEnvelope    not a DSSE envelope
    ├── InvalidAgentFile       the author's agent.toml says something it must not
    ├── InvalidTree            a tree of files that must not or cannot be measured
    │   └── Unmeasured         nothing was found out: whoever measures could not read it just now
    ├── InvalidEvidence        not evidence of the expected kind and form
    ├── InvalidPlugin          an installed attestor that cannot be used
    ├── CannotCollect          the claimant's own file is missing, unreadable or unsafe
    └── NotAttested            well formed, and refused here and now
        ├── WrongNonce         made for another attempt than this one
        ├── UntrustedSigner    nobody who may speak for the agent's namespace has signed
        ├── ManifestExpired    its time is over, or not yet come
        ├── ManifestRequired   says nothing without a verified manifest beside it
        ├── CodeMismatch       what runs is not what the manifest declares
        ├── JoinTokenRefused   unknown, expired, or meant for another agent or node
        ├── PossessionRefused  the key that was to be shown did not sign
        ├── FormerSvidRefused  an SVID that was never issued
        ├── CertificateRefused a site's certificate that does not stand for this node
        └── AssuranceTooLow    proved, but not by anyone trusted enough

A message says which value was wrong and what was expected. Advice stands apart, in ``hint``.
Neither ever carries a token, a key or any other secret: both end in logs and in error bodies.
"""

_SHOWN = 80


class AttestationError(Exception):
    """Root of all errors raised by ``accredit_attestors``."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidLevel(AttestationError):
    """No assurance or risk has this name."""


class InvalidSigner(AttestationError):
    """The signer's name, key or namespaces are not acceptable."""


class InvalidManifest(AttestationError):
    """The value is not an agent manifest, whoever signed it."""


class InvalidEnvelope(InvalidManifest):
    """The bytes are not a DSSE envelope of the accepted form."""


class InvalidAgentFile(AttestationError):
    """The author's ``agent.toml`` says something it must not."""


class InvalidTree(AttestationError):
    """The tree of files must not or cannot be measured."""


class Unmeasured(InvalidTree):
    """Nothing was found out about the tree: it could not be read just now, or changed meanwhile."""


class InvalidEvidence(AttestationError):
    """The value is not evidence of the expected kind and form."""


class InvalidPlugin(AttestationError):
    """An installed attestor cannot be used."""


class CannotCollect(AttestationError):
    """The claimant's own file is missing, unreadable or unsafe."""


class NotAttested(AttestationError):
    """The evidence is well formed, and refused here and now."""


class WrongNonce(NotAttested):
    """It was made for another attempt than this one."""


class UntrustedSigner(NotAttested):
    """Nobody who may speak for the agent's namespace has signed the manifest."""


class ManifestExpired(NotAttested):
    """The manifest's time is over, or has not come yet."""


class ManifestRequired(NotAttested):
    """The evidence says nothing without a verified manifest beside it."""


class CodeMismatch(NotAttested):
    """What was measured is not what the manifest declares."""


class JoinTokenRefused(NotAttested):
    """The join token is unknown, expired, or meant for another agent or node."""


class PossessionRefused(NotAttested):
    """The key that was to be shown did not sign this challenge."""


class FormerSvidRefused(NotAttested):
    """The SVID is none that was ever issued."""


class CertificateRefused(NotAttested):
    """The site's certificate does not hold here and now, or is not the one that was named."""


class AssuranceTooLow(NotAttested):
    """It was proved, but not by anyone trusted enough."""


def shown(text: str) -> str:
    """The text as it may stand in a message: escaped, and short."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
