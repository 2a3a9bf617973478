"""A subordinate whose name is taken away gets no CA any more, and those it has can be seen."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.offline import Offline, offline_issuer

from accredit_client import calls
from accredit_client.calls import certificate_request
from accredit_credentials.keys import generate_key
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.x509_svid import X509Svid
from accredit_credentials.x509_template import subject_key_id
from accredit_issuer.audit.inspection import inspect
from accredit_issuer.audit.log import Log
from accredit_issuer.authority.subordinates import Subordinate
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.issuing_cas import SignedCa
from accredit_issuer.registry.changes import Local

AGENT = AgentId.parse("support/summarizer")
BY = Local("test")


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Offline]:
    """An issuer."""
    with offline_issuer(tmp_path / "issuer") as made:
        yield made


def name(offline: Offline, *namespaces: str) -> None:
    """Name the agent."""
    named = Subordinate(agent=AGENT, namespaces=namespaces)
    offline.issuer.subordinates.add(named, by=BY, now=offline.clock())


def remove(offline: Offline) -> None:
    """Take the name away."""
    offline.issuer.subordinates.remove(AGENT, by=BY, now=offline.clock())


def ask(offline: Offline, svid: X509Svid) -> SignedCa:
    """Ask for an issuing CA."""
    csr = certificate_request(generate_key())
    return offline.do(offline.issuer.issuance.issuing_ca(svid, csr))


def is_clean(offline: Offline) -> bool:
    """Whether an audit finds nothing."""
    log = Log(offline.config.log_origin, offline.issuer.keys.load_log_key())
    with offline.issuer.database.read() as connection:
        return inspect(connection, offline.config, log, offline.clock()).ok


def anew(offline: Offline) -> None:
    """Take the name away and give it anew with other namespaces."""
    remove(offline)
    name(offline, "support", "payments")


def same(offline: Offline) -> None:
    """Take the name away and give it anew as it was."""
    remove(offline)
    name(offline, "support")


@pytest.mark.parametrize("moment", ["decided", "signed"])
@pytest.mark.parametrize(("change", "refused"), [(remove, True), (anew, True), (same, False)])
def test_a_name_that_goes_meanwhile(
    offline: Offline,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    change: Callable[[Offline], None],
    *,
    refused: bool,
) -> None:
    """After the decision, or after the signature: no CA, unless what was granted is granted."""
    svid = offline.agent()
    name(offline, "support")
    subject, method = {
        "decided": (offline.issuer.subordinates, "named"),
        "signed": (offline.issuer.authorities, "sign_subordinate"),
    }[moment]
    real = getattr(subject, method)

    def overtaken(*args: object) -> object:
        """What was read or signed, and then somebody was faster."""
        made = real(*args)
        change(offline)
        return made

    monkeypatch.setattr(subject, method, overtaken)
    if refused:
        with pytest.raises(Refusal) as caught:
            ask(offline, svid)
        assert caught.value.kind is Kind.FORBIDDEN
    else:
        assert ask(offline, svid).certificate
    assert is_clean(offline)


def test_what_lives_of_removed_ones_is_listed(offline: Offline) -> None:
    """Each CA that lives, with the id that revokes it; none of who is named, none that ended."""
    svid = offline.agent()
    name(offline, "support")
    ids = [subject_key_id(ask(offline, svid).certificate) for _ in range(2)]
    subordinates = offline.issuer.subordinates
    assert subordinates.removed(offline.clock()) == []
    remove(offline)
    (listed,) = subordinates.removed(offline.clock())
    assert listed["agent"] == str(AGENT)
    assert sorted(each["id"] for each in listed["issuing_cas"]) == sorted(ids)
    read = calls.removed_subordinates().read(json.dumps({"removed": [listed]}).encode())
    assert {agent: set(shown) for agent, shown in read.items()} == {str(AGENT): set(ids)}
    for each in ids:
        offline.state(f"authority:{each}")
    assert subordinates.all() == []
    assert subordinates.removed(offline.clock() + timedelta(days=365)) == []
