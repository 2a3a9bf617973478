"""OpenSSL's command line asks our OCSP responder, and verifies what it hears down from the root."""

from datetime import timedelta
from pathlib import Path

import pytest
from support.authority import HOUR, Authority
from support.interop_world import World
from support.judges import Verdict, openssl, pem_of
from support.ocsp import request

from accredit_client import calls
from accredit_credentials.keys import generate_key
from accredit_credentials.x509_svid import X509Identity
from accredit_issuer.authority.profile import new_serial
from accredit_issuer.authority.responder_profile import (
    ResponderProfile,
    ResponderTemplate,
    sign_responder,
)
from accredit_issuer.clock import system_clock
from accredit_issuer.revocation.ocsp import Known, Question, Responder, decide, sign_answer

GOOD, REVOKED = ": good", ": revoked"
VERIFIED = "Response verify OK"


def ask(world: World, identity: X509Identity, *options: str | Path) -> Verdict:
    """Let OpenSSL ask about an agent's certificate."""
    files = world.files(identity)
    return openssl(
        *("ocsp", "-issuer", files.chain, *options, "-cert", files.leaf),
        *("-url", world.responder, "-CAfile", world.root_file),
    )


def state(world: World, identity: X509Identity, kind: str) -> None:
    """State a fact about an agent's instance."""
    target = f"instance:{identity.svid.instance}"
    world.admin.send(calls.revoke(target=target, kind=kind, reason="interop"))


@pytest.mark.parametrize("options", [[], ["-sha256"], ["-no_nonce"]], ids=str)
def test_revoked_is_told_from_its_neighbour(world: World, options: list[str]) -> None:
    """Good, then revoked, and its neighbour good: each answer verified from the root."""
    doomed, neighbour = world.another(), world.another()
    for each in (doomed, neighbour):
        answer = ask(world, each, *options)
        assert VERIFIED in answer.text, answer.text
        assert GOOD in answer.text
    state(world, doomed, "revoked")
    answer = ask(world, doomed, *options)
    assert VERIFIED in answer.text
    assert REVOKED in answer.text
    assert "Revocation Time" in answer.text
    assert GOOD in ask(world, neighbour, *options).text


def test_a_suspension_is_a_hold(world: World) -> None:
    """OpenSSL reads certificateHold while it lasts, and good once it is over."""
    held = world.another()
    state(world, held, "suspended")
    assert "Reason: certificateHold" in ask(world, held).text
    state(world, held, "restored")
    assert GOOD in ask(world, held).text


def test_the_nonce_is_looked_at(world: World) -> None:
    """With a nonce OpenSSL misses nothing; an answer that was kept without one is noticed."""
    assert "nonce" not in ask(world, world.identity).text.lower()
    files, kept = world.files(world.identity), world.folder / "kept.ocsp"
    ask(world, world.identity, "-no_nonce", "-respout", kept)
    replayed = openssl(
        *("ocsp", "-issuer", files.chain, "-cert", files.leaf, "-respin", kept),
        *("-CAfile", world.root_file, "-nonce"),
    )
    assert "no nonce in response" in replayed.text.lower()


def test_a_serial_number_that_was_never_issued_is_unknown(world: World) -> None:
    """The issuing CA's responder says under its signature that it knows of no such certificate."""
    chain = world.files(world.identity).chain
    answer = openssl(
        *("ocsp", "-issuer", chain, "-serial", "0x4711", "-url", world.responder),
        *("-CAfile", world.root_file),
    )
    assert VERIFIED in answer.text
    assert ": unknown" in answer.text


def test_what_is_not_ours_gets_no_status(world: World) -> None:
    """Another issuer, another hash, two certificates at once: OpenSSL is told why not."""
    files = world.files(world.identity)
    foreign = openssl(
        *("ocsp", "-issuer", world.root_file, "-cert", files.chain, "-url", world.responder),
        *("-CAfile", world.root_file),
    )
    assert "unauthorized (6)" in foreign.text
    assert "unauthorized (6)" in ask(world, world.identity, "-sha512").text
    assert "malformedrequest (1)" in ask(world, world.identity, "-serial", "0x4711").text


def test_an_answer_of_another_root_is_not_believed(world: World, tmp_path: Path) -> None:
    """Under a root that did not certify the CA the same answer is refused: the judge does judge."""
    stranger = tmp_path / "root.pem"
    made = openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", tmp_path / "key.pem", "-out", stranger, "-days", "1", "-subj", "/O=x"),
    )
    assert made.accepted, made.text
    files = world.files(world.identity)
    answer = openssl(
        *("ocsp", "-issuer", files.chain, "-cert", files.leaf, "-url", world.responder),
        *("-CAfile", stranger),
    )
    assert "Response Verify Failure" in answer.text
    assert VERIFIED not in answer.text


def test_the_responder_is_no_client(world: World, tmp_path: Path) -> None:
    """OpenSSL takes the responder's certificate for OCSP, and for neither side of a connection."""
    responder = tmp_path / "responder.pem"
    answer = ask(world, world.identity, "-resp_text")
    begin = answer.text.index("-----BEGIN CERTIFICATE-----")
    end = answer.text.index("-----END CERTIFICATE-----")
    responder.write_text(answer.text[begin:end] + "-----END CERTIFICATE-----\n")
    chain = tmp_path / "chain.pem"
    chain.write_text(pem_of(world.issuing_ca))
    command = ("verify", "-CAfile", world.root_file, "-untrusted", chain, "-x509_strict")
    assert openssl(*command, "-purpose", "ocsphelper", responder).accepted
    for purpose in ("sslclient", "sslserver"):
        assert not openssl(*command, "-purpose", purpose, responder).accepted


@pytest.mark.parametrize("names", [(), ("child.example.org",)], ids=["none", "one"])
def test_a_limited_ca_can_have_a_responder(names: tuple[str, ...], tmp_path: Path) -> None:
    """Below a CA that is limited to names, as a subordinate issuer's is, answers verify, too."""
    now = system_clock().replace(microsecond=0)
    authority = Authority(now=now)
    limited = authority.ca(
        below=authority.root, path_length=0, common_name="x", namespaces=("pay",), dns_names=names
    )
    key, leaf = generate_key(), authority.issue(signer=limited).svid.leaf
    template = ResponderTemplate(
        ca=limited.certificate,
        public_key=key.public_key(),
        serial=new_serial(),
        not_before=now,
        not_after=now + HOUR,
    )
    checked = ResponderProfile(backdate=timedelta(seconds=10), replica=0).check(template, now)
    responder = Responder(sign_responder(checked, limited.key), key)  # type: ignore[arg-type]
    answer = sign_answer(
        Question.parse(request(leaf, limited.certificate)),
        decide(Known(expires_at=now + HOUR, released=True), now),
        responder,
        now=now,
        lifetime=timedelta(seconds=30),
    )
    files = {name: tmp_path / name for name in ("root.pem", "ca.pem", "leaf.pem", "answer.der")}
    files["answer.der"].write_bytes(answer.der)
    shown = (authority.root.certificate, limited.certificate, leaf)
    for file, certificate in zip(files.values(), shown, strict=False):
        file.write_text(pem_of(certificate))
    said = openssl(
        *("ocsp", "-respin", files["answer.der"], "-issuer", files["ca.pem"]),
        *("-cert", files["leaf.pem"], "-CAfile", files["root.pem"]),
    )
    assert VERIFIED in said.text, said.text
    assert GOOD in said.text
