"""The memory of DPoP proofs: each is accepted once (RFC 9449 §11.1).

Bounded, and closed when full: a proof that could not be remembered could be used twice, so it is
refused. An entry lives for as long as ``verify_proof`` would accept its proof.
"""

import hashlib
import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from accredit_client.errors import Replayed, ReplayMemoryFull
from accredit_credentials.dpop import CLOCK_LEEWAY, MAX_AGE, DpopProof

DEFAULT_SIZE = 100_000


class ReplayMemory:
    """Which proofs were seen. Safe to share between threads.

    Args:
        size: how many proofs at once; with 100 B each, 100,000 take about 10 MB.
        max_age: seconds for which a proof is accepted.
    """

    def __init__(self, *, size: int = DEFAULT_SIZE, max_age: float = MAX_AGE) -> None:
        self._size = size
        self._lifetime = timedelta(seconds=max_age + CLOCK_LEEWAY)
        self._lock = threading.Lock()
        self._until: OrderedDict[bytes, datetime] = OrderedDict()  # in the order of their ends

    def remember(self, proof: DpopProof, *, now: datetime) -> None:
        """Accept a verified proof, this once.

        Raises:
            Replayed: it was seen before.
            ReplayMemoryFull: there is no room to remember it.
        """
        # By digest: a jti is as long as its sender likes. By key, since a jti is unique for its
        # sender only, and one sender must not be able to use up another's.
        seen = hashlib.sha256(f"{proof.key_thumbprint} {proof.jti}".encode()).digest()
        with self._lock:
            while self._until and next(iter(self._until.values())) < now:
                self._until.popitem(last=False)
            if seen in self._until:
                raise Replayed("DPoP proof was used before")
            if len(self._until) >= self._size:
                raise ReplayMemoryFull(
                    f"{self._size} DPoP proofs are remembered, there is no room for another"
                )
            self._until[seen] = now + self._lifetime

    def __len__(self) -> int:
        return len(self._until)
