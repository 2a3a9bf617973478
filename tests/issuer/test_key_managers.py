"""What every key manager promises, whoever keeps the keys: memory, disk or a security module."""

import ast
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from support.softhsm import LABEL, soft_token

import accredit_issuer
from accredit_credentials import checkpoint, jwt_svid
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.checkpoint import Checkpoint, LogKey
from accredit_credentials.crl_der import entry_of
from accredit_credentials.leaf_der import IssuingCa
from accredit_credentials.merkle import EMPTY_ROOT
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_template import CaTemplate, ca_builder
from accredit_issuer.keys.disk import DiskKeys
from accredit_issuer.keys.key_manager import KeyExists, KeyManager, KeyMissing
from accredit_issuer.keys.memory import MemoryKeys
from accredit_issuer.keys.pkcs11 import Pkcs11Keys
from accredit_issuer.revocation.crl import Entries, next_times, sign_crl
from accredit_issuer.settings import KeysInToken

Open = Callable[[], KeyManager]

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
DOMAIN = TrustDomain.parse("example.org")
SHA256 = ec.ECDSA(hashes.SHA256())
PASSPHRASE = b"correct horse battery"
UNKNOWN = "00" * 20
AUDIENCE = "https://a.example.org"


@pytest.fixture(params=["memory", "encrypted", "unencrypted", "pkcs11"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """How the same keys are opened once more."""
    with ExitStack() as stack:
        if request.param == "memory":
            memory = MemoryKeys()
            yield lambda: memory
        elif request.param == "pkcs11":
            token = stack.enter_context(soft_token(tmp_path / "token"))
            kept = KeysInToken(token.module, LABEL, token.pin_file)
            yield lambda: Pkcs11Keys(kept, DOMAIN)
        else:
            passphrase = PASSPHRASE if request.param == "encrypted" else None
            DiskKeys(tmp_path / "keys", passphrase).create_folder()
            yield lambda: DiskKeys(tmp_path / "keys", passphrase)


@pytest.fixture
def keys(reopen: Open) -> Iterator[KeyManager]:
    """An open manager without keys."""
    manager = reopen()
    yield manager
    manager.close()


def test_a_key_signs_what_verifies(keys: KeyManager) -> None:
    """A key is P-256, known by its subject key identifier, and its signatures verify."""
    made = keys.generate()
    public = made.private.public_key()
    assert made.id == x509.SubjectKeyIdentifier.from_public_key(public).digest.hex()
    assert isinstance(public.curve, ec.SECP256R1)
    public.verify(made.private.sign(b"data", SHA256), b"data", SHA256)
    log_key = keys.generate_log_key()
    log_key.public_key().verify(log_key.sign(b"data"), b"data")


def test_a_key_is_found_again(reopen: Open) -> None:
    """What was made is there when the manager is opened again, and signs."""
    first = reopen()
    made, log_key = first.generate().id, first.generate_log_key().public_key()
    public = first.load(made).public_key()
    assert first.check()
    first.close()
    again = reopen()
    loaded = again.load(made)
    assert loaded.public_key() == public
    public.verify(loaded.sign(b"data", SHA256), b"data", SHA256)
    assert again.load_log_key().public_key() == log_key
    log_key.verify(again.load_log_key().sign(b"data"), b"data")
    again.close()


@pytest.mark.parametrize(
    "key_id", [UNKNOWN, "", "log", "../log", "/etc/passwd", UNKNOWN + "\n", "AB" * 20, "00" * 19]
)
def test_a_key_that_is_not_there_is_not_made(keys: KeyManager, key_id: str) -> None:
    """An unknown id, and what is no id, is missing; asking or removing changes nothing."""
    log_key = keys.generate_log_key()
    for _ in range(2):
        with pytest.raises(KeyMissing):
            keys.load(key_id)
        keys.remove(key_id)
    assert keys.load_log_key().public_key() == log_key.public_key()


def test_the_logs_key_is_not_made_in_passing(keys: KeyManager) -> None:
    """Loading the log's key where there is none is an error, and still is the next time."""
    for _ in range(2):
        with pytest.raises(KeyMissing):
            keys.load_log_key()


def test_a_removed_key_is_gone(keys: KeyManager, reopen: Open) -> None:
    """Once removed it cannot be loaded, removing it again is no error, and others stay."""
    removed, stays = keys.generate(), keys.generate()
    keys.remove(removed.id)
    keys.remove(removed.id)
    for manager in (keys, reopen()):
        with pytest.raises(KeyMissing):
            manager.load(removed.id)
        assert manager.load(stays.id).public_key() == stays.private.public_key()


def test_nothing_is_overwritten(keys: KeyManager) -> None:
    """A second key of the log is refused, and the first one is as it was."""
    first = keys.generate_log_key().public_key()
    with pytest.raises(KeyExists):
        keys.generate_log_key()
    assert keys.load_log_key().public_key() == first


def test_everything_that_the_issuer_signs(keys: KeyManager) -> None:
    """A root, an issuing CA, a CRL, an ES256 token and a checkpoint, by our own code, verify."""
    root_key, ca_key, jwt_key = keys.generate(), keys.generate(), keys.generate()
    root = _ca("root", root_key.private.public_key(), root_key.private, None)
    ca = _ca("issuing", ca_key.private.public_key(), root_key.private, root)
    root.verify_directly_issued_by(root)
    ca.verify_directly_issued_by(root)
    entries = Entries().changed([("ab", entry_of(0xAB, NOW, suspended=False))])
    times = next_times(0, NOW, timedelta(hours=1))
    signed = sign_crl(IssuingCa(ca), ca_key.private, entries, times, scheduled_at=NOW)
    crl = x509.load_der_x509_crl(signed.der)
    assert crl.is_signature_valid(ca_key.private.public_key())
    content = jwt_svid.JwtSvid(
        spiffe_id=SpiffeId.parse("spiffe://example.org/a"),
        audience=(AUDIENCE,),
        expires_at=NOW + timedelta(minutes=5),
        issued_at=NOW,
    )
    token = jwt_svid.sign(content, jwt_key.private, jwt_key.id)
    bundle = TrustBundle(DOMAIN, jwt_authorities={jwt_key.id: jwt_key.private.public_key()})
    validated = jwt_svid.validate(token, bundles={DOMAIN: bundle}, audience=AUDIENCE, now=NOW)
    assert validated.spiffe_id == content.spiffe_id
    log_key = keys.generate_log_key()
    head = Checkpoint("example.org/log", 0, EMPTY_ROOT)
    note = checkpoint.sign(head, "example.org/log", log_key)
    known = LogKey("example.org/log", log_key.public_key())
    assert checkpoint.verify(note, origin="example.org/log", keys=[known]) == head


def test_many_threads_sign_at_once(keys: KeyManager) -> None:
    """Eight threads with three keys: each signature is its own key's over its own data."""
    one, other, log_key = keys.generate().private, keys.generate().private, keys.generate_log_key()

    def sign(number: int) -> None:
        data = b"%d" % number
        key = (one, other)[number % 2]
        key.public_key().verify(key.sign(data, SHA256), data, SHA256)
        log_key.public_key().verify(log_key.sign(data), data)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sign, range(200)))


def test_a_key_is_not_shown(keys: KeyManager) -> None:
    """What is printed of a key or its manager is its id at most."""
    made = keys.generate()
    shown = re.sub("0x[0-9a-f]+", "", f"{made!r} {keys!r} {keys.generate_log_key()!r}")
    assert "horse" not in shown
    assert "PRIVATE" not in shown
    assert set(re.findall("[0-9a-f]{40,}", shown)) == {made.id}


# What reads, writes or makes private key bytes.
_TOUCHES = {
    "load_pem_private_key",
    "load_der_private_key",
    "load_ssh_private_key",
    "load_pkcs12",
    "load_key_and_certificates",
    "from_private_bytes",
    "derive_private_key",
    "private_bytes",
    "private_bytes_raw",
    "private_numbers",
    "generate_private_key",
    "generate_key",
    "generate_signer_key",
    "load_signer_private_key",
    "save_signer_private_key",
    "EllipticCurvePrivateNumbers",
    "key_pem",
    "Ed25519PrivateKey.generate",
}
# TLS needs its key in the process; it is new with each of the server's SVIDs, and never written. So
# is an OCSP responder's: who asks most often must not be who uses a CA's key most often.
_ALLOWED = {("server.py", "generate_key"), ("revocation/responders.py", "generate_key")}


def test_nothing_else_touches_private_keys() -> None:
    """Outside of ``keys/`` no module of the issuer makes, reads or writes a private key."""
    root = Path(accredit_issuer.__file__).parent
    found = {
        (str(file.relative_to(root)), name)
        for file in root.rglob("*.py")
        if file.relative_to(root).parts[0] != "keys"
        for name in _names(ast.parse(file.read_text(encoding="utf-8")))
        if name in _TOUCHES
    }
    assert found == _ALLOWED


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
            if isinstance(node.value, ast.Name | ast.Attribute):
                of = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                yield f"{of}.{node.attr}"
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


def _ca(
    name: str,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
) -> x509.Certificate:
    template = CaTemplate(
        trust_domain=DOMAIN,
        common_name=name,
        public_key=public,
        serial=1 << 100,
        not_before=NOW - timedelta(minutes=1),
        not_after=NOW + timedelta(days=1),
        path_length=None if issuer is None else 0,
        issuer=issuer,
    )
    return ca_builder(template).sign(signer, hashes.SHA256())
