"""Every error, as one line on stderr and an exit code. Decided here and nowhere else.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 issuer unreachable, 4 not logged in,
127 the command to run was not found, 130 interrupted. With ``ACCREDIT_DEBUG=1`` the traceback
follows.
"""

import os
import sys
import traceback
from dataclasses import dataclass

import typer

from accredit_attestors.errors import AttestationError
from accredit_client.cli import output
from accredit_client.errors import ClientError, IssuerRefused, IssuerUnreachable
from accredit_credentials.errors import CredentialError

DEBUG_VARIABLE = "ACCREDIT_DEBUG"

FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_LOGGED_IN = 4
NO_COMMAND = 127  # as a shell says it

_HINTS = {
    "unauthenticated": "log in again: accredit login",
    "forbidden": "accredit whoami shows your role and namespaces",
    "busy": "try again in a moment",
    "unavailable": "try again in a moment; nothing was released",
    "internal": "the issuer's own log says more",
}


class NotLoggedIn(ClientError):
    """The command needs an admin's login, and there is none that holds."""


class Failed(ClientError):
    """The command itself says no."""


class NoCommand(ClientError):
    """The command that was to be run is not there."""


class WrongUsage(ClientError):
    """Arguments that do not go together."""


_CODES: dict[type[Exception], int] = {
    NotLoggedIn: NOT_LOGGED_IN,
    NoCommand: NO_COMMAND,
    WrongUsage: USAGE,
    IssuerUnreachable: UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is said about an error."""

    code: int
    message: str
    hint: str | None = None


def problem_of(error: Exception) -> Problem:
    """What to say about an error."""
    if isinstance(error, ClientError | AttestationError | CredentialError):
        code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), FAILED)
        return Problem(code, str(error), _hint_of(error))
    if isinstance(error, typer.TyperException):
        return Problem(error.exit_code, _sentence(error.format_message()), _hint_of(error))
    if isinstance(error, FileExistsError):
        return Problem(
            FAILED,
            f"{error.filename} exists already and is not overwritten",
            "name another file, or move the old one away",
        )
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Problem(FAILED, where + (error.strerror or type(error).__name__).lower())
    return Problem(
        FAILED,
        f"unexpected {type(error).__name__}",
        f"this is a bug in accredit; {DEBUG_VARIABLE}=1 shows where",
    )


def report(error: Exception) -> int:
    """Say what went wrong on stderr; returns the exit code."""
    problem = problem_of(error)
    output.error(problem.message, problem.hint)
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exception(error, file=sys.stderr)
    return problem.code


def _sentence(message: str) -> str:
    """Typer's words in the house's form: one line, from a lower-case letter on, no final period."""
    text = " ".join(message.split()).removesuffix(".")
    return text[:1].lower() + text[1:]


def _hint_of(error: Exception) -> str | None:
    if isinstance(error, ClientError | AttestationError) and error.hint:
        return error.hint
    if isinstance(error, IssuerRefused):
        return _HINTS.get(error.kind)
    context = getattr(error, "ctx", None)  # of wrong usage: the command that was meant
    return f"{context.command_path} --help shows how" if context is not None else None
