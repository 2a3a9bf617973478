"""Where the Workload API is: ``SPIFFE_ENDPOINT_SOCKET`` (SPIFFE Workload Endpoint §4). Pure.

A unix socket only. Over TCP nobody there can tell who calls, and whoever answers could be anybody
on the network: such an address is refused, and not taken for something else.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from accredit_client.errors import InvalidEndpoint

SOCKET_VARIABLE = "SPIFFE_ENDPOINT_SOCKET"
MAX_PATH_BYTES = 107  # of a unix socket's address on Linux, sun_path without its zero

_HINT = "the form is unix:///run/accredit/agent.sock"
_PRINTABLE = re.compile(r"[!-~]+")
_AMBIGUOUS = "%?#"  # one reader decodes or cuts off there, another does not


def path_of(text: str) -> Path:
    """The socket's path, of a path or of an address; raises as ``parse``."""
    return absolute(Path(text)) if text.startswith("/") else parse(text)


def parse(address: str) -> Path:
    """The socket's path, of an address as ``unix:///run/agent.sock`` or ``unix:/run/agent.sock``.

    Raises:
        InvalidEndpoint: no scheme or another one, an authority, a path that is not absolute.
    """
    if not _PRINTABLE.fullmatch(address):
        raise InvalidEndpoint("the socket's address must be printable ASCII", hint=_HINT)
    if any(each in address for each in _AMBIGUOUS):
        raise InvalidEndpoint(
            f"the socket's address {address} must have no percent sign, query or fragment",
            hint=_HINT,
        )
    try:
        parts = urlsplit(address)
    except ValueError:
        raise InvalidEndpoint(f"the socket's address {address} is no URI", hint=_HINT) from None
    if parts.scheme == "tcp":
        raise InvalidEndpoint(
            f"the socket's address {address} is a TCP one, where nobody can tell who calls",
            hint=_HINT,
        )
    if parts.scheme != "unix":
        raise InvalidEndpoint(
            f"the socket's address {address} must have the scheme unix", hint=_HINT
        )
    if parts.netloc:
        raise InvalidEndpoint(
            f"the socket's address {address} must have no authority: three slashes, or one",
            hint=_HINT,
        )
    return absolute(Path(parts.path)) if parts.path.startswith("/") else _relative(address)


def absolute(path: Path) -> Path:
    """The path, if a socket can be there.

    Raises:
        InvalidEndpoint: not absolute, the root itself, or too long.
    """
    if not path.is_absolute():
        return _relative(str(path))
    if path == Path("/"):
        raise InvalidEndpoint("the socket's address must name a file", hint=_HINT)
    if len(bytes(path)) > MAX_PATH_BYTES:
        raise InvalidEndpoint(f"the socket's path has more than {MAX_PATH_BYTES} bytes")
    return path


def _relative(address: str) -> Path:
    raise InvalidEndpoint(f"the socket's address {address} must have an absolute path", hint=_HINT)
