"""Every error: one line, a hint, and the exit code that scripts decide by."""

import pytest
from client_cli.workplace import accredit

from accredit_attestors.errors import CannotCollect
from accredit_client.cli import problems, session
from accredit_client.cli.problems import Failed, NotLoggedIn, WrongUsage, problem_of
from accredit_client.errors import IssuerRefused, IssuerUnreachable, IssuerUntrusted
from accredit_credentials.errors import Expired


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failed("no"), 1),
        (IssuerRefused("forbidden", "no", 403), 1),
        (IssuerUntrusted("stranger"), 1),
        (CannotCollect("no file"), 1),
        (Expired("over"), 1),
        (PermissionError(13, "Permission denied", "/f"), 1),
        (WrongUsage("no"), 2),
        (IssuerUnreachable("nobody"), 3),
        (NotLoggedIn("no"), 4),
    ],
)
def test_error_has_its_exit_code(error: Exception, code: int) -> None:
    """Scripts can tell refused, unreachable and not logged in apart."""
    assert problem_of(error).code == code


def test_hint_of_an_error_is_kept_and_a_refusal_gets_one() -> None:
    """Advice comes from the error, or from the kind of refusal."""
    assert problem_of(CannotCollect("no", hint="chmod 600 f")).hint == "chmod 600 f"
    assert "whoami" in str(problem_of(IssuerRefused("forbidden", "no", 403)).hint)


def test_unexpected_error_shows_no_traceback_and_no_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug says its kind only: its text may hold anything."""

    def broken(_: str) -> None:
        raise ZeroDivisionError("canary-secret")

    monkeypatch.delenv(problems.DEBUG_VARIABLE, raising=False)
    monkeypatch.setattr(session, "open_session", broken)
    result = accredit("whoami")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == [
        "error: unexpected ZeroDivisionError",
        "hint: this is a bug in accredit; ACCREDIT_DEBUG=1 shows where",
    ]
    monkeypatch.setenv(problems.DEBUG_VARIABLE, "1")
    assert "Traceback" in accredit("whoami").err
