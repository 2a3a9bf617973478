"""An identity in a folder, for programs that read files.

``accredit run`` and ``accredit svid watch`` write it, ``AgentIdentity.from_folder`` reads it::

    svid.pem  svid_key.pem  bundle.pem  bundle.json  issuer.json  (crl.pem)

They belong together, so they change together: each set is a folder of its own, and the names
above are links through ``.current``, which one rename moves from set to set. A reader that
resolves ``.current`` once never sees a key beside another key's certificate; neither does anyone
after a crash. The folder is 0700 and every file is 0600 from its first byte on; where one group is
allowed to read (``Access``), 0750 and 0640. A set may have one file more, without a link to it:
the key that its successor was asked for (``next_key``), always 0600.
"""

import json
import os
import secrets
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from accredit_client.errors import InvalidFolder
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import CredentialError
from accredit_credentials.keys import PrivateKey, check_public_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.strict_json import NotStrictJson, parse_object
from accredit_credentials.x509_svid import X509Identity, parse_pem

FOLDER_VARIABLE = "ACCREDIT_FOLDER"

_CURRENT = ".current"
_SET_PREFIX = ".set-"
_NAMES = ("svid.pem", "svid_key.pem", "bundle.pem", "bundle.json", "issuer.json")
_CRLS = "crl.pem"  # only where there are any
_SECRET = frozenset({"svid_key.pem", "next_key.pem"})
_NEXT = "next_key.pem"  # only while a successor is asked for
_MAX_BYTES = 1024 * 1024
_READS = 3  # a set may be removed under a reader once or twice, not for ever
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class FolderContent:
    """What a folder holds: one identity, what it trusts, and where its issuer is.

    ``issuer_url`` is None where the identity is from the node daemon, which names no issuer.
    ``crls`` (DER) are written for others, and not read again.
    """

    issuer_url: str | None
    bundle: TrustBundle
    identity: X509Identity = field(repr=False)
    crls: tuple[bytes, ...] = field(default=(), repr=False)

    def issuer(self) -> str:
        """Where its issuer is.

        Raises:
            InvalidFolder: that is not known.
        """
        if self.issuer_url is None:
            raise InvalidFolder(
                "the identity's folder names no issuer: what is in it is the node daemon's",
                hint="AgentIdentity.from_daemon asks the node daemon itself",
            )
        return self.issuer_url


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read a folder besides its owner: nobody, or the group of this number."""

    group: int | None = None

    @property
    def folder_mode(self) -> int:
        """The folder's permission bits."""
        return 0o700 if self.group is None else 0o750

    @property
    def file_mode(self) -> int:
        """Those of each file in it."""
        return 0o600 if self.group is None else 0o640

    def allows(self, status: os.stat_result) -> bool:
        """Whether nobody else may look, and nobody but the owner may write."""
        bits = stat.S_IMODE(status.st_mode) & _OTHERS
        if not bits:
            return True
        return status.st_gid == self.group and not bits & ~(stat.S_IRGRP | stat.S_IXGRP)


PRIVATE = Access()


def prepare_folder(folder: Path, access: Access = PRIVATE) -> None:
    """Make the folder, or see that it is ours and closed to everyone who is not meant.

    Raises:
        InvalidFolder: it is not, or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if access.group is not None:
            _check_private(folder, Access(folder.lstat().st_gid))
            _open_to(folder, access)
        _check_private(folder, access)
    except OSError as error:
        raise InvalidFolder(
            f"folder {folder} cannot be prepared: {error.strerror}",
            hint=(
                f"have root make it: install -d -m 0700 -o USER {folder}"
                if isinstance(error, PermissionError)
                else None
            ),
        ) from error


def write_folder(folder: Path, content: FolderContent, access: Access = PRIVATE) -> None:
    """Put a new set into the folder, in one step.

    Raises:
        InvalidFolder: somebody else owns it or may look into it, or it cannot be written.
    """
    prepare_folder(folder, access)
    texts = _texts(content)
    try:
        fresh = folder / f"{_SET_PREFIX}{secrets.token_hex(8)}"
        fresh.mkdir(mode=0o700)
        _open_to(fresh, access)
        for name, text in texts.items():
            _write(fresh / name, text, access)
        _sync(fresh)
        _link(folder / _CURRENT, fresh.name)
        for name in texts:
            _link(folder / name, f"{_CURRENT}/{name}")
        if _CRLS not in texts:
            (folder / _CRLS).unlink(missing_ok=True)
        _sync(folder)
        for old in folder.glob(f"{_SET_PREFIX}*"):
            if old.name != fresh.name:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InvalidFolder(f"folder {folder} cannot be written: {error.strerror}") from error


def read_folder(folder: Path, access: Access = PRIVATE) -> FolderContent:
    """Read the folder's one set.

    Raises:
        InvalidFolder: missing, open to others, or not of one piece.
    """
    try:
        _check_private(folder, access)
        texts = _read_set(folder, access)
    except OSError as error:
        raise InvalidFolder(
            f"folder {folder} cannot be read: {error.strerror}",
            hint="accredit run keeps the folder fresh: is it running?",
        ) from error
    try:
        return _content(texts)
    except (CredentialError, NotStrictJson, ValueError) as error:
        # A parser's words may quote what it read, and one of these files is a private key.
        said = f": {error}" if isinstance(error, CredentialError) else ""
        raise InvalidFolder(f"folder {folder} does not hold an identity{said}") from None


def write_next_key(folder: Path, key: PrivateKey, access: Access = PRIVATE) -> None:
    """Put the key of the successor beside the set that is there; without a set there is no place.

    Raises:
        InvalidFolder: as ``write_folder``.
    """
    version = version_of(folder)
    if version is None:
        return
    place = folder / version
    try:
        _check_private(folder, access)
        replace_file(place / _NEXT, _key_pem(key))
    except OSError as error:
        raise InvalidFolder(f"folder {folder} cannot be written: {error.strerror}") from error


def replace_file(path: Path, text: bytes) -> None:
    """Write a file of its owner's alone, in one step: after a crash it is the old one or the new.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write(fresh, text, PRIVATE)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def read_next_key(folder: Path, access: Access = PRIVATE) -> PrivateKey | None:
    """The key that the successor of the folder's set was asked for; None where there is none.

    Raises:
        InvalidFolder: open to others, or no key.
    """
    try:
        _check_private(folder, access)
        text = _read(folder / _CURRENT / _NEXT, PRIVATE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidFolder(f"folder {folder} cannot be read: {error.strerror}") from error
    try:
        key = serialization.load_pem_private_key(text, password=None)
        check_public_key(key.public_key())
    except (CredentialError, ValueError):
        raise InvalidFolder(f"folder {folder} has a {_NEXT} that is no key") from None
    return key  # type: ignore[return-value]  # one of the kinds that SVIDs have


def version_of(folder: Path) -> str | None:
    """Something that changes with each set; None where the folder has none."""
    try:
        return str((folder / _CURRENT).readlink())
    except OSError:
        return None


def _texts(content: FolderContent) -> dict[str, bytes]:
    issuer = {"trust_domain": str(content.bundle.trust_domain)}
    if content.issuer_url is not None:
        issuer["issuer_url"] = content.issuer_url
    texts = (
        content.identity.svid.pem.encode(),
        content.identity.key_pem,
        content.bundle.x509_pem.encode(),
        content.bundle.to_json().encode(),
        json.dumps(issuer).encode(),
    )
    made = dict(zip(_NAMES, texts, strict=True))
    if content.crls:
        made[_CRLS] = b"".join(map(_crl_pem, content.crls))
    return made


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _crl_pem(der: bytes) -> bytes:
    try:
        crl = x509.load_der_x509_crl(der)
    except ValueError:
        raise InvalidFolder("a CRL that was to be written is none") from None
    return crl.public_bytes(serialization.Encoding.PEM)


def _content(texts: dict[str, bytes]) -> FolderContent:
    issuer = parse_object(texts["issuer.json"])
    url, name = issuer.get("issuer_url"), issuer.get("trust_domain")
    if not isinstance(url, str | None) or not isinstance(name, str):
        raise NotStrictJson("issuer.json must have trust_domain, and may have issuer_url")
    key = serialization.load_pem_private_key(texts["svid_key.pem"], password=None)
    check_public_key(key.public_key())
    svid = parse_pem(texts["svid.pem"].decode("ascii"))
    bundle = TrustBundle.parse(TrustDomain.parse(name), texts["bundle.json"])
    return FolderContent(url, bundle, X509Identity.of(svid, key))  # type: ignore[arg-type]


def _read_set(folder: Path, access: Access) -> dict[str, bytes]:
    for attempt in range(_READS):
        version = version_of(folder)
        place = folder / version if version is not None else folder
        try:
            return {name: _read(place / name, access) for name in _NAMES}
        except FileNotFoundError:
            if attempt == _READS - 1:
                raise
    raise AssertionError  # the loop returns or raises


def _read(path: Path, access: Access) -> bytes:
    with path.open("rb") as file:
        if path.name in _SECRET and not access.allows(os.fstat(file.fileno())):
            raise InvalidFolder(
                f"{path} must be closed to {_others(access)} (mode {access.file_mode:04o})"
            )
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise InvalidFolder(f"{path} is larger than {_MAX_BYTES} bytes")
    return text


def _open_to(place: Path | int, access: Access) -> None:
    """Let the group in that may read, and nobody else."""
    if access.group is None:
        return
    os.chown(place, -1, access.group)
    os.chmod(place, access.file_mode if isinstance(place, int) else access.folder_mode)  # noqa: PTH101 (a descriptor has no path)


def _write(path: Path, text: bytes, access: Access) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        _open_to(descriptor, access)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _link(path: Path, target: str) -> None:
    """Point a link at its target, in one step; leave it where it points there already."""
    try:
        if str(path.readlink()) == target:
            return
    except OSError:
        pass  # not there, or not a link: it becomes one
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    fresh.symlink_to(target)
    fresh.replace(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _others(access: Access) -> str:
    return "group and others" if access.group is None else f"everybody but group {access.group}"


def _check_private(folder: Path, access: Access) -> None:
    """The folder is ours, a folder, and closed to everyone else."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidFolder(f"{folder} must be a folder, and no link to one")
    if status.st_uid != os.geteuid():
        raise InvalidFolder(f"folder {folder} belongs to user {status.st_uid}, not to us")
    if not access.allows(status):
        raise InvalidFolder(
            f"folder {folder} must be closed to {_others(access)} (mode {access.folder_mode:04o})",
            hint=f"chmod {access.folder_mode:04o} {folder}",
        )
