"""Reports of changed code: told to the issuer until it has heard, over restarts of the daemon too.

In this order: the report is on disk → the issuer is told, again after pauses that grow to a minute
→ it has heard, or does not take it → the file is removed. What a daemon that died left is told by
the next one. One file for each instance, named by it, in a folder of the daemon's own; a later
report of an instance takes the place of an earlier one. A report for which there is no room on disk
is told all the same, for as long as this daemon runs.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from accredit_attestors.errors import CannotCollect
from accredit_attestors.files import read_small_file
from accredit_client import calls, renewal
from accredit_client.daemon.certifying import Issuing
from accredit_client.effects import AsyncWaiter, Draw
from accredit_client.errors import ClientError, InvalidFolder, IssuerRefused
from accredit_client.files import prepare_folder, replace_file
from accredit_credentials.strict_json import NotStrictJson, parse_object

log = logging.getLogger(__name__)

FOLDER = "reports"  # in the daemon's data
MAX_KEPT = 4096  # on disk
MAX_FILE_BYTES = 4096
MAX_REASON = 300  # characters that the issuer is told
TOLD_AT_ONCE = 4

_INSTANCE = re.compile(r"[0-9A-Za-z-]{1,64}")
_ENDING = ".json"
_NOT_TAKEN = frozenset({400, 404})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the issuer is to hear.

    Attributes:
        instance: whose code changed.
        reason: how that shows, printable.
        measured: the digest that was found, where there was one.
    """

    instance: str
    reason: str
    measured: str | None = None

    @classmethod
    def of(cls, instance: str, why: str, measured: str | None) -> "Report":
        """A report in words that the issuer takes."""
        said = "".join(each if each.isprintable() else "?" for each in why)
        return cls(instance=instance, reason=said[:MAX_REASON], measured=measured)

    @classmethod
    def parse(cls, text: bytes) -> "Report":
        """Read one back.

        Raises:
            NotStrictJson: it is not of the form of ``to_json``.
        """
        said = parse_object(text)
        instance, reason, measured = (said.pop(each, None) for each in cls.__slots__)
        if said or not isinstance(instance, str) or not isinstance(reason, str):
            raise NotStrictJson("not a report")
        if measured is not None and not isinstance(measured, str):
            raise NotStrictJson("measured is no text")
        return cls(instance=instance, reason=reason, measured=measured)

    def to_json(self) -> bytes:
        """As it is kept."""
        return json.dumps({each: getattr(self, each) for each in self.__slots__}).encode()


class ReportFolder:
    """The reports on disk. Every method may block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, report: Report) -> None:
        """Have it on disk, in one step, before this returns.

        Raises:
            InvalidFolder: the folder is not ours alone, is full, or cannot be written.
        """
        file = self._file(report.instance)
        try:
            self._folder.parent.mkdir(mode=0o700, exist_ok=True)
            prepare_folder(self._folder)
            if not file.exists() and len(self._names()) >= MAX_KEPT:
                raise InvalidFolder(f"folder {self._folder} has {MAX_KEPT} reports already")
            replace_file(file, report.to_json())
        except OSError as error:
            raise InvalidFolder(
                f"folder {self._folder} cannot be written: {error.strerror}"
            ) from error

    def remove(self, instance: str) -> None:
        """Forget one that was heard; no error where it was not kept."""
        try:
            self._file(instance).unlink(missing_ok=True)
        except (InvalidFolder, OSError) as error:
            log.warning("a report that was heard stays: %s", error)

    def read(self) -> tuple[Report, ...]:
        """What was kept, as far as it can be read; an unfinished file was never a report."""
        if not self._folder.exists():
            return ()
        found = []
        try:
            prepare_folder(self._folder)
            for unfinished in self._folder.glob(".*"):
                unfinished.unlink()
            names = self._names()
        except (InvalidFolder, OSError) as error:
            log.error("reports that are kept cannot be read: %s", error)  # noqa: TRY400 (one line each)
            return ()
        for name in names[:MAX_KEPT]:
            try:
                text = read_small_file(
                    self._folder / name, what="report", max_bytes=MAX_FILE_BYTES, private=True
                )
                report = Report.parse(text)
            except (CannotCollect, NotStrictJson) as error:
                log.error("the report %s is not told: %s", name, error)  # noqa: TRY400
                continue
            if report.instance + _ENDING == name:
                found.append(report)
        return tuple(found)

    def _names(self) -> list[str]:
        names = sorted(each.name for each in self._folder.iterdir())
        return [each for each in names if _INSTANCE.fullmatch(each.removesuffix(_ENDING))]

    def _file(self, instance: str) -> Path:
        if not _INSTANCE.fullmatch(instance):
            raise InvalidFolder("the name of an instance is none of a file")
        return self._folder / f"{instance}{_ENDING}"


class Reports:
    """Tells the issuer.

    Args:
        node: who tells it.
        folder: where reports are kept.
        draw: for the jitter.
        waiter: makes how a report waits for its next try.
    """

    def __init__(
        self,
        node: Issuing,
        folder: Path,
        *,
        draw: Draw,
        waiter: Callable[[], AsyncWaiter],
    ) -> None:
        self._node = node
        self._folder = ReportFolder(folder)
        self._draw = draw
        self._waiter = waiter
        self._telling = asyncio.Semaphore(TOLD_AT_ONCE)
        # One thread: what is done with a file is done in the order in which it was asked for.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="accredit-reports")
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def tell(self, report: Report) -> None:
        """Tell the issuer that an instance's code changed, until it has heard."""
        self._begin(report, self._disk.submit(self._keep, report))

    async def take_up(self) -> None:
        """Tell what an earlier daemon could not."""
        loop = asyncio.get_running_loop()
        for report in await loop.run_in_executor(self._disk, self._folder.read):
            if report.instance not in self._tasks:
                self._begin(report, None)

    async def close(self) -> None:
        """Stop; what the issuer has not heard by now is told by the next daemon."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._disk.shutdown()

    def _begin(self, report: Report, keeping: "Future[None] | None") -> None:
        earlier = self._tasks.get(report.instance)
        if earlier is not None:
            earlier.cancel()
        task = asyncio.get_running_loop().create_task(self._told(report, keeping))
        self._tasks[report.instance] = task
        task.add_done_callback(lambda done: self._over(report.instance, done))

    def _over(self, instance: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(instance) is task:
            del self._tasks[instance]

    def _keep(self, report: Report) -> None:
        try:
            self._folder.keep(report)
        except ClientError as error:
            log.error("a report would not outlive this daemon: %s", error)  # noqa: TRY400 (one line each)

    async def _told(self, report: Report, keeping: "Future[None] | None") -> None:
        if keeping is not None:
            # A daemon that stops meanwhile leaves it on disk all the same.
            await asyncio.shield(asyncio.wrap_future(keeping))
        await self._heard(report)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._disk, self._folder.remove, report.instance)

    async def _heard(self, report: Report) -> None:
        """Return once the issuer has heard, or has said that it never will."""
        call = calls.code_changed(report.instance, reason=report.reason, measured=report.measured)
        waiter: AsyncWaiter | None = None
        failures = 0
        while True:
            try:
                async with self._telling:
                    state = await self._node.send(call)
            except Exception as error:  # noqa: BLE001 (told again, whatever it was)
                if isinstance(error, IssuerRefused) and _is_final(error):
                    log.error("the issuer takes no report of %s: %s", report.instance, error)  # noqa: TRY400
                    return
                failures += 1
                waiter = waiter or self._waiter()
                await waiter.wait(renewal.pause_after(failures, draw=self._draw))
            else:
                log.warning("the issuer has heard of %s: it is %s", report.instance, state.state)
                return


def _is_final(refused: IssuerRefused) -> bool:
    """Whether asking again is pointless: another node's, or a removed node's, whose ended with it.

    A node that is suspended may be restored, and what ran there with it: it is told then.
    """
    return refused.status in _NOT_TAKEN or refused.kind == "forbidden"
