"""Signed checkpoints: real ones, our own, and every neighbour that must be refused."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from accredit_credentials.checkpoint import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Checkpoint,
    LogKey,
    sign,
    verify,
)
from accredit_credentials.errors import InvalidCheckpoint, InvalidKey
from accredit_credentials.merkle import EMPTY_ROOT, MAX_TREE_SIZE

# Go's checksum database: its key in cmd/go, and a checkpoint that it served on 2024-09-23.
GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_ORIGIN = "go.sum database tree"
GO_NOTE = """\
go.sum database tree
30055305
mXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=

— sum.golang.org Az3grpgEild5qw7+5dtV13Kf1C2Xurm8q4fhdxvcsDHnqNTaxL2AFjBY+2TyGKevucFcAAlWFJJYle3EJlDCrQ+y3A8=
"""  # noqa: E501
# The signer of golang.org/x/mod/sumdb/note's own tests: vkey, seed, and the signature of its text.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]

ORIGIN = "log.accredit.example/td"
ROOT = hashlib.sha256(b"root").digest()
CHECKPOINT = Checkpoint(ORIGIN, 42, ROOT)
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = LogKey(ORIGIN, PRIVATE.public_key())
OTHER_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER_KEY = LogKey("witness.example/w", OTHER_PRIVATE.public_key())


def signature_line(name: str, key_id: bytes, signature: bytes) -> str:
    """One signature line of a note."""
    return f"— {name} {base64.b64encode(key_id + signature).decode()}\n"


def signed(body: str) -> str:
    """Any text, signed by the log's key: what a log with our key could say."""
    return f"{body}\n{signature_line(KEY.name, KEY.key_id, PRIVATE.sign(body.encode()))}"


def test_a_real_checkpoint_of_another_log_verifies() -> None:
    """What Go's checksum database signed, we read."""
    checkpoint = verify(GO_NOTE, origin=GO_ORIGIN, keys=[LogKey.parse(GO_KEY)])
    assert checkpoint.size == 30_055_305
    assert checkpoint.body() == GO_NOTE.partition("\n\n")[0] + "\n"


def test_a_key_is_written_as_other_tools_write_it() -> None:
    """The key of sumdb/note's tests has the same text, name and ID here."""
    key = LogKey("PeterNeumann", Ed25519PrivateKey.from_private_bytes(PETER_SEED).public_key())
    assert str(key) == PETER
    assert LogKey.parse(PETER) == key
    assert hash(LogKey.parse(PETER)) == hash(key)
    assert key.key_id.hex() == "c74f20a3"


def test_what_we_sign_verifies() -> None:
    """A checkpoint survives signing and verifying, and the note has the standard's form."""
    note = sign(CHECKPOINT, ORIGIN, PRIVATE)
    assert note.startswith(f"{ORIGIN}\n42\n{base64.b64encode(ROOT).decode()}\n\n— {ORIGIN} ")
    assert note.endswith("=\n")
    assert verify(note, origin=ORIGIN, keys=[KEY]) == CHECKPOINT


@given(st.integers(1, MAX_TREE_SIZE), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_round_trips(size: int, root: bytes) -> None:
    """Any size and root come back as they were signed."""
    checkpoint = Checkpoint(ORIGIN, size, root)
    note = sign(checkpoint, ORIGIN, PRIVATE)
    assert verify(note, origin=ORIGIN, keys=[KEY]) == checkpoint


def test_an_empty_log_has_a_checkpoint() -> None:
    """Size 0 is written as 0, with the root of the empty tree."""
    checkpoint = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    note = sign(checkpoint, ORIGIN, PRIVATE)
    assert verify(note, origin=ORIGIN, keys=[KEY]) == checkpoint


def test_unknown_signatures_are_ignored() -> None:
    """Witnesses, other kinds of keys and impostors by name or by ID alone change nothing."""
    body = CHECKPOINT.body()
    note = sign(CHECKPOINT, ORIGIN, PRIVATE)
    for line in [
        signature_line("witness.example", b"\x00\x00\x00\x04", bytes(72)),
        signature_line("post-quantum.example", b"\x00\x00\x00\x06", bytes(5_000)),
        signature_line(ORIGIN, b"\x00\x00\x00\x00", bytes(64)),
        signature_line("impostor.example", KEY.key_id, bytes(64)),
        signature_line(OTHER_KEY.name, OTHER_KEY.key_id, OTHER_PRIVATE.sign(body.encode())),
    ]:
        assert verify(note + line, origin=ORIGIN, keys=[KEY]) == CHECKPOINT
        first, _, last = note.rpartition("\n\n")
        assert verify(f"{first}\n\n{line}{last}", origin=ORIGIN, keys=[KEY]) == CHECKPOINT


def test_sixteen_post_quantum_signatures_are_accepted() -> None:
    """As many and as large signatures as the standard demands fit into the limits."""
    note = sign(CHECKPOINT, ORIGIN, PRIVATE)
    for number in range(15):
        note += signature_line(f"{number}".zfill(255), bytes(4), bytes(5_000))
    assert verify(note, origin=ORIGIN, keys=[KEY]) == CHECKPOINT


def test_one_trusted_signature_of_several_keys_is_enough() -> None:
    """While keys rotate, a note signed by either one verifies."""
    keys = [OTHER_KEY, KEY]
    for name, private in [(ORIGIN, PRIVATE), (OTHER_KEY.name, OTHER_PRIVATE)]:
        note = sign(CHECKPOINT, name, private)
        assert verify(note, origin=ORIGIN, keys=keys) == CHECKPOINT


def test_a_bad_signature_of_a_trusted_key_refuses_the_note() -> None:
    """A good signature beside it does not heal a bad one."""
    note = sign(CHECKPOINT, ORIGIN, PRIVATE)
    line = signature_line(OTHER_KEY.name, OTHER_KEY.key_id, bytes(64))
    with pytest.raises(InvalidCheckpoint, match="is wrong"):
        verify(note + line, origin=ORIGIN, keys=[KEY, OTHER_KEY])


def test_nobody_trusted_means_refused() -> None:
    """No keys, other keys, and the same key under another name verify nothing."""
    note = sign(CHECKPOINT, ORIGIN, PRIVATE)
    for keys in ([], [OTHER_KEY], [LogKey("log.accredit.example", PRIVATE.public_key())]):
        with pytest.raises(InvalidCheckpoint, match="no trusted key"):
            verify(note, origin=ORIGIN, keys=keys)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """A trusted key that signs for two logs cannot pass one off as the other."""
    note = sign(Checkpoint("log.accredit.example/other", 42, ROOT), ORIGIN, PRIVATE)
    with pytest.raises(InvalidCheckpoint, match="expected"):
        verify(note, origin=ORIGIN, keys=[KEY])


def test_every_changed_byte_of_the_note_is_refused() -> None:
    """No byte of the text or of its only signature can change."""
    note = sign(CHECKPOINT, ORIGIN, PRIVATE)
    for at, character in enumerate(note):
        altered = note[:at] + chr(ord(character) ^ 1) + note[at + 1 :]
        with pytest.raises(InvalidCheckpoint):
            verify(altered, origin=ORIGIN, keys=[KEY])


B64_ROOT = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\n",
        f"{ORIGIN}\n42\n",
        f"{ORIGIN}\n42\n{B64_ROOT}",
        f"{ORIGIN}\n42\n{B64_ROOT}\n\n",
        f"{ORIGIN}\n42\n{B64_ROOT}\nextension\n",
        f"\n{ORIGIN}\n42\n{B64_ROOT}\n",
        f"\n42\n{B64_ROOT}\n",
        f"{ORIGIN}\r\n42\r\n{B64_ROOT}\r\n",
        f"{ORIGIN}\n042\n{B64_ROOT}\n",
        f"{ORIGIN}\n+42\n{B64_ROOT}\n",
        f"{ORIGIN}\n-42\n{B64_ROOT}\n",
        f"{ORIGIN}\n 42\n{B64_ROOT}\n",
        f"{ORIGIN}\n4_2\n{B64_ROOT}\n",
        f"{ORIGIN}\n0x2a\n{B64_ROOT}\n",
        f"{ORIGIN}\n٤٢\n{B64_ROOT}\n",  # Arabic-Indic digits, that int() would read
        f"{ORIGIN}\n\n{B64_ROOT}\n",
        f"{ORIGIN}\n0\n{B64_ROOT}\n",  # not the empty tree's root
        f"{ORIGIN}\n{MAX_TREE_SIZE + 1}\n{B64_ROOT}\n",
        f"{ORIGIN}\n{'9' * 5_000}\n{B64_ROOT}\n",
        f"{ORIGIN}\n42\n{B64_ROOT.rstrip('=')}\n",
        f"{ORIGIN}\n42\n{B64_ROOT}=\n",
        f"{ORIGIN}\n42\n {B64_ROOT}\n",
        f"{ORIGIN}\n42\n{B64_ROOT[:-2]}{chr(ord(B64_ROOT[-2]) + 1)}=\n",  # spare bits set
        f"{ORIGIN}\n42\n{base64.b64encode(ROOT[1:]).decode()}\n",
        f"{ORIGIN}\n42\n{base64.b64encode(ROOT + b'0').decode()}\n",
        f"{ORIGIN}\n42\n{ROOT.hex()}\n",
        f"{ORIGIN} \n42\n{B64_ROOT}\n",
        f"{ORIGIN}\x00\n42\n{B64_ROOT}\n",
        f"{ORIGIN}\t\n42\n{B64_ROOT}\n",
    ],
)
def test_a_signed_text_in_another_form_is_refused(body: str) -> None:
    """Even the log's own key cannot make us read a checkpoint in another spelling."""
    with pytest.raises(InvalidCheckpoint):
        verify(signed(body), origin=ORIGIN, keys=[KEY])


SIGNATURE = PRIVATE.sign(CHECKPOINT.body().encode())
LINE = signature_line(KEY.name, KEY.key_id, SIGNATURE)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        CHECKPOINT.body(),
        CHECKPOINT.body() + "\n",
        CHECKPOINT.body() + LINE,
        CHECKPOINT.body() + "\n" + LINE.rstrip("\n"),
        CHECKPOINT.body() + "\n" + LINE + "\n",
        CHECKPOINT.body() + "\n" + LINE + "trailing\n",
        CHECKPOINT.body() + "\n" + LINE.replace("—", "-"),
        CHECKPOINT.body() + "\n" + LINE.replace("—", "–"),  # noqa: RUF001 (an en dash)
        CHECKPOINT.body() + "\n" + LINE.replace("— ", "—"),
        CHECKPOINT.body() + "\n" + LINE.replace("— ", "—  "),
        CHECKPOINT.body() + "\n" + LINE.replace("— ", " — "),
        CHECKPOINT.body() + "\n" + LINE.replace("\n", " \n"),
        CHECKPOINT.body() + "\n" + LINE.replace("\n", "\r\n"),
        CHECKPOINT.body() + "\n" + LINE.replace("=\n", "\n"),
        CHECKPOINT.body() + "\n" + LINE + "— witness.example AAAA\n",
        CHECKPOINT.body() + "\n" + LINE + "— witness.example\n",
        CHECKPOINT.body() + "\n" + LINE + signature_line("", bytes(4), bytes(64)),
        CHECKPOINT.body() + "\n" + signature_line(KEY.name, KEY.key_id, SIGNATURE + b"\x00"),
        CHECKPOINT.body() + "\n" + signature_line(KEY.name, KEY.key_id, SIGNATURE[:-1]),
        CHECKPOINT.body() + "\n" + LINE + signature_line("w", bytes(4), b"1") * MAX_SIGNATURES,
        CHECKPOINT.body() + "\n" + LINE + signature_line("w", bytes(4), bytes(MAX_NOTE_BYTES)),
        CHECKPOINT.body() + "\n" + LINE + signature_line("\ud800", bytes(4), bytes(64)),
    ],
)
def test_a_note_in_another_form_is_refused(note: str) -> None:
    """A signature that is right does not excuse a note that is not."""
    with pytest.raises(InvalidCheckpoint):
        verify(note, origin=ORIGIN, keys=[KEY])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        PETER + "\n",
        PETER + "=",
        PETER.replace("+c74f20a3", "+C74F20A3"),
        PETER.replace("+c74f20a3", "+c74f20a4"),
        PETER.replace("+c74f20a3", ""),
        PETER.replace("PeterNeumann", "peterNeumann"),
        PETER.replace("PeterNeumann", ""),
        PETER.replace("+ARp", "+AhP"),
        PETER.replace("+ARp", "+BRp"),  # type 0x05
        PETER[:-4],
        PETER + "AAAA",
        PETER.replace("/", "_"),
        "PRIVATE+KEY+" + PETER,
    ],
)
def test_a_key_in_another_form_is_refused(text: str) -> None:
    """A key is read in its one spelling, with the ID that belongs to it, or not at all."""
    with pytest.raises(InvalidKey):
        LogKey.parse(text)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a+b", "a\n", "a\x00", "a\N{NO-BREAK SPACE}b", "é" * 128, "\ud800"],
)
def test_a_name_that_no_key_may_have_is_refused(name: str) -> None:
    """A name with spaces, a plus or a control character would break the note's form."""
    with pytest.raises(InvalidKey):
        LogKey(name, PRIVATE.public_key())
    with pytest.raises(InvalidKey):
        sign(CHECKPOINT, name, PRIVATE)


def test_the_longest_name_is_accepted() -> None:
    """255 bytes is a name, in any script."""
    key = LogKey("é" * 127 + "a", PRIVATE.public_key())
    assert LogKey.parse(str(key)) == key


@pytest.mark.parametrize(
    ("origin", "size", "root"),
    [
        ("", 1, ROOT),
        ("two\nlines", 1, ROOT),
        ("nul\x00", 1, ROOT),
        ("o" * 256, 1, ROOT),
        ("\ud800", 1, ROOT),
        (ORIGIN, -1, ROOT),
        (ORIGIN, MAX_TREE_SIZE + 1, ROOT),
        (ORIGIN, 1, ROOT[:-1]),
        (ORIGIN, 0, ROOT),
    ],
)
def test_a_checkpoint_that_cannot_be_is_not_built(origin: str, size: int, root: bytes) -> None:
    """What could not be read back is never signed."""
    with pytest.raises(InvalidCheckpoint):
        Checkpoint(origin, size, root)
