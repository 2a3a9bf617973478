"""Posting one security event (RFC 8935): over HTTPS, with a bound on everything.

The receiver is known by a certificate for its host's name, of the system's CAs or of a given file;
who asks for a client certificate gets the issuer's own SVID. No cookie, proxy of the environment or
redirect: an address that an admin gave is the only one that is told of facts. Of an answer
``MAX_ANSWER`` bytes are read, and nothing of it is passed on but one of the error codes that the
standard knows.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

import httpx2

from accredit_credentials.errors import CredentialError
from accredit_credentials.security_event import MEDIA_TYPE
from accredit_credentials.strict_json import NotStrictJson, parse_object
from accredit_credentials.tls import load_identity
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.federation.fetching import failure_of, web_context

CA_FILE = "shared_signals.ca_file"
MAX_ANSWER = 8 * 1024  # bytes
POST_SECONDS = 10.0  # of everything together: name, connection, handshake, answer

_ACCEPTED = 202
_BAD_REQUEST = 400
_REDIRECTION = range(300, 400)


class ErrorCode(StrEnum):
    """What a receiver can say is wrong (RFC 8935 §2.4)."""

    INVALID_REQUEST = "invalid_request"
    INVALID_KEY = "invalid_key"
    INVALID_ISSUER = "invalid_issuer"
    INVALID_AUDIENCE = "invalid_audience"
    AUTHENTICATION_FAILED = "authentication_failed"
    ACCESS_DENIED = "access_denied"


class PostFailed(Exception):
    """The receiver did not accept the event; it may, another time."""


class EventRefused(PostFailed):
    """The receiver cannot make anything of this event, and never will."""


def trust(ca_file: Path | None, identity: X509Identity | None) -> ssl.SSLContext:
    """What decides about receivers, and what is shown to those that ask.

    Raises:
        PostFailed: the settings do not allow any.
    """
    try:
        context = web_context(ca_file, CA_FILE)
        if identity is not None:
            load_identity(context, identity)
    except (CredentialError, InvalidSettings, OSError) as error:
        raise PostFailed(str(error)) from None
    return context


class Connected:
    """A way to a receiver, kept while there is something to tell."""

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self._url = url
        self._client = client

    async def post(self, token: str, *, seconds: float = POST_SECONDS) -> None:
        """Post one SET.

        Raises:
            EventRefused: never to be sent again.
            PostFailed: as it says.
        """
        try:
            async with asyncio.timeout(seconds):
                status, body = await self._post(token)
        except TimeoutError:
            raise PostFailed(f"the endpoint took longer than {seconds:.0f} s (timeout)") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            raise PostFailed(str(failure_of(error, self._url))) from None
        if status == _ACCEPTED:
            return
        if status in _REDIRECTION:
            raise PostFailed(f"the endpoint redirects ({status}), which is not followed")
        code = _error_code(body) if status == _BAD_REQUEST else None
        if code is ErrorCode.INVALID_REQUEST:
            raise EventRefused("the receiver says: invalid_request")
        said = "" if code is None else f" and the error {code.value}"
        raise PostFailed(f"the endpoint answered with the status {status}{said}")

    async def _post(self, token: str) -> tuple[int, bytes]:
        headers = {
            "content-type": MEDIA_TYPE,
            "accept": "application/json",
            # Read as it comes: an encoded body could grow beyond its bound while it is decoded.
            "accept-encoding": "identity",
        }
        async with self._client.stream(
            "POST", self._url, content=token.encode(), headers=headers
        ) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER:
                    break  # the status has been said; the connection is not used again
            return response.status_code, bytes(body[:MAX_ANSWER])


@asynccontextmanager
async def connected(url: str, context: ssl.SSLContext) -> AsyncIterator[Connected]:
    """A way to a receiver; nothing is connected before the first post."""
    async with httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(
            verify=context, trust_env=False, limits=httpx2.Limits(max_connections=1)
        ),
        follow_redirects=False,
        trust_env=False,
        timeout=None,  # ``post`` bounds everything together
    ) as client:
        yield Connected(url, client)


def _error_code(body: bytes) -> ErrorCode | None:
    try:
        return ErrorCode(str(parse_object(body).get("err")))
    except (NotStrictJson, ValueError):
        return None
