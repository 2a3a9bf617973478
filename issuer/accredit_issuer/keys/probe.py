"""Whether the keys can be reached, asked for by anybody and as often as they like.

A token is asked at most once in ``LASTS_SECONDS``, by one thread at a time: who asks meanwhile gets
the newest answer, and one that hangs holds nobody up longer than ``PATIENCE_SECONDS``.
"""

import threading
import time
from collections.abc import Callable

import structlog

from accredit_issuer.errors import IssuerError, Unavailable
from accredit_issuer.keys.key_manager import KeyManager

_log = structlog.get_logger("accredit.keys")

LASTS_SECONDS = 1.0
PATIENCE_SECONDS = 2.0


class Probe:
    """Asks a key manager, and remembers what it answered.

    Args:
        keys: whom to ask.
        monotonic: seconds, for how long an answer lasts.
    """

    def __init__(self, keys: KeyManager, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._failure: IssuerError | None = None

    def check(self) -> None:
        """Decide whether the keys can be reached now.

        Raises:
            Unavailable: they cannot; the cause is what the key manager said.
        """
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            raise Unavailable("the key manager does not answer")
        try:
            if self._monotonic() >= self._until:
                self._failure = self._ask()
                self._until = self._monotonic() + LASTS_SECONDS
            failure = self._failure
        finally:
            self._lock.release()
        if failure is not None:
            raise Unavailable("the keys cannot be used now") from failure

    def _ask(self) -> IssuerError | None:
        try:
            self._keys.check()
        except IssuerError as error:
            # Where our files and tokens are stands in the log only: anybody may ask.
            _log.error("keys do not answer", reason=str(error))
            return error
        return None
