"""Reports of changed code: on disk before the first try, told after a restart, gone once heard."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.clock import SettableClock
from support.node_host import WAIT, Node, Waiter

from accredit_client.call import Call
from accredit_client.daemon import reports
from accredit_client.daemon.reports import MAX_FILE_BYTES, MAX_REASON, Report, Reports
from accredit_client.errors import IssuerRefused, IssuerUnreachable
from accredit_credentials.strict_json import NotStrictJson

INSTANCE = "00000000-0000-4000-8000-000000000001"
SECOND = "00000000-0000-4000-8000-000000000002"
CHANGED = Report(instance=INSTANCE, reason="other code", measured="sha256:" + "cd" * 32)


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


class Told(Node):
    """An issuer that notes what was on disk when it was asked."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        super().__init__(authority, SettableClock())
        self.folder = folder
        self.found: list[list[str]] = []
        self.tried = asyncio.Event()
        self.waiters: list[Waiter] = []

    async def send(self, call: Call[Any]) -> Any:
        """Take note."""
        self.found.append(files(self.folder))
        self.tried.set()
        return await super().send(call)

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Reports]:
        """The reports of one life of the daemon."""
        telling = Reports(self, self.folder, draw=lambda: 0.5, waiter=self._waiter)
        try:
            yield telling
        finally:
            await telling.close()

    def _waiter(self) -> Waiter:
        self.waiters.append(Waiter(self.clock))
        return self.waiters[-1]

    async def until_heard(self, *instances: str) -> None:
        """Wait until the issuer has heard of these, and nothing of them is on disk."""
        async with asyncio.timeout(WAIT):
            while set(self.heard) != set(instances) or files(self.folder):  # noqa: ASYNC110 (nobody there tells us)
                await asyncio.sleep(0)


def files(folder: Path) -> list[str]:
    """What is on disk."""
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def node(authority: Authority, tmp_path: Path) -> Told:
    """An issuer, and the folder of reports that are for it."""
    return Told(authority, tmp_path / "data" / "reports")


@pytest.mark.anyio
async def test_a_report_is_on_disk_before_it_is_told(node: Told) -> None:
    """Closed to others, and gone once the issuer has heard."""
    async with node.daemon() as daemon:
        node.failure = IssuerUnreachable("away")
        daemon.tell(CHANGED)
        await node.tried.wait()
        assert node.found == [[f"{INSTANCE}.json"]]
        assert node.folder.stat().st_mode & 0o777 == 0o700
        assert (node.folder / f"{INSTANCE}.json").stat().st_mode & 0o777 == 0o600
        node.failure = None
        async with asyncio.timeout(WAIT):
            while not node.waiters:  # noqa: ASYNC110 (nobody there tells us)
                await asyncio.sleep(0)
        node.waiters[0].wake()
        await node.until_heard(INSTANCE)


@pytest.mark.anyio
async def test_what_was_not_heard_is_told_after_a_restart(node: Told) -> None:
    """Also where the daemon was stopped before its first try; once heard it is not told again."""
    node.failure = IssuerUnreachable("away")
    async with node.daemon() as daemon:
        daemon.tell(CHANGED)
        await node.tried.wait()
        daemon.tell(Report.of(SECOND, "a line\nfeed" + "." * MAX_REASON, None))
    assert files(node.folder) == [f"{INSTANCE}.json", f"{SECOND}.json"]
    node.failure = None
    node.asked.clear()
    async with node.daemon() as daemon:
        await daemon.take_up()
        await node.until_heard(INSTANCE, SECOND)
    first, second = sorted(node.asked, key=lambda each: "measured" not in each)
    assert first == {"reason": CHANGED.reason, "measured": CHANGED.measured}
    assert second["reason"].startswith("a line?feed.")
    assert len(second["reason"]) == MAX_REASON
    async with node.daemon() as daemon:
        await daemon.take_up()
    assert len(node.asked) == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "kind", "kept"),
    [
        (404, "not-found", False),
        (400, "malformed", False),
        (403, "forbidden", False),
        (403, "revoked", True),
        (401, "unauthenticated", True),
        (503, "unavailable", True),
    ],
)
async def test_what_the_issuer_does_not_take(
    node: Told, status: int, kind: str, *, kept: bool
) -> None:
    """What is final is dropped; a suspended node may be restored, and tells it then."""
    node.failure = IssuerRefused(kind, "no", status)
    async with node.daemon() as daemon:
        daemon.tell(CHANGED)
        await node.tried.wait()
        async with asyncio.timeout(WAIT):
            while not (node.waiters if kept else not files(node.folder)):  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0)
    assert bool(files(node.folder)) is kept


@pytest.mark.anyio
async def test_a_later_report_takes_the_place_of_an_earlier(node: Told) -> None:
    """One file for an instance, and the newest words."""
    node.failure = IssuerUnreachable("away")
    async with node.daemon() as daemon:
        for reason in ("first", "second"):
            daemon.tell(Report.of(INSTANCE, reason, None))
    assert files(node.folder) == [f"{INSTANCE}.json"]
    assert Report.parse((node.folder / f"{INSTANCE}.json").read_bytes()).reason == "second"


@pytest.mark.anyio
async def test_a_full_folder_keeps_nothing_more(
    node: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The report is told all the same, and the log says that it would not outlive the daemon."""
    monkeypatch.setattr(reports, "MAX_KEPT", 1)
    node.failure = IssuerUnreachable("away")
    async with node.daemon() as daemon:
        daemon.tell(CHANGED)
        daemon.tell(CHANGED)
        daemon.tell(Report.of(SECOND, "other code", None))
        await node.tried.wait()
    assert files(node.folder) == [f"{INSTANCE}.json"]
    assert caplog.text.count("would not outlive this daemon") == 1
    assert "has 1 reports already" in caplog.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"instance": "' + INSTANCE.encode() + b'"}',
        CHANGED.to_json()[:-1],
        CHANGED.to_json()[:-1] + b', "more": 1}',
        b'{"instance": "' + INSTANCE.encode() + b'", "reason": "x", "measured": 1}',
        CHANGED.to_json() + b" " * MAX_FILE_BYTES,
        Report(instance=SECOND, reason="another's").to_json(),
    ],
)
async def test_a_file_that_is_no_report_is_not_told(node: Told, content: bytes) -> None:
    """Nor the unfinished one of a daemon that died while it wrote; its neighbour is told."""
    good = Report.of("a-neighbour", "other code", None)
    reports.ReportFolder(node.folder).keep(good)
    for name in (f"{INSTANCE}.json", f".{INSTANCE}.json.0123456789abcdef"):
        (node.folder / name).touch(mode=0o600)
        (node.folder / name).write_bytes(content)
    async with node.daemon() as daemon:
        await daemon.take_up()
        async with asyncio.timeout(WAIT):
            while node.heard != [good.instance]:  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0)
    assert not [each for each in files(node.folder) if each.startswith(".")]


@pytest.mark.anyio
async def test_reports_in_a_folder_of_others_are_not_believed(node: Told) -> None:
    """Who could write there could have instances suspended."""
    reports.ReportFolder(node.folder).keep(CHANGED)
    node.folder.chmod(0o777)
    async with node.daemon() as daemon:
        await daemon.take_up()
    assert not node.found


def test_a_name_that_leads_elsewhere_is_none() -> None:
    """An instance's name becomes a file's: it has no slash and no dot."""
    folder = reports.ReportFolder(Path("/nonexistent"))
    for name in ("../x", "a/b", ".", "", "x" * 65):
        with pytest.raises(reports.InvalidFolder, match="name of an instance"):
            folder.keep(Report(instance=name, reason="x"))


def test_a_report_reads_back_as_it_was_written() -> None:
    """With a digest and without; what is no JSON object is refused."""
    for each in (CHANGED, Report(instance=INSTANCE, reason="ä")):
        assert Report.parse(each.to_json()) == each
    with pytest.raises(NotStrictJson):
        Report.parse(b"{")
