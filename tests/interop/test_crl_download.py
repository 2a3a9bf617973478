"""OpenSSL finds our CRL by itself: the leaf names it, something in front ends TLS."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.interop_world import World, make_world
from support.judges import Verdict, openssl

from accredit_client import calls
from accredit_credentials.x509_svid import X509Identity


class Front(ThreadingHTTPServer):
    """Serves the issuer's CRLs by plain HTTP, as a site's proxy would; counts who asks."""

    world: World
    asked = 0

    def crl(self, path: str) -> bytes:
        """The CRL at a path, from the issuer."""
        self.asked += 1
        authority = path.removeprefix("/v1/crl/").removesuffix(".crl")
        return self.world.running.connect().send(calls.crl(authority))


class Handler(BaseHTTPRequestHandler):
    """One question."""

    server: Front

    def do_GET(self) -> None:
        """Pass on what the issuer says."""
        body = self.server.crl(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "application/pkix-crl")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def front() -> Iterator[Front]:
    """It serves on loopback until the test ends."""
    with Front(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def downloading(tmp_path: Path) -> Iterator[Front]:
    """An issuer whose certificates name the front."""
    with front() as server:
        url = f"http://127.0.0.1:{server.server_port}"
        with make_world(tmp_path, name="issuer.example.org", crl_url=url) as server.world:
            yield server


def verify(world: World, identity: X509Identity) -> Verdict:
    """Let OpenSSL verify a leaf with the CRL that the leaf names."""
    files = world.files(identity)
    return openssl(
        *("verify", "-CAfile", world.root_file, "-untrusted", files.chain),
        *("-x509_strict", "-crl_check", "-crl_download", files.leaf),
    )


def test_openssl_downloads_the_crl_that_a_leaf_names(downloading: Front) -> None:
    """A fact holds at the next look, for the revoked and not for its neighbour."""
    world = downloading.world
    doomed, neighbour = world.another(), world.another()
    assert verify(world, doomed).accepted
    assert downloading.asked == 1
    target = f"instance:{doomed.svid.instance}"
    world.admin.send(calls.revoke(target=target, kind="revoked", reason="interop"))
    refused = verify(world, doomed)
    assert not refused.accepted
    assert "certificate revoked" in refused.text
    assert verify(world, neighbour).accepted
    assert downloading.asked == 3


def test_a_leaf_that_names_no_crl_cannot_be_looked_up(world: World) -> None:
    """The twin: nothing is downloaded, and OpenSSL refuses what it cannot look up."""
    refused = verify(world, world.identity)
    assert not refused.accepted
    assert "unable to get certificate CRL" in refused.text
