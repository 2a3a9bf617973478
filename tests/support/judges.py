"""Outside judges: how a test finds one, asks it, and hands it files.

OpenSSL must be there; any other judge that is not installed skips its tests by name.
"""

import importlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from accredit_credentials.x509_svid import X509Identity

TIMEOUT = 60.0


@dataclass(frozen=True)
class Verdict:
    """What a command said, and whether it was content."""

    accepted: bool
    text: str


def ask(*command: str | Path, stdin: str = "", timeout: float = TIMEOUT) -> Verdict:
    """Run an outside judge; its standard output and error are one text."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
    )
    return Verdict(done.returncode == 0, done.stdout.decode(errors="replace"))


def openssl(*arguments: str | Path, stdin: str = "") -> Verdict:
    """Ask OpenSSL, which is always there."""
    command = shutil.which("openssl")
    assert command, "OpenSSL is a judge that no run goes without: install the openssl command"
    return ask(command, *arguments, stdin=stdin)


def library(name: str, distribution: str) -> Any:
    """A judge that is a Python package, or a skip that names it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"the judge {distribution} is not installed: {error}")


def program(name: str) -> str:
    """A judge that is a program on the path, or a skip that names it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"the judge {name} is not on the path")
    return found


def pem_of(*certificates: x509.Certificate) -> str:
    """Certificates as concatenated PEM."""
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates)


@dataclass(frozen=True)
class PemFiles:
    """An identity as other tools want it: leaf, rest of the chain and key in files."""

    leaf: Path
    chain: Path
    key: Path

    @classmethod
    def write(cls, folder: Path, identity: X509Identity) -> "PemFiles":
        """Write an identity into a new folder."""
        folder.mkdir(parents=True, exist_ok=True)
        files = cls(folder / "leaf.pem", folder / "chain.pem", folder / "key.pem")
        files.leaf.write_text(pem_of(identity.svid.leaf))
        files.chain.write_text(pem_of(*identity.svid.intermediates))
        files.key.touch(mode=0o600)
        files.key.write_bytes(identity.key_pem)
        return files
