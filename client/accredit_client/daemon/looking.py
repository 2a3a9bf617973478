"""Looking at a process that calls: what is said of it, found out in threads, users in turn.

Three lanes. Most is asked of this kernel, which answers at once. A program's content is read only
of who may be meant by it, which can take a second. Whatever is asked of a server, because the
program lies on a network filesystem, waits apart: where no server answers, those who run from it
wait, and nobody else.
"""

from collections.abc import Sequence
from functools import partial

from accredit_client.daemon.agents import AgentEntry, wants_program
from accredit_client.daemon.callers import Caller
from accredit_client.daemon.certifying import Births, nobodys
from accredit_client.daemon.lanes import Lane
from accredit_client.daemon.mounts import Standing

THREADS = 4  # of each lane


class Looking:
    """Looks at callers; one at a time for each user in each lane.

    Args:
        births: what is said of a process that the daemon has started.
    """

    def __init__(self, births: Births = nobodys) -> None:
        self._births = births
        self._kernel = Lane(THREADS, of_account=1, name="accredit-look")
        self._reads = Lane(THREADS, of_account=1, name="accredit-read")
        self._distant = Lane(THREADS, of_account=1, name="accredit-distant")

    async def is_distant(self, caller: Caller, account: int) -> bool:
        """Whether a server has to answer for its program.

        Raises:
            CallerGone, CallerRefused: it cannot be told.
        """
        if caller.local:
            return False
        return await self._kernel.run(account, caller.standing) is Standing.NETWORK

    async def selectors(
        self, caller: Caller, account: int, entries: Sequence[AgentEntry], *, distant: bool
    ) -> frozenset[str]:
        """What is said of a process, as far as it decides which entries mean it.

        Raises:
            CallerGone, CallerChanged, CallerRefused: as ``Caller.check``.
        """
        lane = self._distant if distant else self._kernel
        said = await lane.run(account, partial(self._said, caller, program=False))
        if not wants_program((each.selectors for each in entries), said):
            return said
        lane = self._distant if distant else self._reads
        return await lane.run(account, partial(self._said, caller, program=True))

    def _said(self, caller: Caller, *, program: bool) -> frozenset[str]:
        return caller.selectors(program=program) | self._births(caller)

    def close(self) -> None:
        """Begin nothing more."""
        for lane in (self._kernel, self._reads, self._distant):
            lane.close()
