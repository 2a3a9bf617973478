"""Small files of the claimant, read whole: bounded, regular, and private where they are secret."""

import os
import stat
from pathlib import Path

from accredit_attestors.errors import CannotCollect

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_small_file(path: Path, *, what: str, max_bytes: int, private: bool) -> bytes:
    """Read a regular file; a link is followed, and the file that was opened is the one checked.

    Raises:
        CannotCollect: missing, unreadable, not a regular file, too big, or ``private`` and open
            to the group or to others.
    """
    try:
        # O_NONBLOCK: a FIFO in the file's place is refused below instead of waiting for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise CannotCollect(f"{what} {path} must be a regular file")
            if private and mode & _OTHERS:
                raise CannotCollect(
                    f"{what} {path} has mode {stat.S_IMODE(mode):04o}, expected 0600 or 0400",
                    hint=f"others may have read it: replace the secret, then chmod 600 {path}",
                )
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise CannotCollect(f"{what} {path} cannot be read: {error.strerror}") from error
    if len(data) > max_bytes:
        raise CannotCollect(f"{what} {path} has more than {max_bytes} bytes")
    return data
