"""Who gets an issuing CA, and which answer of a parent is used: two decisions, case by case."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.authority import HOUR, NOW, Authority, Signer, deviating, uri_san
from support.issuer import make_config

from accredit_credentials.errors import InvalidCertificate
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation import FactKind, FactSet, RevocationFact, Target
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.strict_json import NotStrictJson
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.authority.parent import Answer, check_answer, read_answer
from accredit_issuer.authority.subordinates import CaAsked, Subordinate, decide
from accredit_issuer.authority.upstream import IssuingCaRequest, RootCa, key_id_of_public
from accredit_issuer.errors import InvalidSettings, Kind, Refusal

AUTHORITY = Authority()
CHILD = AgentId.parse("infra/child")
NAMED = Subordinate(agent=CHILD, namespaces=("support",), dns_names=("localhost",))
CONFIG = make_config(Path("nowhere"))
KEY = generate_key()
ASKED = CaAsked(
    agent=CHILD,
    public_key=KEY.public_key(),
    marks=("agent:infra/child", "namespace:infra", "signer:ci"),
)


def root(**fields: Any) -> RootCa:
    """A root that certifies."""
    made = AUTHORITY.ca(**{"not_after": NOW + 1000 * HOUR, **fields})
    return RootCa(id=subject_key_id(made.certificate), certificate=made.certificate, key=None)


def fact_against(target: str) -> FactSet:
    """One fact in force."""
    fact = RevocationFact(
        sequence=1,
        target=Target.parse(target),
        kind=FactKind.REVOKED,
        at=NOW,
        expires_at=NOW + HOUR,
        reason="test",
    )
    return FactSet([fact])


def test_what_a_subordinate_gets() -> None:
    """A CA for its key, its namespaces and names, as long as one of ours lives, none below it."""
    above = root()
    template = decide(ASKED, NAMED, above, facts=FactSet(()), config=CONFIG, now=NOW)
    assert (template.namespaces, template.dns_names) == (("support",), ("localhost",))
    assert (template.path_length, template.issuer) == (0, above.certificate)
    assert template.public_key == KEY.public_key()
    assert template.not_after == NOW + CONFIG.lifetimes.issuing_ca
    short = root(not_after=NOW + HOUR)
    template = decide(ASKED, NAMED, short, facts=FactSet(()), config=CONFIG, now=NOW)
    assert template.not_after == NOW + HOUR


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"named": None}, Kind.FORBIDDEN),
        ({"named": replace(NAMED, agent=AgentId.parse("infra/other"))}, Kind.FORBIDDEN),
        ({"facts": fact_against("agent:infra/child")}, Kind.REVOKED),
        ({"facts": fact_against("namespace:infra")}, Kind.REVOKED),
        ({"facts": fact_against("signer:ci")}, Kind.REVOKED),
        ({"facts": fact_against(f"authority:{key_id_of_public(KEY.public_key())}")}, Kind.REVOKED),
        ({"root": root(not_after=NOW)}, Kind.UNAVAILABLE),
    ],
)
def test_who_gets_none(changes: dict[str, Any], kind: Kind) -> None:
    """Not named, named for another agent, revoked in any way, or below a root that ends."""
    values = {"named": NAMED, "root": root(), "facts": FactSet(()), **changes}
    with pytest.raises(Refusal) as refused:
        decide(
            ASKED, values["named"], values["root"], facts=values["facts"], config=CONFIG, now=NOW
        )
    assert refused.value.kind is kind


def sent(**fields: Any) -> x509.Certificate:
    """What a good parent sends, with ``fields`` of the ``CaTemplate`` changed."""
    good: dict[str, Any] = {
        "below": AUTHORITY.root,
        "key": KEY,
        "path_length": 0,
        "namespaces": ("support",),
        "dns_names": ("localhost",),
        **fields,
    }
    return AUTHORITY.ca(**good).certificate


def check(answer: Answer, *roots: x509.Certificate) -> Any:
    """Decide about an answer by the authority's root, or by others."""
    request = IssuingCaRequest(
        id=key_id_of_public(KEY.public_key()), key=KEY, now=NOW, expires_at=NOW + HOUR
    )
    return check_answer(answer, roots or (AUTHORITY.root.certificate,), request, CONFIG)


def test_an_answer_that_is_used() -> None:
    """A CA for our key below a root of the parent, or below what it sends in between."""
    other = AUTHORITY.ca(common_name="another root").certificate
    certified = check(Answer(sent(), (), ()), other, AUTHORITY.root.certificate)
    assert certified.root == subject_key_id(AUTHORITY.root.certificate)
    middle = AUTHORITY.ca(below=AUTHORITY.root, path_length=1, common_name="middle")
    certified = check(Answer(sent(below=middle), (middle.certificate,), ()))
    assert certified.chain == (middle.certificate,)
    assert certified.anchor == AUTHORITY.root.certificate


ANOTHER_ROOT = AUTHORITY.ca(common_name="nobody knows it")
NO_ROOM = AUTHORITY.ca(below=AUTHORITY.root, path_length=0, common_name="no room")
BAD: dict[str, tuple[str, Answer]] = {
    "another key": ("of another key", Answer(sent(key=generate_key()), (), ())),
    "another root": ("none of the parent's roots", Answer(sent(below=ANOTHER_ROOT), (), ())),
    "the chain is missing": ("none of the parent's roots", Answer(sent(below=NO_ROOM), (), ())),
    "no room": ("pathLen 0", Answer(sent(below=NO_ROOM), (NO_ROOM.certificate,), ())),
    "over": ("expired", Answer(sent(not_after=NOW - HOUR), (), ())),
    "not yet": ("is valid from", Answer(sent(not_before=NOW + HOUR), (), ())),
    "another name": ("DNS name localhost", Answer(sent(dns_names=("a.example",)), (), ())),
    "no name": ("DNS name localhost", Answer(sent(dns_names=()), (), ())),
    "no namespaces": ("not limited", Answer(sent(namespaces=()), (), ())),
    "another trust domain": (
        "must have the SPIFFE ID",
        Answer(
            deviating(
                sent(),
                AUTHORITY.root,
                extensions=[(uri_san("spiffe://other.org"), False)],
            ),
            (),
            (),
        ),
    ),
    "no CA": (
        "is not a CA",
        Answer(
            deviating(
                sent(),
                AUTHORITY.root,
                extensions=[(x509.BasicConstraints(ca=False, path_length=None), True)],
            ),
            (),
            (),
        ),
    ),
}


@pytest.mark.parametrize(("words", "answer"), BAD.values(), ids=BAD)
def test_an_answer_that_is_not(words: str, answer: Answer) -> None:
    """Whatever a parent sends, nothing is signed with a CA that verifiers would not take."""
    with pytest.raises(InvalidSettings, match=words):
        check(answer)


def pem(*signers: Signer) -> str:
    """Certificates as text."""
    encoded = [each.certificate.public_bytes(serialization.Encoding.PEM) for each in signers]
    return b"".join(encoded).decode()


def test_reading_what_was_sent() -> None:
    """One certificate, a chain and roots in PEM; anything else is no answer."""
    good = {"certificate": pem(AUTHORITY.issuing), "chain": "", "roots": pem(AUTHORITY.root)}
    answer = read_answer(json.dumps(good).encode())
    assert answer.certificate == AUTHORITY.issuing.certificate
    assert (answer.chain, answer.roots) == ((), (AUTHORITY.root.certificate,))
    two = pem(AUTHORITY.issuing, AUTHORITY.root)
    for changes, error in (
        ({"certificate": two}, InvalidCertificate),
        ({"certificate": ""}, InvalidCertificate),
        ({"certificate": "no PEM"}, ValueError),
        ({"chain": None}, NotStrictJson),
        ({"roots": [1]}, NotStrictJson),
    ):
        with pytest.raises(error):
            read_answer(json.dumps({**good, **changes}).encode())
    with pytest.raises(NotStrictJson):
        read_answer(b"[]")
