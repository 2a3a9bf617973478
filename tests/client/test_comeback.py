"""Agents that slept past the end of their SVIDs: back by its key, and who is not let back."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.clock import SettableClock
from support.issuer import (
    Admin,
    AgentFolder,
    RunningIssuer,
    join_token_file,
    log_in,
    register,
    running_issuer,
    write_agent,
)
from support.manual_time import ManualTime, TaskTime

from accredit_attestors.errors import CannotCollect
from accredit_attestors.manifest import generate_signer_key
from accredit_client import calls, issuer_keeper
from accredit_client.async_identity import AsyncAgentIdentity
from accredit_client.effects import utc_now
from accredit_client.errors import IdentityExpired, IdentityRefused, IssuerRefused
from accredit_client.files import Access, FolderContent, write_folder, write_next_key
from accredit_client.identity import AgentIdentity
from accredit_client.renewal import State
from accredit_client.trust import Trust
from accredit_credentials.keys import generate_key
from accredit_credentials.leaf_der import SignedLeaf
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.errors import Unavailable
from accredit_issuer.issuance.agent_svids import AttestationRequest

# Within an hour, since OpenSSL looks at the real clock at the issuer's own certificate.
LIFETIMES = {"x509_svid": 300, "grace": 900}
START = timedelta(minutes=-40)
SLEEP = 600.0  # seconds; longer than an SVID's life
BEYOND = 300.0 + 900.0  # seconds; the end of the grace


class Site:
    """A real issuer under a test's clock, and an agent's machine with the same time."""

    def __init__(self, running: RunningIssuer, clock: SettableClock, folder: Path) -> None:
        self.running = running
        self.clock = clock
        self.time = ManualTime(clock())
        self.admin: Admin = log_in(running, running.first_token)
        self.agent: AgentFolder = write_agent(
            folder / "agent", key=generate_signer_key(), now=clock()
        )
        register(running, self.admin, self.agent)
        self.token = join_token_file(self.admin, self.agent)
        self.folder = folder / "id"

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the agent's identity."""
        return {
            "issuer_url": self.running.url,
            "trust": Trust.from_bundle(self.running.bundle),
            "manifest_file": self.agent.manifest_file,
            "code_root": self.agent.root,
            "join_token_file": self.token,
            "draw": lambda: 0.5,
            "patience": 0.0,
        }

    def start(self, **more: Any) -> AgentIdentity:
        """An identity; whoever starts it closes it."""
        identity = AgentIdentity(**self.options, clock=self.time.clock, **more)
        return identity.start(waiter=self.time)

    def sleep(self, seconds: float = SLEEP, *, enrolled: bool = False) -> None:
        """The machine sleeps; the issuer does not, and an admin may hand over another token."""
        self.clock.advance(seconds=seconds)
        self.running.issuer.keep_up()
        if enrolled:
            self.enrol()
        self.time.advance(seconds=seconds)
        self.time.settle()

    def enrol(self) -> None:
        """Put another join token into the file."""
        self.token.write_text(join_token_file(self.admin, self.agent).read_text())

    def state(self, target: str, kind: str = "revoked") -> None:
        """Take something back."""
        self.admin.send(calls.revoke(target=target, kind=kind, reason="stolen laptop"))

    def keep(self, identity: AgentIdentity) -> None:
        """Leave in the folder what ``accredit run`` leaves there."""
        write_folder(self.folder, FolderContent(self.running.url, identity.bundle, identity.x509))

    def restart(self, seconds: float = SLEEP, *, enrolled: bool = False) -> AgentIdentity:
        """The same agent after its machine was off for so long."""
        self.clock.advance(seconds=seconds)
        self.running.issuer.keep_up()
        if enrolled:
            self.enrol()
        self.time = ManualTime(self.clock())
        return self.start(folder=self.folder)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A real issuer, and a clock that can go on for forty minutes."""
    clock = SettableClock(utc_now().replace(microsecond=0) + START)
    with running_issuer(tmp_path / "issuer", clock=clock, lifetimes=LIFETIMES) as running:
        yield Site(running, clock, tmp_path)


def test_an_agent_that_slept_comes_back_by_itself(site: Site) -> None:
    """No join token, the same instance, a new key; and it is renewed again."""
    with closing(site.start()) as identity:
        before = identity.x509
        site.token.unlink()
        site.sleep()
        after = identity.x509
        assert after.svid.instance == before.svid.instance
        assert after.svid.serial != before.svid.serial
        assert after.key.public_key() != before.key.public_key()
        assert identity.status.state is State.FRESH
        site.sleep()
        assert identity.x509.svid.instance == before.svid.instance


def test_an_asynchronous_agent_comes_back_too(site: Site) -> None:
    """The twin for asyncio does the same, and is refused the same."""

    async def main() -> None:
        time = TaskTime(site.clock())

        async def sleep() -> None:
            await time.settle()
            site.clock.advance(seconds=SLEEP)
            await asyncio.to_thread(site.running.issuer.keep_up)
            await time.advance(seconds=SLEEP)
            await time.settle()

        async with AsyncExitStack() as stack:
            identity = AsyncAgentIdentity(**site.options, clock=time.clock)
            stack.push_async_callback(identity.aclose)
            await identity.start(waiter=time)
            before = identity.x509.svid
            site.token.unlink()
            await sleep()
            after = identity.x509.svid
            assert after.instance == before.instance
            assert after.serial != before.serial
            await asyncio.to_thread(site.state, f"instance:{before.instance}")
            await sleep()
            assert identity.status.state is State.REFUSED

    asyncio.run(main())


def test_beyond_the_grace_only_a_join_token_helps(site: Site) -> None:
    """At its last moment it comes back; from then on the error names both ways in."""
    with closing(site.start()) as identity:
        first = identity.x509
        site.sleep(BEYOND - 1)
        second = identity.x509
        assert second.svid.instance == first.svid.instance
        site.sleep(BEYOND + 1)
        with pytest.raises(IdentityExpired, match="join token") as refused:
            _ = identity.x509
        last = identity.status.last_error
        assert isinstance(last, IssuerRefused)
        assert "over for more than" in str(last.hint)
        assert refused.value.__cause__ is last
        site.sleep(60, enrolled=True)
        assert identity.x509.svid.instance != first.svid.instance


@pytest.mark.parametrize("kind", ["revoked", "suspended"])
def test_one_that_was_revoked_meanwhile_is_refused_and_says_so(site: Site, kind: str) -> None:
    """The issuer's word is the last one, where the join token is spent: nothing is asked again."""
    with closing(site.start()) as identity:
        site.state(f"instance:{identity.x509.svid.instance}", kind)
        site.sleep()
        assert identity.status.state is State.REFUSED
        with pytest.raises(IdentityRefused, match=f"{kind} since"):
            _ = identity.x509
        asked = site.running.issuer.log.frontier.size
        site.sleep()
        assert site.running.issuer.log.frontier.size == asked


def test_a_new_join_token_makes_a_new_instance_of_one_that_was_revoked(site: Site) -> None:
    """What was taken back is the instance; who gets a token from an admin may be another one."""
    with closing(site.start()) as identity:
        instance = identity.x509.svid.instance
        site.state(f"instance:{instance}")
        site.sleep(enrolled=True)
        assert identity.x509.svid.instance != instance
        assert identity.status.state is State.FRESH


def test_code_that_changed_meanwhile_does_not_come_back(site: Site) -> None:
    """It is measured again, after a pause; once it is what was signed, the agent is back."""
    with closing(site.start()) as identity:
        instance, signed = identity.x509.svid.instance, (site.agent.root / "main.py").read_text()
        (site.agent.root / "main.py").write_text("print('something else')\n")
        site.sleep()
        assert identity.status.state is State.EXPIRED
        assert "code" in str(identity.status.last_error.hint)  # type: ignore[union-attr]
        (site.agent.root / "main.py").write_text(signed)
        refusals = site.running.issuer.log.frontier.size
        site.sleep(60)
        assert identity.status.state is State.EXPIRED
        assert site.running.issuer.log.frontier.size == refusals  # not asked again so soon
        site.sleep(issuer_keeper.DENIED_PAUSE)
        assert identity.x509.svid.instance == instance


def test_an_issuer_that_cannot_answer_costs_no_join_token(site: Site) -> None:
    """No answer is no refusal: the same way is tried again, and a token stays unspent."""
    with closing(site.start()) as identity:
        instance = identity.x509.svid.instance
        site.clock.advance(days=-1)  # it signs nothing with a clock that was set back
        site.time.advance(seconds=SLEEP)
        site.time.settle()
        assert identity.status.state is State.EXPIRED
        assert isinstance(identity.status.last_error, IssuerRefused)
        assert identity.status.last_error.for_now
        site.clock.advance(days=1, seconds=SLEEP)
        site.sleep(60, enrolled=True)
        assert identity.x509.svid.instance == instance


@contextmanager
def losing_answers(site: Site) -> Iterator[None]:
    """What the issuer certifies meanwhile is recorded and released, and reaches nobody."""
    agents = site.running.issuer.issuance.agents
    real = agents.attest

    async def lost(request: AttestationRequest) -> SignedLeaf:
        await real(request)
        raise Unavailable("the answer is lost on its way")

    agents.attest = lost  # type: ignore[method-assign]
    try:
        yield
    finally:
        agents.attest = real  # type: ignore[method-assign]


def test_an_answer_that_was_lost_is_asked_for_again(site: Site) -> None:
    """With the key that was asked for: the issuer gives it to nobody else any more."""
    with closing(site.start()) as identity:
        before = identity.x509
        site.token.unlink()
        with losing_answers(site):
            site.sleep()
            assert identity.status.state is State.EXPIRED
        site.sleep(60)
        assert identity.x509.svid.instance == before.svid.instance


# After a restart


@pytest.mark.parametrize("kept", [True, False])
def test_an_answer_that_was_lost_before_a_restart(site: Site, *, kept: bool) -> None:
    """The key that was asked for stands in the folder; without it nobody is who was before."""
    with closing(site.start(folder=site.folder)) as identity:
        site.keep(identity)
        before = identity.x509
        site.token.unlink()
        with losing_answers(site):
            site.sleep()
            assert identity.status.state is State.EXPIRED
    (waiting,) = site.folder.glob(".set-*/next_key.pem")
    assert waiting.stat().st_mode & 0o777 == 0o600
    if not kept:
        waiting.unlink()
        with pytest.raises(CannotCollect) as refused:
            site.restart(1)
        assert "has a later one" in str(refused.value.hint)
        return
    with closing(site.restart(1)) as identity:
        assert identity.x509.svid.instance == before.svid.instance
        site.keep(identity)
    assert not list(site.folder.glob(".set-*/next_key.pem"))


@pytest.mark.parametrize("broken", ["torn", "open"])
def test_a_key_that_cannot_be_taken_up_is_none(
    site: Site, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent comes back with another key, as it was not asked for yet; the log says why."""
    with closing(site.start(folder=site.folder)) as identity:
        site.keep(identity)
        before = identity.x509
    write_next_key(site.folder, generate_key())
    (waiting,) = site.folder.glob(".set-*/next_key.pem")
    if broken == "torn":
        waiting.write_text("-----BEGIN PRIVATE KEY-----")
    else:
        waiting.chmod(0o640)
    with closing(site.restart()) as identity:
        assert identity.x509.svid.instance == before.svid.instance
    assert "is not taken up" in caplog.text


def test_a_folder_is_taken_up_after_a_restart(site: Site) -> None:
    """The expired SVID and its key in the folder are enough, with or without a token's file."""
    with closing(site.start()) as identity:
        site.keep(identity)
        before = identity.x509
    site.token.unlink()
    with closing(site.restart()) as identity:
        assert identity.x509.svid.instance == before.svid.instance
        assert identity.x509.svid.serial != before.svid.serial


def test_a_folder_that_is_still_good_is_renewed_at_the_start(site: Site) -> None:
    """Without a token, with the code measured: changed code does not start."""
    site.clock.now = utc_now().replace(microsecond=0)
    site.time = ManualTime(site.clock())
    site.enrol()
    with closing(site.start()) as identity:
        site.keep(identity)
        before = identity.x509
    with closing(site.restart(1)) as identity:
        assert identity.x509.svid.instance == before.svid.instance
        assert identity.x509.svid.serial != before.svid.serial
    (site.agent.root / "main.py").write_text("print('something else')\n")
    with pytest.raises(IssuerRefused) as refused:
        site.restart(1)
    assert "code" in f"{refused.value} {refused.value.hint}"


def test_another_key_does_not_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the SVID and not its key is nobody: the proof is made with the key."""
    with closing(site.start()) as identity:
        site.keep(identity)
    real = issuer_keeper.read_folder

    def stolen(folder: Path, access: Access) -> FolderContent:
        content = real(folder, access)
        identity = X509Identity(content.identity.svid, generate_key())
        return FolderContent(content.issuer_url, content.bundle, identity)

    monkeypatch.setattr(issuer_keeper, "read_folder", stolen)
    with pytest.raises(IssuerRefused) as refused:
        site.restart()
    assert "not signed by the key" in f"{refused.value} {refused.value.hint}"


def test_a_folder_of_a_revoked_agent_does_not_start(site: Site) -> None:
    """The start fails, and says that it was taken back rather than that a token is spent."""
    with closing(site.start()) as identity:
        site.keep(identity)
        site.state(f"instance:{identity.x509.svid.instance}")
    with pytest.raises(IssuerRefused, match="revoked") as refused:
        site.restart()
    assert refused.value.kind == "revoked"
    site.token.unlink()
    with pytest.raises(IssuerRefused, match="revoked"):
        site.restart(1)


def test_a_folder_of_something_else_is_left_alone(site: Site) -> None:
    """Another manifest, another issuer, or a torn folder: a join token as if there was nothing."""
    with closing(site.start()) as identity:
        site.keep(identity)
        instance, bundle, held = identity.x509.svid.instance, identity.bundle, identity.x509
    write_folder(site.folder, FolderContent("https://other.example.org", bundle, held))
    with closing(site.restart(enrolled=True)) as identity:
        assert identity.x509.svid.instance != instance
    (site.folder / "svid.pem").resolve().write_text("torn")
    with closing(site.restart(enrolled=True)) as identity:
        assert identity.x509.svid.instance != instance
        site.keep(identity)
        instance = identity.x509.svid.instance
    file = site.agent.root / "agent.toml"
    file.write_text(file.read_text().replace('version = "1.0.0"', 'version = "1.0.1"'))
    site.agent.sign(site.clock())
    site.admin.send(calls.register_manifest(envelope=site.agent.envelope))
    with closing(site.restart(enrolled=True)) as identity:
        assert identity.x509.svid.instance != instance
    site.token.unlink()
    with pytest.raises(CannotCollect):
        site.restart(1)
