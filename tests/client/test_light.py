"""The client is light: what it loads, and when."""

import subprocess
import sys

import pytest

import accredit_client

HEAVY = (
    "{'fastapi', 'starlette', 'uvicorn', 'sqlalchemy', 'pydantic', 'grpclib', 'google.protobuf'}"
)


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_importing_the_package_loads_nothing_slow() -> None:
    """Neither cryptography nor an HTTP client is loaded before something needs it."""
    code = (
        "import sys, accredit_client; "
        "print({'cryptography', 'httpx2', 'rich', 'jwt'} & set(sys.modules))"
    )
    assert _run(code) == "set()"


def test_using_every_name_loads_no_server() -> None:
    """No web framework, no server and no database comes with the light client."""
    code = (
        "import sys, accredit_client as a; [getattr(a, name) for name in a.__all__]; "
        f"print({HEAVY} & set(sys.modules))"
    )
    assert _run(code) == "set()"


@pytest.mark.parametrize("name", accredit_client.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """What the package promises can be had, and is listed."""
    assert getattr(accredit_client, name).__module__.startswith("accredit_client")
    assert name in dir(accredit_client)


def test_another_name_is_an_error() -> None:
    """A misspelt name is an AttributeError that says which."""
    with pytest.raises(AttributeError, match="'AgentIdentety'"):
        _ = accredit_client.AgentIdentety
