"""pkilint, the linter of RFC 5280, on everything that we sign."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from support.interop_world import World
from support.judges import library, openssl, pem_of
from support.ocsp import request, status_of
from support.raw_http import RawClient

from accredit_client import calls
from accredit_credentials.x509_svid import X509Identity

# pkilint calls every spiffe:// URI a syntax error; it is alone in that (RFC 3986 §3).
OCSP = "application/ocsp-request"
ALLOWED = {"pkix.invalid_uri_syntax"}


def lint(linter: str, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> set[str]:
    """The codes of what a linter of pkilint finds, from notices up."""
    main = library(f"pkilint.bin.{linter}", "pkilint").main
    options = ("-s", "NOTICE", "-f", "JSON")
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # pkilint leaves its files open
        main(["lint", *options, *map(str, arguments)])
    results = json.loads(capsys.readouterr().out)["results"]
    return {finding["code"] for result in results for finding in result["finding_descriptions"]}


def ask_ocsp(world: World, identity: X509Identity) -> bytes:
    """What the issuer's responder answers about an agent."""
    client = RawClient.at(world.running.url, world.running.bundle)
    body = request(identity.svid.leaf, world.issuing_ca, algorithm=hashes.SHA256())
    path = urlsplit(world.responder).path
    return client.ask("POST", path, body, headers={"Content-Type": OCSP}).body


def responder_of(answer: bytes) -> x509.Certificate:
    """Who signed an answer."""
    (certificate,) = ocsp.load_der_ocsp_response(answer).certificates
    return certificate


CERTIFICATES: Mapping[str, Callable[[World], x509.Certificate]] = {
    "root": lambda world: world.root,
    "issuing CA": lambda world: world.issuing_ca,
    "agent": lambda world: world.identity.svid.leaf,
    "admin": lambda world: world.admin.identity.svid.leaf,
    "server": lambda world: world.server_certificate(),
    "OCSP responder": lambda world: responder_of(ask_ocsp(world, world.identity)),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_certificates_are_clean(
    world: World, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pkilint has nothing to say of our certificates but its mistake about spiffe URIs."""
    file = tmp_path / "certificate.pem"
    file.write_text(pem_of(CERTIFICATES[kind](world)))
    assert lint("lint_pkix_cert", capsys, file) <= ALLOWED


def test_the_linter_does_find_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate with a zero serial number is not clean: the judge does judge."""
    file = tmp_path / "bad.pem"
    made = openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", tmp_path / "key.pem", "-out", file, "-set_serial", "0", "-subj", "/O=x"),
    )
    assert made.accepted, made.text
    assert lint("lint_pkix_cert", capsys, file) - ALLOWED


@pytest.mark.parametrize("signer", ["root", "issuing CA"])
def test_chains_fit_together(
    world: World, signer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names, key identifiers and algorithms of each signer and signee match."""
    below = {"root": "issuing CA", "issuing CA": "agent"}[signer]
    files = [tmp_path / "signer.pem", tmp_path / "signee.pem"]
    for file, kind in zip(files, (signer, below), strict=True):
        file.write_text(pem_of(CERTIFICATES[kind](world)))
    assert lint("lint_pkix_signer_signee_cert_chain", capsys, *files) <= ALLOWED


def test_the_crl_is_clean_empty_or_not(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pkilint has nothing to say of our CRL: revoked and suspended entries, and before them."""
    file = tmp_path / "now.crl"
    for kind in ("revoked", "suspended"):
        file.write_bytes(world.crl())
        assert not lint("lint_crl", capsys, "-t", "CRL", "-p", "PKIX", file)
        target = f"instance:{world.another().svid.instance}"
        world.admin.send(calls.revoke(target=target, kind=kind, reason="interop"))
    file.write_bytes(world.crl())
    assert len(x509.load_der_x509_crl(file.read_bytes())) >= 2
    assert not lint("lint_crl", capsys, "-t", "CRL", "-p", "PKIX", file)


def test_ocsp_answers_are_clean(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pkilint has nothing to say of our OCSP answers: good, on hold, revoked."""
    identity, file = world.another(), tmp_path / "answer.der"
    for kind, status in ((None, "good"), ("suspended", "revoked"), ("revoked", "revoked")):
        if kind is not None:
            target = f"instance:{identity.svid.instance}"
            world.admin.send(calls.revoke(target=target, kind=kind, reason="interop"))
        answer = ask_ocsp(world, identity)
        assert status_of(answer) == status
        file.write_bytes(answer)
        assert not lint("lint_ocsp_response", capsys, file)


def test_the_roots_crl_is_clean_empty_or_not(
    own_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pkilint has nothing to say of the root's CRL either, with a revoked CA and before it."""
    file, client = tmp_path / "root.crl", own_world.running.connect()
    key_id = own_world.root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    target = f"authority:{own_world.replace_issuing_ca()}"
    for number in (0, 1):
        file.write_bytes(client.send(calls.crl(key_id.digest.hex())))
        assert len(x509.load_der_x509_crl(file.read_bytes())) == number
        assert not lint("lint_crl", capsys, "-t", "CRL", "-p", "PKIX", file)
        if not number:
            own_world.admin.send(calls.revoke(target=target, kind="revoked", reason="interop"))
