"""Whose the data folder is: whether an issuer is there, and of which trust domain.

Asked before anything is opened or changed: by whoever runs the issuer, and by whoever examines it.
"""

import json

from sqlalchemy import Connection

from accredit_issuer.audit.log import LogDamaged, LogReader
from accredit_issuer.errors import InvalidSettings
from accredit_issuer.settings import Config

_LEFT_BY_NOBODY = frozenset({"issuer.lock"})  # made by whoever only tried


def check_present(config: Config) -> None:
    """Decide whether there is a database.

    Raises:
        InvalidSettings: there is none; where other files of an issuer are, it was lost.
    """
    if config.database.exists():
        return
    folder = config.data
    if folder.is_dir() and any(each.name not in _LEFT_BY_NOBODY for each in folder.iterdir()):
        raise InvalidSettings(
            f"{config.database} is missing, and other files of an issuer are there: "
            "restore the backup; 'init' makes another issuer"
        )
    raise InvalidSettings(f"there is no issuer in {folder}: run 'accredit-issuer init'")


def check_trust_domain(config: Config, connection: Connection) -> None:
    """Decide whether the data is of the trust domain that the settings name.

    Raises:
        InvalidSettings: it is of another.
        LogDamaged: the log's first record, which says it, cannot be read.
    """
    first = LogReader(connection).entries(0, 1)
    if not first:
        return
    try:
        of = json.loads(first[0].leaf)["subject"]
    except (ValueError, KeyError, TypeError):
        raise LogDamaged("the log's first record cannot be read") from None
    if of != str(config.trust_domain.id):
        raise InvalidSettings(
            f"trust_domain is {config.trust_domain}, and {config.data} belongs to {of}"
        )
