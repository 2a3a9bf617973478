"""The bundle endpoint in both profiles, and the documents beside it: the same bytes, nothing else.

https_spiffe is the issuer's own listener; https_web is the one with a Web CA's certificate.
"""

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.authority import Authority
from support.clock import SettableClock
from support.issuer import RunningIssuer, make_config, running_issuer
from support.judges import openssl
from support.offline import Offline, offline_issuer
from support.process import COMMAND, write_settings
from support.raw_http import RawClient
from support.web import NAME, Web

from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import Untrusted
from accredit_credentials.revocation import FactKind, Target
from accredit_credentials.spiffe_id import issuer_id
from accredit_credentials.x509_svid import X509Svid, parse_der, validate
from accredit_issuer import bundle_endpoint
from accredit_issuer import connection as connection_module
from accredit_issuer.api.discovery import JWKS, OAUTH, OPENID, SSF
from accredit_issuer.api.documents import Document, Kept, has_it
from accredit_issuer.app import make_app, make_public_app
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.bundle_endpoint import CIPHERS, WebCertificate
from accredit_issuer.cli.doctor import examine
from accredit_issuer.clock import system_clock
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.issuer import initialise, open_issuer
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation.stated import FactRequest
from accredit_issuer.server import Server
from accredit_issuer.settings import Config, load

BUNDLE = "/v1/bundle"
DOCUMENTS = (BUNDLE, OPENID, OAUTH, SSF, JWKS)


@dataclass
class World:
    """An issuer that serves in both profiles."""

    running: RunningIssuer
    web: Web

    @property
    def spiffe(self) -> RawClient:
        """A caller at the issuer's own listener, without a certificate."""
        return RawClient.at(self.running.url, self.running.bundle)


@pytest.fixture
def web(tmp_path: Path) -> Web:
    """A Web CA and the operator's files."""
    return Web(tmp_path / "web")


@pytest.fixture
def world(tmp_path: Path, web: Web) -> Iterator[World]:
    """An issuer with both listeners."""
    server = {"port": 0, "token_issuer": web.url}
    with running_issuer(
        tmp_path / "issuer", server=server, bundle={"https_web": web.settings}
    ) as running:
        yield World(running, web)


@pytest.mark.spec("SPIFFE-84")
@pytest.mark.spec("SPIFFE-88")
@pytest.mark.spec("SPIFFE-89")
@pytest.mark.parametrize("path", DOCUMENTS)
def test_both_profiles_serve_the_same_documents(world: World, path: str) -> None:
    """GET answers both kinds of caller with the same JSON in UTF-8, its tag, and how long it is."""
    web, spiffe = world.web.ask("GET", path), world.spiffe.ask("GET", path)
    assert web.status == spiffe.status == 200
    assert web.body == spiffe.body
    assert json.loads(web.body.decode("utf-8"))
    for answer in (web, spiffe):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "max-age=300"
    assert web.headers["etag"] == spiffe.headers["etag"]


@pytest.mark.spec("SPIFFE-88")
def test_the_newest_bundle_is_served(world: World) -> None:
    """What is served is the bundle in force: after a change both profiles answer with the new one.

    Whoever shows the old tag gets the whole new document.
    """
    before = world.web.ask("GET", BUNDLE)
    key = world.running.issuer.authorities.now_in_force.active(AuthorityKind.JWT)
    _revoke(world.running, f"authority:{key.id}")
    for ask in (world.web.ask, world.spiffe.ask):
        after = ask("GET", BUNDLE, headers={"If-None-Match": before.headers["etag"]})
        assert after.status == 200
        assert after.body.decode() == world.running.bundle.to_json()
        assert after.json["spiffe_sequence"] > before.json["spiffe_sequence"]
        assert key.id not in {jwk.get("kid") for jwk in after.json["keys"]}
        assert key.id not in {jwk["kid"] for jwk in ask("GET", JWKS).json["keys"]}


def _revoke(running: RunningIssuer, target: str) -> None:
    running.issuer.state(
        FactRequest(
            target=Target.parse(target), kind=FactKind.REVOKED, reason="stolen", actor=Local("test")
        )
    )


@pytest.mark.spec("SPIFFE-87")
def test_no_client_is_asked_who_it_is(world: World) -> None:
    """Neither TLS nor HTTP wants a name at the bundle: https_web does not even ask for one."""
    port = world.running.url.rpartition(":")[2]
    for where, root in (
        (f"{NAME}:{world.web.port}", world.web.ca.cert_pem.bytes().decode()),
        (f"127.0.0.1:{port}", world.running.bundle.x509_pem),
    ):
        file = world.web.folder / "root.pem"
        file.write_text(root)
        said = openssl("s_client", "-connect", where, "-CAfile", file, "-verify_return_error")
        assert said.accepted, said.text
        asked = "No client certificate CA names sent" not in said.text or (
            "Requested Signature Algorithms" in said.text
        )
        assert asked == where.endswith(f":{port}"), said.text
    assert world.web.ask("GET", BUNDLE).status == world.spiffe.ask("GET", BUNDLE).status == 200


@pytest.mark.spec("SPIFFE-90")
def test_the_https_spiffe_endpoint_shows_a_valid_svid(world: World) -> None:
    """The bundle that is fetched there validates the very certificate that it was served under.

    The issuer's ID is what self-serving clients are configured with; another domain's bundle does
    not validate it.
    """
    with world.spiffe.connected() as connection:
        svid = _with_chain(world, connection.getpeercert(binary_form=True) or b"")
    assert svid.spiffe_id == issuer_id(world.running.bundle.trust_domain)
    fetched = TrustBundle.parse(
        world.running.bundle.trust_domain, world.spiffe.ask("GET", BUNDLE).body
    )
    now = world.running.issuer.clock()
    validate(svid, bundles={fetched.trust_domain: fetched}, now=now)
    other = Authority("example.org").bundle
    with pytest.raises(Untrusted):
        validate(svid, bundles={other.trust_domain: other}, now=now)


def _with_chain(world: World, leaf: bytes) -> X509Svid:
    svid = parse_der(leaf)
    ca = world.running.issuer.authorities.now_in_force.active(AuthorityKind.X509).certificate
    assert ca is not None
    return X509Svid(svid.spiffe_id, svid.leaf, (ca,))


@pytest.mark.spec("SPIFFE-81")
def test_a_relying_party_that_polls_knows_every_signer(tmp_path: Path) -> None:
    """Whoever polls at the refresh hint has each JWT key before it signs.

    The last bundle that it fetched still has the key of every token that is alive.
    """
    lifetimes = {"jwt_key": 600, "jwt_svid": 60, "task_token": 60}
    with offline_issuer(
        tmp_path / "issuer", lifetimes=lifetimes, bundle={"refresh_hint": 10}
    ) as offline:
        polled, alive = set(offline.issuer.bundle.jwt_authorities), {}
        for _ in range(150):
            offline.clock.advance(seconds=10)
            offline.issuer.keep_up()
            kid = offline.issuer.authorities.jwt_signer()[1]
            assert kid in polled, "it signs, and who polled before does not know it"
            alive[kid] = offline.clock() + timedelta(seconds=60)
            polled = set(offline.issuer.bundle.jwt_authorities)
            assert {k for k, end in alive.items() if end > offline.clock()} <= polled
        assert len(alive) > 3


@pytest.mark.spec("SPIFFE-52")
def test_the_sequence_grows_with_the_content(tmp_path: Path) -> None:
    """Over rotation and restarts: another content has a higher number, the same content its own."""
    with offline_issuer(
        tmp_path / "issuer",
        lifetimes={"jwt_key": 600, "jwt_svid": 60, "task_token": 60},
        bundle={"refresh_hint": 10},
    ) as offline:
        seen: list[tuple[int, str]] = []
        for _ in range(12):
            bundle = offline.issuer.bundle
            keys = json.dumps(json.loads(bundle.to_json())["keys"])
            seen.append((bundle.sequence or 0, keys))
            offline.clock.now = offline.issuer.authorities.next_due(offline.clock())
            offline.reopen()
        for (before, old), (after, new) in pairwise(seen):
            assert after >= before
            assert after > before or new == old
        assert len({keys for _, keys in seen}) > 3


def test_nothing_else_is_served_under_the_web_certificate(world: World) -> None:
    """Every other path of the issuer is not found there, with the problem document that says so."""
    app = make_app(world.running.issuer)
    others = {route.path for route in app.routes} - set(DOCUMENTS)  # type: ignore[attr-defined]
    assert len(others) > 20
    for path in sorted(others):
        assert world.web.ask("GET", path.replace("{", "").replace("}", "")).kind == "not-found"
    public = make_public_app(world.running.issuer)
    assert {route.path for route in public.routes} == set(DOCUMENTS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_documents_are_read_only(world: World, method: str) -> None:
    """No method but GET and HEAD, in either profile."""
    for path in DOCUMENTS:
        assert world.web.ask(method, path).kind == "method-not-allowed"
        assert world.spiffe.ask(method, path).kind == "method-not-allowed"


@pytest.mark.parametrize("path", DOCUMENTS)
def test_head_is_get_without_the_body(world: World, path: str) -> None:
    """HEAD has the headers of GET, its length too, and nothing after them."""
    got, head = world.web.ask("GET", path), world.web.ask("HEAD", path)
    assert head.status == 200
    assert head.body == b""
    for name in ("etag", "content-type", "cache-control", "content-length"):
        assert head.headers[name] == got.headers[name]
    tag = {"If-None-Match": got.headers["etag"]}
    assert world.web.ask("HEAD", path, headers=tag).status == 304


@pytest.mark.parametrize("path", DOCUMENTS)
def test_a_poll_that_changes_nothing_is_short(world: World, path: str) -> None:
    """Whoever shows the tag, alone, weak, in a list or as ``*``, gets 304 and no body."""
    tag = world.web.ask("GET", path).headers["etag"]
    for ask in (world.web.ask, world.spiffe.ask):
        for shown in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            answer = ask("GET", path, headers={"If-None-Match": shown})
            assert answer.status == 304, shown
            assert answer.body == b""
            assert answer.headers["etag"] == tag
        assert ask("GET", path, headers={"If-None-Match": '"other"'}).status == 200


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (['"a"'], True),
        (['W/"a"'], True),
        (["*"], True),
        ([" * "], True),
        (['"b", "a"'], True),
        (['"b","a"'], True),
        (['"b"', '"a"'], True),
        ([', ,"a",'], True),
        (['"b,c", W/"a"'], True),
        ([], False),
        ([""], False),
        (['"b"'], False),
        (["a"], False),
        (['"A"'], False),
        (['w/"a"'], False),
        (['"a'], False),
        (['x"a"'], False),
        (['"b""a"'], False),
        (['"a" x'], False),
        (['"a", x'], False),
        (['"b c", "a"'], False),
        (['"a", *'], False),
        (['"x, "a"'], False),
    ],
)
def test_tags_are_compared_as_a_list(shown: list[str], expected: bool) -> None:
    """A list of tags is read as RFC 9110 writes it; what is no list names nothing."""
    assert has_it(shown, '"a"') is expected


def test_a_long_list_is_read_in_one_pass() -> None:
    """A head full of commas, quotes or tags takes no time worth speaking of."""
    begin = time.process_time()
    for text in ("," * 60_000, '"' * 60_000, 'W/"b",' * 10_000, '"b" ' + " " * 60_000 + "x"):
        assert not has_it([text], '"a"')
    assert time.process_time() - begin < 1


def test_a_document_is_made_once_for_each_bundle() -> None:
    """A thousand polls make one document; another bundle makes the next."""
    made: list[TrustBundle] = []

    def make(bundle: TrustBundle) -> Document:
        made.append(bundle)
        return Document.of(bundle.to_json(), max_age=1)

    bundle = [Authority().bundle]
    kept = Kept(lambda: bundle[0], make)
    first = [kept.now for _ in range(1000)]
    assert len(made) == 1
    assert len(set(map(id, first))) == 1
    bundle[0] = Authority().bundle
    assert kept.now.tag != first[0].tag
    assert made[1:] == [bundle[0]]


# The certificate and TLS of https_web.


@pytest.mark.spec("SPIFFE-84")
@pytest.mark.parametrize("key_type", [trustme.KeyType.ECDSA, trustme.KeyType.RSA])
@pytest.mark.parametrize("name", [NAME, None])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_is_what_mozilla_calls_intermediate(
    tmp_path: Path, version: ssl.TLSVersion, name: str | None, key_type: trustme.KeyType
) -> None:
    """TLS 1.3 and 1.2 connect, with and without a name sent, for both kinds of certificate."""
    web = Web(tmp_path / "web")
    leaf = web.renew(key_type)
    with running_issuer(tmp_path / "issuer", bundle={"https_web": web.settings}):
        context = web.context()
        context.minimum_version = context.maximum_version = version
        assert web.shown(context, name=name).encode().strip() == leaf.strip()


@pytest.mark.spec("SPIFFE-84")
def test_older_and_weaker_tls_is_refused(world: World) -> None:
    """TLS 1.1, and each cipher of TLS 1.2 that is not on the list, does not connect."""
    where = ("-connect", f"{NAME}:{world.web.port}", "-servername", NAME)
    root = world.web.folder / "ca.pem"
    world.web.ca.cert_pem.write_to_path(str(root))
    for old in ("-tls1", "-tls1_1"):
        said = openssl("s_client", *where, old, "-cipher", "ALL:@SECLEVEL=0")
        assert not said.accepted, said.text
    listed = openssl("ciphers", "-tls1_2", "-s", "ALL:eNULL:@SECLEVEL=0").text.strip()
    weak = set(listed.split(":")) - set(CIPHERS) - {""}
    assert len(weak) > 20
    every = f"{':'.join(sorted(weak))}:@SECLEVEL=0"
    said = openssl("s_client", *where, "-tls1_2", "-cipher", every)
    assert not said.accepted
    assert "Cipher is (NONE)" in said.text
    for cipher in CIPHERS:
        said = openssl("s_client", *where, "-tls1_2", "-cipher", cipher, "-CAfile", root)
        assert said.accepted == ("ECDSA" in cipher), cipher  # the certificate's key is one


@pytest.mark.spec("SPIFFE-89")
def test_the_web_certificate_is_of_its_name(world: World) -> None:
    """A client that compares names connects to this one and to no other, and needs the Web CA."""
    assert world.web.shown()
    with pytest.raises(ssl.SSLCertVerificationError):
        world.web.shown(name="other.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        world.web.shown(ssl.create_default_context())


def test_a_renewed_certificate_is_shown_without_a_restart(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files change, and the next handshakes show the new certificate; open connections stay."""
    monkeypatch.setattr(bundle_endpoint, "CHECK_SECONDS", 0.02)
    with (
        running_issuer(tmp_path / "issuer", bundle={"https_web": web.settings}),
        socket.create_connection(("127.0.0.1", web.port), 20) as raw,
        web.context().wrap_socket(raw, server_hostname=NAME) as kept,
    ):
        renewed = web.renew().decode().strip()
        until = time.monotonic() + 20
        while web.shown().strip() != renewed:
            assert time.monotonic() < until, "the new certificate is never shown"
        kept.sendall(b"GET /v1/bundle HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(100).startswith(b"HTTP/1.1 200")


def test_a_bad_pair_leaves_the_old_one(web: Web) -> None:
    """A key of another certificate, garbage, or no file: the old pair stays, logged once.

    When both fit again they are taken.
    """
    certificate = WebCertificate(_settings(web))
    good = certificate.context
    key = web.key_file.read_bytes()
    for change in (
        lambda: web.key_file.write_bytes(web.ca.issue_cert(NAME).private_key_pem.bytes()),
        lambda: web.key_file.write_text("garbage"),
        web.key_file.unlink,
        web.certificate_file.unlink,
    ):
        change()
        with structlog.testing.capture_logs() as logs:
            assert not certificate.look_again()
            assert not certificate.look_again()
        assert [log["log_level"] for log in logs] == ["error"]
        assert str(web.certificate_file) in logs[0]["reason"]
        assert str(web.key_file) in logs[0]["reason"]
        assert key.decode().splitlines()[1] not in str(logs)
        assert certificate.context is good
    web.renew()
    with structlog.testing.capture_logs() as logs:
        assert certificate.look_again()
        assert not certificate.look_again()
    assert [log["log_level"] for log in logs] == ["info"]
    assert certificate.context is not good


def _settings(web: Web) -> Any:
    config = make_config(web.folder, bundle={"https_web": web.settings})
    assert config.https_web is not None
    return config.https_web


def _another_key(web: Web) -> None:
    web.key_file.write_bytes(web.ca.issue_cert(NAME).private_key_pem.bytes())


def _folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _encrypted_key(web: Web) -> None:
    key = serialization.load_pem_private_key(web.key_file.read_bytes(), None)
    web.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_another_key, "the key is not the certificate's"),
        (_encrypted_key, "encrypted"),
        (lambda web: web.key_file.write_text(""), "not PEM"),
        (lambda web: web.certificate_file.write_text("garbage"), "not PEM"),
        (lambda web: web.key_file.unlink(), "web.key: No such file"),
        (lambda web: web.certificate_file.unlink(), "web.pem: No such file"),
        (lambda web: _folder_instead(web.key_file), "web.key: Is a directory"),
    ],
)
def test_a_pair_that_cannot_be_used_stops_the_start(
    tmp_path: Path, web: Web, spoil: Any, why: str
) -> None:
    """The issuer does not start, and one line names both files and the reason; nobody is asked."""
    config = make_config(tmp_path / "issuer", bundle={"https_web": web.settings})
    spoil(web)
    with pytest.raises(InvalidSettings) as refused:
        _start(config)
    text = str(refused.value)
    assert "\n" not in text
    assert str(web.certificate_file) in text
    assert str(web.key_file) in text
    assert why in text


def test_the_command_says_it_in_one_line(tmp_path: Path, web: Web) -> None:
    """``accredit-issuer run`` ends with status 1 and one line about the pair."""
    pair = f'certificate_file = "{web.certificate_file}"\nkey_file = "{web.key_file}"\n'
    file = write_settings(tmp_path, f"[bundle.https_web]\nport = {web.port}\n{pair}")
    _another_key(web)
    ended = subprocess.run(
        [*COMMAND, "run", "--config", str(file)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: bundle.https_web: certificate_file ")
    assert last.endswith("the key is not the certificate's")


def test_a_taken_address_stops_the_start(tmp_path: Path, web: Web) -> None:
    """Where somebody else listens, the error names the setting, and nothing is left running."""
    config = make_config(tmp_path / "issuer", bundle={"https_web": web.settings})
    with (
        socket.create_server(("127.0.0.1", web.port)),
        pytest.raises(InvalidSettings, match=r"bundle\.https_web\.port"),
    ):
        _start(config)


def _start(config: Config) -> None:
    initialise(config, SettableClock())
    issuer = open_issuer(config, SettableClock())
    try:
        Server(issuer).run(on_ready=lambda *_: pytest.fail("it serves"))
    finally:
        issuer.close()


def test_strangers_at_the_web_listener_are_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadlines and caps of the issuer's own listener hold there, too."""
    monkeypatch.setattr(connection_module, "REQUEST_SECONDS", 0.2)
    for data in (b"", b"GET /v1/bun", b"GET /v1/bundle HTTP/1.1\r\nhost: x\r\n\r\n" * 3000):
        with (
            socket.create_connection(("127.0.0.1", world.web.port), 20) as raw,
            world.web.context().wrap_socket(raw, server_hostname=NAME) as connection,
        ):
            with suppress(ssl.SSLError, ConnectionError):
                connection.sendall(data)
            with suppress(ssl.SSLEOFError, ConnectionError):
                while connection.recv(65536):
                    pass
    assert world.web.ask("GET", BUNDLE).status == 200


def test_stop_ends_the_web_listener_too(tmp_path: Path, web: Web) -> None:
    """An idle connection there does not hold a stop up, and nobody listens afterwards."""
    with running_issuer(tmp_path / "issuer", bundle={"https_web": web.settings}):
        raw = socket.create_connection(("127.0.0.1", web.port), 20)
        idle = web.context().wrap_socket(raw, server_hostname=NAME)
        idle.sendall(b"GET /v1/bundle HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        begin = time.monotonic()
    assert time.monotonic() - begin < 3
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", web.port), 20)


# What the documents say.


def test_discovery_says_what_is_true(world: World) -> None:
    """Issuer, keys and algorithms are those of real tokens; what does not exist is not named."""
    url = world.web.url
    openid = world.web.ask("GET", OPENID).json
    assert openid == {
        "issuer": url,
        "jwks_uri": f"{url}/.well-known/jwks.json",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "jti", "agent"],
    }
    oauth = world.web.ask("GET", OAUTH).json
    assert oauth["issuer"] == url
    assert oauth["jwks_uri"] == openid["jwks_uri"]
    config = world.running.issuer.config
    assert oauth["token_endpoint"] == f"{config.url}/v1/task-tokens"
    assert oauth["service_documentation"] == f"{config.url}/docs"
    served = {route.path for route in make_app(world.running.issuer).routes}  # type: ignore[attr-defined]
    assert {"/v1/task-tokens", "/docs", "/.well-known/jwks.json"} <= served
    assert oauth["authorization_details_types_supported"] == ["accredit:resource"]
    assert "dpop_signing_alg_values_supported" not in oauth
    assert "authorization_endpoint" not in {**openid, **oauth}


def test_the_key_set_has_token_keys_only(world: World) -> None:
    """The plain JWK Set names each JWT key of the bundle for signing, and no X.509 authority."""
    keys = world.web.ask("GET", JWKS).json["keys"]
    bundle = world.running.bundle
    assert [jwk["kid"] for jwk in keys] == list(bundle.jwt_authorities)
    for jwk in keys:
        assert set(jwk) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (jwk["use"], jwk["alg"]) == ("sig", "ES256")


def test_token_issuer_is_the_url_where_nothing_is_said(offline: Offline) -> None:
    """Without the setting, tokens and discovery name ``server.url``."""
    assert offline.config.token_issuer == offline.config.url


def test_the_web_certificate_is_looked_at_by_doctor(tmp_path: Path, web: Web) -> None:
    """``doctor`` says when the certificate ends, and what is wrong with the pair.

    A key that everybody can read is wrong.
    """
    file = tmp_path / "issuer.toml"
    file.write_text(
        f'trust_domain = "example.org"\n[bundle.https_web]\nport = {web.port}\n'
        f'certificate_file = "{web.certificate_file}"\nkey_file = "web/web.key"\n'
    )
    initialise(load(file), system_clock)
    now = system_clock()
    leaf = x509.load_pem_x509_certificate(web.certificate_file.read_bytes())
    found = _finding(examine(file, now))
    assert found.ok
    assert f"{leaf.not_valid_after_utc:%Y-%m-%d}" in found.found
    assert not _finding(examine(file, leaf.not_valid_after_utc)).ok
    for mode, ok in ((0o640, True), (0o644, False)):
        web.key_file.chmod(mode)
        (found,) = [each for each in examine(file, now) if each.what == "permissions of web.key"]
        assert found.ok is ok
    _another_key(web)
    assert not _finding(examine(file, now)).ok


def _finding(findings: Any) -> Any:
    (found,) = [each for each in findings if "https_web" in each.what]
    return found
