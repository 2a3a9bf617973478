"""``accredit-issuer``: for whoever runs the issuer.

``init`` makes one, ``run`` serves it, ``invite`` is the way back in, ``doctor`` says what is wrong.
"""

from accredit_issuer.cli.app import main

__all__ = ["main"]
