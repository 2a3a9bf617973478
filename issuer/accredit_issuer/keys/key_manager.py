"""What the issuer asks of whoever keeps its private keys.

An authority's key is a P-256 key, known by its id: the subject key identifier of its public part,
in hexadecimal. The log has one Ed25519 key (C2SP checkpoints are signed with nothing else), found
without an id. Making is explicit and never overwrites; loading a key that is missing is an error,
not an occasion to make a new one.

A key is whatever signs like one of cryptography's: its own objects where the key is in the process,
a subclass where it is not. The certificate and CRL builders, the tokens and the log take both.

KeyMissing and KeyExists are about one key; ``Unavailable`` is about all of them: nothing can be
signed now, and it may be later.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from accredit_issuer.errors import IssuerError

_KEY_ID = re.compile(r"[0-9a-f]{40}")


class KeyMissing(IssuerError):
    """A key that should be kept is not, or cannot be opened."""


class KeyExists(IssuerError):
    """There is a key of this name already; it was left as it is."""


@dataclass(frozen=True, slots=True)
class ManagedKey:
    """A P-256 key that is kept, and the id that it is found by."""

    id: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)


class KeyManager(ABC):
    """Keeps private keys. May be used by several threads at once."""

    @abstractmethod
    def generate(self) -> ManagedKey:
        """Make a P-256 key; it is kept durably before this returns.

        Raises:
            Unavailable: it cannot be kept now.
        """

    @abstractmethod
    def load(self, key_id: str) -> ec.EllipticCurvePrivateKey:
        """The key of an id.

        Raises:
            KeyMissing: not there, not to be opened, or not the key that the id says.
            Unavailable: nobody can be asked now.
        """

    @abstractmethod
    def remove(self, key_id: str) -> None:
        """Destroy a key that nothing will sign with again; one that is not there is no error.

        Raises:
            Unavailable: nobody can be asked now.
        """

    @abstractmethod
    def generate_log_key(self) -> Ed25519PrivateKey:
        """Make the log's key; it is kept durably before this returns.

        Raises:
            KeyExists: there is one.
            Unavailable: it cannot be kept now.
        """

    @abstractmethod
    def load_log_key(self) -> Ed25519PrivateKey:
        """The log's key.

        Raises:
            KeyMissing: not there, not to be opened, or of another kind.
            Unavailable: nobody can be asked now.
        """

    @abstractmethod
    def check(self) -> str:
        """Where the keys are and how they are kept, in a few words, once they can be reached.

        Raises:
            Unavailable: they cannot be reached now.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held open. Keys that were handed out may not sign afterwards."""


def key_id_of(key: ec.EllipticCurvePublicKey) -> str:
    """The id of a key: its subject key identifier (RFC 5280 §4.2.1.2, method 1), 40 hex digits."""
    return x509.SubjectKeyIdentifier.from_public_key(key).digest.hex()


def is_key_id(text: str) -> bool:
    """Whether a text can be a key's id: nothing else may become a file's name or a search."""
    return _KEY_ID.fullmatch(text) is not None


def check_loaded(key: object, key_id: str) -> ec.EllipticCurvePrivateKey:
    """Decide whether what was found under an id is the key that the id says.

    Raises:
        KeyMissing: it is another.
    """
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or not isinstance(key.curve, ec.SECP256R1)
        or key_id_of(key.public_key()) != key_id
    ):
        raise KeyMissing(f"what is kept as key {key_id} is another key")
    return key
