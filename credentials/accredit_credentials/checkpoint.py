"""The log's word about itself: a signed statement of its size and root.

Decides whether a note is a checkpoint of the expected log, signed by a key that we trust
(``verify``), and writes one (``sign``). Does not decide whether it is newer than, or consistent
with, another: that is ``merkle.verify_consistency``.

A note is C2SP signed-note, its text C2SP tlog-checkpoint, a key's text form the "vkey" of the same
family, so that ``sumdb/note``, witnesses and monitors read them as they are. Nothing of the text is
looked at before a trusted signature over it was verified.
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from accredit_credentials.errors import InvalidCheckpoint, InvalidKey
from accredit_credentials.merkle import EMPTY_ROOT, HASH_BYTES, MAX_TREE_SIZE

MAX_NOTE_BYTES = 128 * 1024  # room for the 16 post-quantum signatures that must be accepted
MAX_SIGNATURES = 64
MAX_NAME_BYTES = 255

_ED25519 = b"\x01"  # C2SP signed-note, "Signature types"
_KEY_ID_BYTES = 4
_PUBLIC_KEY_BYTES = 32
_CONTROL = re.compile(r"[\x00-\x1f]")
_SIZE = re.compile(r"[0-9]{1,19}", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class LogKey:
    """A log's public key under the name that its signatures carry (C2SP signed-note).

    Raises:
        InvalidKey: the name is empty, too long, or has a space, a plus or a control character.
    """

    name: str
    public_key: Ed25519PublicKey = field(hash=False)  # has no hash of its own: ``key_id`` stands in
    key_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        if (
            _utf8_length(self.name) not in range(1, MAX_NAME_BYTES + 1)
            or "+" in self.name
            or any(character.isspace() for character in self.name)
            or _CONTROL.search(self.name)
        ):
            raise InvalidKey(
                f"key name {self.name[:80]!r} must be 1 to {MAX_NAME_BYTES} bytes "
                "without space, '+' and control characters"
            )
        digest = hashlib.sha256(self.name.encode() + b"\n" + self._material())
        object.__setattr__(self, "key_id", digest.digest()[:_KEY_ID_BYTES])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``<name>+<key id in hex>+<base64 of 0x01 and the key>``.

        Raises:
            InvalidKey: another form or kind of key, or an ID that is not this key's.
        """
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        material = _base64_decoded(encoded)
        if not _KEY_ID.fullmatch(key_id) or material is None:
            raise InvalidKey("log key must have the form name+id+key, id in hex and key in base64")
        if material[:1] != _ED25519 or len(material) != len(_ED25519) + _PUBLIC_KEY_BYTES:
            raise InvalidKey("log key must be an Ed25519 key (type 0x01)")
        key = cls(name, Ed25519PublicKey.from_public_bytes(material[len(_ED25519) :]))
        if key.key_id.hex() != key_id:
            raise InvalidKey(f"log key ID {key_id} does not belong to this name and key")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_base64(self._material())}"

    def _material(self) -> bytes:
        return _ED25519 + self.public_key.public_bytes_raw()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size and root of the log ``origin`` at one moment (C2SP tlog-checkpoint, "Note text").

    Raises:
        InvalidCheckpoint: an origin, size or root that no checkpoint can have.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if _utf8_length(self.origin) not in range(1, MAX_NAME_BYTES + 1) or _CONTROL.search(
            self.origin
        ):
            raise InvalidCheckpoint(
                f"origin {self.origin[:80]!r} must be 1 to {MAX_NAME_BYTES} bytes "
                "without control characters"
            )
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise InvalidCheckpoint(f"tree size must be 0 to {MAX_TREE_SIZE}")
        if len(self.root) != HASH_BYTES:
            raise InvalidCheckpoint(f"root hash has {len(self.root)} bytes, expected {HASH_BYTES}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise InvalidCheckpoint("the root of size 0 is not the root of the empty tree")

    @classmethod
    def parse(cls, body: str) -> Self:
        """Parse a note's text, in its one spelling and without extension lines.

        Our log writes no extension lines, and a line that no monitor can audit is better refused
        than ignored (C2SP tlog-checkpoint advises against them).

        Raises:
            InvalidCheckpoint: not what ``body`` would write.
        """
        match body.split("\n"):
            case (origin, size, root, "") if _SIZE.fullmatch(size):
                checkpoint = cls(origin, int(size), _base64_decoded(root) or b"")
            case _:
                raise InvalidCheckpoint("checkpoint must be the lines origin, size and root hash")
        if checkpoint.body() != body:
            raise InvalidCheckpoint(f"tree size {size} must not have leading zeros")
        return checkpoint

    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"


def sign(checkpoint: Checkpoint, name: str, private_key: Ed25519PrivateKey) -> str:
    """Write the checkpoint as a note with one Ed25519 signature (C2SP signed-note, "Format").

    Raises:
        InvalidKey: the name cannot be a key's name.
    """
    key = LogKey(name, private_key.public_key())
    body = checkpoint.body()
    signature = private_key.sign(body.encode())
    return f"{body}\n\N{EM DASH} {key.name} {_base64(key.key_id + signature)}\n"


def verify(text: str, *, origin: str, keys: Sequence[LogKey]) -> Checkpoint:
    """Read the checkpoint of log ``origin`` out of a note that one of ``keys`` signed.

    Signatures of unknown keys are ignored: witnesses and next keys sign too. A bad signature of a
    known key refuses the whole note (C2SP signed-note, "Signatures").

    Raises:
        InvalidCheckpoint: not a note, nobody trusted signed it, or not a checkpoint of this log.
    """
    if not 1 <= _utf8_length(text) <= MAX_NOTE_BYTES:
        raise InvalidCheckpoint(f"note must be UTF-8 of 1 to {MAX_NOTE_BYTES} bytes")
    if _CONTROL.search(text.replace("\n", "")):
        raise InvalidCheckpoint("note must not have control characters other than newline")
    body, blank, signatures = text.rpartition("\n\n")
    if not blank or not body:
        raise InvalidCheckpoint("note must have a text, an empty line and signatures")
    body += "\n"
    if not _is_signed(body, signatures, keys):
        raise InvalidCheckpoint(f"no trusted key signed the checkpoint of {origin[:80]!r}")
    checkpoint = Checkpoint.parse(body)
    if checkpoint.origin != origin:
        raise InvalidCheckpoint(
            f"checkpoint is of log {checkpoint.origin!r}, expected {origin[:80]!r}"
        )
    return checkpoint


def _is_signed(body: str, signatures: str, keys: Sequence[LogKey]) -> bool:
    """Whether a trusted key signed ``body``; a bad signature of a trusted key is an error."""
    signed = False
    for name, key_id, signature in _parse_signatures(signatures):
        for key in keys:
            if (key.name, key.key_id) != (name, key_id):
                continue
            try:
                key.public_key.verify(signature, body.encode())
            except InvalidSignature as error:
                raise InvalidCheckpoint(f"the signature of key {name!r} is wrong") from error
            signed = True
    return signed


def _parse_signatures(text: str) -> Iterator[tuple[str, bytes, bytes]]:
    """The key name, key ID and signature of each line (C2SP signed-note, "Format")."""
    *lines, end = text.split("\n")
    if end or not 1 <= len(lines) <= MAX_SIGNATURES:
        raise InvalidCheckpoint(
            f"note must have 1 to {MAX_SIGNATURES} signatures and end with a newline"
        )
    for line in lines:
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        value = _base64_decoded(encoded)
        if dash != "\N{EM DASH}" or not name or value is None or len(value) <= _KEY_ID_BYTES:
            raise InvalidCheckpoint("a signature must be a dash, a key name and base64")
        yield name, value[:_KEY_ID_BYTES], value[_KEY_ID_BYTES:]


def _utf8_length(text: str) -> int:
    """The text's length in UTF-8, 0 if it has none: a lone surrogate cannot be written."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return 0


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _base64_decoded(text: str) -> bytes | None:
    """Decode standard base64 in its one canonical form (RFC 4648 §3.5, §4), or return ``None``."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if _base64(data) == text else None
