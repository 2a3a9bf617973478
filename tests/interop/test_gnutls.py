"""GnuTLS on our leaf, chain, CA, CRL and OCSP answers: another library's reading of RFC 5280."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from support.authority import Authority
from support.clock import SettableClock
from support.family import signed_by
from support.interop_world import World
from support.judges import Verdict, ask, pem_of, program
from support.ocsp import request
from support.raw_http import RawClient

from accredit_client import calls
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.clock import system_clock

CLIENT, SERVER = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"
CODE_SIGNING = "1.3.6.1.5.5.7.3.3"
VERIFIED = re.compile(r"^(?:Chain verification|Verification) output: Verified\.", re.MULTILINE)


def certtool(*arguments: str | Path) -> Verdict:
    """Ask certtool; it exits with 0 whatever it finds, so that its text is what counts."""
    said = ask(program("certtool"), *arguments)
    return Verdict(bool(VERIFIED.search(said.text)), said.text)


def verify(world: World, *options: str | Path, chain: Path, root: Path | None = None) -> Verdict:
    """Let GnuTLS verify a chain at its medium security level."""
    return certtool(
        *("--verify", "--verify-profile", "medium", "--infile", chain),
        *("--load-ca-certificate", root or world.root_file, *options),
    )


def chain_of(world: World, identity: X509Identity) -> Path:
    """The chain of an identity in one file, leaf first."""
    file = world.folder / f"{identity.svid.serial}.chain.pem"
    file.write_text(identity.svid.pem)
    return file


def crl_of(world: World) -> Path:
    """The issuing CA's CRL that is published now, as PEM."""
    return as_pem(world, world.crl())


def as_pem(world: World, crl: bytes) -> Path:
    """A CRL, as GnuTLS writes it after having read it."""
    der, pem = world.folder / "gnutls.crl", world.folder / "gnutls.crl.pem"
    der.write_bytes(crl)
    pem.unlink(missing_ok=True)
    said = certtool("--crl-info", "--inder", "--infile", der, "--outfile", pem)
    assert pem.exists(), said.text
    return pem


@pytest.mark.parametrize("purpose", [CLIENT, SERVER])
def test_a_chain_verifies_for_both_sides_of_tls(world: World, purpose: str) -> None:
    """GnuTLS accepts an agent's chain, as a client's and as a server's."""
    verdict = verify(world, "--verify-purpose", purpose, chain=chain_of(world, world.identity))
    assert verdict.accepted, verdict.text


def test_a_chain_is_for_nothing_else(world: World) -> None:
    """The same chain does not sign code."""
    chain = chain_of(world, world.identity)
    assert not verify(world, "--verify-purpose", CODE_SIGNING, chain=chain).accepted


def test_what_is_missing_or_foreign_is_refused(world: World, tmp_path: Path) -> None:
    """Without the issuing CA, with a leaf in its place, or under another root: the judge judges."""
    leaf, mixed = tmp_path / "leaf.pem", tmp_path / "mixed.pem"
    leaf.write_text(pem_of(world.identity.svid.leaf))
    assert not verify(world, chain=leaf).accepted
    mixed.write_text(pem_of(world.another().svid.leaf, world.identity.svid.leaf))
    assert not verify(world, chain=mixed).accepted
    root = tmp_path / "root.pem"
    root.write_text(pem_of(Authority().root.certificate))
    assert not verify(world, chain=chain_of(world, world.identity), root=root).accepted


def test_the_root_signed_itself_and_the_issuing_ca(world: World, tmp_path: Path) -> None:
    """GnuTLS reads root and issuing CA as CAs: the one unbounded, the other for leaves only."""
    issuing = tmp_path / "issuing.pem"
    issuing.write_text(pem_of(world.issuing_ca, world.root))
    assert verify(world, chain=issuing).accepted
    for certificate, bound in ((world.root, "false"), (world.issuing_ca, "0")):
        file = tmp_path / "ca.pem"
        file.write_text(pem_of(certificate))
        text = certtool("--certificate-info", "--infile", file).text
        assert re.search(
            r"Basic Constraints \(critical\):\s+Certificate Authority \(CA\): TRUE", text
        )
        assert ("Path Length Constraint: 0" in text) == (bound == "0"), text
        usage = re.search(r"Key Usage \(critical\):\n((?:\t\t\t.*\n)+)", text)
        assert usage
        assert {line.strip() for line in usage[1].splitlines()} == {
            "Certificate signing.",
            "CRL signing.",
        }
        assert "URI: spiffe://example.org\n" in text


def test_a_leaf_reads_as_an_svid(world: World, tmp_path: Path) -> None:
    """One URI, no CA, digital signature alone, both purposes of TLS, both key identifiers."""
    file = tmp_path / "leaf.pem"
    file.write_text(pem_of(world.identity.svid.leaf))
    text = certtool("--certificate-info", "--infile", file).text
    assert re.findall(r"\tURI: (\S+)", text) == [str(world.identity.svid.spiffe_id)]
    assert re.findall(r"Access Method: (\S+)", text) == ["1.3.6.1.5.5.7.48.1"]
    assert "Certificate Authority (CA): FALSE" in text
    assert re.search(r"Key Usage \(critical\):\n\t\t\tDigital signature\.\n\t\t\S", text)
    assert "TLS WWW Server." in text
    assert "TLS WWW Client." in text
    assert "Subject Key Identifier (not critical)" in text
    assert "Authority Key Identifier (not critical)" in text


def test_a_crl_is_its_issuing_cas(world: World, tmp_path: Path) -> None:
    """GnuTLS verifies our CRL under the issuing CA that signed it, and under no other."""
    crl, issuing = crl_of(world), tmp_path / "issuing.pem"
    issuing.write_text(pem_of(world.issuing_ca))
    command = ("--verify-crl", "--verify-profile", "medium", "--infile", crl)
    verdict = certtool(*command, "--load-ca-certificate", issuing)
    assert verdict.accepted, verdict.text
    assert not certtool(*command, "--load-ca-certificate", world.root_file).accepted


def test_a_revoked_chain_is_refused_and_its_neighbour_is_not(world: World) -> None:
    """After a revocation over the wire GnuTLS refuses it by our CRL, and its neighbour not."""
    doomed, neighbour = world.another(), world.another()
    before = crl_of(world)
    assert verify(world, "--load-crl", before, chain=chain_of(world, doomed)).accepted

    world.admin.send(
        calls.revoke(target=f"serial:{doomed.svid.serial}", kind="revoked", reason="interop")
    )

    after = crl_of(world)
    refused = verify(world, "--load-crl", after, chain=chain_of(world, doomed))
    assert not refused.accepted
    assert "revoked" in refused.text
    accepted = verify(world, "--load-crl", after, chain=chain_of(world, neighbour))
    assert accepted.accepted, accepted.text


def test_a_leaf_of_a_revoked_issuing_ca_is_refused_and_its_neighbour_is_not(
    own_world: World,
) -> None:
    """With the root's CRL GnuTLS refuses a whole CA, and a leaf of it that nobody recorded."""
    world = own_world
    doomed, key, clock = world.another(), generate_key(), SettableClock(system_clock())
    thief = signed_by(world.running.issuer, "/ns/support/agent/x", clock, key)
    stolen = X509Identity.of(thief, key)
    old = world.replace_issuing_ca()
    neighbour = world.another()
    assert neighbour.svid.intermediates != doomed.svid.intermediates
    before = world.crl_file(world.folder / "before")
    for each in (doomed, stolen, neighbour):
        verdict = verify(world, "--load-crl", before, chain=chain_of(world, each))
        assert verdict.accepted, verdict.text

    world.admin.send(calls.revoke(target=f"authority:{old}", kind="revoked", reason="interop"))

    after = world.crl_file(world.folder / "after")
    for each in (doomed, stolen):
        refused = verify(world, "--load-crl", after, chain=chain_of(world, each))
        assert not refused.accepted
        assert "revoked" in refused.text
    accepted = verify(world, "--load-crl", after, chain=chain_of(world, neighbour))
    assert accepted.accepted, accepted.text


def test_a_roots_crl_is_its_roots(own_world: World, tmp_path: Path) -> None:
    """GnuTLS verifies the root's CRL under the root, and under no CA below it; the CA is on it."""
    world, issuing = own_world, tmp_path / "issuing.pem"
    issuing.write_text(pem_of(world.issuing_ca))
    old = world.replace_issuing_ca()
    world.admin.send(calls.revoke(target=f"authority:{old}", kind="revoked", reason="interop"))
    ski = world.root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    crl = as_pem(world, world.running.connect().send(calls.crl(ski.value.digest.hex())))
    command = ("--verify-crl", "--verify-profile", "medium", "--infile", crl)
    verdict = certtool(*command, "--load-ca-certificate", world.root_file)
    assert verdict.accepted, verdict.text
    assert not certtool(*command, "--load-ca-certificate", issuing).accepted
    text = certtool("--crl-info", "--infile", crl).text
    assert "Revoked certificates (1)" in text
    assert f"{world.issuing_ca.serial_number:x}" in text.lower()


def test_an_ocsp_answer_is_its_issuing_cas(world: World, tmp_path: Path) -> None:
    """GnuTLS verifies what our responder says under the issuing CA, and under no other."""
    identity, issuing, answer = world.another(), tmp_path / "issuing.pem", tmp_path / "answer.der"
    issuing.write_text(pem_of(world.issuing_ca))
    client = RawClient.at(world.running.url, world.running.bundle)
    asked = request(identity.svid.leaf, world.issuing_ca)
    path = urlsplit(world.responder).path
    for status in ("good", "revoked"):
        headers = {"Content-Type": "application/ocsp-request"}
        answer.write_bytes(client.ask("POST", path, asked, headers=headers).body)
        command = ("--verify-response", "--load-response", answer, "--load-trust")
        said = ask(program("ocsptool"), *command, issuing)
        assert "Verifying OCSP Response: Success" in said.text, said.text
        assert f"Certificate Status: {status}" in said.text
        said = ask(program("ocsptool"), *command, world.root_file)
        assert "Verifying OCSP Response: Failure" in said.text
        target = f"serial:{identity.svid.serial}"
        if status == "good":
            world.admin.send(calls.revoke(target=target, kind="revoked", reason="interop"))
