"""Addresses in settings: what may be called an origin or a base URL. Pure; nothing is reached."""

from urllib.parse import urlsplit

from accredit_issuer.errors import InvalidSettings


def origin(name: str, text: str) -> str:
    """An address without a path: documents lie at fixed places below it (RFC 8414 §3.1).

    Raises:
        InvalidSettings: it is none; ``name`` is the setting.
    """
    url = base_url(name, text, schemes=("https",))
    if urlsplit(url).path:
        raise InvalidSettings(f"{name} must be https://host[:port] without a path, not {url!r}")
    return url


def base_url(name: str, text: str, *, schemes: tuple[str, ...]) -> str:
    """An address that paths are added to, without a slash at its end.

    Raises:
        InvalidSettings: it is none; ``name`` is the setting.
    """
    try:
        parts = urlsplit(text)
        well_formed = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if (
        not well_formed
        or parts.scheme not in schemes
        or parts.username is not None
        or parts.query
        or parts.fragment
    ):
        raise InvalidSettings(
            f"{name} must be {' or '.join(schemes)}://host[:port], not {text[:100]!r}"
        )
    return text.rstrip("/")
