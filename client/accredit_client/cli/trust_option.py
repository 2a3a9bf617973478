"""Reading ``--trust``: a bundle file, or the pin of a root."""

from pathlib import Path

from accredit_client.cli.problems import Failed
from accredit_client.trust import Trust
from accredit_credentials.bundle import TrustBundle

_PIN = "sha256:"


def trust_of(text: str) -> Trust:
    """Where trust starts.

    Raises:
        InvalidTrust: neither a usable bundle nor a pin.
    """
    return Trust.from_pin(text) if text.startswith(_PIN) else Trust.from_file(Path(text))


def bundle_of(path: Path) -> TrustBundle:
    """A bundle file, for checks that ask nobody.

    Raises:
        InvalidTrust: no usable bundle.
    """
    bundle = Trust.from_file(path).bundle
    if bundle is None:
        raise Failed(f"trust bundle {path} holds no authority")
    return bundle
