"""The key manager that the settings name."""

from accredit_issuer.errors import InvalidSettings
from accredit_issuer.keys.disk import DiskKeys
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.keys.secret_files import make_passphrase, read_passphrase
from accredit_issuer.settings import Config, KeysOnDisk

REFUSED_PIN = "refused-pin"  # in the data folder


def open_keys(config: Config) -> KeyManager:
    """Whoever keeps the keys of an issuer that exists.

    Raises:
        InvalidSettings: no passphrase to be read, or PKCS#11 is not installed.
    """
    kept = config.keys
    if isinstance(kept, KeysOnDisk):
        return _on_disk(kept)
    try:
        from accredit_issuer.keys.pkcs11 import Pkcs11Keys  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        raise InvalidSettings("keys.kind is pkcs11: install accredit[pkcs11]") from error
    return Pkcs11Keys(kept, config.trust_domain, refused_pin=config.data / REFUSED_PIN)


def create_keys(config: Config) -> KeyManager:
    """Make place for the keys of a new issuer: the folder, and the passphrase if there is none.

    Raises:
        InvalidSettings: there are keys already, or as for ``open_keys``.
    """
    kept = config.keys
    if not isinstance(kept, KeysOnDisk):
        return open_keys(config)
    if kept.folder.exists():
        raise InvalidSettings(f"there are keys in {kept.folder} already")
    if kept.passphrase_file is not None:
        make_passphrase(kept.passphrase_file)
    keys = _on_disk(kept)
    keys.create_folder()
    return keys


def _on_disk(kept: KeysOnDisk) -> DiskKeys:
    file = kept.passphrase_file
    return DiskKeys(kept.folder, read_passphrase(file) if file is not None else None)
