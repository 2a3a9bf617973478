"""``accredit-issuer``: for whoever runs the issuer.

``init`` makes one, ``run`` serves it, ``doctor`` says what is wrong with it.
"""

from accredit_issuer.cli.app import main

__all__ = ["main"]
