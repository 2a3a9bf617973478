"""Private keys that end with the process: for tests and issuers that are thrown away.

No setting chooses it: the database outlives the process, and an issuer that finds its authorities
without their keys cannot start again.
"""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from accredit_credentials.keys import generate_key
from accredit_issuer.keys.key_manager import (
    KeyExists,
    KeyManager,
    KeyMissing,
    ManagedKey,
    key_id_of,
)


class MemoryKeys(KeyManager):
    """Keys in a dictionary."""

    def __init__(self) -> None:
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._log_key: Ed25519PrivateKey | None = None

    def generate(self) -> ManagedKey:
        """Make a key."""
        key = generate_key()
        made = ManagedKey(key_id_of(key.public_key()), key)
        self._keys[made.id] = key
        return made

    def load(self, key_id: str) -> ec.EllipticCurvePrivateKey:
        """The key of an id."""
        try:
            return self._keys[key_id]
        except KeyError:
            raise KeyMissing(f"key {key_id[:40]} is not there") from None

    def remove(self, key_id: str) -> None:
        """Forget a key."""
        self._keys.pop(key_id, None)

    def generate_log_key(self) -> Ed25519PrivateKey:
        """Make the log's key."""
        if self._log_key is not None:
            raise KeyExists("the log has a key already")
        self._log_key = Ed25519PrivateKey.generate()
        return self._log_key

    def load_log_key(self) -> Ed25519PrivateKey:
        """The log's key."""
        if self._log_key is None:
            raise KeyMissing("the log's key is not there")
        return self._log_key

    def check(self) -> str:
        """Always within reach."""
        return "in memory, until the process ends"

    def close(self) -> None:
        """Nothing is held open."""
