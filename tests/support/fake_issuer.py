"""A small issuer that keeps its promises only as long as a test wants it to.

Speaks docs/api.md over real TLS with a test's ``Authority``: nonces and join tokens are good once,
SVIDs and tokens are really signed. ``away`` makes it vanish, ``refuse`` and ``answer`` put words
into its mouth, and ``asked`` remembers what came.

OpenSSL looks at the real clock, and a test at its own: SVIDs live 20 hours and the test's time
begins 15 hours before the real one, so that the first SVID and its successor are good in both.
"""

import json
import queue
import socket
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from cryptography import x509
from support.authority import INSTANCE, MANIFEST, Authority

from accredit_client.thumbprint import certificate_thumbprint
from accredit_credentials import jwt_svid, revocation_feed, task_token
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.bundle_map import BundleMap
from accredit_credentials.jwt_svid import AgentBlock, JwtSvid
from accredit_credentials.keys import SubjectKey, check_public_key
from accredit_credentials.revocation import FactKind, RevocationFact, Target
from accredit_credentials.revocation_feed import Statement
from accredit_credentials.spiffe_id import SpiffeId, issuer_id
from accredit_credentials.task_token import Binding, BindingKind, Grant, Task, TaskToken
from accredit_credentials.tls import SpiffeContext, server_context
from accredit_credentials.x509_svid import X509Svid, parse_der
from accredit_credentials.x509_template import leaf_builder

LIFE = timedelta(hours=20)
TOKEN_LIFE = timedelta(minutes=5)
AUDIENCE = "https://tickets.example.org"
ISSUER = "https://issuer.example.org"
BLOCK = AgentBlock(version="1.0.0", instance=INSTANCE, manifest=MANIFEST, assurance="self")


def real_now() -> datetime:
    """The time that OpenSSL sees."""
    return datetime.now(UTC).replace(microsecond=0)


def begin_at() -> datetime:
    """When a test's own time begins."""
    return real_now() - timedelta(hours=15)


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    body: Any
    serial: str | None
    """The serial number of the certificate that was shown."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The request's head, names in lower case."""


@dataclass
class FakeIssuer:
    """What the issuer knows, and how it behaves."""

    authority: Authority
    clock: Callable[[], datetime]
    away: bool = False
    agent: SpiffeId | None = None
    bundle: TrustBundle | None = None
    federation: BundleMap = field(default_factory=BundleMap)
    join_tokens: set[str] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    facts: list[RevocationFact] = field(default_factory=list)
    _nonces: set[str] = field(default_factory=set)
    _refusals: dict[str, deque[tuple[int, str, str]]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    _answers: dict[str, tuple[int, bytes, dict[str, str]]] = field(default_factory=dict)
    _streams: list["queue.Queue[str | None]"] = field(default_factory=list)
    url: str = ""
    token_issuer: str = ISSUER
    listener_id: str | None = None
    """With which streams begin; None as an issuer that knows no acknowledgements."""

    # What a test says

    def refuse(self, path: str, kind: str, *, status: int = 403, times: int = 1) -> None:
        """Refuse the next calls of a path."""
        self._refusals[path].extend([(status, kind, f"as the test says: {kind}")] * times)

    def answer(
        self, path: str, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answer every call of a path with this."""
        self._answers[path] = (status, body, headers or {})

    def calls_of(self, path: str) -> list[Asked]:
        """What came for a path."""
        return [asked for asked in self.asked if asked.path.partition("?")[0] == path]

    def revoke(self, target: str, kind: FactKind = FactKind.REVOKED) -> None:
        """Put a fact into force and tell every stream."""
        now = self.clock()
        self.facts.append(
            RevocationFact(
                sequence=len(self.facts) + 1,
                target=Target.parse(target),
                kind=kind,
                at=now,
                expires_at=now + LIFE,
                reason="canary-reason",
            )
        )
        self.tell(after=len(self.facts) - 1)

    def tell(self, *, after: int | None = None) -> None:
        """Send a statement to every stream; a heartbeat where nothing is new."""
        text = self.statement(len(self.facts) if after is None else after)
        for stream in tuple(self._streams):
            stream.put(text)

    def hang_up(self) -> None:
        """End every stream."""
        for stream in tuple(self._streams):
            stream.put(None)

    def statement(self, after: int) -> str:
        """A signed statement of the facts after a sequence number."""
        value = Statement(
            trust_domain=self.authority.trust_domain,
            after=after,
            through=len(self.facts),
            as_of=self.clock(),
            facts=tuple(self.facts[after:]),
            bundle=self.current_bundle.sequence,
        )
        return revocation_feed.sign(value, self.authority.jwt_key, self.authority.kid)

    def task_token(self, **fields: Any) -> str:
        """A signed task token; ``fields`` are those of ``TaskToken``."""
        now = self.clock()
        values: dict[str, Any] = {
            "issuer": self.token_issuer,
            "principal": str(self.spiffe_id),
            "client": self.spiffe_id,
            "audience": AUDIENCE,
            "jti": str(uuid4()),
            "issued_at": now,
            "expires_at": now + TOKEN_LIFE,
            "grants": (Grant(resource="tickets", location=AUDIENCE, actions=("read",)),),
            "task": Task(id=str(uuid4()), purpose="a test"),
            "agent": BLOCK,
            "binding": Binding(BindingKind.BEARER),
            **fields,
        }
        return task_token.sign(TaskToken(**values), self.authority.jwt_key, self.authority.kid)

    # What a client asks

    @property
    def current_bundle(self) -> TrustBundle:
        """The bundle that it serves and speaks of in its statements."""
        return self.bundle or self.authority.bundle

    @property
    def spiffe_id(self) -> SpiffeId:
        """The one agent."""
        return self.agent or self.authority.id()

    def handle(self, asked: Asked, peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        """Answer one request."""
        self.asked.append(asked)
        path = asked.path.partition("?")[0]
        if self._refusals[path]:
            return _problem(*self._refusals[path].popleft())
        if path in self._answers:
            return self._answers[path]
        known = {
            "/v1/bundle": self._bundle,
            "/v1/federation/bundles": self._map,
            "/v1/attestations/nonce": self._nonce,
            "/v1/attestations": self._attest,
            "/v1/svids/x509": self._renew,
            "/v1/svids/jwt": self._jwt,
            "/v1/task-tokens": self._task_token,
            "/v1/revocations": self._revocations,
            "/v1/revocations/acknowledgements": lambda *_: _json({}),
        }
        if path not in known:
            return _problem(404, "not-found", "no such thing")
        if path in {"/v1/svids/x509", "/v1/svids/jwt", "/v1/task-tokens"} and peer is None:
            return _problem(401, "unauthenticated", "no SVID")
        return known[path](asked, peer)

    def _bundle(self, asked: Asked, _peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        return _tagged(self.current_bundle.to_json(), asked)

    def _map(self, asked: Asked, peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        if peer is None:
            return _problem(401, "unauthenticated", "no SVID")
        return _tagged(self.federation.to_json(), asked)

    def _nonce(self, _asked: Asked, _peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        nonce = str(uuid4())
        self._nonces.add(nonce)
        expires_at = self.clock() + timedelta(minutes=1)
        return _json({"nonce": nonce, "expires_at": _text(expires_at)})

    def _attest(self, asked: Asked, _peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        nonce = asked.body["nonce"]
        if nonce not in self._nonces:
            return _problem(403, "attestation-refused", "the nonce is not fresh")
        self._nonces.remove(nonce)
        evidence = {one["kind"]: one for one in asked.body["evidence"]}
        if any(one["nonce"] != nonce for one in evidence.values()):
            return _problem(403, "attestation-refused", "evidence for another nonce")
        token = evidence["join_token"]["payload"]["token"] if "join_token" in evidence else ""
        if token not in self.join_tokens:
            return _problem(403, "attestation-refused", "the join token was used up")
        self.join_tokens.remove(token)
        return self._certify(asked.body["csr"])

    def _renew(self, asked: Asked, _peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        return self._certify(asked.body["csr"])

    def _certify(self, csr: str) -> tuple[int, bytes, dict[str, str]]:
        request = x509.load_pem_x509_csr(csr.encode())
        assert request.is_signature_valid
        now = self.clock()
        template = self.authority.template(
            self.spiffe_id,
            subject_key=SubjectKey.of(check_public_key(request.public_key())),
            not_before=now,
            not_after=now + LIFE,
        )
        issuing = self.authority.issuing
        leaf = issuing.sign(leaf_builder(template, issuing.certificate))
        svid = X509Svid(template.spiffe_id, leaf, (issuing.certificate,))
        self.issued.append(svid.serial)
        return _json(
            {
                "spiffe_id": str(svid.spiffe_id),
                "instance": svid.instance,
                "manifest": svid.manifest,
                "serial": svid.serial,
                "certificates": svid.pem,
                "not_before": _text(svid.not_before),
                "not_after": _text(svid.not_after),
            }
        )

    def _jwt(self, asked: Asked, _peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        now = self.clock()
        svid = JwtSvid(
            spiffe_id=self.spiffe_id,
            audience=tuple(asked.body["audience"]),
            issued_at=now,
            expires_at=now + TOKEN_LIFE,
            jti=str(uuid4()),
        )
        token = jwt_svid.sign(svid, self.authority.jwt_key, self.authority.kid)
        return _json(
            {
                "spiffe_id": str(svid.spiffe_id),
                "token": token,
                "jti": svid.jti,
                "expires_at": _text(svid.expires_at),
            }
        )

    def _task_token(self, asked: Asked, peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        body = asked.body
        if body["resource"] != "tickets":
            return _problem(403, "not-declared", f"resource {body['resource']!r} is not declared")
        match body["binding"]:
            case {"kind": "dpop", "jkt": jkt}:
                binding, kind = Binding(BindingKind.DPOP_KEY, jkt), "DPoP"
            case {"kind": "certificate"}:
                assert peer is not None
                thumbprint = certificate_thumbprint(peer)
                binding, kind = Binding(BindingKind.CERTIFICATE, thumbprint), "Bearer"
            case _:
                binding, kind = Binding(BindingKind.BEARER), "Bearer"
        task = Task(id=body["task"]["id"] or str(uuid4()), purpose=body["task"]["purpose"])
        grant = Grant(resource="tickets", location=AUDIENCE, actions=tuple(body["actions"]))
        jti = str(uuid4())
        token = self.task_token(jti=jti, binding=binding, task=task, grants=(grant,))
        return _json(
            {
                "access_token": token,
                "token_type": kind,
                "expires_in": int(TOKEN_LIFE.total_seconds()),
                "expires_at": _text(self.clock() + TOKEN_LIFE),
                "scope": " ".join(f"tickets:{action}" for action in body["actions"]),
                "audience": AUDIENCE,
                "jti": jti,
                "task": {"id": task.id},
            }
        )

    def _revocations(self, asked: Asked, _peer: bytes | None) -> tuple[int, bytes, dict[str, str]]:
        after = int(asked.path.partition("after=")[2] or 0)
        return 200, self.statement(after).encode(), {}

    def beginning(self) -> bytes:
        """What stands before a stream's first statement."""
        if self.listener_id is None:
            return b""
        return f"event: listener\ndata: {self.listener_id}\n\n".encode()

    @contextmanager
    def stream(self, after: int) -> Iterator["queue.Queue[str | None]"]:
        """A stream of statements, from the first on."""
        texts: queue.Queue[str | None] = queue.Queue()
        texts.put(self.statement(min(after, len(self.facts))))
        self._streams.append(texts)
        try:
            yield texts
        finally:
            self._streams.remove(texts)


@contextmanager
def fake_issuer(
    authority: Authority, clock: Callable[[], datetime], *, name: SpiffeId | None = None
) -> Iterator[FakeIssuer]:
    """Serve a fake issuer on loopback; ``name`` is what its own certificate says."""
    fake = FakeIssuer(authority, clock)
    own = authority.issue(name or issuer_id(authority.trust_domain))
    context = server_context(
        bundle=authority.bundle, peer_check=lambda _: None, identity=own, client_optional=True
    )
    with serving(_handler(fake), context, lambda: fake.away) as port:
        fake.url = f"https://127.0.0.1:{port}"
        try:
            yield fake
        finally:
            fake.hang_up()


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], context: SpiffeContext, away: Callable[[], bool]
) -> Iterator[int]:
    """Serve a handler over TLS; every thread and socket is gone at the end."""
    server = _Server(("127.0.0.1", 0), handler, context, away)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        context: SpiffeContext,
        away: Callable[[], bool],
    ) -> None:
        self._context = context
        self._away = away
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self._away():
            return
        request.settimeout(30)
        # A client that hangs up, or that is refused, is this server's daily bread.
        with suppress(OSError), self._context.wrap_socket(request, server_side=True) as wrapped:
            self._open.add(wrapped)
            try:
                super().finish_request(wrapped, client_address)  # type: ignore[arg-type]
            finally:
                self._open.discard(wrapped)

    def shutdown_request(self, request: Any) -> None:
        with suppress(OSError):
            super().shutdown_request(request)

    def hang_up(self) -> None:
        """Make every thread that waits for a request end."""
        for wrapped in tuple(self._open):
            with suppress(OSError):
                socket.socket.shutdown(wrapped, socket.SHUT_RDWR)


def _handler(fake: FakeIssuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path.startswith("/v1/revocations/stream") and not fake.away:
                self._stream()
            else:
                self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
            pass

        def _answer(self, body: Any) -> None:
            if fake.away:
                self.close_connection = True
                return
            connection = self.connection
            assert isinstance(connection, ssl.SSLSocket)
            peer = connection.getpeercert(binary_form=True)
            serial = parse_der(peer).serial if peer else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, body, serial, headers)
            status, content, headers = fake.handle(asked, peer)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def _stream(self) -> None:
            fake.asked.append(Asked("GET", self.path, None, None))
            self.close_connection = True
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(fake.beginning())
            with fake.stream(int(self.path.partition("after=")[2] or 0)) as texts:
                while (text := texts.get()) is not None:
                    self.wfile.write(f"event: statement\ndata: {text}\n\n".encode())

    return Handler


def _tagged(document: str, asked: Asked) -> tuple[int, bytes, dict[str, str]]:
    body = document.encode()
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    if asked.headers.get("if-none-match") == tag:
        return 304, b"", {"etag": tag}
    return 200, body, {"etag": tag}


def _json(value: Any) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps(value).encode(), {"content-type": "application/json"}


def _problem(status: int, kind: str, detail: str) -> tuple[int, bytes, dict[str, str]]:
    document = {
        "type": f"urn:accredit:problem:{kind}",
        "title": kind,
        "status": status,
        "detail": detail,
    }
    return status, json.dumps(document).encode(), {"content-type": "application/problem+json"}


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
