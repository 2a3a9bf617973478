"""OCSP over HTTP: real sockets, both methods, every kind of body, and what may be cached."""

import base64
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from cryptography import x509
from support.interop_world import World, make_world
from support.ocsp import cert_id, extension, nonce_of, put_together, request, status_of, verified
from support.raw_http import Answer, RawClient

from accredit_client import calls
from accredit_credentials import der
from accredit_credentials.errors import CredentialError
from accredit_credentials.x509_svid import X509Identity, X509Svid, unverified_svid, validate

POST = {"Content-Type": "application/ocsp-request"}


@dataclass
class Asking:
    """Somebody without a certificate who asks about others'."""

    world: World
    client: RawClient

    @property
    def path(self) -> str:
        """The responder of the CA that signs."""
        ca = self.world.issuing_ca
        ski = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return f"/v1/ocsp/{ski.value.digest.hex()}"

    def request(self, identity: X509Identity, nonce: bytes | None = None) -> bytes:
        """A question about an agent."""
        return request(identity.svid.leaf, self.world.issuing_ca, nonce=nonce)

    def post(self, body: bytes) -> Answer:
        """Ask by POST."""
        return self.client.ask("POST", self.path, body, headers=POST)

    def get(self, body: bytes, **how: str) -> Answer:
        """Ask by GET, everything escaped that may be."""
        encoded = urllib.parse.quote(base64.b64encode(body), safe="")
        return self.client.ask("GET", f"{self.path}/{encoded}", headers=how)

    def state(self, identity: X509Identity, kind: str) -> None:
        """State a fact over the wire."""
        target = f"instance:{identity.svid.instance}"
        self.world.admin.send(calls.revoke(target=target, kind=kind, reason="test"))


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """An issuer that serves, and an agent of it."""
    folder: Path = tmp_path_factory.mktemp("issuer")
    with make_world(folder, name="localhost") as world:
        yield Asking(world, RawClient.at(world.running.url, world.running.bundle))


def check_answer(answer: Answer, status: str) -> None:
    """An OCSP answer with this status, or failure."""
    assert (answer.status, answer.headers["content-type"]) == (200, "application/ocsp-response")
    assert status_of(answer.body) == status


def test_post_and_get_say_the_same(asking: Asking) -> None:
    """Both answer with one and the same signed answer, for anybody, and it verifies."""
    question = asking.request(asking.world.identity)
    posted, got = asking.post(question), asking.get(question)
    check_answer(posted, "good")
    assert got.body == posted.body
    verified(got.body, asking.world.issuing_ca)
    plain = base64.b64encode(question).decode()
    assert asking.client.ask("GET", f"{asking.path}/{plain}").body == posted.body


def test_every_character_of_base64_comes_through(asking: Asking) -> None:
    """Requests whose base64 has a slash or a plus are read, escaped and not."""
    for filler in (b"\xff\xef\xbe" * 9, b"\xfb\xff\xfe" * 9):
        ours = cert_id(asking.world.identity.svid.leaf, asking.world.issuing_ca)
        question = put_together(ours, extensions=extension(filler))
        encoded = base64.b64encode(question).decode()
        assert {"/", "+"} & set(encoded)
        check_answer(asking.client.ask("GET", f"{asking.path}/{encoded}"), "good")
        check_answer(asking.get(question), "good")


def test_revoked_is_the_very_next_answer(asking: Asking) -> None:
    """Though a good answer was kept: once the fact is stated nobody is told good again."""
    doomed, neighbour = asking.world.another(), asking.world.another()
    for each in (doomed, neighbour):
        check_answer(asking.get(asking.request(each)), "good")
    asking.state(doomed, "revoked")
    for ask in (asking.get, asking.post):
        check_answer(ask(asking.request(doomed)), "revoked")
        check_answer(ask(asking.request(neighbour)), "good")


def test_suspended_and_restored(asking: Asking) -> None:
    """A suspension is told at once, and so is its end."""
    held = asking.world.another()
    for kind, status in (("suspended", "revoked"), ("restored", "good"), ("revoked", "revoked")):
        asking.state(held, kind)
        check_answer(asking.get(asking.request(held)), status)


def test_what_may_be_cached_says_for_how_long(asking: Asking) -> None:
    """Without a nonce: until before the answer ends (RFC 5019 §6.2); known by its tag: a 304."""
    question = asking.request(asking.world.another())
    answer = asking.get(question)
    read = verified(answer.body, asking.world.issuing_ca)
    headers = answer.headers
    age, *more = headers["cache-control"].split(", ")
    assert more == ["public", "no-transform", "must-revalidate"]
    assert parsedate_to_datetime(headers["last-modified"]) == read.this_update_utc
    assert parsedate_to_datetime(headers["expires"]) == read.next_update_utc
    left = read.next_update_utc - parsedate_to_datetime(headers["date"])
    assert 0 < int(age.removeprefix("max-age=")) < left.total_seconds() <= 30
    unchanged = asking.get(question, **{"If-None-Match": headers["etag"]})
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert asking.get(question, **{"If-None-Match": '"other"'}).status == 200


@pytest.mark.parametrize("what", ["nonce", "unknown", "foreign", "malformed"])
def test_what_may_not_be_cached_says_so(asking: Asking, what: str) -> None:
    """An answer for one asker, of a passing moment, or without a signature is for nobody else."""
    identity, ca = asking.world.identity, asking.world.issuing_ca
    ours = cert_id(identity.svid.leaf, ca)
    serial = der.integer(identity.svid.leaf.serial_number)
    body, status = {
        "nonce": (asking.request(identity, b"n" * 32), "good"),
        "unknown": (put_together(ours.replace(serial, der.integer(1 << 158))), "unknown"),
        "foreign": (request(ca, asking.world.root), "unauthorized"),
        "malformed": (b"\x30\x00", "malformed_request"),
    }[what]
    for answer in (asking.get(body), asking.post(body)):
        check_answer(answer, status)
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers


def test_a_nonce_comes_back(asking: Asking) -> None:
    """Each asker finds its own nonce in its answer, by either method."""
    for nonce in (b"1" * 16, b"2" * 32):
        question = asking.request(asking.world.identity, nonce)
        for answer in (asking.post(question), asking.get(question)):
            assert nonce_of(verified(answer.body, asking.world.issuing_ca)) == nonce


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", "malformed_request"), (b"x" * 1025, "malformed_request"),
     (b"x" * 60_000, "malformed_request")],
)  # fmt: skip
def test_what_is_no_request_is_malformed(asking: Asking, body: bytes, status: str) -> None:
    """What HTTP takes and OCSP does not is said no to in OCSP's own words."""
    check_answer(asking.post(body), status)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_of_a_megabyte_is_refused(asking: Asking, *, chunked: bool) -> None:
    """Whether it says its length or not, it is not read to the end."""
    body = asking.request(asking.world.identity) + b"\0" * 1_000_000
    try:
        answer = asking.client.ask("POST", asking.path, body, headers=POST, chunked=chunked)
    except (BrokenPipeError, ConnectionResetError):
        return  # cut off while it was sent
    assert (answer.status, answer.kind) == (413, "too-large")


@pytest.mark.parametrize(
    "encoded", ["", "MAA", "!", "MAA=MAA=", "%FF", "A" * 1400, "A" * 60_000, "..%2f..%2f", "%00"]
)
def test_what_is_no_base64_is_malformed(asking: Asking, encoded: str) -> None:
    """A path that says no request, or a longer one than any, gets OCSP's no, or the server's."""
    answer = asking.client.ask("GET", f"{asking.path}/{encoded}")
    if answer.status == 200:
        check_answer(answer, "malformed_request")
    else:
        assert len(encoded) > 1400
        assert answer.status in {400, 414, 431}


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/ocsp-response", ""]
)
def test_a_body_of_another_type_is_refused(asking: Asking, content_type: str) -> None:
    """Only a body that says it is an OCSP request is read as one; parameters do not matter."""
    question = asking.request(asking.world.identity)
    headers = {"Content-Type": content_type} if content_type else {}
    answer = asking.client.ask("POST", asking.path, question, headers=headers)
    assert (answer.status, answer.kind) == (415, "unsupported-media-type")
    headers = {"Content-Type": "Application/OCSP-Request; x=y"}
    check_answer(asking.client.ask("POST", asking.path, question, headers=headers), "good")


def test_no_other_call_takes_a_request(asking: Asking) -> None:
    """An OCSP body is refused everywhere else, as any that is not JSON."""
    for path in ("/v1/attestations/nonce", "/v1/revocations", "/v1/ocsp"):
        answer = asking.client.ask("POST", path, b"\x30\x00", headers=POST)
        assert answer.status == 415


def test_an_authority_is_named_by_its_key(asking: Asking) -> None:
    """A path that names no key at all is a problem; one that names no CA of ours is OCSP's no."""
    question = asking.request(asking.world.identity)
    for name in ("UP", "x", "0" * 65):
        answer = asking.client.ask("POST", f"/v1/ocsp/{name}", question, headers=POST)
        assert (answer.status, answer.kind) == (400, "malformed")
    check_answer(asking.client.ask("POST", "/v1/ocsp/00", question, headers=POST), "unauthorized")


def test_the_responder_is_no_agent(asking: Asking) -> None:
    """What signed the answer passes for nobody's SVID, below the very CA of the agents."""
    world = asking.world
    body = asking.post(asking.request(world.identity)).body
    (responder,) = verified(body, world.issuing_ca).certificates
    with pytest.raises(CredentialError):
        unverified_svid([responder, world.issuing_ca])
    svid, bundle = world.identity.svid, world.running.bundle
    posing = X509Svid(svid.spiffe_id, responder, svid.intermediates)
    now, bundles = world.running.issuer.clock(), {bundle.trust_domain: bundle}
    with pytest.raises(CredentialError):
        validate(posing, bundles=bundles, now=now)
    assert validate(svid, bundles=bundles, now=now) == svid
