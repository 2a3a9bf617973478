"""WIT-SVIDs of the issuer: off by default, under keys of their own, recorded as all the rest."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy import select, update
from support.audit_world import audited
from support.issuer import running_issuer
from support.offline import Offline, offline_issuer
from support.tokens import claims_in
from support.wire import CSR, Wire

from accredit_client import calls
from accredit_client.calls import certificate_request
from accredit_credentials import jwt_svid, task_token, wit_svid, workload_proof
from accredit_credentials.errors import InvalidToken, Untrusted
from accredit_credentials.jws import epoch
from accredit_credentials.keys import PrivateKey, generate_key, jwk_thumbprint
from accredit_credentials.wit_svid import UnprovenWit
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.api.discovery import jwks
from accredit_issuer.audit.explain import explain
from accredit_issuer.authority.lifecycle import AuthorityKind, State
from accredit_issuer.clock import system_clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.tokens import IssuedWit
from accredit_issuer.registry.changes import Local
from accredit_issuer.settings import Config
from accredit_issuer.store.models import authorities, credentials

WIT, JWT = AuthorityKind.WIT, AuthorityKind.JWT
AUDIENCE = "https://tickets.example.org/v1"


def issued(offline: Offline, svid: X509Svid, key: PrivateKey) -> IssuedWit:
    """A WIT-SVID for a key."""
    csr = certificate_request(key)
    return offline.do(offline.issuer.issuance.tokens.wit_svid(svid, csr))


def validated(offline: Offline, token: str) -> UnprovenWit:
    """As a validator does that has the bundle of now."""
    bundle = offline.issuer.bundle
    return wit_svid.validate(token, bundles={bundle.trust_domain: bundle}, now=offline.clock())


def make_off(config: Config) -> Config:
    """The same settings without WIT-SVIDs."""
    return replace(config, wit_svids=False)


def standings(offline: Offline) -> list[tuple[str, str]]:
    """Each WIT key and its state."""
    query = select(authorities.c.id, authorities.c.state).where(authorities.c.kind == WIT.value)
    with offline.issuer.database.read() as connection:
        return [(row.id, row.state) for row in connection.execute(query)]


@pytest.mark.spec("SPIFFE-40")
@pytest.mark.spec("SPIFFE-41")
@pytest.mark.spec("SPIFFE-48")
def test_who_holds_the_key_is_the_agent(offline: Offline) -> None:
    """What was issued is good by the bundle, and with a proof it names the agent."""
    svid, key = offline.agent(), generate_key()
    wit = issued(offline, svid, key)
    unproven = validated(offline, wit.token)
    assert unproven.claimed == wit.svid
    now = offline.clock()
    soon = now + timedelta(seconds=workload_proof.LIFETIME)
    proof = workload_proof.create_proof(
        key, wit=wit.token, audience=AUDIENCE, jti="1", expires_at=soon
    )
    proven = workload_proof.verify_proof(proof, unproven, audience=AUDIENCE, now=now)
    assert proven.svid.spiffe_id == svid.spiffe_id
    assert proven.svid.agent is not None
    assert (proven.svid.agent.instance, proven.svid.agent.manifest) == (
        svid.instance,
        svid.manifest,
    )


@pytest.mark.spec("SPIFFE-41")
@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
    ],
    ids=["P-384", "RSA"],
)
def test_each_kind_of_key_has_its_algorithm(
    offline: Offline, key: PrivateKey, algorithm: str
) -> None:
    """Whatever key a request may have, the WIT-SVID says with what our own proofs are made."""
    wit = issued(offline, offline.agent(), key)
    now = offline.clock()
    proof = workload_proof.create_proof(
        key, wit=wit.token, audience=AUDIENCE, jti="1", expires_at=now + timedelta(seconds=30)
    )
    unproven = validated(offline, wit.token)
    assert unproven.claimed.algorithm == algorithm
    assert workload_proof.verify_proof(proof, unproven, audience=AUDIENCE, now=now)


@pytest.mark.spec("SPIFFE-42")
@pytest.mark.spec("SPIFFE-46")
@pytest.mark.spec("SPIFFE-47")
def test_what_it_says(offline: Offline) -> None:
    """A fresh id each time, no issuer, no audience, a quarter of an hour, ten seconds set back."""
    svid = offline.agent()
    first, second = (claims_in(offline.wit(svid).token) for _ in range(2))
    assert first["jti"] != second["jti"]
    assert {"iss", "aud"}.isdisjoint(first)
    now = epoch(offline.clock())
    assert (first["nbf"], first["iat"], first["exp"]) == (now - 10, now, now + 900)


@pytest.mark.spec("SPIFFE-36")
@pytest.mark.spec("SPIFFE-50")
def test_its_keys_are_keys_of_nothing_else(offline: Offline) -> None:
    """In the bundle every key has an id and a number of its own; OpenID Connect sees no WIT key."""
    offline.prepare(WIT)
    offline.prepare(JWT)
    bundle = offline.issuer.bundle
    keys = [jwk for jwk in json.loads(bundle.to_json())["keys"] if jwk["use"] != "x509-svid"]
    assert sorted(jwk["use"] for jwk in keys) == ["jwt-svid"] * 2 + ["wit-svid"] * 2
    assert len({jwk["kid"] for jwk in keys}) == len({jwk["x"] for jwk in keys}) == 4
    assert {key["kid"] for key in jwks(bundle)["keys"]} == set(bundle.jwt_authorities)


@pytest.mark.spec("SPIFFE-48")
@pytest.mark.spec("SPIFFE-50")
def test_no_token_of_ours_passes_for_another(offline: Offline) -> None:
    """By its type, and without its type by its key: neither way round."""
    svid, now, bundle = offline.agent(), offline.clock(), offline.issuer.bundle
    bundles = {bundle.trust_domain: bundle}
    wit = offline.wit(svid).token
    jwt = offline.do(offline.issuer.issuance.tokens.jwt_svid(svid, (AUDIENCE,))).token
    issuer = offline.config.token_issuer
    with pytest.raises(InvalidToken, match="typ"):
        jwt_svid.validate(wit, bundles=bundles, audience=AUDIENCE, now=now)
    with pytest.raises(InvalidToken, match="typ"):
        task_token.verify(wit, bundle=bundle, issuer=issuer, audience=AUDIENCE, now=now)
    for other in (jwt, offline.task_token(svid).token):
        with pytest.raises(InvalidToken, match="typ"):
            validated(offline, other)
    key, kid = offline.issuer.authorities.jwt_signer()
    forged = wit_svid.sign(offline.wit(svid).svid, key, kid)
    with pytest.raises(Untrusted):
        validated(offline, forged)
    key, standing = offline.issuer.authorities.wit_signer()
    content = offline.do(offline.issuer.issuance.tokens.jwt_svid(svid, (AUDIENCE,))).svid
    with pytest.raises(Untrusted):
        jwt_svid.validate(
            jwt_svid.sign(content, key, standing.id), bundles=bundles, audience=AUDIENCE, now=now
        )


def test_a_key_serves_one_credential(offline: Offline) -> None:
    """The key of the X.509-SVID gets no WIT-SVID; a request without its key's signature neither."""
    manifest, key = offline.register(), generate_key()
    request = offline.attestation(manifest, csr=certificate_request(key))
    svid = offline.do(offline.issuer.issuance.agents.attest(request)).svid()
    with pytest.raises(Refusal, match="another key") as refused:
        issued(offline, svid, key)
    assert refused.value.kind is Kind.MALFORMED
    first, second = (certificate_request(generate_key()) for _ in range(2))
    broken = "\n".join([*first.splitlines()[:-2], *second.splitlines()[-2:]])
    with pytest.raises(Refusal):
        offline.do(offline.issuer.issuance.tokens.wit_svid(svid, broken))


def test_it_is_recorded_explained_and_audited(offline: Offline) -> None:
    """The log says for which key, why and until when; its story is told; an audit finds nothing."""
    svid, key = offline.agent(), generate_key()
    wit = issued(offline, svid, key)
    records = [json.loads(leaf) for leaf in offline.leaves()]
    (record,) = (r for r in records if r["details"].get("credential") == "wit")
    assert record["subject"] == wit.svid.jti
    said = record["details"]
    assert said["confirms"] == jwk_thumbprint(key.public_key())
    assert (said["instance"], said["manifest"]) == (svid.instance, svid.manifest)
    assert said["authority"] == offline.active(WIT)
    assert any("no revocation fact" in reason for reason in said["reasons"])
    assert wit.token not in json.dumps(records)
    with offline.issuer.database.read() as connection:
        story = explain(connection, offline.issuer.log, wit.svid.jti or "")
    kinds = [entry["record"]["kind"] for entry in story["entries"]]
    assert kinds[-1] == "credential.issued"
    assert {"manifest.registered", "instance.attested"} <= set(kinds)
    assert audited(offline).findings == []


@pytest.mark.parametrize(("kind", "other"), [("wit", JWT), ("jwt", WIT), ("task", WIT)])
def test_an_audit_finds_a_token_under_a_key_of_another_use(
    kind: str, other: AuthorityKind, offline: Offline
) -> None:
    """Whoever writes that a WIT key signed a JWT-SVID, or the other way round, is found."""
    svid = offline.agent()
    offline.do(offline.issuer.issuance.tokens.jwt_svid(svid, (AUDIENCE,)))
    offline.task_token(svid)
    offline.wit(svid)
    wrong = offline.active(other)
    offline.issuer.writer.run(
        lambda t: t.execute(
            update(credentials).where(credentials.c.kind == kind).values(authority=wrong)
        ),
        alone=True,
    ).result()
    found = [each.problem for each in audited(offline).findings]
    assert f"its authority is a {other.value} key" in found


@pytest.mark.parametrize("what", ["jti", "instance", "manifest", "agent", "namespace", "authority"])
def test_a_fact_takes_it_back(what: str, offline: Offline) -> None:
    """Whatever it carries can be revoked, and a verifier that has the facts refuses it."""
    svid = offline.agent()
    wit, other = offline.wit(svid).svid, offline.wit(offline.agent()).svid
    (target,) = (mark for mark in wit.marks() if mark.startswith(f"{what}:"))
    (fact, *_) = offline.state(target)
    facts = offline.issuer.revocation.facts
    assert facts.match(wit.marks()) is not None
    assert fact.fact.expires_at >= wit.expires_at
    if what in {"jti", "instance"}:
        assert facts.match(other.marks()) is None


def test_who_was_revoked_gets_none(offline: Offline) -> None:
    """As every other credential: nothing for an instance that was taken back."""
    svid = offline.agent()
    offline.state(f"instance:{svid.instance}")
    with pytest.raises(Refusal) as refused:
        offline.wit(svid)
    assert refused.value.kind is Kind.REVOKED


def test_a_stolen_key_is_replaced(offline: Offline) -> None:
    """A fact about the WIT key takes it out of the bundle, and another signs at once."""
    svid, stolen = offline.agent(), offline.active(WIT)
    token, sequence = offline.wit(svid).token, offline.issuer.bundle.sequence or 0
    validated(offline, token)
    offline.state(f"authority:{stolen}")
    offline.issuer.keep_up()
    bundle = offline.issuer.bundle
    assert stolen not in bundle.wit_authorities
    assert (bundle.sequence or 0) > sequence
    with pytest.raises(Untrusted):
        validated(offline, token)
    assert validated(offline, offline.wit(svid).token).claimed.authority != stolen


@pytest.mark.spec("SPIFFE-81")
def test_its_keys_roll_over(offline: Offline) -> None:
    """For days each WIT-SVID is good at once by the bundle of ten minutes ago, and to its end."""
    svid, seen, before = offline.agent(), set[str | None](), offline.issuer.bundle
    for _ in range(4 * 24):
        wit = offline.wit(svid)
        seen.add(wit.svid.authority)
        assert wit.svid.authority in before.wit_authorities, "it signs before it was published"
        for _ in range(2):
            before = offline.issuer.bundle
            offline.clock.advance(minutes=7)
            offline.issuer.keep_up()
            assert validated(offline, wit.token)
        svid = offline.renew(svid)
    assert len(seen) == 2


@pytest.mark.spec("SPIFFE-10")
def test_without_the_setting_there_is_none(tmp_path: Path) -> None:
    """By default no key, no WIT-SVID, and an answer that says so."""
    with offline_issuer(tmp_path / "issuer") as offline:
        svid = offline.agent()
        assert offline.issuer.bundle.wit_authorities == {}
        with pytest.raises(Refusal, match="issues no WIT-SVIDs") as refused:
            offline.wit(svid)
        assert refused.value.kind is Kind.NOT_FOUND
        with pytest.raises(Refusal, match="want no wit key"):
            offline.issuer.rollover.prepare(WIT, by=Local("test"))


def test_turned_off_it_ends_in_order(tmp_path: Path) -> None:
    """What was issued is good to its end, then the key goes; turned on again, another one comes."""
    folder = tmp_path / "issuer"
    with offline_issuer(folder, wit={"enabled": True}) as offline:
        on, old = offline.config, offline.active(WIT)
        wit = offline.wit(offline.agent())
        offline.config = make_off(on)
        offline.reopen()
        assert validated(offline, wit.token)
        assert standings(offline) == [(old, State.RETIRED.value)]
        offline.clock.advance(minutes=15)
        offline.issuer.keep_up()
        assert offline.issuer.bundle.wit_authorities == {}
        assert standings(offline) == [(old, State.REMOVED.value)]
        assert audited(offline).findings == []
        offline.config = on
        offline.reopen()
        assert offline.active(WIT) != old
        assert audited(offline).findings == []


def test_it_is_asked_for_over_the_wire(tmp_path: Path) -> None:
    """By the holder of an agent's SVID, with a request that proves the key; by nobody else."""
    key = generate_key()
    with running_issuer(tmp_path / "issuer", wit={"enabled": True}) as running:
        wire = Wire(running, tmp_path)
        answer = running.connect(wire.identity).send(calls.wit_svid(csr=certificate_request(key)))
        bundle = running.bundle
        unproven = wit_svid.validate(
            answer.token, bundles={bundle.trust_domain: bundle}, now=system_clock()
        )
        claimed = unproven.claimed
        assert (claimed.spiffe_id, claimed.jti) == (answer.spiffe_id, answer.jti)
        assert (claimed.key, claimed.expires_at) == (key.public_key(), answer.expires_at)
        assert answer.token not in repr(answer)
        body = {"csr": CSR}
        assert wire.as_admin.ask("POST", "/v1/svids/wit", body).kind == "forbidden"
        assert wire.nobody.ask("POST", "/v1/svids/wit", body).status == 401
        more = {**body, "audience": [AUDIENCE]}
        assert wire.as_agent.ask("POST", "/v1/svids/wit", more).kind == "malformed"


def test_an_issuer_without_them_says_so_on_the_wire(wire: Wire) -> None:
    """Not found, with the reason: a client need not guess whether the address is wrong."""
    answer = wire.as_agent.ask("POST", "/v1/svids/wit", {"csr": CSR})
    assert (answer.status, answer.kind) == (404, "not-found")
    assert answer.json["detail"] == "this issuer issues no WIT-SVIDs"
