"""The key of the SVID that is asked for: made once, and kept until that SVID is held.

An answer may be lost on its way. Who asks again with the same new key is the one who asked before;
the issuer takes the key of an SVID that has a successor for nobody else's (``former_svid``). So a
try that failed is repeated with its key. Where the identity stands in a folder, the key stands
beside it from before the first try on, and goes with the set that it is the successor of.
"""

import logging
from pathlib import Path

from accredit_client.errors import InvalidFolder
from accredit_client.files import Access, read_next_key, write_next_key
from accredit_credentials.keys import PrivateKey, generate_key

log = logging.getLogger(__name__)


class NextKey:
    """The key of the next SVID of one identity. ``take_up`` and ``get`` may block.

    Args:
        folder: where the identity is kept, if it is.
        access: who may read that folder; this key is its owner's alone.
    """

    def __init__(self, folder: Path | None, access: Access) -> None:
        self._folder = folder
        self._access = access
        self._key: PrivateKey | None = None

    def take_up(self) -> None:
        """Go on with what an earlier process asked for, as far as the folder says."""
        if self._folder is None:
            return
        try:
            self._key = read_next_key(self._folder, self._access)
        except InvalidFolder as error:
            log.warning("a key that was asked for is not taken up: %s", error)

    def get(self) -> PrivateKey:
        """The key to ask for: that of the last try, where it brought nothing."""
        if self._key is None:
            self._key = generate_key()
        if self._folder is not None:
            try:
                write_next_key(self._folder, self._key, self._access)
            except InvalidFolder as error:
                log.warning("a restart would ask with another key: %s", error)
        return self._key

    def used(self) -> None:
        """Its SVID is held: the next one is for another key."""
        self._key = None
