"""Private keys in a hardware security module, through PKCS#11: they are made there and stay there.

Decides how a key is made (sensitive, never extractable, for signing only), how it is found again
(CKA_ID is the key's id; the log's key by a label with the trust domain in it) and what to do when
the module does not answer: whatever it was, it is ``Unavailable``, the session is given up, and the
next call that may asks for another. A module that does not return within ``HANGS_AFTER`` counts as
one that does not answer, until it has. A PIN that the token refused is never sent twice, not even
after a restart: tokens lock themselves after a few.

The library initialises a module for callers of one thread (C_Initialize without arguments, PKCS#11
v2.40 §5.4), and a login is of the whole process: so one thread of the process makes every call, and
a manager has one session.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import pkcs11
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import (
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    UserAlreadyLoggedIn,
    UserPinNotInitialized,
)
from pkcs11.types import PrivateKey, PublicKey, Session, SignMixin
from pkcs11.util.ec import encode_named_curve_parameters

from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.errors import InvalidSettings, IssuerError, Unavailable
from accredit_issuer.keys.bounded import Hangs, OwnThread
from accredit_issuer.keys.key_manager import (
    KeyExists,
    KeyManager,
    KeyMissing,
    ManagedKey,
    check_loaded,
    is_key_id,
    key_id_of,
)
from accredit_issuer.keys.refused_pin import RefusedPin
from accredit_issuer.keys.secret_files import read_pin
from accredit_issuer.settings import KeysInToken

PAUSE_SECONDS = 1.0  # after a module did not answer, nobody waits for it again so soon
HANGS_AFTER = 5.0  # seconds that a module may take for one call of ours

_P256 = encode_named_curve_parameters("secp256r1")
_ED25519 = bytes.fromhex("06032b6570")  # the object identifier 1.3.101.112 (RFC 8410 §3)
_OCTET_STRING = 0x04
_POINT_BYTES = 65  # 0x04, x, y
_HALF = 32  # bytes of each number of a P-256 signature
_ED25519_BYTES = 32
_ID = Attribute.ID
_PROBE_BITS = 64
_SIGNING = MechanismFlag.SIGN | MechanismFlag.VERIFY
_GUARDED = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
_REFUSED_PINS = (
    PinExpired,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    UserPinNotInitialized,
)

T = TypeVar("T")
Label = str
Find = dict[Attribute, Any]

_one_call = OwnThread("accredit-pkcs11")
# How often a module was initialised anew: handles from before are worthless, and after it they may
# be those of other sessions and of other keys.
_generations: dict[str, int] = {}


class Pkcs11Keys(KeyManager):
    """The keys of one trust domain in one token.

    Args:
        kept: module, token and file of the PIN.
        trust_domain: whose keys they are; several issuers may share a token.
        monotonic: seconds, for the pause after a failure.
        refused_pin: the file that remembers a PIN that was refused; None remembers it within the
            process alone.
        hangs_after: seconds that the module may take for one call.
    """

    def __init__(
        self,
        kept: KeysInToken,
        trust_domain: TrustDomain,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        refused_pin: Path | None = None,
        hangs_after: float = HANGS_AFTER,
    ) -> None:
        self._kept = kept
        self._domain = trust_domain
        self._monotonic = monotonic
        self._module = str(kept.module)
        self._session: Session | None = None
        self._generation = 0
        self._handles: dict[str, SignMixin] = {}
        self._not_before = float("-inf")
        self._refused_pin = RefusedPin(refused_pin, kept.token)
        self._hangs_after = hangs_after
        self._closed = False

    def generate(self) -> ManagedKey:
        """Make a P-256 key in the token."""
        self._ask(_alive)  # a session that was lost is replaced before anything is made
        public, key_id = self._ask(self._make_key, again=False)
        return ManagedKey(key_id, _TokenKey(self, key_id, public))

    def load(self, key_id: str) -> ec.EllipticCurvePrivateKey:
        """Find a key in the token."""
        if not is_key_id(key_id):
            raise KeyMissing(f"{key_id[:80]!r} is not the id of a key")

        def find(session: Session) -> ec.EllipticCurvePublicKey:
            self._handle(session, key_id)
            found = _one(session, {**_id(key_id), Attribute.CLASS: ObjectClass.PUBLIC_KEY}, key_id)
            return _p256(cast("PublicKey", found), key_id)

        return check_loaded(_TokenKey(self, key_id, self._ask(find)), key_id)

    def remove(self, key_id: str) -> None:
        """Destroy a key, the private half first."""
        if not is_key_id(key_id):
            return

        def destroy(session: Session) -> None:
            self._handles.pop(key_id, None)
            for half in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
                for found in _find(session, {**_id(key_id), Attribute.CLASS: half}):
                    found.destroy()

        self._ask(destroy)

    def generate_log_key(self) -> Ed25519PrivateKey:
        """Make the log's key in the token."""

        def check_none(session: Session) -> None:
            if _find(session, {Attribute.LABEL: self._log_label}):
                raise KeyExists(
                    f"{self} has a key labelled {self._log_label!r} already, of another issuer or "
                    "of an 'init' that did not finish: remove it, or take another token"
                )

        def make(session: Session) -> Ed25519PublicKey:
            public, private = _generate(session, KeyType.EC_EDWARDS, _ED25519, self._log_label)
            _check_guarded(private, public)
            return _ed25519(public)

        self._ask(check_none)
        return _TokenLogKey(self, self._log_label, self._ask(make, again=False))

    def load_log_key(self) -> Ed25519PrivateKey:
        """Find the log's key in the token."""

        def find(session: Session) -> Ed25519PublicKey:
            self._handle(session, self._log_label)
            attributes = {
                Attribute.LABEL: self._log_label,
                Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            }
            return _ed25519(cast("PublicKey", _one(session, attributes, self._log_label)))

        return _TokenLogKey(self, self._log_label, self._ask(find))

    def check(self) -> str:
        """Whether the token answers, and to our PIN."""
        self._ask(_alive)
        return f"in {self}, never extractable"

    def close(self) -> None:
        """End the session. Nothing signs afterwards."""
        self._closed = True
        with suppress(Hangs):  # whatever it is at, it cannot be ended
            _one_call.run(self._drop, self._hangs_after)

    def __str__(self) -> str:
        return f"token {self._kept.token!r}"

    def sign(self, name: str, data: bytes, mechanism: Mechanism) -> bytes:
        """Sign with the key of an id, or of the log's label, as the mechanism does.

        Raises:
            Unavailable: the token does not answer, or has the key no more.
        """
        try:
            return bytes(
                self._ask(
                    lambda session: self._handle(session, name).sign(data, mechanism=mechanism)
                )
            )
        except IssuerError as error:
            # Whoever asked for a credential is told no more; the log has the cause.
            raise Unavailable("the keys cannot be used now") from error

    @property
    def _log_label(self) -> Label:
        return f"accredit {self._domain} log"

    def _make_key(self, session: Session) -> tuple[ec.EllipticCurvePublicKey, str]:
        label = f"accredit {self._domain}"
        made, private = _generate(session, KeyType.EC, _P256, label)
        _check_guarded(private, made)
        public = _p256(made, "just made")
        key_id = key_id_of(public)
        # Found by its id from here on; whatever ends the process before leaves a key without one.
        try:
            for half in (made, private):
                half[_ID] = bytes.fromhex(key_id)
        except PKCS11Error:
            for half in (made, private):
                with suppress(PKCS11Error):
                    half.destroy()
            raise
        return public, key_id

    def _handle(self, session: Session, name: str) -> SignMixin:
        handle = self._handles.get(name)
        if handle is None:
            by: Find = _id(name) if is_key_id(name) else {Attribute.LABEL: name}
            attributes = {**by, Attribute.CLASS: ObjectClass.PRIVATE_KEY}
            handle = self._handles[name] = cast("SignMixin", _one(session, attributes, name))
        return handle

    def _ask(self, call: Callable[[Session], T], *, again: bool = True) -> T:
        """Have something done in the session; once more in a new one, if the old one was lost.

        Raises:
            Unavailable: the token does not answer.
        """
        try:
            return _one_call.run(lambda: self._ask_here(call, again=again), self._hangs_after)
        except Hangs:
            raise Unavailable(
                f"{self} cannot be used: the module has not returned for {self._hangs_after:g} "
                "seconds or more"
            ) from None

    def _ask_here(self, call: Callable[[Session], T], *, again: bool) -> T:
        had_session = self._session is not None
        try:
            return call(self._opened())
        except KeyMissing:
            # A session that was logged out behind our back finds no private key either.
            if not (again and had_session):
                raise
            self._drop()
        except PKCS11Error as error:
            self._drop()
            if not (again and had_session):
                self._give_up(error)
        try:
            return call(self._opened())
        except PKCS11Error as error:
            self._drop()
            self._give_up(error)

    def _opened(self) -> Session:
        if self._closed:
            raise Unavailable("the issuer is stopping")
        if self._generation != _generations.get(self._module, 0):
            self._forget()
        if self._session is None:
            if self._monotonic() < self._not_before:
                raise Unavailable(f"{self} did not answer a moment ago")
            self._session = self._log_in()
            self._generation = _generations.get(self._module, 0)
        return self._session

    def _log_in(self) -> Session:
        try:
            pin = read_pin(self._kept.pin_file)
        except InvalidSettings as error:
            raise Unavailable(str(error)) from error
        if self._refused_pin.is_it(pin):
            raise Unavailable(self._about_pin("was refused before"))
        try:
            return self._open_session(pin)
        except PKCS11Error:
            # A module looks for its tokens when it is initialised, and some only then.
            library = pkcs11.lib(self._module)
            _generations[self._module] = _generations.get(self._module, 0) + 1
            with suppress(PKCS11Error):
                library.finalize()
            library.initialize()
            return self._open_session(pin)

    def _open_session(self, pin: str) -> Session:
        token = pkcs11.lib(self._module).get_token(token_label=self._kept.token)
        try:
            session = token.open(rw=True, user_pin=pin)
        except UserAlreadyLoggedIn:
            # Somebody else in this process: a login is of all its sessions.
            return token.open(rw=True)
        except _REFUSED_PINS as error:
            self._refused_pin.remember(pin)
            raise Unavailable(self._about_pin(type(error).__name__)) from error
        self._refused_pin.forget()
        return session

    def _about_pin(self, what: str) -> str:
        file = self._refused_pin.file
        unless = f", or {file} is removed" if file else ""
        return (
            f"{self} does not take the PIN in {self._kept.pin_file} (keys.pin_file): {what}; "
            f"it is not tried again until the file changes{unless}"
        )

    def _drop(self) -> None:
        session = self._session
        self._forget()
        if session is not None and self._generation == _generations.get(self._module, 0):
            with suppress(PKCS11Error):
                session.close()

    def _forget(self) -> None:
        self._session = None
        self._handles.clear()

    def _give_up(self, error: PKCS11Error) -> NoReturn:
        self._not_before = self._monotonic() + PAUSE_SECONDS
        why = str(error) or type(error).__name__
        raise Unavailable(f"{self} cannot be used: {why[:200]}") from error


class _TokenKey(ec.EllipticCurvePrivateKey):
    """A P-256 key in a token, as cryptography's builders and PyJWT sign with it."""

    def __init__(self, keys: Pkcs11Keys, key_id: str, public: ec.EllipticCurvePublicKey) -> None:
        self._keys = keys
        self._id = key_id
        self._public = public

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """In bits."""
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """An ECDSA signature over SHA-256, DER.

        Raises:
            Unavailable: the token does not answer.
            UnsupportedAlgorithm: anything but ECDSA over SHA-256.
        """
        hashed = signature_algorithm.algorithm
        if isinstance(hashed, Prehashed):
            digest = bytes(data)
            fits = len(digest) == hashes.SHA256.digest_size
        else:
            fits = isinstance(hashed, hashes.SHA256)
            hashing = hashes.Hash(hashes.SHA256())
            hashing.update(data)
            digest = hashing.finalize()
        if not fits or not isinstance(signature_algorithm, ec.ECDSA):
            raise UnsupportedAlgorithm("a key in the token signs by ECDSA over SHA-256 only")
        raw = self._keys.sign(self._id, digest, Mechanism.ECDSA)
        signature = encode_dss_signature(int.from_bytes(raw[:_HALF]), int.from_bytes(raw[_HALF:]))
        try:
            # What leaves is looked at: a module that errs, or signs with another key, would have
            # us release what nobody accepts, and a faulty ECDSA signature may give the key away.
            self._public.verify(signature, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        except InvalidSignature:
            raise Unavailable(f"the token signs wrongly with key {self._id}") from None
        return signature

    def exchange(self, *_: object) -> NoReturn:
        """No."""
        raise UnsupportedAlgorithm("a key in the token signs and does nothing else")

    def private_numbers(self) -> NoReturn:
        """No."""
        _stays()

    def private_bytes(self, *_: object) -> NoReturn:
        """No."""
        _stays()

    def __copy__(self) -> "_TokenKey":
        return self

    def __deepcopy__(self, _: dict[int, object]) -> "_TokenKey":
        return self


class _TokenLogKey(Ed25519PrivateKey):
    """An Ed25519 key in a token."""

    def __init__(self, keys: Pkcs11Keys, label: Label, public: Ed25519PublicKey) -> None:
        self._keys = keys
        self._label = label
        self._public = public

    def public_key(self) -> Ed25519PublicKey:
        """The public half."""
        return self._public

    def sign(self, data: Any) -> bytes:
        """An Ed25519 signature.

        Raises:
            Unavailable: the token does not answer.
        """
        signature = self._keys.sign(self._label, bytes(data), Mechanism.EDDSA)
        try:
            self._public.verify(signature, bytes(data))
        except InvalidSignature:
            raise Unavailable(f"the token signs wrongly with key {self._label}") from None
        return signature

    def private_bytes(self, *_: object) -> NoReturn:
        """No."""
        _stays()

    def private_bytes_raw(self) -> NoReturn:
        """No."""
        _stays()

    def __copy__(self) -> "_TokenLogKey":
        return self

    def __deepcopy__(self, _: dict[int, object]) -> "_TokenLogKey":
        return self


def _stays() -> NoReturn:
    raise UnsupportedAlgorithm("a key in the token does not leave it")


def _alive(session: Session) -> None:
    """Take a few bytes of chance: it fails where the session is lost, and leaves nothing behind."""
    session.generate_random(_PROBE_BITS)


def _find(session: Session, attributes: Find) -> list[Any]:
    # The library ends a search that never began when it is collected, whenever that is, perhaps in
    # the midst of another one: in a lost session none is begun.
    _alive(session)
    return list(session.get_objects(attributes))


def _id(key_id: str) -> Find:
    return {_ID: bytes.fromhex(key_id)}


def _one(session: Session, attributes: Find, name: str) -> Any:
    found = _find(session, attributes)
    if len(found) != 1:
        number = "not" if not found else f"{len(found)} times"
        raise KeyMissing(f"key {name} is in the token {number}")
    return found[0]


def _generate(
    session: Session, kind: KeyType, curve: bytes, label: Label
) -> tuple[PublicKey, PrivateKey]:
    parameters = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: curve}, local=True)
    return parameters.generate_keypair(
        store=True, label=label, capabilities=_SIGNING, private_template=_GUARDED
    )


def _check_guarded(private: PrivateKey, public: PublicKey) -> None:
    """Decide whether the token took what was asked: some ignore what they do not know."""
    if any(private[attribute] is not wanted for attribute, wanted in _GUARDED.items()):
        for half in (private, public):
            half.destroy()
        raise Unavailable("the token does not keep a key from being extracted: none was made")


def _p256(public: PublicKey, name: str) -> ec.EllipticCurvePublicKey:
    point = _point(public, _POINT_BYTES)
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as error:
        raise KeyMissing(f"what the token has as key {name} is not a P-256 key") from error


def _ed25519(public: PublicKey) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(_point(public, _ED25519_BYTES))
    except ValueError as error:
        raise KeyMissing("what the token has as the log's key is not an Ed25519 key") from error


def _point(public: PublicKey, size: int) -> bytes:
    """CKA_EC_POINT: within an octet string (PKCS#11 v2.40 §2.3.3), which some leave out."""
    value: bytes = public[Attribute.EC_POINT]
    return value[2:] if value[:2] == bytes((_OCTET_STRING, size)) else value
