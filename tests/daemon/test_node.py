"""The node's own identity: proved once, kept on disk, and back after a long sleep."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.issuer import Admin, RunningIssuer, log_in, running_issuer
from support.site import SiteCa, key_pem_of, pem_of

from accredit_attestors.errors import CannotCollect
from accredit_attestors.plugins import load_node_attestors
from accredit_client import calls
from accredit_client.daemon.node import FOLDER, TRUST_FILE, AsyncNodeIdentity
from accredit_client.daemon.settings import NodeSettings
from accredit_client.errors import IdentityExpired, IssuerRefused
from accredit_client.trust import Trust, pin_of
from accredit_credentials.x509_svid import X509Identity

NODE = "build-7"
HOUR = timedelta(hours=1)


class Late:
    """A clock that may be behind, until a test lets it catch up: OpenSSL looks at the real one."""

    def __init__(self, behind: timedelta = timedelta()) -> None:
        self.behind = behind

    def __call__(self) -> datetime:
        """The time."""
        return datetime.now(UTC) - self.behind


@pytest.fixture
def anyio_backend() -> str:
    """The daemon's event loop is asyncio's."""
    return "asyncio"


class Host:
    """A host, its issuer, and what it was given."""

    def __init__(self, folder: Path, running: RunningIssuer, clock: Late) -> None:
        self.folder = folder
        self.running = running
        self.clock = clock
        self.admin: Admin = log_in(running, running.first_token)
        self.token = folder / "node.token"

    def listed(self, **fields: Any) -> None:
        """List the node."""
        known = {"attestation": "join_token", "namespaces": ["support"], **fields}
        self.admin.send(calls.add_node(NODE, **known))

    def give(self) -> None:
        """Put a new join token into its file."""
        self.token.touch(mode=0o600)
        self.token.write_text(self.admin.send(calls.node_join_token(NODE, ttl_seconds=60)).token)

    @asynccontextmanager
    async def node(self, **changes: Any) -> AsyncIterator[AsyncNodeIdentity]:
        """The node's identity, started and ended."""
        good: dict[str, Any] = {
            "node": NodeSettings(name=NODE, join_token_file=self.token),
            "data": self.folder / "data",
            "issuer_url": self.running.url,
            "trust": Trust.from_bundle(self.running.bundle),
            "attestors": load_node_attestors,
            "clock": self.clock,
        }
        async with AsyncNodeIdentity(**{**good, **changes}) as identity:
            yield identity

    async def held(self, **changes: Any) -> X509Identity:
        """What it holds once it has started."""
        async with self.node(**changes) as identity:
            return identity.x509

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The issuer's records of one kind."""
        page = self.admin.send(calls.log_entries(start=0, limit=200))
        return [each.record for each in page.entries if each.record["kind"] == kind]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Host]:
    """A host and its issuer."""
    clock = Late()
    with running_issuer(tmp_path / "issuer", clock=clock) as running:
        yield Host(tmp_path, running, clock)


@pytest.mark.anyio
async def test_a_node_proves_itself_once(place: Host) -> None:
    """A restart needs no token; what is kept is closed to others, and is the same instance."""
    place.listed()
    place.give()
    first = await place.held()
    assert str(first.svid.spiffe_id) == f"spiffe://example.org/node/{NODE}"
    place.token.unlink()
    second = await place.held()
    assert second.svid.serial == first.svid.serial
    assert len(place.records("node.attested")) == 1
    for path in (place.folder / "data", place.folder / "data" / FOLDER):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (place.folder / "data" / FOLDER / "svid_key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_a_certificate_of_the_site_proves_it_too(place: Host, tmp_path: Path) -> None:
    """And another host's of the same CA does not."""
    site = SiteCa(datetime.now(UTC))
    place.listed(attestation="x509pop", ca=site.pem, certificate="dns:build-7.site.example")

    def settings(name: str) -> NodeSettings:
        key, certificate = site.host(name)
        file, secret = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        file.write_text(pem_of(certificate))
        secret.touch(mode=0o600)
        secret.write_text(key_pem_of(key))
        return NodeSettings(name=NODE, certificate=file, key=secret)

    with pytest.raises(IssuerRefused, match="not the one that was named"):
        await place.held(node=settings("build-8.site.example"))
    held = await place.held(node=settings("build-7.site.example"))
    assert held.svid.spiffe_id.path == f"/node/{NODE}"


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["trust", "torn", "open"])
async def test_what_is_kept_counts_only_as_it_was_kept(place: Host, what: str) -> None:
    """Another trust, a torn folder, one open to others: the node attests anew, with a new token."""
    place.listed()
    place.give()
    first = await place.held()
    changes: dict[str, Any] = {}
    if what == "trust":
        word = place.folder / "data" / TRUST_FILE
        assert word.read_text()
        word.write_text("another")
    elif what == "torn":
        (place.folder / "data" / FOLDER / "svid_key.pem").unlink()
        (place.folder / "data" / FOLDER / ".current" / "svid_key.pem").unlink()
    else:
        (place.folder / "data" / FOLDER).chmod(0o755)
    with pytest.raises(IssuerRefused, match="used before"):
        await place.held(**changes)
    if what == "open":
        (place.folder / "data" / FOLDER).chmod(0o700)
        return
    place.give()
    assert (await place.held()).svid.serial != first.svid.serial


@pytest.mark.anyio
async def test_the_same_trust_said_otherwise_needs_a_token(place: Host) -> None:
    """The operator's word is compared as it is: a pin of the same root is the same word."""
    place.listed()
    place.give()
    first = await place.held()
    (root,) = place.running.bundle.x509_authorities
    second = await place.held(trust=Trust.from_pin(pin_of(root)))
    assert second.svid.serial == first.svid.serial


@pytest.mark.anyio
async def test_a_folder_that_others_read_is_not_written(place: Host) -> None:
    """The node serves on with what it holds; it is not kept, and the log says so."""
    place.listed()
    place.give()
    data = place.folder / "data"
    data.mkdir(mode=0o755)
    assert await place.held()
    assert not (data / FOLDER).exists()


@pytest.mark.anyio
async def test_a_node_without_evidence_says_so(place: Host) -> None:
    """Before anything was asked of the issuer that costs something."""
    place.listed()
    with pytest.raises(CannotCollect, match=r"node\.token"):
        await place.held()


@pytest.mark.anyio
async def test_a_node_that_slept_comes_back_by_its_old_key(tmp_path: Path) -> None:
    """Its SVID is long over and its token spent; the record says by what it came back."""
    clock = Late(3 * HOUR)
    with running_issuer(tmp_path / "issuer", clock=clock) as running:
        place = Host(tmp_path, running, clock)
        place.listed()
        place.give()
        async with place.node() as node:
            first = node.x509
            clock.behind = timedelta()
            with pytest.raises(IdentityExpired):
                _ = node.x509
        second = await place.held()
        assert second.svid.serial != first.svid.serial
        assert second.svid.instance == first.svid.instance
