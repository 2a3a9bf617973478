"""nginx and PostgreSQL on files that ``accredit svid watch`` keeps, as ``config/`` sets them up."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.interop_world import World
from support.judges import PemFiles, Verdict, ask, openssl, pem_of, program

from accredit_client import calls
from accredit_client.cli.reload import reload_of
from accredit_client.files import FolderContent, write_folder
from accredit_credentials.x509_svid import X509Identity

CONFIG = Path(__file__).parents[2] / "config"
PATIENCE = 30.0  # seconds; nothing takes as long unless something is broken
NOBODY = "0" * 64


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(done: Callable[[], bool], what: str) -> None:
    """Wait for another program, which has no clock of ours."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def watched(world: World, folder: Path, identity: X509Identity) -> Path:
    """The files as ``svid watch`` writes them."""
    write_folder(folder, FolderContent(world.running.url, world.running.bundle, identity))
    return folder


def adapted(name: str, into: Path, **changes: str) -> Path:
    """An example of ``config/`` for this machine; each change must be one that it has."""
    text = (CONFIG / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, new)
    into.write_text(text)
    return into


def manifest_digest(identity: X509Identity) -> str:
    """The hex digits of the manifest it was issued for."""
    assert identity.svid.manifest
    return identity.svid.manifest.removeprefix("sha256:")


# nginx


@contextmanager
def nginx(
    folder: Path, files: Path, manifest: str, *, crls: bool = False
) -> Iterator[tuple[int, Path]]:
    """Nginx with our example; its port and its pid file."""
    command, port, pid_file = program("nginx"), free_port(), folder / "nginx.pid"
    file = adapted(
        "nginx.conf", folder / "nginx.conf",
        **{"/run/nginx.pid": str(pid_file), "/run/nginx-id": str(files), "8444": str(port),
           NOBODY: manifest},
    )  # fmt: skip
    if crls:
        depth = "ssl_verify_depth"
        lists = f"ssl_crl {files / 'crl.pem'};"
        file.write_text(file.read_text().replace(depth, f"{lists} {depth}"))
    arguments = [command, "-p", str(folder), "-c", str(file), "-e", "stderr", "-g", "daemon off;"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments, stderr=log)
    try:
        until(lambda: listens(port) or process.poll() is not None, "nginx does not start")
        assert process.poll() is None, (folder / "log").read_text()
        yield port, pid_file
    finally:
        process.terminate()
        process.wait(PATIENCE)


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(world: World, port: int, files: PemFiles | None) -> Verdict:
    """Ask as an agent, or as nobody; OpenSSL verifies the server's chain."""
    mine = ("-cert", files.leaf, "-cert_chain", files.chain, "-key", files.key) if files else ()
    return openssl(
        *("s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", world.root_file),
        *("-verify_return_error", "-ign_eof", *mine),
        stdin="GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )


def served_serial(port: int) -> str:
    """The serial number of the certificate that is shown."""
    from cryptography import x509  # noqa: PLC0415 (of this check alone)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as raw,
        context.wrap_socket(raw) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der
    return format(x509.load_der_x509_certificate(der).serial_number, "x")


def test_nginx_lets_in_whom_it_is_told_of(world: World, tmp_path: Path) -> None:
    """An agent of the manifest in the map; nobody without a certificate, of another manifest."""
    files = watched(world, tmp_path / "id", world.identity)
    agent = world.files(world.another())
    with nginx(tmp_path, files, manifest_digest(world.identity)) as (port, _):
        answer = get(world, port, agent)
        assert "200 OK" in answer.text
        assert "support/triage" in answer.text
        assert "No required SSL certificate" in get(world, port, None).text
    (tmp_path / "other").mkdir()
    with nginx(tmp_path / "other", files, "f" * 64) as (port, _):
        assert "403 Forbidden" in get(world, port, agent).text


def test_nginx_shows_the_next_svid_after_the_signal(world: World, tmp_path: Path) -> None:
    """The files alone change nothing; the signal of ``svid watch`` does, without a gap."""
    first, second = world.another(), world.another()
    files = watched(world, tmp_path / "id", first)
    with nginx(tmp_path, files, manifest_digest(first)) as (port, pid_file):
        watched(world, files, second)
        assert served_serial(port) == first.svid.serial
        tell = reload_of("HUP", pid_file, None)
        assert tell is not None
        tell()
        until(lambda: served_serial(port) == second.svid.serial, "nginx does not reload")


def test_nginx_refuses_whom_the_crls_have(world: World, tmp_path: Path) -> None:
    """With ``ssl_crl`` a revoked agent is out after the signal, and its neighbour is not."""
    doomed, neighbour = world.another(), world.another()
    files = watched(world, tmp_path / "id", world.identity)
    world.crl_file(files)
    manifest = manifest_digest(world.identity)
    with nginx(tmp_path, files, manifest, crls=True) as (port, pid_file):
        for each in (doomed, neighbour):
            assert "200 OK" in get(world, port, world.files(each)).text
        target = f"serial:{doomed.svid.serial}"
        world.admin.send(calls.revoke(target=target, kind="revoked", reason="interop"))
        world.crl_file(files)
        tell = reload_of("HUP", pid_file, None)
        assert tell is not None
        tell()
        until(
            lambda: "SSL certificate error" in get(world, port, world.files(doomed)).text,
            "nginx goes on to let it in",
        )
        assert "200 OK" in get(world, port, world.files(neighbour)).text


def test_nginx_with_the_issuing_cas_crl_alone_refuses_everybody(
    world: World, tmp_path: Path
) -> None:
    """The twin: it asks for the root's too, so below a root that was given there is no way."""
    files = watched(world, tmp_path / "id", world.identity)
    der = tmp_path / "crl.der"
    der.write_bytes(world.crl())
    assert openssl("crl", "-inform", "DER", "-in", der, "-out", files / "crl.pem").accepted
    manifest = manifest_digest(world.identity)
    with nginx(tmp_path, files, manifest, crls=True) as (port, _):
        assert "SSL certificate error" in get(world, port, world.files(world.another())).text


# PostgreSQL


def postgres_bin() -> Path:
    """Where PostgreSQL's programs are, or a skip that names it."""
    # Debian keeps them off the path, one folder a version.
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    found = packaged[-1] if packaged else Path(program("postgres"))
    return found.resolve().parent


@contextmanager
def postgresql(world: World, folder: Path, manifest: str) -> Iterator[tuple[int, Path, Path]]:
    """PostgreSQL with our examples: its port, its pid file, its folder of files."""
    found, port, data = postgres_bin(), free_port(), folder / "data"
    as_user = [program("runuser"), "-u", "nobody", "--"] if os.geteuid() == 0 else []
    program("psql")
    files = watched(world, folder / "id", world.identity)
    if as_user:  # PostgreSQL does not run as root: it is the owner of its files here
        data.mkdir(mode=0o700)
        for each in (data, files, *files.rglob("*")):
            os.chown(each, 65534, -1, follow_symlinks=False)
    run = subprocess.run
    run([*as_user, found / "initdb", "-D", data, "-U", "owner", "-A", "trust"], check=True,
        capture_output=True, cwd="/")  # fmt: skip
    adapted("postgresql.pg_hba.conf", data / "pg_hba.conf")
    adapted("postgresql.pg_ident.conf", data / "pg_ident.conf", **{NOBODY: manifest})
    adapted("postgresql.conf", data / "ours.conf", **{"/run/postgresql-id": str(files)})
    with (data / "postgresql.conf").open("a") as more:
        more.write(f"include 'ours.conf'\nport = {port}\nlisten_addresses = '127.0.0.1'\n")
        more.write(f"unix_socket_directories = '{data}'\nfsync = off\n")
    with (data / "pg_hba.conf").open("a") as more:
        more.write("local all owner trust\n")
    for name in ("pg_hba.conf", "pg_ident.conf", "ours.conf"):
        (data / name).chmod(0o644)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*as_user, found / "postgres", "-D", data], stderr=log, stdout=log, cwd="/"
        )
    pid_file = data / "postmaster.pid"
    try:
        psql = ("psql", "-h", data, "-p", str(port), "-U", "owner", "-d", "postgres", "-c")
        until(
            lambda: process.poll() is not None or ask(*psql, "select 1").accepted,
            "PostgreSQL does not start",
        )
        assert process.poll() is None, (folder / "log").read_text()
        assert ask(*psql, "create role triage login").accepted
        yield port, pid_file, files
    finally:
        if pid_file.exists():
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)
        process.wait(PATIENCE)


def connect(
    world: World, port: int, identity: X509Identity | None, role: str = "triage"
) -> Verdict:
    """Ask who one is, as an agent or without a certificate."""
    folder = world.folder / f"psql-{identity.svid.serial if identity else 'nobody'}"
    folder.mkdir(exist_ok=True)
    mine = "sslcert=none"
    if identity is not None:
        files = PemFiles.write(folder, identity)
        chain = folder / "all.pem"
        chain.write_text(pem_of(*identity.svid.certificates))
        mine = f"sslcert={chain} sslkey={files.key}"
    target = (
        f"host=127.0.0.1 port={port} user={role} dbname=postgres sslmode=verify-ca "
        f"sslrootcert={world.root_file} {mine}"
    )
    return ask("psql", target, "-Atc", "select current_user")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a path short enough for PostgreSQL's socket."""
    folder = Path("/tmp") / f"accredit-pg-{os.getpid()}"
    folder.mkdir(mode=0o711)
    yield folder
    shutil.rmtree(folder)


def test_postgresql_gives_an_agent_the_role_of_its_manifest(world: World, short: Path) -> None:
    """By its SVID alone; not another role, not without one; and the next SVID after a signal."""
    with postgresql(world, short, manifest_digest(world.identity)) as (port, pid_file, files):
        agent = world.another()
        assert connect(world, port, agent).text == "triage\n"
        assert "certificate authentication failed" in connect(world, port, agent, "owner").text
        assert not connect(world, port, None).accepted
        owner = files.stat().st_uid
        folder = watched(world, short / "next", world.another())
        for each in (folder, *folder.rglob("*")):
            os.chown(each, owner, -1, follow_symlinks=False)
        files.rename(short / "before")
        folder.rename(files)
        tell = reload_of("HUP", pid_file, None)
        assert tell is not None
        assert "SIGHUP" in tell()
        until(lambda: connect(world, port, agent).accepted, "PostgreSQL does not reload")


def test_postgresql_refuses_an_agent_of_another_manifest(world: World, short: Path) -> None:
    """Every agent of the trust domain has a certificate; a role only those in the map."""
    with postgresql(world, short, "f" * 64) as (port, _, _files):
        assert "certificate authentication failed" in connect(world, port, world.another()).text
