"""The server: its certificate follows without a restart, it stops in time, it sheds nobody else."""

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from support.clock import SettableClock
from support.issuer import RunningIssuer, log_in, make_config, running_issuer
from support.process import IssuerProcess, issuer_process, write_settings
from support.raw_http import RawClient

from accredit_client import calls
from accredit_credentials import tls
from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.tls import load_identity
from accredit_credentials.x509_svid import parse_der
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.issuer import initialise, open_issuer
from accredit_issuer.registry.changes import Local
from accredit_issuer.scheduler import Scheduler
from accredit_issuer.server import UNREACHABLE_SECONDS, OwnIdentity, Server, _listen


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningIssuer]:
    """An issuer that serves."""
    with running_issuer(tmp_path / "issuer") as running:
        yield running


def shown_certificate(client: RawClient) -> x509.Certificate:
    """The certificate that the server shows in a new handshake."""
    with client.connected() as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def test_the_server_has_an_svid_of_its_own(running: RunningIssuer) -> None:
    """It shows the issuer's SPIFFE ID with its DNS names, to a client with and without SNI."""
    client = RawClient.at(running.url, running.bundle)
    svid = parse_der(client_der := _der(shown_certificate(client)))
    assert svid.spiffe_id == issuer_id(running.bundle.trust_domain)
    names = svid.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    with (
        socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as plain,
        client.context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.getpeercert(binary_form=True) == client_der
        assert connection.version() == "TLSv1.3"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="of Linux")
def test_a_peer_that_vanished_is_given_up() -> None:
    """Whoever acknowledges no bytes any more is cut in half a minute, not a quarter hour."""
    with (
        _listen("127.0.0.1", 0, "test") as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        found = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert found == UNREACHABLE_SECONDS * 1000


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return certificate.public_bytes(Encoding.DER)


def test_the_certificate_follows_its_renewal(tmp_path: Path) -> None:
    """A renewed SVID is shown in the next handshake, and no connection is cut."""
    with running_issuer(tmp_path / "issuer") as running:
        client = RawClient.at(running.url, running.bundle)
        before = shown_certificate(client)
        with client.connected() as kept:
            _renew(running)
            after = shown_certificate(client)
            assert after.serial_number != before.serial_number
            kept.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(100).startswith(b"HTTP/1.1 200")


def _renew(running: RunningIssuer) -> None:
    """Renew the server's SVID now, on the server's own loop."""
    loop = running.issuer.feed._loop
    assert loop is not None
    asyncio.run_coroutine_threadsafe(_own_identity(running).renew(), loop).result(20)


def _own_identity(running: RunningIssuer) -> OwnIdentity:
    """The identity of the server that runs, found by what listens to the authorities."""
    owners = [getattr(call, "__self__", None) for call in running.issuer.authorities._listeners]
    (identity,) = [owner for owner in owners if isinstance(owner, OwnIdentity)]
    return identity


def test_new_authorities_reach_the_handshake(tmp_path: Path) -> None:
    """When the authorities rotate, clients of the new and of the old CA are accepted at once."""
    # OpenSSL looks at the real clock: everything that is shown has to be good by it too.
    real = datetime.now(UTC)
    clock = SettableClock(real - timedelta(hours=13))
    with running_issuer(tmp_path / "issuer", clock=clock) as running:
        authorities = running.issuer.authorities
        clock.now = real - timedelta(hours=2)
        _renew(running)
        old = log_in(running, running.first_token)
        ca = authorities.now_in_force.active(AuthorityKind.X509).id
        clock.now = real
        running.issuer.keep_up()
        assert authorities.now_in_force.active(AuthorityKind.X509).id != ca
        new = old.send(calls.add_admin(name="new", role="viewer", namespaces=[]))
        fresh = log_in(running, str(new.enrolment_token))
        for admin in (old, fresh):
            client = RawClient.at(running.url, running.bundle, admin.identity)
            assert client.ask("GET", "/v1/whoami").status == 200
        assert fresh.identity.svid.intermediates != old.identity.svid.intermediates


@dataclass
class Returning:
    """A client of plain TLS that comes back with the session it saved."""

    address: tuple[str, int]
    context: ssl.SSLContext
    session: ssl.SSLSession | None = None
    resumed: bool | None = None

    def ask(self) -> bytes:
        """The first line of what the issuer says to ``whoami``; nothing where it cuts off."""
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            socket.create_connection(self.address, timeout=20) as plain,
            self.context.wrap_socket(plain, session=self.session) as connection,
        ):
            connection.sendall(b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.recv(65536)
            self.session, self.resumed = connection.session, connection.session_reused
            return answer.partition(b"\r\n")[0]
        return b""


@pytest.mark.parametrize("hardened", [True, False])
def test_a_session_does_not_outlive_its_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hardened: bool
) -> None:
    """Saved under an authority that was removed since, a session does not come back as who it was.

    The twin: with tickets, and taking resumed sessions, the handshake would ask for no proof.
    """
    if not hardened:
        monkeypatch.setattr(tls, "_harden", lambda _context: None)
        monkeypatch.setattr(tls, "_verify", lambda _connection: None)
    with running_issuer(tmp_path / "issuer") as running:
        admin = log_in(running, running.first_token)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=running.bundle.x509_pem)
        load_identity(context, admin.identity)
        client = Returning(("127.0.0.1", int(running.url.rpartition(":")[2])), context)
        assert client.ask() == b"HTTP/1.1 200 OK"
        assert client.session is None or client.session.has_ticket is not hardened
        rollover = running.issuer.rollover
        old = running.issuer.authorities.now_in_force.active(AuthorityKind.ROOT).id
        (prepared,) = rollover.prepare(AuthorityKind.ROOT, by=Local("test"))
        rollover.activate(prepared["id"], early=True, by=Local("test"))
        _renew(running)
        rollover.revoke(old, "removed", by=Local("test"))
        context.load_verify_locations(cadata=running.bundle.x509_pem)
        if hardened:
            assert client.ask() == b"", "cut off in the handshake"
        else:
            # Only what the issuer knows of facts stands in its way any more.
            assert client.ask() == b"HTTP/1.1 403 Forbidden"
            assert client.resumed


def test_a_failed_round_is_tried_again(tmp_path: Path) -> None:
    """Whatever goes wrong while keeping up, a full disk too, the next round comes."""
    config = make_config(tmp_path / "issuer")
    initialise(config, SettableClock())
    issuer = open_issuer(config, SettableClock())
    scheduler = Scheduler(issuer)
    armed: list[datetime] = []
    scheduler._arm = armed.append  # type: ignore[method-assign]
    for error in (OSError("no space left"), ValueError("x"), RuntimeError("y")):

        def fail(error: Exception = error) -> None:
            raise error

        issuer.keep_up = fail  # type: ignore[method-assign]
        scheduler._run()
    issuer.close()
    assert armed == [issuer.clock() + timedelta(seconds=5)] * 3


def test_stop_does_not_wait_for_clients(running: RunningIssuer) -> None:
    """Idle connections, half requests and open streams do not hold a stop up."""
    client = RawClient.at(running.url, running.bundle)
    with client.connected() as idle, client.connected() as half, client.connected() as stream:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(100)
        half.sendall(b"POST /v1/attestations/nonce HTTP/1.1\r\nContent-Le")
        stream.sendall(b"GET /v1/revocations/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.1 200")
        server = _thread_of(running)
        begin = time.monotonic()
        _stop(server)
        server.join(5)
        assert not server.is_alive()
        assert time.monotonic() - begin < 3


def _thread_of(running: RunningIssuer) -> threading.Thread:
    """The thread of this very issuer: other tests' may run in this process."""
    for thread in threading.enumerate():
        server = getattr(getattr(thread, "_target", None), "__self__", None)
        if isinstance(server, Server) and server._issuer is running.issuer:
            return thread
    raise AssertionError("no thread serves it")


def _stop(thread: threading.Thread) -> None:
    thread._target.__self__.stop()  # type: ignore[attr-defined]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[IssuerProcess]:
    """An issuer in a process of its own."""
    with issuer_process(write_settings(tmp_path)) as process:
        yield process


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_process_in_time(process: IssuerProcess, sent: signal.Signals) -> None:
    """With idle clients and open streams connected it ends within three seconds, with status 0."""
    client = process.caller()
    with client.connected() as idle, client.connected() as stream:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(100)
        stream.sendall(b"GET /v1/revocations/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.1 200")
        begin = time.monotonic()
        process.send_signal(sent)
        assert process.wait() == 0
        assert time.monotonic() - begin < 3


def test_one_issuer_a_folder(process: IssuerProcess) -> None:
    """A second issuer on the same folder does not start, and says why in one line."""
    second = subprocess.run(
        process.command, capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith("error: an issuer is running")
    assert process.caller().ask("GET", "/health/ready").json["ready"] is True


def test_a_client_without_tls_harms_nobody(running: RunningIssuer) -> None:
    """Plain HTTP and garbage are dropped, silent connections wait, others are served."""
    address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
    silent = [socket.create_connection(address) for _ in range(50)]
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100, b"\0" * 1000):
        with socket.create_connection(address, timeout=10) as plain:
            plain.sendall(data)
            try:
                assert not plain.recv(1000).startswith(b"HTTP")
            except ConnectionError:
                continue
    assert RawClient.at(running.url, running.bundle).ask("GET", "/health/live").status == 200
    for connection in silent:
        connection.close()
    assert ssl.HAS_TLSv1_3
