"""Every error of this package, as one tree.

    CredentialError
    ├── InvalidSpiffeId        the text is not a SPIFFE ID, or not one of ours
    ├── InvalidKey             a key of a kind, size or curve that is not accepted
    ├── InvalidCertificate     not an X.509-SVID, whoever signed it
    ├── InvalidToken           not a token of the expected form
    ├── InvalidBundle          not a trust bundle
    ├── InvalidFederation      not something that another trust domain can be allowed or asked
    ├── InvalidCheckpoint      not a signed checkpoint of the expected log
    ├── InvalidProof           a Merkle proof that does not prove what was claimed
    ├── InvalidRevocation      not a revocation fact, or not a statement of facts
    ├── InvalidStatusList      not a Token Status List, or an index that is not in it
    └── Refused                well formed, and refused here and now
        ├── Untrusted          no authority of the trust domain vouches for it
        │   └── UnknownAuthority   it names a key that the bundle has not, or not yet
        ├── Expired            its time is over, or not yet come
        ├── WrongAudience      made for somebody else
        ├── WrongHolder        presented by another key than the one it is bound to
        ├── NotGranted         does not carry the action or resource that was asked
        ├── Revoked            a revocation fact matches
        └── Stale              what is known of revocation is too old to say yes

A message says which value was wrong and what was expected. It never carries a token, a key or
any other secret: messages end in logs and in error bodies.
"""


class CredentialError(Exception):
    """Root of all errors raised by ``accredit_credentials``."""


class InvalidSpiffeId(CredentialError):
    """The text is not a SPIFFE ID, or not of the form that was asked for."""


class InvalidKey(CredentialError):
    """The key's kind, size or curve is not accepted."""


class InvalidCertificate(CredentialError):
    """The certificate is not an X.509-SVID (SPIFFE X509-SVID §2 to §5)."""


class InvalidToken(CredentialError):
    """The token is not of the expected form."""


class InvalidBundle(CredentialError):
    """The document is not a SPIFFE trust bundle."""


class InvalidFederation(CredentialError):
    """Not an allowance, or not the address of another trust domain."""


class InvalidCheckpoint(CredentialError):
    """The note is not a checkpoint of the expected log, or nobody trusted signed it."""


class InvalidProof(CredentialError):
    """The Merkle proof does not lead to the expected root."""


class InvalidRevocation(CredentialError):
    """The value is not a revocation fact or statement."""


class InvalidStatusList(CredentialError):
    """The token is not a Token Status List, or the list has no such index."""


class Refused(CredentialError):
    """The credential is well formed, and refused here and now."""


class Untrusted(Refused):
    """No authority of the trust domain vouches for it."""


class UnknownAuthority(Untrusted):
    """It names a key that is not in the bundle: a newer bundle may have it."""


class Expired(Refused):
    """Its time is over, or has not come yet."""


class WrongAudience(Refused):
    """It was made for somebody else."""


class WrongHolder(Refused):
    """It was presented by another key than the one it is bound to."""


class NotGranted(Refused):
    """It does not carry the action or the resource that was asked for."""


class Revoked(Refused):
    """A revocation fact matches it."""


class Stale(Refused):
    """What is known about revocation is older than the stated limit."""
