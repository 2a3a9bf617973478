"""``accredit-issuer invite``: the way back in when no admin can log in any more."""

import os
import subprocess
import sys
from pathlib import Path

from support.issuer import RunningIssuer, log_in, make_config, serving

from accredit_client import calls
from accredit_client.trust import pin_of
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import Lock, initialise

PROGRAM = str(Path(sys.executable).parent / "accredit-issuer")
COMMAND = [PROGRAM, "invite", "first"]


def test_a_stopped_issuer_invites_an_admin(tmp_path: Path) -> None:
    """The token is written for its reader only, logs in, and is recorded as the operator's."""
    config_file = _issuer(tmp_path)
    token = tmp_path / "first.token"
    done = _invite(config_file, token)
    assert done.returncode == 0, done.stderr
    assert token.stat().st_mode & 0o777 == 0o600
    pin = subprocess.run(
        [PROGRAM, "pin", "--config", str(config_file)], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert f"--trust {pin}" in done.stdout
    config = make_config(tmp_path)
    with serving(config) as (issuer, url):
        assert pin == pin_of(issuer.bundle.x509_authorities[0])
        running = RunningIssuer(issuer, url, "")
        with running.clients:
            admin = log_in(running, token.read_text().strip())
            records = admin.send(calls.log_entries(start=0, limit=100)).entries
    invitations = [e.record for e in records if e.record["kind"] == "admin.invited"]
    assert [record["actor"] for record in invitations] == ["issuer", "operator"]


def test_a_running_issuer_is_left_alone(tmp_path: Path) -> None:
    """Two that write would write two histories: the command says so and changes nothing."""
    config_file = _issuer(tmp_path)
    lock = Lock(tmp_path / "data")
    try:
        done = _invite(config_file, tmp_path / "first.token")
    finally:
        lock.release()
    assert done.returncode == 1
    assert "an issuer is running" in done.stderr
    assert not (tmp_path / "first.token").exists()


def _issuer(folder: Path) -> Path:
    initialise(make_config(folder), system_clock)
    file = folder / "issuer.toml"
    file.write_text('trust_domain = "example.org"\n')
    return file


def _invite(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--out", str(out), "--config", str(config)],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
