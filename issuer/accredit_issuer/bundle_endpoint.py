"""TLS of the profile https_web (SPIFFE Federation §5.2.1): a Web CA's certificate, kept current.

The operator's tools renew the certificate in place; each handshake gets the pair that was read
last. A pair that cannot be used is refused at the start. Later it is logged once, and the old pair
stays: two files are not replaced in one step, and a certificate that still holds is better than
none.

TLS is Mozilla's "intermediate" (the profile's own demand, §5.2.1): 1.3, and 1.2 with ephemeral keys
and authenticated ciphers. Nobody's certificate is asked for.
"""

import ssl
from pathlib import Path
from typing import Any

import structlog

from accredit_issuer.errors import InvalidSettings
from accredit_issuer.settings import HttpsWeb

CHECK_SECONDS = 10.0  # between two looks at the files

# Those of TLS 1.2; 1.3 has its own. Without finite-field Diffie-Hellman, which needs parameters.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)

_log = structlog.get_logger("accredit.bundle_endpoint")


class WebCertificate:
    """The pair of files, and the TLS context made of what they last held.

    Raises:
        InvalidSettings: the pair cannot be used; one line that names both files.
    """

    def __init__(self, settings: HttpsWeb) -> None:
        self._settings = settings
        self._seen = self._look()
        self._context = load(settings)

    @property
    def context(self) -> ssl.SSLContext:
        """The newest context."""
        return self._context

    def look_again(self) -> bool:
        """Read the files where they changed; whether there is a new context."""
        # Looked at before they are read: a change while reading is seen the next time.
        found = self._look()
        if found == self._seen:
            return False
        self._seen = found
        try:
            self._context = load(self._settings)
        except InvalidSettings as error:
            _log.error("web certificate not replaced, the old one stays", reason=str(error))
            return False
        _log.info("web certificate replaced", file=str(self._settings.certificate_file))
        return True

    def front(self) -> ssl.SSLContext:
        """A context that hands each handshake to the newest one."""
        front = _context()

        def switch(sock: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _old: Any) -> None:
            sock.context = self._context

        front.sni_callback = switch
        return front

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_state_of, (self._settings.certificate_file, self._settings.key_file)))


def load(settings: HttpsWeb) -> ssl.SSLContext:
    """A context of the two files.

    Raises:
        InvalidSettings: unreadable, not PEM, encrypted, or a key of another certificate.
    """
    context = _context()
    certificate, key = settings.certificate_file, settings.key_file
    try:
        # With a passphrase at hand OpenSSL does not ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"bundle.https_web: certificate_file {certificate} and key_file {key} cannot be used: "
            f"{_reason(error, settings)}"
        ) from error
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(CIPHERS))
    context.verify_mode = ssl.CERT_NONE
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # The client knows better which cipher its processor is fast at; all of these are good.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _state_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _reason(error: Exception, settings: HttpsWeb) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not the certificate's"
        return "one of them is not PEM, or the key is encrypted"
    for file in (settings.certificate_file, settings.key_file):
        try:
            file.open("rb").close()
        except OSError as unreadable:
            return f"{file.name}: {unreadable.strerror}"
    return str(error)
