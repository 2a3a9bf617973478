"""CRLs for crowds, without the framework in between.

A CRL is asked for by everybody who verifies, as often as they like and without a name. One that is
there is answered here, from what was made of it once: its bytes, or that the caller has them. All
else goes to the route of the same path, which says the same (``trust``).
"""

from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from accredit_issuer.api.documents import Document, has_it
from accredit_issuer.revocation.crl import Crl
from accredit_issuer.revocation.crls import Crls

MEDIA_TYPE = "application/pkix-crl"
PREFIX, SUFFIX = "/v1/crl/", ".crl"


def document_of(crl: Crl, max_age: int) -> Document:
    """A CRL as a document."""
    return Document(crl.der, crl.tag, max_age, MEDIA_TYPE)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What is said of one CRL: all of it, or that it is the caller's."""

    crl: Crl = field(repr=False)
    tag: str
    tag_bytes: bytes
    whole: tuple[Message, Message] = field(repr=False)
    same: tuple[Message, Message] = field(repr=False)

    @classmethod
    def of(cls, crl: Crl, max_age: int) -> "_Answers":
        document = document_of(crl, max_age)
        tag = document.tag.encode("ascii")
        known = [(b"etag", tag), (b"cache-control", f"max-age={max_age}".encode("ascii"))]
        whole = [
            *known,
            (b"content-length", str(len(document.body)).encode("ascii")),
            (b"content-type", document.media_type.encode("ascii")),
        ]
        return cls(
            crl,
            document.tag,
            tag,
            whole=(_start(200, whole), _body(document.body)),
            same=(_start(304, known), _body(b"")),
        )


class HotCrls:
    """ASGI: a CRL that is there, by its exact path; everything else is passed on."""

    def __init__(self, app: ASGIApp, crls: Crls, max_age: int) -> None:
        self._app = app
        self._crls = crls
        self._max_age = max_age
        self._made: dict[str, _Answers] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        answers = self._find(scope) if scope["type"] == "http" else None
        if answers is None:
            await self._app(scope, receive, send)
            return
        shown = [value for name, value in scope["headers"] if name == b"if-none-match"]
        if shown == [answers.tag_bytes] or (
            shown and has_it([value.decode("latin-1") for value in shown], answers.tag)
        ):
            start, body = answers.same
        else:
            start, body = answers.whole
        await send(start)
        await send(body)

    def _find(self, scope: Scope) -> _Answers | None:
        path: str = scope["path"]
        if scope["method"] != "GET" or not path.startswith(PREFIX) or not path.endswith(SUFFIX):
            return None
        authority = path[len(PREFIX) : -len(SUFFIX)]
        crl = self._crls.of(authority)
        if crl is None:
            self._made.pop(authority, None)
            return None
        made = self._made.get(authority)
        if made is None or made.crl is not crl:
            self._made[authority] = made = _Answers.of(crl, self._max_age)
        return made


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _body(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body}
