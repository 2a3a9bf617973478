"""OpenSSL's command line on our chain, our CRL and our TLS."""

import re
from pathlib import Path

import pytest
from support.clock import SettableClock
from support.family import signed_by
from support.interop_world import World
from support.judges import PemFiles, Verdict, openssl, pem_of

from accredit_client import calls
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.clock import system_clock

WHOAMI = "GET /v1/whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def verify(world: World, identity: X509Identity, *options: str | Path) -> Verdict:
    """Let OpenSSL verify an agent's chain, strictly."""
    files = world.files(identity)
    return openssl(
        *("verify", "-CAfile", world.root_file, "-untrusted", files.chain),
        *("-x509_strict", "-purpose", "sslclient", *options, files.leaf),
    )


def with_crl(world: World, identity: X509Identity) -> Verdict:
    """The same, together with the CRL that the issuer publishes now."""
    der = world.folder / "now.crl"
    der.write_bytes(world.crl())
    pem = world.folder / "now.crl.pem"
    assert openssl("crl", "-inform", "DER", "-in", der, "-out", pem).accepted
    return verify(world, identity, "-crl_check", "-CRLfile", pem)


def connect(world: World, files: PemFiles | None, *options: str, ask: str = WHOAMI) -> Verdict:
    """Let OpenSSL talk to the issuer, with an agent's files or with none."""
    host, port = world.address
    mine = ("-cert", files.leaf, "-cert_chain", files.chain, "-key", files.key) if files else ()
    return openssl(
        *("s_client", "-connect", f"{host}:{port}", "-CAfile", world.root_file),
        *("-verify_return_error", "-verify_hostname", "issuer.example.org", "-x509_strict"),
        *("-ign_eof", *mine, *options),
        stdin=ask,
    )


def test_an_agents_chain_verifies_strictly(world: World) -> None:
    """OpenSSL accepts an agent's chain under its strictest rules, for a client and for a server."""
    assert verify(world, world.identity).accepted
    assert verify(world, world.identity, "-purpose", "sslserver").accepted


def test_a_chain_without_its_issuing_ca_is_refused(world: World) -> None:
    """The leaf proves nothing without the issuing CA: the judge does judge."""
    files = world.files(world.identity)
    assert not openssl("verify", "-CAfile", world.root_file, "-x509_strict", files.leaf).accepted


def test_the_servers_certificate_verifies_for_its_name(world: World, tmp_path: Path) -> None:
    """The issuer's own certificate is good for its DNS name, and for no other."""
    leaf, chain = tmp_path / "server.pem", tmp_path / "chain.pem"
    leaf.write_text(pem_of(world.server_certificate()))
    chain.write_text(pem_of(world.issuing_ca))
    command = ("verify", "-CAfile", world.root_file, "-untrusted", chain, "-x509_strict")
    command = (*command, "-purpose", "sslserver")
    assert openssl(*command, "-verify_hostname", "issuer.example.org", leaf).accepted
    assert not openssl(*command, "-verify_hostname", "other.example", leaf).accepted


def test_a_certificate_has_one_uri_and_nothing_to_mistake(world: World) -> None:
    """The SAN holds exactly one URI, the SPIFFE ID, and the leaf is no CA."""
    text = openssl("x509", "-in", world.files(world.identity).leaf, "-noout", "-text").text
    (names,) = re.findall(r"Subject Alternative Name:[^\n]*\n\s*([^\n]*)", text)
    agent = AgentId.parse(world.agent.agent)
    assert names.strip() == f"URI:{agent.spiffe_id(world.running.bundle.trust_domain)}"
    assert "CA:FALSE" in text


def test_a_revoked_certificate_is_refused_and_its_neighbour_is_not(world: World) -> None:
    """After a revocation over the wire OpenSSL refuses it by our CRL, and its neighbour not."""
    doomed, neighbour = world.another(), world.another()
    assert with_crl(world, doomed).accepted

    world.admin.send(
        calls.revoke(target=f"serial:{doomed.svid.serial}", kind="revoked", reason="interop")
    )

    refused = with_crl(world, doomed)
    assert not refused.accepted
    assert "certificate revoked" in refused.text
    assert with_crl(world, neighbour).accepted


def test_a_suspended_certificate_is_refused_until_it_is_restored(world: World) -> None:
    """A suspension is a certificateHold on our CRL, and its end takes the certificate off."""
    held = world.another()
    target = f"instance:{held.svid.instance}"
    world.admin.send(calls.revoke(target=target, kind="suspended", reason="interop"))
    assert "certificate revoked" in with_crl(world, held).text
    world.admin.send(calls.revoke(target=target, kind="restored", reason="interop"))
    assert with_crl(world, held).accepted


def with_all_crls(world: World, identity: X509Identity, folder: Path) -> Verdict:
    """Let OpenSSL look each certificate of the chain up, in the file of all CRLs."""
    file = world.crl_file(folder)
    return verify(world, identity, "-crl_check", "-crl_check_all", "-CRLfile", file)


def test_a_leaf_of_a_revoked_issuing_ca_is_refused_and_its_neighbour_is_not(
    own_world: World, tmp_path: Path
) -> None:
    """With the root's CRL OpenSSL checks the whole chain: the CA, and a leaf nobody recorded."""
    world = own_world
    doomed, key, clock = world.another(), generate_key(), SettableClock(system_clock())
    thief = signed_by(world.running.issuer, "/ns/support/agent/x", clock, key)
    stolen = X509Identity.of(thief, key)
    old = world.replace_issuing_ca()
    neighbour = world.another()
    assert neighbour.svid.intermediates != doomed.svid.intermediates
    for each in (doomed, stolen, neighbour):
        assert with_all_crls(world, each, tmp_path / "before").accepted

    world.admin.send(calls.revoke(target=f"authority:{old}", kind="revoked", reason="interop"))

    for each in (doomed, stolen):
        refused = with_all_crls(world, each, tmp_path / "after")
        assert not refused.accepted
        assert "certificate revoked" in refused.text
    assert "error 23 at 1 depth lookup" in refused.text, "the issuing CA itself"
    assert with_all_crls(world, neighbour, tmp_path / "after").accepted


def test_without_the_roots_crl_the_whole_chain_cannot_be_checked(
    world: World, tmp_path: Path
) -> None:
    """The twin: with the issuing CA's CRL alone OpenSSL asks for the root's, and refuses all."""
    whole = world.crl_file(tmp_path)
    lists = re.findall(r"-----BEGIN[^-]+-----[^-]+-----END[^-]+-----\n", whole.read_text())
    assert len(lists) == 2
    names = {}
    for number, each in enumerate(lists):
        file = tmp_path / f"{number}.pem"
        file.write_text(each)
        names[openssl("crl", "-in", file, "-noout", "-issuer").text.strip()] = file
    (issuing,) = (file for name, file in names.items() if "issuing CA" in name)
    check = ("-crl_check", "-CRLfile", issuing)
    assert verify(world, world.identity, *check).accepted
    refused = verify(world, world.identity, *check, "-crl_check_all")
    assert "unable to get certificate CRL" in refused.text


def test_a_crl_is_signed_numbered_and_growing(world: World) -> None:
    """OpenSSL verifies our CRL's signature and reads a CRLNumber that grows with each fact."""
    numbers = []
    for _ in range(2):
        der = world.folder / "numbered.crl"
        der.write_bytes(world.crl())
        read = openssl(
            *("crl", "-inform", "DER", "-in", der, "-noout", "-text"),
            *("-CAfile", world.files(world.identity).chain),
        )
        assert "verify OK" in read.text
        (number,) = re.findall(r"X509v3 CRL Number:\s*\n\s*(\S+)", read.text)
        numbers.append(int(number, 0))
        dump = openssl("asn1parse", "-inform", "DER", "-in", der).text
        assert "X509v3 CRL Number" in dump
        assert "X509v3 Authority Key Identifier" in dump
        doomed = world.another().svid.serial
        world.admin.send(calls.revoke(target=f"serial:{doomed}", kind="revoked", reason="interop"))
    assert numbers[1] > numbers[0]


def test_an_agents_files_log_in_over_tls(world: World) -> None:
    """``openssl s_client`` with an agent's PEM files is known to the issuer as that agent."""
    answer = connect(world, world.files(world.identity), "-tls1_3")
    assert "Verification: OK" in answer.text
    assert "200 OK" in answer.text
    assert f'"spiffe_id":"{world.identity.svid.spiffe_id}"' in answer.text.replace(": ", ":")


def test_without_a_certificate_nobody_is_known(world: World) -> None:
    """The same call without a certificate is answered with 401."""
    answer = connect(world, None)
    assert " 401 " in answer.text
    assert "urn:accredit:problem:unauthenticated" in answer.text


def test_a_key_that_nobody_certified_is_refused_in_the_handshake(
    world: World, tmp_path: Path
) -> None:
    """A self-signed certificate with an agent's very SPIFFE ID does not get through TLS."""
    leaf, key = tmp_path / "leaf.pem", tmp_path / "key.pem"
    made = openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", key, "-out", leaf, "-days", "1", "-subj", "/O=SPIRE"),
        *("-addext", f"subjectAltName=URI:{world.identity.svid.spiffe_id}"),
    )
    assert made.accepted, made.text
    answer = connect(world, PemFiles(leaf, leaf, key))
    assert not answer.accepted
    assert "HTTP/1.1" not in answer.text


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_1"])
def test_older_tls_is_refused(world: World, version: str) -> None:
    """The issuer speaks TLS 1.3 and nothing older."""
    answer = connect(world, world.files(world.identity), version, "-cipher", "ALL:@SECLEVEL=0")
    assert not answer.accepted
    assert "HTTP/1.1" not in answer.text
    assert "no peer certificate available" in answer.text
    assert "Cipher is (NONE)" in answer.text


def test_no_session_can_be_resumed(world: World, tmp_path: Path) -> None:
    """The issuer hands out no session, so each connection proves its holder anew."""
    session = tmp_path / "session.pem"
    answer = connect(world, world.files(world.identity), "-sess_out", str(session))
    assert "200 OK" in answer.text
    assert not session.exists() or not session.read_text().strip()
    assert "New Session Ticket" not in answer.text
