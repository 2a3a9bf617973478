"""``doctor`` and ``audit`` on what was damaged: a finding or one line, and never a traceback."""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from accredit_issuer.cli.doctor import Finding, examine
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import initialise
from accredit_issuer.keys.key_manager import KeyManager
from accredit_issuer.keys.opening import open_keys
from accredit_issuer.settings import Config, load


@dataclass(frozen=True, slots=True)
class Place:
    """An issuer that is not running."""

    settings: Path

    @property
    def database(self) -> Path:
        """Its database."""
        return self.settings.parent / "data" / "issuer.db"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the operator's."""
        command = str(Path(sys.executable).parent / "accredit-issuer")
        return subprocess.run(
            [command, *arguments, "--config", str(self.settings)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def change(self, *statements: str) -> None:
        """Damage the database."""
        connection = sqlite3.connect(self.database)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    def failures(self) -> list[Finding]:
        """What doctor finds wrong."""
        return [each for each in examine(self.settings, system_clock()) if not each.ok]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An issuer, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "issuer.toml").write_text('trust_domain = "example.org"\n')
    initialise(load(folder / "issuer.toml"), system_clock)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    """An issuer of one's own."""
    shutil.copytree(made, tmp_path / "issuer")
    return Place(tmp_path / "issuer" / "issuer.toml")


DAMAGES: dict[str, tuple[str, str]] = {
    "a leaf as text": ('UPDATE log_leaf SET leaf = CAST(leaf AS TEXT) WHERE "index" = 1', "log"),
    "the first leaf as text": (
        'UPDATE log_leaf SET leaf = CAST(leaf AS TEXT) WHERE "index" = 0',
        "log",
    ),
    "a first leaf that is no record": (
        "UPDATE log_leaf SET leaf = x'00ff' WHERE \"index\" = 0",
        "log",
    ),
    "a hash as text": ("UPDATE log_leaf SET hash = 'x'", "log"),
    "a checkpoint as number": ("UPDATE singleton SET value = 7", "log"),
    "no log": ("DROP TABLE log_leaf", "database"),
    "no authorities": ("DROP TABLE authority", "database"),
    "no facts": ("DROP TABLE fact", "database"),
    "a moment that is none": ("UPDATE authority SET expires_at = 'soon'", "authorities"),
    "a moment as bytes": ("UPDATE crl SET next_update = x'00'", "CRLs"),
}


@pytest.mark.parametrize(("damage", "where"), DAMAGES.values(), ids=DAMAGES)
def test_no_damage_ends_the_examination(place: Place, damage: str, where: str) -> None:
    """The check that meets it fails, in one line without SQL; the others are done."""
    place.change(damage)
    failures = place.failures()
    assert where in {each.what for each in failures}
    for each in failures:
        _is_a_line(each.found)
    sane = [each for each in examine(place.settings, system_clock()) if each.ok]
    assert {"settings", "keys"} <= {each.what for each in sane}


@pytest.mark.parametrize(("damage", "where"), DAMAGES.values(), ids=DAMAGES)
def test_no_damage_ends_audit_in_a_traceback(place: Place, damage: str, where: str) -> None:
    """It reports findings, or says in one line why it cannot examine."""
    place.change(damage)
    done = place.run("audit")
    assert (done.returncode, where) in {(1, where), (0, "CRLs")}
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    _is_a_line(done.stderr.strip())


def test_the_keys_are_opened_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that refuses a PIN counts: the same one is not sent for each check."""
    opened: list[object] = []

    def counted(config: Config) -> KeyManager:
        opened.append(config)
        return open_keys(config)

    monkeypatch.setattr("accredit_issuer.cli.doctor.open_keys", counted)
    assert place.failures() == []
    (place.settings.parent / "issuer.passphrase").write_text("another\n")
    assert place.failures()
    assert len(opened) == 2, "once each time"


def test_a_sound_issuer_has_no_failure(place: Place) -> None:
    """The neighbour of everything below."""
    assert place.failures() == []
    done = place.run("doctor", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True)


@pytest.mark.parametrize("kind", ["root", "x509", "jwt"])
def test_an_authority_of_each_kind_must_be_active(place: Place, kind: str) -> None:
    """Without one nothing is signed, and nothing else would say so."""
    place.change(f"UPDATE authority SET state = 'retired' WHERE kind = '{kind}'")  # noqa: S608
    assert [(each.what, each.found) for each in place.failures()] == [
        (f"authorities of the kind {kind}", "none is active")
    ]


def test_a_crl_must_be_what_was_signed(place: Place) -> None:
    """Each is made again of its rows: its number, its moments and its entries are signed."""
    place.change("UPDATE crl SET number = number + 1")
    failures = place.failures()
    assert len(failures) == 2, "of the issuing CA and of the root"
    for failure in failures:
        assert failure.what.startswith("CRL of ")
        assert "did not sign" in failure.found


def test_a_fact_that_no_crl_has_is_named(place: Place) -> None:
    """A row of a fact that was put beside the issuer matches its own certificate: it says so."""
    place.change(
        "INSERT INTO credential SELECT 1, '7f', 'x509', 'spiffe://example.org/ns/a/agent/b', 'i', "
        "NULL, NULL, id, prepared_at, '2099-01-01 00:00:00.000000', NULL, NULL FROM authority "
        "WHERE kind = 'x509'",
        "INSERT INTO fact SELECT 1, 'serial:7f', 'revoked', prepared_at, "
        "'2099-01-01 00:00:00.000000', 'x', 'x', 0 FROM authority WHERE kind = 'x509'",
    )
    (failure,) = [each for each in place.failures() if each.what.startswith("CRL of ")]
    assert failure.found == "1 certificates are missing, of fact 1 first"


def test_a_missing_table_is_named(place: Place) -> None:
    """Also one that no other check reads."""
    place.change("DROP TABLE subordinate_ca")
    found = {failure.what: failure.found for failure in place.failures()}
    assert found["database"] == "tables are missing: subordinate_ca"
    assert "subordinate_ca" in found["schema"]


def test_a_key_that_is_lost_is_named(place: Place) -> None:
    """The other keys are looked at all the same."""
    lost = next(each for each in (place.database.parent / "keys").iterdir() if each.stem != "log")
    lost.unlink()
    (failure,) = place.failures()
    assert failure.what == f"key of {lost.stem[:16]}"


@pytest.mark.parametrize("command", ["doctor", "audit", "run"])
def test_a_wrong_trust_domain_is_said_alike(place: Place, command: str) -> None:
    """Each command names both trust domains and the folder."""
    place.settings.write_text('trust_domain = "other.org"\n')
    done = place.run(command)
    assert done.returncode == 1
    assert (
        f"trust_domain is other.org, and {place.database.parent} belongs to spiffe://example.org"
        in done.stdout + done.stderr
    )


@pytest.mark.parametrize("command", ["doctor", "audit", "run"])
def test_a_lost_database_is_not_made_anew(place: Place, command: str) -> None:
    """Where an issuer was, the way back is the backup; where none was, it is ``init``."""
    place.database.unlink()
    done = place.run(command)
    assert done.returncode == 1
    assert "restore the backup; 'init' makes another issuer" in done.stdout + done.stderr
    shutil.rmtree(place.database.parent)
    done = place.run(command)
    assert "there is no issuer in" in done.stdout + done.stderr
    assert "run 'accredit-issuer init'" in done.stdout + done.stderr


@pytest.mark.parametrize("make", [lambda _: None, lambda file: file.write_bytes(b"\xff")])
def test_a_checkpoint_that_cannot_be_read(place: Place, make: Callable[[Path], object]) -> None:
    """One line names the option, the file, and where such a file comes from."""
    file = place.settings.parent / "nofile"
    make(file)
    done = place.run("audit", "--checkpoint", str(file))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --checkpoint {file} cannot be read: ")
    assert "/v1/log/checkpoint" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["doctor", "run"])
@pytest.mark.parametrize(
    ("content", "said"), [(None, "no such file"), ("no PEM", "no certificate in PEM"), ("", "PEM")]
)
def test_a_ca_file_that_cannot_be_used(
    place: Place, command: str, content: str | None, said: str
) -> None:
    """It is refused before anything is served, in one line that names the key."""
    with place.settings.open("a") as settings:
        settings.write('[federation]\nca_file = "ca.pem"\n')
    file = place.settings.parent / "ca.pem"
    if content is not None:
        file.write_text(content)
    done = place.run(command)
    assert done.returncode == 1
    (line,) = [each for each in (done.stdout + done.stderr).splitlines() if "ca.pem" in each]
    assert f"federation.ca_file {file} cannot be used: " in line
    assert said in line


def test_a_ca_file_that_holds(place: Place, tmp_path: Path) -> None:
    """The neighbour: any certificate in PEM."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with place.settings.open("a") as settings:
        settings.write(f'[federation]\nca_file = "{tmp_path / "ca.pem"}"\n')
    assert place.failures() == []


def test_help_and_version_as_elsewhere(place: Place) -> None:
    """``-h`` and ``--version`` are what people try first."""
    command = str(Path(sys.executable).parent / "accredit-issuer")
    for arguments, said in ((["-h"], "Run an Accredit issuer."), (["--version"], "accredit "),
                            (["run", "-h"], "--config")):  # fmt: skip
        done = subprocess.run(
            [command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0
        assert said in done.stdout


def _is_a_line(text: str) -> None:
    assert "\n" not in text
    for never in ("SELECT", "sqlalche.me", "Traceback", "[SQL"):
        assert never not in text
