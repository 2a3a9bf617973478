"""What is said of an error, on one line: the cause, and nothing of a library's own advice.

SQLAlchemy's texts hold the statement and a link; the database's own words are enough.
"""

from sqlalchemy.exc import DBAPIError

from accredit_credentials.errors import CredentialError
from accredit_issuer.errors import IssuerError


def said_of(error: BaseException) -> str:
    """One line; of what nobody expected the type only."""
    if isinstance(error, DBAPIError):
        text = f"the database says: {error.orig or type(error).__name__}"
    elif isinstance(error, IssuerError | CredentialError):
        text = str(error)
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        text = where + (error.strerror or type(error).__name__).lower()
    else:
        text = f"unexpected {type(error).__name__}"
    return " ".join(text.split())
