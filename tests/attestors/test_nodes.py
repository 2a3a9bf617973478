"""Evidence of nodes: join tokens, certificates of a site, SVIDs that are over."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.authority import NOW, Authority
from support.site import DAY, SiteCa, key_pem_of, pem_of

from accredit_attestors import possession
from accredit_attestors.contract import CollectContext, Evidence, FormerRecord, VerifyContext
from accredit_attestors.errors import (
    AttestationError,
    CannotCollect,
    CertificateRefused,
    FormerSvidRefused,
    InvalidEvidence,
    JoinTokenRefused,
    PossessionRefused,
    WrongNonce,
)
from accredit_attestors.former_svid import ATTESTOR as AGENT_FORMER
from accredit_attestors.join_token import JoinToken
from accredit_attestors.nodes import former_svid, join_token, x509pop
from accredit_attestors.nodes.contract import (
    ListedNode,
    NodeCollectContext,
    NodeJoinTokenRecord,
    NodeVerifyContext,
)
from accredit_attestors.nodes.join_token import NodeJoinToken
from accredit_attestors.plugins import load_attestors, load_node_attestors
from accredit_attestors.possession import Challenge
from accredit_credentials.keys import b64url, generate_key, public_key_der, public_key_digest
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain
from accredit_credentials.x509_svid import X509Identity

TD = TrustDomain("example.org")
NONCE = "bm9uY2U"
NEW_KEY = public_key_der(generate_key().public_key())
NAME = "build-7.site.example"
SITE = SiteCa(NOW)
KEY, CERTIFICATE = SITE.host(NAME)
NODE = ListedNode(
    name="build-7", kind="x509pop", authorities=(SITE.certificate,), certificate=f"dns:{NAME}"
)
CONTEXT = NodeVerifyContext(trust_domain=TD, nonce=NONCE, now=NOW, public_key=NEW_KEY, node=NODE)


def test_the_installed_kinds() -> None:
    """Nodes and agents have kinds of evidence of their own; each is found by its entry point."""
    assert set(load_node_attestors()) == {"join_token", "x509pop", "former_svid"}
    assert "x509pop" not in load_attestors()


# Possession


@pytest.mark.parametrize(
    "key",
    [
        generate_key(),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["P-256", "P-384", "RSA"],
)
def test_a_challenge_is_one_purpose_domain_nonce_and_key(key: Any) -> None:
    """What was signed for one attempt is good for nothing that differs in any part."""
    good = Challenge(purpose="x509pop", trust_domain=TD, nonce=NONCE, public_key=NEW_KEY)
    signature = possession.prove(key, good)
    possession.check(key.public_key(), signature, good)
    for twin in (
        replace(good, purpose="former_svid"),
        replace(good, trust_domain=TrustDomain("b.example")),
        replace(good, nonce=NONCE + "x"),
        replace(good, public_key=public_key_der(generate_key().public_key())),
    ):
        with pytest.raises(PossessionRefused):
            possession.check(key.public_key(), signature, twin)
    with pytest.raises(PossessionRefused):
        possession.check(generate_key().public_key(), signature, good)
    for malformed in ("", "=", signature + "=", "A" * 2000):
        with pytest.raises((InvalidEvidence, PossessionRefused)):
            possession.check(key.public_key(), malformed, good)


# Join tokens


def test_a_nodes_join_token_is_no_agents() -> None:
    """The prefix tells them apart, both ways."""
    node, agent = NodeJoinToken.new().reveal(), JoinToken.new().reveal()
    assert NodeJoinToken.parse(node)
    for wrong, kind in ((node, JoinToken), (agent, NodeJoinToken)):
        with pytest.raises(InvalidEvidence):
            kind.parse(wrong)


def token_context(token: NodeJoinToken, **record: Any) -> NodeVerifyContext:
    """A context with the record of ``token``, with changes."""
    kept = NodeJoinTokenRecord(token.id, token.fingerprint, "build-7", NOW + DAY)
    node = ListedNode(name="build-7", kind="join_token")
    return replace(CONTEXT, node=node, join_token=replace(kept, **record))


def test_a_nodes_join_token_admits_one_node(tmp_path: Path) -> None:
    """Read from its file it is recognised: for its node, in its time, for this nonce."""
    token = NodeJoinToken.new()
    file = tmp_path / "token"
    file.touch(mode=0o600)
    file.write_text(token.reveal())
    asked = NodeCollectContext(
        trust_domain=TD, nonce=NONCE, public_key=NEW_KEY, join_token_file=file
    )
    evidence = join_token.ATTESTOR.collect(asked)
    assert evidence is not None
    assert join_token.ATTESTOR.collect(replace(asked, join_token_file=None)) is None
    verified = join_token.ATTESTOR.verify(evidence, token_context(token))
    assert verified.selectors == (f"join_token:id:{token.id}",)
    for context in (
        replace(CONTEXT, join_token=None),
        token_context(token, secret_sha256="0" * 64),
        token_context(token, id="i" * 16),
        token_context(token, expires_at=NOW),
        token_context(token, node="build-8"),
    ):
        with pytest.raises(JoinTokenRefused) as refused:
            join_token.ATTESTOR.verify(evidence, context)
        assert token.reveal().rpartition(".")[2] not in str(refused.value)
    with pytest.raises(WrongNonce):
        join_token.ATTESTOR.verify(evidence, replace(token_context(token), nonce="other"))
    file.chmod(0o644)
    with pytest.raises(CannotCollect):
        join_token.ATTESTOR.collect(asked)


# Certificates of a site


def shown(
    key: Any = KEY, *chain: x509.Certificate, signed: Any = None, **challenge: Any
) -> Evidence:
    """What a host shows; the signature is over a challenge with changes."""
    good = Challenge(purpose="x509pop", trust_domain=TD, nonce=NONCE, public_key=NEW_KEY)
    der = [each.public_bytes(x509_encoding()) for each in chain or (CERTIFICATE,)]
    signature = possession.prove(signed or key, replace(good, **challenge))
    payload = {"certificates": list(map(b64url, der)), "signature": signature}
    return Evidence("x509pop", NONCE, payload)


def x509_encoding() -> Any:
    """DER."""
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return Encoding.DER


def test_a_certificate_of_the_site_is_the_node(tmp_path: Path) -> None:
    """Collected from its files and verified; the selector says which rule named it."""
    (tmp_path / "cert.pem").write_text(pem_of(CERTIFICATE))
    secret = tmp_path / "key.pem"
    secret.touch(mode=0o600)
    secret.write_text(key_pem_of(KEY))
    asked = NodeCollectContext(
        trust_domain=TD,
        nonce=NONCE,
        public_key=NEW_KEY,
        certificate_file=tmp_path / "cert.pem",
        key_file=secret,
    )
    evidence = x509pop.ATTESTOR.collect(asked)
    assert evidence is not None
    assert Evidence.parse(evidence.to_json()) == evidence
    assert x509pop.ATTESTOR.verify(evidence, CONTEXT).selectors == (f"x509pop:dns:{NAME}",)
    assert x509pop.ATTESTOR.collect(replace(asked, key_file=None)) is None
    secret.write_text(key_pem_of(generate_key()))
    with pytest.raises(CannotCollect, match="is not that of"):
        x509pop.ATTESTOR.collect(asked)


URI = "urn:site:host:7"
_URI_KEY, _URI = SITE.host(names=[x509.UniformResourceIdentifier(URI)])
MATCHES: dict[str, tuple[Any, x509.Certificate, str, str]] = {
    "dns": (KEY, CERTIFICATE, f"dns:{NAME}", f"dns:x{NAME}"),
    "a DNS name by its end": (KEY, CERTIFICATE, f"dns:{NAME}", "dns:site.example"),
    "uri": (_URI_KEY, _URI, f"uri:{URI}", f"uri:{URI}7"),
    "subject": (KEY, CERTIFICATE, f"subject:CN={NAME}", f"subject:{NAME}"),
    "key": (
        KEY,
        CERTIFICATE,
        f"key:{public_key_digest(KEY.public_key())}",
        f"key:{public_key_digest(generate_key().public_key())}",
    ),
}


@pytest.mark.parametrize("case", MATCHES.values(), ids=MATCHES)
def test_the_rule_names_one_certificate(case: tuple[Any, x509.Certificate, str, str]) -> None:
    """Each kind of rule accepts the certificate that it names, and not its neighbour."""
    key, certificate, good, neighbour = case
    evidence = shown(key, certificate)
    named = replace(CONTEXT, node=replace(NODE, certificate=good))
    assert x509pop.ATTESTOR.verify(evidence, named).selectors == (f"x509pop:{good}",)
    for wrong in (neighbour, None):
        with pytest.raises(CertificateRefused):
            x509pop.ATTESTOR.verify(
                evidence, replace(CONTEXT, node=replace(NODE, certificate=wrong))
            )


MIDDLE = SiteCa(NOW, name="middle", below=SITE)
MIDDLE_KEY, BELOW_MIDDLE = MIDDLE.host(NAME)
STRANGER = SiteCa(NOW)
STRANGER_KEY, FOREIGN = STRANGER.host(NAME)


def test_a_certificate_below_an_intermediate() -> None:
    """The chain may have CAs between; without them there is no path."""
    x509pop.ATTESTOR.verify(shown(MIDDLE_KEY, BELOW_MIDDLE, MIDDLE.certificate), CONTEXT)
    with pytest.raises(CertificateRefused, match="no path"):
        x509pop.ATTESTOR.verify(shown(MIDDLE_KEY, BELOW_MIDDLE), CONTEXT)


def host(**fields: Any) -> Evidence:
    """Evidence by a certificate with a deviation."""
    key, certificate = SITE.host(NAME, **fields)
    return shown(key, certificate)


REFUSED: dict[str, tuple[type[AttestationError], Callable[[], Evidence]]] = {
    "another key signed": (PossessionRefused, lambda: shown(signed=generate_key())),
    "for another nonce": (PossessionRefused, lambda: shown(nonce="other")),
    "for another new key": (PossessionRefused, lambda: shown(public_key=b"other")),
    "for another issuer": (
        PossessionRefused,
        lambda: shown(trust_domain=TrustDomain("b.example")),
    ),
    "of another CA with this name": (CertificateRefused, lambda: shown(STRANGER_KEY, FOREIGN)),
    "over": (CertificateRefused, lambda: host(not_after=NOW - timedelta(seconds=1))),
    "for servers": (CertificateRefused, lambda: host(usages=(ExtendedKeyUsageOID.SERVER_AUTH,))),
    "for nothing said": (CertificateRefused, lambda: host(usages=None)),
    "for anything": (
        CertificateRefused,
        lambda: host(usages=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),
    ),
    "a CA": (CertificateRefused, lambda: host(ca=True)),
    "without a name": (CertificateRefused, lambda: host(names=())),
    "the CA itself": (CertificateRefused, lambda: shown(SITE.key, SITE.certificate)),
    "a curve that is not accepted": (
        CertificateRefused,
        lambda: shown(KEY, SITE.host(NAME, key=ec.generate_private_key(ec.SECP521R1()))[1]),
    ),
    "too many": (InvalidEvidence, lambda: shown(KEY, *[CERTIFICATE] * 5)),
    "none": (
        InvalidEvidence,
        lambda: Evidence("x509pop", NONCE, {"certificates": [], "signature": ""}),
    ),
    "no certificate": (
        InvalidEvidence,
        lambda: Evidence("x509pop", NONCE, {"certificates": ["AAAA"], "signature": ""}),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_certificate_that_proves_nothing(name: str) -> None:
    """The nearest neighbours of the certificate that is accepted."""
    error, make = REFUSED[name]
    with pytest.raises(error):
        x509pop.ATTESTOR.verify(make(), CONTEXT)


def test_a_node_without_a_ca_is_nobody() -> None:
    """Empty means refuse: no CA of the site, no certificate."""
    with pytest.raises(CertificateRefused, match="without a CA"):
        x509pop.ATTESTOR.verify(shown(), replace(CONTEXT, node=replace(NODE, authorities=())))


@pytest.mark.parametrize(
    "rule",
    ["", "dns:", "dns", "dns:*.site.example", "dns:UPPER", "dns:a..b", "cn:x", "key:sha256:00",
     "key:" + "0" * 64, "uri:\n", "subject:" + "x" * 600, "DNS:a.example"],
)  # fmt: skip
def test_a_rule_that_names_nothing(rule: str) -> None:
    """A rule that could match more than one certificate, or none, is refused when it is made."""
    with pytest.raises(InvalidEvidence):
        x509pop.check_rule(rule)


def test_what_can_be_a_sites_ca() -> None:
    """CA certificates with an accepted key, one to four; a host's certificate is none."""
    x509pop.check_authorities(x509pop.load_authorities(SITE.pem + MIDDLE.pem))
    for pem in ("", "x", SITE.pem * 5, "x" * 40_000):
        with pytest.raises(InvalidEvidence):
            x509pop.load_authorities(pem)
    with pytest.raises(InvalidEvidence):
        x509pop.check_authorities([CERTIFICATE])


# SVIDs that are over


def identity(path: str = "/node/build-7") -> X509Identity:
    """An SVID, and its key."""
    return AUTHORITY.issue(AUTHORITY.id(path))


AUTHORITY = Authority()
FORMER = identity()


def record(held: X509Identity = FORMER, **changes: Any) -> FormerRecord:
    """What the issuer keeps of it."""
    svid = held.svid
    good = FormerRecord(
        spiffe_id=svid.spiffe_id,
        serial=svid.serial,
        sha256=svid.sha256,
        key=held.key.public_key(),
    )
    return replace(good, **changes)


def test_the_key_of_a_former_svid_is_the_node() -> None:
    """The SVID that was issued, its own key, this nonce, this new key; and nothing beside."""
    asked = NodeCollectContext(trust_domain=TD, nonce=NONCE, public_key=NEW_KEY, former=FORMER)
    evidence = former_svid.ATTESTOR.collect(asked)
    assert evidence is not None
    assert former_svid.ATTESTOR.collect(replace(asked, former=None)) is None
    good = replace(CONTEXT, former=record())
    serial = FORMER.svid.serial
    assert former_svid.ATTESTOR.verify(evidence, good).selectors == (
        f"former_svid:serial:{serial}",
    )
    other = identity()
    for error, context in (
        (FormerSvidRefused, replace(good, former=None)),
        (FormerSvidRefused, replace(good, former=record(other))),
        (FormerSvidRefused, replace(good, former=record(sha256="0" * 64))),
        (FormerSvidRefused, replace(good, node=replace(NODE, name="build-8"))),
        (FormerSvidRefused, replace(good, trust_domain=TrustDomain("b.example"))),
        (PossessionRefused, replace(good, former=record(key=other.key.public_key()))),
        (PossessionRefused, replace(good, public_key=b"another")),
        (WrongNonce, replace(good, nonce="another")),
    ):
        with pytest.raises(error):
            former_svid.ATTESTOR.verify(evidence, context)
    for name, value in (("serial", "XY"), ("sha256", "0"), ("signature", "=")):
        twin = Evidence("former_svid", NONCE, {**evidence.payload, name: value})
        with pytest.raises(InvalidEvidence):
            former_svid.ATTESTOR.verify(twin, good)


def test_an_agent_shows_its_former_svid_too() -> None:
    """The same evidence beside the agent's other kinds; it says nothing of what runs."""
    held = identity("/ns/support/agent/triage")
    asked = CollectContext(nonce=NONCE, former=held, public_key=NEW_KEY)
    evidence = AGENT_FORMER.collect(asked)
    assert evidence is not None
    assert AGENT_FORMER.collect(CollectContext(nonce=NONCE)) is None
    good = VerifyContext(nonce=NONCE, now=NOW, former=record(held), public_key=NEW_KEY)
    assert str(AGENT_FORMER.verify(evidence, good).assurance) == "self"
    for context in (
        replace(good, former=None),
        replace(good, former=record(identity())),
        replace(good, former=record(held, spiffe_id=SpiffeId.parse("spiffe://b.example/x"))),
        replace(good, public_key=b""),
    ):
        with pytest.raises((FormerSvidRefused, PossessionRefused)):
            AGENT_FORMER.verify(evidence, context)
