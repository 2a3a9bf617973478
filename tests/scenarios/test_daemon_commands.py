"""``accredit`` on a host with a node daemon: its commands as processes of an ordinary user.

What the daemon measures is the process of the command itself; what comes of it is files and tokens.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.calling import AGENT_GID, AGENT_UID, as_root
from support.node_daemon import Host, host, identity_of

from accredit_client import calls
from accredit_client.files import FolderContent, read_folder
from accredit_credentials.keys import (
    b64url_decode,
    check_public_key,
    generate_key,
    jwk_thumbprint,
)
from accredit_credentials.x509_svid import X509Svid, validate
from accredit_issuer.clock import system_clock

pytestmark = [as_root]

FIRST = "spiffe://example.org/ns/support/agent/summarizer"
SECOND = "spiffe://example.org/ns/support/agent/triage"

COMMAND = """\
import contextlib
import encodings.idna
import io
import os
import sys

from accredit_client.cli import main, svid, token
from accredit_client.workload import line

with contextlib.redirect_stderr(io.StringIO()):
    main(["svid", "show", "/nowhere"])  # what is loaded later is not readable by our user
uid, gid, *arguments = sys.argv[1:]
os.setgroups([])
os.setresgid(*[int(gid)] * 3)
os.setresuid(*[int(uid)] * 3)
sys.exit(main(arguments))
"""


def begin(*arguments: object, uid: int = AGENT_UID, socket: Path) -> "subprocess.Popen[str]":
    """A command of a user, who has the daemon in the environment."""
    return subprocess.Popen(
        [sys.executable, "-B", "-c", COMMAND, str(uid), str(AGENT_GID), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix:{socket}"},
    )


def end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Its code, and all that it says until its end."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@contextmanager
def placed(*, x509_svid: int = 3600) -> Iterator[tuple[Host, Path]]:
    """A host whose user has two agents' identities, and a folder of that user."""
    with host(x509_svid=x509_svid) as place:
        place.agent()
        place.agent("triage")
        place.listed()
        place.daemon()
        own = place.folder / "own"
        own.mkdir()
        os.chown(own, AGENT_UID, AGENT_GID)
        yield place, own


def read(folder: Path) -> FolderContent:
    """The set in a folder of the other user, as that user."""
    os.seteuid(AGENT_UID)
    try:
        return read_folder(folder)
    finally:
        os.seteuid(0)


def assert_good(place: Host, svid: X509Svid) -> None:
    """Somebody who trusts the issuer accepts it."""
    bundle = place.issuer.bundle
    validate(svid, bundles={bundle.trust_domain: bundle}, now=system_clock())


def revoked_in(crl: Path, svid: X509Svid) -> bool:
    """Whether a file of CRLs has the SVID."""
    lists = crl.read_text().split("-----BEGIN")[1:]
    found = [x509.load_pem_x509_crl(f"-----BEGIN{each}".encode()) for each in lists]
    serial = svid.leaf.serial_number
    return any(each.get_revoked_certificate_by_serial_number(serial) for each in found)


def line(stream: IO[str] | None) -> str:
    """One line."""
    assert stream is not None
    return stream.readline()


def test_an_svid_is_fetched_once_from_the_daemon() -> None:
    """The default identity or a named one, to whom an entry means, and to nobody else."""
    with placed() as (place, own):
        for options, spiffe_id in (((), FIRST), (("--id", SECOND), SECOND)):
            out = own / f"id-{len(options)}"
            code, said, err = end(
                begin("svid", "fetch", "--out", out, "--json", *options, socket=place.socket)
            )
            assert (code, json.loads(said)["spiffe_id"]) == (0, spiffe_id), err
            svid = read(out).identity.svid
            assert str(svid.spiffe_id) == spiffe_id
            assert_good(place, svid)
            assert svid.leaf.not_valid_after_utc > system_clock()

        for uid, options, why in (
            (AGENT_UID, ("--id", f"{FIRST}-2"), "no SVID of"),
            (AGENT_UID + 1, (), "no identity"),
            (0, (), "no identity"),
        ):
            out = place.folder / f"refused-{uid}"
            out.mkdir(mode=0o700)
            os.chown(out, uid, AGENT_GID)
            code, said, err = end(
                begin("svid", "fetch", "--out", out, *options, uid=uid, socket=place.socket)
            )
            assert (code, said, why in err) == (1, "", True), err
            assert "Traceback" not in err
            assert list(out.iterdir()) == []


def test_files_are_kept_from_what_the_daemon_pushes() -> None:
    """Renewed before their end, the CRL after a revocation, each told; never another agent's."""
    with placed(x509_svid=12) as (place, own):
        out, told = own / "out", own / "told"
        process = begin(
            "svid", "watch", "--out", out, "--exec", f"touch {told}", socket=place.socket
        )
        try:
            while not (out / "crl.pem").exists():
                assert line(process.stderr)
            first = read(out)
            assert (str(first.identity.svid.spiffe_id), first.issuer_url) == (FIRST, None)
            assert {each.stat().st_uid for each in out.glob("*.pem")} == {AGENT_UID}
            assert {each.stat().st_mode & 0o777 for each in out.glob("*.pem")} == {0o600}

            while not line(process.stderr).startswith("svid.pem"):
                pass
            assert line(process.stderr) == "touch was run\n"
            assert told.exists()
            second = read(out).identity.svid
            assert second.serial != first.identity.svid.serial
            assert second.instance == first.identity.svid.instance
            assert_good(place, second)

            neighbour = place.told(
                sys.executable,
                "-B",
                str(place.agents[0][0].root / "main.py"),
                str(AGENT_UID),
                str(AGENT_GID),
                f"unix:{place.socket}",
            )
            theirs = identity_of(neighbour.ask("x509")).svid
            assert not revoked_in(out / "crl.pem", theirs)
            revoke(place, theirs)
            while not revoked_in(out / "crl.pem", theirs):
                assert line(process.stderr)

            revoke(place, read(out).identity.svid)
            code, _, err = end(process)
            assert (code, f"would be {SECOND} now" in err, "Traceback" in err) == (1, True, False)
            assert str(read(out).identity.svid.spiffe_id) == FIRST
        finally:
            process.kill()
            process.wait()


def revoke(place: Host, svid: X509Svid) -> None:
    """End an instance."""
    place.admin.send(
        calls.revoke(target=f"instance:{svid.instance}", kind="revoked", reason="incident 9")
    )


def test_a_watch_outlives_the_daemon_and_ends_when_told() -> None:
    """While the daemon is away the files stay; what the next one gives is another instance's."""
    with host() as place:
        place.agent()
        place.listed()
        daemon = place.daemon()
        own = place.folder / "own"
        own.mkdir()
        os.chown(own, AGENT_UID, AGENT_GID)
        process = begin("svid", "watch", "--out", own / "out", "--no-crls", socket=place.socket)
        try:
            assert line(process.stderr).startswith(f"svid.pem, bundle.pem of {FIRST} in ")
            before = read(own / "out").identity.svid
            assert daemon.stop() == 0
            daemon.start()
            assert line(process.stderr).startswith(f"svid.pem of {FIRST} in ")
            after = read(own / "out").identity.svid
            assert after.instance != before.instance
            assert not (own / "out" / "crl.pem").exists()
            process.send_signal(signal.SIGTERM)
            code, _, err = end(process)
            assert (code, err.startswith("stopped; ")) == (0, True), err
        finally:
            process.kill()
            process.wait()


def test_a_watch_ends_when_its_identity_is_taken_back() -> None:
    """With code 1 and a reason: files that nobody should trust are not kept fresh."""
    with placed() as (place, own):
        out = own / "out"
        process = begin("svid", "watch", "--out", out, "--id", SECOND, socket=place.socket)
        try:
            assert line(process.stderr).startswith("svid.pem, ")
            revoke(place, read(out).identity.svid)
            code, _, err = end(process)
            assert (code, "worth nothing any more" in err, "Traceback" in err) == (1, True, False)
            assert f"no SVID of {SECOND}" in err
        finally:
            process.kill()
            process.wait()


def test_a_task_token_by_the_daemon_is_bound_to_a_key_of_ones_own() -> None:
    """The command's own key ends with it; what it asks for is the program's."""
    with placed() as (place, own):
        file, key = own / "own.pub", generate_key().public_key()
        file.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        code, token, err = end(
            begin(
                "token", "get", "tickets", "read", "--purpose", "ticket 4711",
                "--binding", "dpop", "--dpop-key", file, socket=place.socket,
            )
        )  # fmt: skip
        assert code == 0, err
        claims = json.loads(b64url_decode(token.strip().split(".")[1]))
        assert claims["cnf"] == {"jkt": jwk_thumbprint(check_public_key(key))}
        assert claims["client_id"] == FIRST
