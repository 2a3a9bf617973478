"""Several keys of one instance in one request: all of them, or none."""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from support.offline import DIGEST, Offline

from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key, public_key_der
from accredit_credentials.x509_svid import X509Svid, validate
from accredit_issuer.api.answers import batch_answer
from accredit_issuer.api.bodies import MAX_BATCH
from accredit_issuer.errors import Kind, Refusal


def evidence(svid: X509Svid, digest: str = DIGEST) -> list[Any]:
    """The code digest, measured again."""
    return [{"kind": "code_digest", "nonce": svid.serial, "payload": {"digest": digest}}]


def ask(offline: Offline, svid: X509Svid, csrs: list[str]) -> Any:
    """Ask for a batch."""
    return offline.do(offline.issuer.issuance.agents.renew_all(svid, csrs, evidence(svid)))


def test_a_batch_is_as_many_svids(offline: Offline) -> None:
    """A hundred requests give a hundred SVIDs of the instance, in order, each for its own key."""
    svid = offline.agent()
    keys = [generate_key() for _ in range(MAX_BATCH)]
    answer = batch_answer(ask(offline, svid, [certificate_request(key) for key in keys]))
    bundles = {offline.issuer.config.trust_domain: offline.issuer.bundle}
    assert len({each["serial"] for each in answer["svids"]}) == MAX_BATCH
    for key, each in zip(keys, answer["svids"], strict=True):
        pem = (each["certificate"] + answer["chain"]).encode()
        leaf, *chain = x509.load_pem_x509_certificates(pem)
        made = validate(
            X509Svid(svid.spiffe_id, leaf, tuple(chain)), bundles=bundles, now=offline.clock()
        )
        assert (made.instance, made.serial) == (svid.instance, each["serial"])
        assert public_key_der(leaf.public_key()) == public_key_der(key.public_key())  # type: ignore[arg-type]


def test_each_svid_of_a_batch_is_recorded(offline: Offline) -> None:
    """Each has a record of its own in the log, with its own digest, and can be revoked alone."""
    svid = offline.agent()
    leaves = ask(offline, svid, [certificate_request(generate_key()) for _ in range(3)])
    records = [leaf.decode() for leaf in offline.leaves() if b"credential.issued" in leaf]
    for leaf in leaves:
        assert sum(f'"subject":"{leaf.serial}"' in record for record in records) == 1
    one, other, _ = leaves
    offline.state(f"serial:{one.serial}")
    assert offline.renew(other.svid())
    with pytest.raises(Refusal) as refused:
        offline.renew(one.svid())
    assert refused.value.kind is Kind.REVOKED


SPOILT: dict[str, Callable[[str], str]] = {
    "no request": lambda _: "no request",
    "asked before": lambda csr: csr,
    "changed": lambda csr: csr.replace("A", "B", 1),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_one_bad_request_spoils_the_batch(offline: Offline, spoilt: str) -> None:
    """Where only the last request is wrong, nothing is issued and nothing is recorded."""
    svid = offline.agent()
    csrs = [certificate_request(generate_key()) for _ in range(20)]
    before = len(offline.leaves())
    with pytest.raises(Refusal) as refused:
        ask(offline, svid, [*csrs, SPOILT[spoilt](csrs[-1])])
    assert refused.value.kind is Kind.MALFORMED
    assert len(offline.leaves()) == before


def test_a_batch_of_changed_code_is_refused(offline: Offline) -> None:
    """The code is measured once for the batch, and decides about all of it."""
    svid = offline.agent()
    csr = certificate_request(generate_key())
    other = evidence(svid, "sha256:" + "0" * 64)
    with pytest.raises(Refusal) as refused:
        offline.do(offline.issuer.issuance.agents.renew_all(svid, [csr], other))
    assert refused.value.kind is Kind.ATTESTATION_REFUSED
    with pytest.raises(Refusal):
        offline.do(offline.issuer.issuance.agents.renew_all(svid, [csr], []))


def test_a_fact_in_between_ends_the_whole_batch(offline: Offline) -> None:
    """What is revoked while it is being made is not released: none of it."""
    svid = offline.agent()
    authorities = offline.issuer.authorities
    sign = authorities.sign_leaf
    made: list[str] = []

    def revoke_then_sign(checked: Any) -> Any:
        if not made:
            offline.state(f"instance:{svid.instance}")
        made.append(format(checked.template.serial, "x"))
        return sign(checked)

    authorities.sign_leaf = revoke_then_sign  # type: ignore[method-assign]
    with pytest.raises(Refusal) as refused:
        ask(offline, svid, [certificate_request(generate_key()) for _ in range(3)])
    assert refused.value.kind is Kind.REVOKED
    records = b"".join(leaf for leaf in offline.leaves() if b"credential.issued" in leaf)
    assert len(made) == 3
    assert not any(serial.encode() in records for serial in made)
