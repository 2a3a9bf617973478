"""Fetching a bundle: one GET over HTTPS, in either profile, with a bound on everything.

``https_web``: a certificate of the Web PKI that names the host (RFC 6125), as a browser would
accept it. ``https_spiffe``: an X.509-SVID of exactly the SPIFFE ID that was configured, under the
bundle of the endpoint's own trust domain. Neither shows a client certificate, sends a credential,
keeps a cookie or uses a proxy of the environment. At most ``MAX_BUNDLE_BYTES`` of a body are read,
whatever it says of itself. A redirect is followed by hand, each hop by the same rules, and
forgotten: the next fetch begins at the configured address (SPIFFE Federation §5.2.1.4, §5.2.2.4).

What an error says is ours: nothing of what the endpoint sent is in it.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from accredit_credentials.bundle import MAX_BUNDLE_BYTES, TrustBundle
from accredit_credentials.errors import CredentialError, Untrusted
from accredit_credentials.federation import check_https_url
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.tls import client_context
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.federation.rules import MAX_REDIRECTS, redirect_target

FETCH_SECONDS = 8.0  # of everything together: name, connection, redirects, body

FEDERATION_CA = "federation.ca_file"

_HTTPS = 443
_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})  # RFC 9110 §15.4


class FetchFailed(Exception):
    """The endpoint was not reached, is not the one that is meant, or serves no bundle."""


class EndpointUntrusted(FetchFailed):
    """Somebody answered who is not the one that is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebEndpoint:
    """An endpoint of the profile ``https_web``.

    Attributes:
        url: where.
        ca_file: the certificates that are trusted in place of the system's.
    """

    url: str
    ca_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """What decides about the server."""
        return web_context(self.ca_file, FEDERATION_CA)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpiffeEndpoint:
    """An endpoint of the profile ``https_spiffe``.

    Attributes:
        url: where.
        spiffe_id: who serves there.
        bundle: of the trust domain of ``spiffe_id``, the newest that is known.
    """

    url: str
    spiffe_id: SpiffeId
    bundle: TrustBundle

    def context(self) -> ssl.SSLContext:
        """What decides about the server.

        Raises:
            Untrusted: the bundle has no X.509 authority.
        """

        def check(svid: X509Svid) -> None:
            if svid.spiffe_id != self.spiffe_id:
                raise Untrusted(f"the endpoint must be {self.spiffe_id}, not {svid.spiffe_id}")

        return client_context(bundle=self.bundle, peer_check=check)


Endpoint = WebEndpoint | SpiffeEndpoint


def web_context(ca_file: Path | None, setting: str) -> ssl.SSLContext:
    """What decides about a server by a certificate for its host's name.

    Raises:
        InvalidSettings: as ``load_ca_file``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    if ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        load_ca_file(context, ca_file, setting)
    return context


def load_ca_file(context: ssl.SSLContext, file: Path, setting: str) -> None:
    """Trust the certificates of a file that a setting names, and no others.

    Raises:
        InvalidSettings: it cannot be read, or holds no certificate; one line that names the key.
    """
    try:
        context.load_verify_locations(file)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        if isinstance(error, ssl.SSLError):
            why = "it holds no certificate in PEM"
        raise InvalidSettings(f"{setting} {file} cannot be used: {why}") from error


def check_ca_file(file: Path | None, setting: str = FEDERATION_CA) -> None:
    """Decide at the start what would fail at each fetch.

    Raises:
        InvalidSettings: as ``load_ca_file``.
    """
    if file is not None:
        load_ca_file(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), file, setting)


async def fetch(endpoint: Endpoint, *, seconds: float = FETCH_SECONDS) -> bytes:
    """The document that an endpoint serves now; nothing is decided about it yet.

    Raises:
        FetchFailed: as it says.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _follow(endpoint)
    except TimeoutError:
        raise FetchFailed(f"the endpoint took longer than {seconds:.0f} s (timeout)") from None
    except (CredentialError, InvalidSettings) as error:
        raise FetchFailed(str(error)) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise failure_of(error, endpoint.url) from None


async def _follow(endpoint: Endpoint) -> bytes:
    url = check_https_url(endpoint.url, "endpoint_url")
    context = endpoint.context()
    for _ in range(1 + MAX_REDIRECTS):
        answer = await _get(url, context)
        if isinstance(answer, bytes):
            return answer
        url = redirect_target(url, answer)
    raise FetchFailed(f"the endpoint redirects more than {MAX_REDIRECTS} times")


async def _get(url: str, context: ssl.SSLContext) -> bytes | str:
    """The body, or where a redirect leads."""
    # A client for each hop: no cookie, no connection and no header passes from one to the next.
    async with (
        httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(verify=context, trust_env=False),
            follow_redirects=False,
            trust_env=False,
            timeout=None,  # ``fetch`` bounds everything together
            # Read as it comes: an encoded body could grow beyond its bound while it is decoded.
            headers={"accept": "application/json", "accept-encoding": "identity"},
        ) as client,
        client.stream("GET", url) as response,
    ):
        if response.status_code in _REDIRECTS:
            location = response.headers.get("location")
            if not location:
                raise FetchFailed("the endpoint redirects to nowhere")
            return str(location)
        if response.status_code != _OK:
            raise FetchFailed(f"the endpoint answered with the status {response.status_code}")
        body = bytearray()
        async for chunk in response.aiter_raw():
            if len(body) + len(chunk) > MAX_BUNDLE_BYTES:
                raise FetchFailed(f"the endpoint's answer is larger than {MAX_BUNDLE_BYTES} bytes")
            body += chunk
        return bytes(body)


def failure_of(error: BaseException, url: str) -> FetchFailed:
    """What went wrong, in words of ours."""
    where = _place_of(error, url)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return EndpointUntrusted(f"the endpoint is not the one that is trusted: {_why(cause)}")
        if isinstance(cause, OSError) and (said := _of_system(cause)):
            return FetchFailed(f"{where} {said}")
    # The kind only: a parser's text may quote what came.
    return FetchFailed(f"{where} did not answer ({type(error).__name__})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]  # several addresses were tried: one is as good as another
        else:
            error = error.__cause__ or error.__context__


def _of_system(cause: OSError) -> str | None:
    if isinstance(cause, ssl.SSLError):
        # A word of OpenSSL's own table: nothing of it came over the wire.
        return f"speaks no TLS that we do ({(cause.reason or 'unknown').replace('_', ' ').lower()})"
    if isinstance(cause, socket.gaierror):
        return "did not answer: the name is not known"
    if isinstance(cause, ConnectionRefusedError):
        return "did not answer: the connection was refused"
    return f"did not answer: {os.strerror(cause.errno).lower()}" if cause.errno else None


def _why(error: ssl.SSLCertVerificationError) -> str:
    # Of our own check the text is the only argument; OpenSSL's has a message and a number.
    own = error.args[0] if len(error.args) == 1 else ""
    return str(getattr(error, "verify_message", "") or own or "its certificate is not valid")


def _place_of(error: BaseException, url: str) -> str:
    """Host and port as an admin gave them; a redirect's are the endpoint's words."""
    asked = httpx2.URL(url)
    try:
        failed = error.request.url if isinstance(error, httpx2.RequestError) else asked
    except RuntimeError:  # it came before there was a request
        failed = asked
    if (failed.host, failed.port) != (asked.host, asked.port):
        return "where the endpoint redirects to"
    host = f"[{asked.host}]" if ":" in asked.host else asked.host
    return f"{host}:{asked.port or _HTTPS}"
