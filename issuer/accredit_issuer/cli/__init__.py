"""``accredit-issuer``: for whoever runs the issuer.

``init`` makes one, ``run`` serves it, ``invite`` is the way back in, ``doctor`` says what is wrong,
``audit`` examines everything that was ever released, ``authority`` shows the keys that sign.
"""

import sys


def main() -> None:
    """Run the command line; without the issuer's packages, say how to get them."""
    try:
        from accredit_issuer.cli.app import main as run  # noqa: PLC0415 (may not be there)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("accredit"):
            raise
        sys.exit(
            f"error: the issuer needs the package {error.name}\n"
            "hint: install accredit with its extra 'issuer'"
        )
    run()
