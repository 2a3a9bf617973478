"""An admin's login, as it is kept on this machine.

``$XDG_CONFIG_HOME/accredit/NAME/`` is an identity folder (``accredit_client.files``): the address,
the bundle, the SVID and its key. Beside it stand the log's key, pinned at login, and the newest
checkpoint that this machine has seen: what a log may never take back.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from accredit_client.cli import local_files
from accredit_client.cli.problems import Failed, NotLoggedIn
from accredit_client.files import FolderContent, read_folder, version_of, write_folder
from accredit_credentials import checkpoint as signed_note
from accredit_credentials.checkpoint import Checkpoint, LogKey
from accredit_credentials.errors import InvalidKey, InvalidSpiffeId
from accredit_credentials.spiffe_id import check_name

LOGIN_HINT = "log in with: accredit login --url URL --trust BUNDLE --token-file FILE"


@dataclass(frozen=True, slots=True)
class Profile:
    """One login."""

    name: str
    folder: Path

    @classmethod
    def named(cls, name: str) -> "Profile":
        """The login of this name, whether it exists or not.

        Raises:
            Failed: the name cannot be a folder's.
        """
        try:
            check_name(name, "profile")
        except InvalidSpiffeId as error:
            raise Failed(str(error)) from None
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return cls(name, Path(home) / "accredit" / name)

    def read(self) -> FolderContent:
        """The address, the bundle and the identity.

        Raises:
            NotLoggedIn: there is none.
            InvalidFolder: it is open to others, or not of one piece.
        """
        if version_of(self.folder) is None:
            raise NotLoggedIn(f"not logged in (profile {self.name})", hint=LOGIN_HINT)
        return read_folder(self.folder)

    def write(self, content: FolderContent) -> None:
        """Keep an identity.

        Raises:
            InvalidFolder: the folder is open to others, or cannot be written.
        """
        write_folder(self.folder, content)

    def forget(self) -> bool:
        """Remove the login; says whether there was one.

        Raises:
            OSError: it cannot be removed.
        """
        if not self.folder.exists():
            return False
        shutil.rmtree(self.folder)
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other commands from renewing at the same time.

        Raises:
            Failed: the folder is open to others.
            OSError: it cannot be written.
        """
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        local_files.make_private_folder(self.folder)
        descriptor = os.open(
            self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, local_files.PRIVATE
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def asked_at(self) -> datetime:
        """When the bundle was asked for last; long ago where that is not known."""
        try:
            seconds = (self.folder / _ASKED).stat().st_mtime
        except FileNotFoundError:
            seconds = 0.0
        return datetime.fromtimestamp(seconds, UTC)

    def asked(self, now: datetime) -> None:
        """Remember that the bundle was asked for."""
        file = self.folder / _ASKED
        file.touch(mode=local_files.PRIVATE)
        os.utime(file, (now.timestamp(), now.timestamp()))

    def ask_again(self) -> None:
        """Have the next command ask for the bundle: it has changed."""
        (self.folder / _ASKED).unlink(missing_ok=True)

    def pin_log_key(self, key: LogKey) -> bool:
        """Trust this key of the log from now on; says whether it takes another key's place.

        What was seen of the log stays known as long as its key does.
        """
        text = f"{key}\n"
        known = self._text(_LOG_KEY)
        if known != text:
            (self.folder / _CHECKPOINT).unlink(missing_ok=True)
            local_files.replace(self.folder / _LOG_KEY, text.encode(), local_files.PRIVATE)
        return known not in {None, text}

    def log_key(self) -> LogKey:
        """The log's key.

        Raises:
            NotLoggedIn: none was pinned.
            Failed: the file does not hold one.
        """
        text = self._text(_LOG_KEY)
        if text is None:
            raise NotLoggedIn(f"profile {self.name} has no log key", hint=LOGIN_HINT)
        try:
            return LogKey.parse(text.strip())
        except InvalidKey as error:
            raise Failed(f"{self.folder / _LOG_KEY}: {error}") from None

    def seen_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint of the log that this machine has seen.

        Raises:
            InvalidCheckpoint: the file was changed.
        """
        text = self._text(_CHECKPOINT)
        return None if text is None else verified_checkpoint(text, self.log_key())

    def see(self, checkpoint_text: str) -> None:
        """Remember a checkpoint that was verified, and continues the last one."""
        local_files.replace(
            self.folder / _CHECKPOINT, checkpoint_text.encode(), local_files.PRIVATE
        )

    def _text(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None


def verified_checkpoint(text: str, key: LogKey) -> Checkpoint:
    """Read a checkpoint that the log's key signed; the log is named as its key is.

    Raises:
        InvalidCheckpoint: another log's, or nobody's.
    """
    return signed_note.verify(text, origin=key.name, keys=[key])


_ASKED = "bundle_asked"
_LOG_KEY = "log_key"
_CHECKPOINT = "log_checkpoint"
