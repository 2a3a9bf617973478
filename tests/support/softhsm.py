"""A token of SoftHSM, a security module in software: made for one test, and taken away from it.

A module reads where its tokens are when it is initialised (``SOFTHSM2_CONF``), and a process has a
module once: so each test has a configuration of its own, and the module is given up after it.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pkcs11
import pytest
from pkcs11.types import Session
from support.judges import program

PIN = "correct-horse-4711"
LABEL = "accredit tests"

_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
_ENVIRONMENT = "SOFTHSM2_CONF"


@dataclass
class SoftToken:
    """A token, the file of its PIN, and the settings that name it."""

    folder: Path
    module: Path
    pin_file: Path = field(init=False)

    def __post_init__(self) -> None:
        self.pin_file = self.folder / "pin"
        self.pin_file.touch(mode=0o600)
        self.pin_file.write_text(PIN + "\n")

    @property
    def settings(self) -> dict[str, Any]:
        """The section ``[keys]``."""
        return {
            "kind": "pkcs11",
            "module": str(self.module),
            "token": LABEL,
            "pin_file": str(self.pin_file),
        }

    @property
    def settings_text(self) -> str:
        """The same as TOML."""
        lines = (f'{name} = "{value}"' for name, value in self.settings.items())
        return "\n[keys]\n" + "\n".join(lines) + "\n"

    @contextmanager
    def gone(self) -> Iterator[None]:
        """The token is pulled out: open sessions are dead, and nobody finds it."""
        kept = os.environ[_ENVIRONMENT]
        os.environ[_ENVIRONMENT] = str(_configuration(self.folder / "empty"))
        pkcs11.lib(str(self.module)).reinitialize()
        try:
            yield
        finally:
            os.environ[_ENVIRONMENT] = kept

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Look into it, while nobody else of this process has a session."""
        token = pkcs11.lib(str(self.module)).get_token(token_label=LABEL)
        session = token.open(user_pin=PIN)
        try:
            yield session
        finally:
            session.close()


@contextmanager
def soft_token(folder: Path) -> Iterator[SoftToken]:
    """A new token, or a skip that names what is missing."""
    tool = program("softhsm2-util")
    # In one spelling: under two names the library would initialise one module twice.
    module = next((Path(path).resolve() for path in _MODULES if Path(path).exists()), None)
    if module is None:
        pytest.skip("the module libsofthsm2.so of SoftHSM is not installed")
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_ENVIRONMENT, str(_configuration(folder)))
        subprocess.run(
            [tool, "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", PIN],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        try:
            yield SoftToken(folder, module)
        finally:
            pkcs11.lib(str(module)).finalize()


def _configuration(folder: Path) -> Path:
    tokens = folder / "tokens"
    tokens.mkdir(parents=True, exist_ok=True)
    file = folder / "softhsm2.conf"
    file.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
    return file
