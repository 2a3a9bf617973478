"""What a resource server says to a request: the decision of ``verify``, in HTTP's words.

One place reads the headers, one place maps each refusal to a status, a problem document and a
challenge (RFC 6750 §3, RFC 9449 §7.1). ``asgi`` and ``fastapi`` both go through it. A refusal
names what was wrong, and never repeats a token, a proof, or the reason of a revocation fact.
"""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from accredit_client.errors import ClientError, ProofRefused, ReplayMemoryFull
from accredit_client.under_way import under_way
from accredit_client.verify import TaskTokenVerifier, TokenRequest
from accredit_credentials.asgi_peer import peer_certificate, peer_chain
from accredit_credentials.errors import (
    CredentialError,
    NotGranted,
    Revoked,
    Stale,
    UnknownAuthority,
)
from accredit_credentials.task_token import TaskToken

Scope = MutableMapping[str, Any]
Refetch = Callable[[], bool | Awaitable[bool]]
"""``refetch_bundle`` of an identity of either kind."""

STATE_KEY = "task_token"
PROBLEM_PREFIX = "urn:accredit:problem:"

_DPOP_ALGORITHMS = "ES256 ES384 RS256 RS384 RS512 PS256 PS384 PS512"
POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1
_RETRY_AFTER = 1  # seconds: the feed reconnects by itself
# RFC 6750 §3 allows these and no quote or backslash; everything else becomes a space.
_QUOTABLE = frozenset(chr(c) for c in range(0x20, 0x7F)) - {'"', "\\"}


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal as HTTP: a problem document (RFC 9457) with its headers."""

    status: int
    kind: str
    title: str
    detail: str
    challenges: tuple[str, ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """The problem document."""
        return {
            "type": f"{PROBLEM_PREFIX}{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers beside it."""
        headers = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
        headers += [("www-authenticate", challenge) for challenge in self.challenges]
        if self.status == 503:  # noqa: PLR2004 (RFC 9110 §15.6.4)
            headers.append(("retry-after", str(_RETRY_AFTER)))
        return headers


class RequestRefused(ClientError):
    """A request that is refused; ``problem`` is the answer to send."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Guard:
    """Decides about ASGI requests.

    Args:
        verifier: decides about task tokens.
        public_url: ``https://host[:port]``, where clients reach this server. DPoP proofs are made
            for it; what a request's Host header says is its sender's opinion.
        refetch: fetches the bundle where a token names a key that it lacks, as
            ``identity.refetch_bundle``; a key may be younger than our bundle. Without, such a
            token is refused until the bundle has come by itself.
    """

    def __init__(
        self, verifier: TaskTokenVerifier, *, public_url: str, refetch: Refetch | None = None
    ) -> None:
        parts = urlsplit(public_url)
        if parts.scheme != "https" or not parts.netloc or parts.path not in {"", "/"}:
            raise ValueError(f"public_url {public_url!r} must have the form https://host[:port]")
        self._verifier = verifier
        self._base = f"https://{parts.netloc}"
        self._refetch = refetch
        self._flight: asyncio.Future[bool] | None = None

    def decide(self, scope: Scope, *, resource: str, action: str) -> TaskToken:
        """Let a request do ``action`` on ``resource``, or refuse it.

        Within ``cutting.Cutting`` it is asked about again for as long as it is under way.

        Raises:
            RequestRefused: with the answer to send.
        """
        try:
            request = self._read(scope)
            token = self._verifier.verify_request(request, resource=resource, action=action)
        except (CredentialError, ProofRefused, ReplayMemoryFull) as error:
            raise RequestRefused(problem_of(error, f"{resource}:{action}")) from error
        open_request = under_way(scope)
        if open_request is not None:
            open_request.ask(
                lambda: self._verifier.check_still(token, request.certificate, request.chain),
                lambda: self._verifier.known,
            )
        return token

    async def admit(self, scope: Scope, *, resource: str, action: str) -> TaskToken:
        """Decide as ``decide``, and once more where a newer bundle may say otherwise.

        Raises:
            RequestRefused: with the answer to send.
        """
        try:
            return self.decide(scope, resource=resource, action=action)
        except RequestRefused as refused:
            if self._refetch is None or not isinstance(refused.__cause__, UnknownAuthority):
                raise
            await self._refetched(self._refetch)
        return self.decide(scope, resource=resource, action=action)

    async def _refetched(self, refetch: Refetch) -> None:
        """Wait for one fetch, which is the same for all who wait; it bounds itself."""
        loop = asyncio.get_running_loop()
        flight = self._flight
        if flight is None or flight.done() or flight.get_loop() is not loop:
            flight = self._flight = asyncio.ensure_future(_called(refetch))
        await asyncio.shield(flight)

    def _read(self, scope: Scope) -> TokenRequest:
        authorization = _only(scope, b"authorization")
        if authorization is None:
            raise RequestRefused(_NO_TOKEN)
        scheme, _, token = authorization.partition(" ")
        raw_path = scope.get("raw_path") or scope["path"].encode()
        return TokenRequest(
            scheme=scheme.lower(),
            token=token.strip(" "),
            proof=_only(scope, b"dpop"),
            certificate=peer_certificate(scope),
            chain=peer_chain(scope),
            # A websocket's handshake is a GET (RFC 6455 §4.1).
            method="GET" if scope["type"] == "websocket" else scope["method"],
            url=f"{self._base}{raw_path.decode('latin-1')}",
        )


async def _called(refetch: Refetch) -> bool:
    if inspect.iscoroutinefunction(refetch):
        result: bool = await refetch()
        return result
    return bool(await asyncio.to_thread(refetch))


async def send_problem(
    problem: Problem, send: Any, *, also: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer a request with a problem document; ``also`` are further headers."""
    body = json.dumps(problem.document).encode()
    headers = [(name.encode(), value.encode("latin-1")) for name, value in problem.headers]
    headers += [(b"content-length", str(len(body)).encode()), *also]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def close_websocket(send: Any) -> None:
    """Close a websocket, or refuse its handshake: there is no room for a problem document."""
    await send({"type": "websocket.close", "code": POLICY_VIOLATION})


def not_covered() -> RequestRefused:
    """The refusal of a request that no rule is about."""
    return RequestRefused(
        Problem(403, "forbidden", "not allowed", "no rule of this server allows this request")
    )


def _only(scope: Scope, name: bytes) -> str | None:
    """The one value of a header; two would be two opinions."""
    values = [value for key, value in _headers(scope) if key == name]
    if not values:
        return None
    if len(values) > 1:
        shown = name.decode().title()
        raise RequestRefused(
            Problem(
                400,
                "malformed",
                "malformed request",
                f"the request must have one {shown} header",
                _challenges("invalid_request", f"the request must have one {shown} header"),
            )
        )
    return values[0].decode("latin-1")


def _headers(scope: Scope) -> Iterable[tuple[bytes, bytes]]:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return headers


def problem_of(error: Exception, asked: str) -> Problem:
    """The answer to a request that was refused; ``asked`` is the scope it would have needed."""
    detail = str(error)
    match error:
        case Stale() | ReplayMemoryFull():
            return Problem(503, "unavailable", "cannot decide now", detail)
        case NotGranted():
            return Problem(
                403,
                "not-declared",
                "not granted",
                detail,
                _challenges("insufficient_scope", detail, scope=asked),
            )
        case Revoked():
            # The reason is the security team's, not the revoked one's.
            detail = "the credential was taken back"
            return Problem(401, "revoked", "revoked", detail, _challenges("invalid_token", detail))
        case ProofRefused():
            code = "invalid_dpop_proof"
        case _:
            code = "invalid_token"
    title = "the task token is not accepted"
    return Problem(401, "unauthenticated", title, detail, _challenges(code, detail))


def _challenges(code: str | None, detail: str = "", *, scope: str | None = None) -> tuple[str, ...]:
    """One challenge for each scheme that we take (RFC 9449 §7.1)."""
    members = []
    if code is not None:
        said = "".join(c if c in _QUOTABLE else " " for c in detail)
        members = [f'error="{code}"', f'error_description="{said}"']
    if scope is not None:
        members.append(f'scope="{scope}"')
    bearer = ", ".join(members)
    dpop = ", ".join([*members, f'algs="{_DPOP_ALGORITHMS}"'])
    return (f"DPoP {dpop}", f"Bearer {bearer}".rstrip())


_NO_TOKEN = Problem(
    401,
    "unauthenticated",
    "a task token is needed",
    "the request has no Authorization header",
    _challenges(None),
)
