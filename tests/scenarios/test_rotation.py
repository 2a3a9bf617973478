"""Every authority is replaced under running agents, and no call of theirs fails."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from support.agents import AUDIENCE, PATIENCE, start_agent, ticket_server
from support.issuer import Admin, RunningIssuer, log_in, running_issuer
from support.resource_server import resource_server

from accredit_client import calls
from accredit_client.errors import ClientError
from accredit_client.http import TaskTokenAuth
from accredit_client.identity import AgentIdentity
from accredit_client.tls import members_of
from accredit_credentials import task_token
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Refused, Untrusted
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.tls import client_context
from accredit_credentials.x509_svid import X509Identity, parse_pem, validate
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.authority.planning import wanted_kinds
from accredit_issuer.clock import system_clock

PEER = members_of("example.org")
CALLERS = 2
MORE = 10  # calls of each caller that show that all is well


@dataclass
class Traffic:
    """Calls without end, each a request over mTLS with a task token; and what failed."""

    url: str
    identity: AgentIdentity
    failures: list[str] = field(default_factory=list)
    good: int = 0
    _over: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Call until the block ends."""
        threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over = True
            for thread in threads:
                thread.join(PATIENCE)

    def more(self) -> None:
        """Wait until as many calls again have been answered."""
        with self._changed:
            wanted = self.good + CALLERS * MORE
            assert self._changed.wait_for(lambda: self.good >= wanted or self.failures, PATIENCE), (
                "the calls stand still"
            )

    def _call(self) -> None:
        transport = self.identity.transport(peer=PEER)
        with httpx2.Client(transport=transport, trust_env=False) as client:
            while not self._over:
                # A new task for each call: its token is asked for and signed now.
                auth = TaskTokenAuth(
                    self.identity, resource="tickets", actions=["read"], purpose="rotation"
                )
                for _ in range(2):
                    self._one(client, auth)

    def _one(self, client: httpx2.Client, auth: TaskTokenAuth) -> None:
        try:
            status = client.get(f"{self.url}/tickets", auth=auth).status_code
            failure = None if status == httpx2.codes.OK else str(status)
        except (httpx2.HTTPError, ClientError) as error:
            failure = repr(error)
        with self._changed:
            if failure is None:
                self.good += 1
            else:
                self.failures.append(failure)
            self._changed.notify_all()


@dataclass
class Scene:
    """An issuer, its admin, a server with an SVID, and an agent that calls it."""

    running: RunningIssuer
    admin: Admin
    server: AgentIdentity
    agent: AgentIdentity
    traffic: Traffic

    @property
    def identities(self) -> tuple[AgentIdentity, AgentIdentity]:
        """Both who have to follow."""
        return (self.server, self.agent)

    def until(self, true: Callable[[AgentIdentity], bool]) -> None:
        """Wait until something is true of both identities."""
        for identity in self.identities:
            with identity._changed:
                assert identity._changed.wait_for(lambda it=identity: true(it), PATIENCE), (
                    identity.status
                )

    def in_step(self) -> None:
        """Wait until both hold the issuer's newest bundle."""
        self.until(lambda identity: identity.bundle.sequence == self.running.bundle.sequence)

    def active(self, kind: AuthorityKind) -> str:
        """The id of the authority that signs."""
        return self.running.issuer.authorities.now_in_force.active(kind).id

    def roll_over(self, kind: str) -> None:
        """Prepare another, and let it sign once everybody knows it."""
        (prepared,) = self.admin.send(calls.prepare_authority(kind))
        self.in_step()
        self.admin.send(calls.activate_authority(prepared.id, early=True))
        self.in_step()

    def renew_admin(self) -> None:
        """Another SVID for the admin, of the new authority."""
        key = generate_key()
        answer = self.admin.send(calls.x509_svid(csr=calls.certificate_request(key)))
        identity = X509Identity.of(parse_pem(answer.certificates), key)
        self.admin = Admin(self.running.connect(identity), identity)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Everything real, everything running."""
    with ExitStack() as stack:
        running = stack.enter_context(running_issuer(tmp_path / "issuer"))
        admin = log_in(running, running.first_token)
        identities = []
        for name in ("tickets", "summarizer"):
            identity = start_agent(running, admin, tmp_path, name)
            stack.callback(identity.close)
            identities.append(identity)
        server, agent = identities
        app = ticket_server(running, server)
        url = stack.enter_context(resource_server(app, server, peer=PEER))
        yield Scene(running, admin, server, agent, Traffic(url, agent))


def test_every_authority_is_replaced_and_no_call_fails(scene: Scene) -> None:
    """Root, issuing CA and JWT key go through their whole life while calls flow."""
    old = {kind: scene.active(kind) for kind in wanted_kinds(scene.running.issuer.config)}
    old_bundle = scene.running.bundle
    old_svids = [identity.x509 for identity in scene.identities]
    old_token = scene.agent.task_token(
        calls.TaskTokenRequest(resource="tickets", actions=("read",), purpose="to keep")
    ).access_token
    traffic = scene.traffic
    with traffic.flowing():
        traffic.more()
        for kind in ("root", "jwt"):  # an issuing CA follows its root
            scene.roll_over(kind)
            traffic.more()
        assert scene.active(AuthorityKind.X509) != old[AuthorityKind.X509]

        for kind in (AuthorityKind.JWT, AuthorityKind.ROOT):  # and takes its issuing CA along
            scene.admin.send(calls.taint_authority(old[kind], reason="a drill"))
        scene.in_step()
        assert scene.running.bundle.tainted == set(old.values())
        tainted = scene.running.bundle.tainted
        scene.until(lambda identity: not identity.x509.svid.authorities & tainted)
        scene.renew_admin()
        traffic.more()

        for kind in (AuthorityKind.JWT, AuthorityKind.ROOT):
            scene.admin.send(calls.revoke_authority(old[kind], reason="a drill"))
        scene.in_step()
        traffic.more()
    assert traffic.failures == []
    assert traffic.good >= 5 * CALLERS * MORE
    assert [identity.status.failures for identity in scene.identities] == [0, 0]
    assert [identity.status.renewals for identity in scene.identities] == [2, 2]

    _assert_nothing_old_is_believed(scene, old_bundle, old_svids, old_token)


def _assert_nothing_old_is_believed(
    scene: Scene, old_bundle: TrustBundle, old_svids: list[X509Identity], old_token: str
) -> None:
    domain = TrustDomain.parse("example.org")
    for identity in scene.identities:
        bundle = identity.bundle
        assert not set(bundle.x509_authorities) & set(old_bundle.x509_authorities)
        assert not bundle.jwt_authorities.keys() & old_bundle.jwt_authorities.keys()
        for svid in old_svids:
            with pytest.raises(Untrusted):
                validate(svid.svid, bundles={domain: bundle}, now=system_clock())
        with pytest.raises(Refused):
            task_token.verify(
                old_token,
                bundle=bundle,
                issuer=scene.running.issuer.config.url,
                audience=AUDIENCE,
                now=system_clock(),
            )
    # Neither the server nor the issuer talks to who shows an old SVID.
    for svid in old_svids:
        with pytest.raises(ClientError):
            scene.running.connect(svid).send(calls.whoami())
        context = client_context(
            bundle=scene.server.bundle, peer_check=lambda _: None, identity=svid
        )
        with (
            httpx2.Client(verify=context, trust_env=False) as client,
            pytest.raises(httpx2.TransportError),
        ):
            client.get(f"{scene.traffic.url}/tickets")
    # And who knows only the old roots talks to nobody.
    context = client_context(bundle=old_bundle, peer_check=lambda _: None)
    with (
        httpx2.Client(verify=context, trust_env=False) as client,
        pytest.raises(httpx2.TransportError),
    ):
        client.get(scene.running.url)
