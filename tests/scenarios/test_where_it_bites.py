"""One fact about anything, and everybody who must hear of it: a table of what ends and what stays.

An instance that a node measured holds every kind of credential, and a task of it has a task below
it, which has another. For each target the table says which of them end. Each is asked of all who
decide about it: the issuer, verifiers that follow the feed, CRL, OCSP, status list, introspection.
They have to agree; what the table does not name stays, and a neighbour that shares nothing with it
never notices.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.nodes import Nodes
from support.ocsp import authority_of, status
from support.offline import Offline, offline_issuer
from support.tokens import claims_in

from accredit_attestors.declaration import Delegation
from accredit_attestors.signing import VerifiedManifest
from accredit_client.verify import TaskTokenVerifier
from accredit_credentials import jwt_svid, status_list, wit_svid
from accredit_credentials.errors import Revoked, UnknownAuthority
from accredit_credentials.revocation_feed import FeedState, verify
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.task_token import Presented
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.tokens import IssuedJwt, IssuedTaskToken, IssuedWit
from accredit_issuer.revocation.introspection import Viewer

SETTINGS: dict[str, Any] = {
    "revocation": {"status_list_url": "https://lists.example.org"},
    "wit": {"enabled": True},
}
NOTES = "https://notes.example.org"
MAX_AGE = 30.0
DEEP = Delegation(max_depth=3)
EVERYBODY = Viewer(audiences=frozenset(), namespaces=None)


@dataclass
class Holder:
    """An instance on a node, and all that it holds."""

    offline: Offline
    node: X509Svid
    manifest: VerifiedManifest
    svid: X509Svid = field(init=False)
    tasks: dict[str, IssuedTaskToken] = field(init=False, default_factory=dict)
    jwt: IssuedJwt = field(init=False)
    wit: IssuedWit = field(init=False)

    def __post_init__(self) -> None:
        self.svid = Nodes(self.offline).run(self.node, self.manifest)
        parent: str | None = None
        for name in ("task", "task below", "task below that"):
            self.tasks[name] = self.offline.task_token(self.svid, parent_id=parent)
            parent = self.tasks[name].content.task.id
        self.jwt = self._jwt()
        self.wit = self.offline.wit(self.svid)

    def _jwt(self) -> IssuedJwt:
        return self.offline.do(self.offline.issuer.issuance.tokens.jwt_svid(self.svid, (NOTES,)))

    def ended(self) -> set[str]:
        """What is refused now, by all who decide about it."""
        return {what for what, refused in self._refused().items() if refused}

    def _refused(self) -> dict[str, bool]:
        heard = self._heard()
        refused = {"SVID": self._svid_is_refused(heard)}
        for name, token in self.tasks.items():
            refused[name] = self._token_is_refused(token, heard)
        refused["JWT-SVID"] = self._jwt_is_refused(heard)
        refused["WIT-SVID"] = self._wit_is_refused(heard)
        last = self.tasks["task below that"].content.task.id
        nodes = Nodes(self.offline)
        asked: dict[str, Callable[[], object]] = {
            "asking for a task": lambda: self.offline.task_token(self.svid),
            "asking for a task below": lambda: self.offline.task_token(self.svid, parent_id=last),
            "asking for a JWT-SVID": self._jwt,
            "asking for a WIT-SVID": lambda: self.offline.wit(self.svid),
            "renewal": lambda: nodes.run(self.node, self.manifest, instance=self.svid.instance),
            "another instance there": lambda: nodes.run(self.node, self.manifest),
            "attestation elsewhere": lambda: self.offline.attest(self.manifest),
        }
        return refused | {what: _is_refused(ask) for what, ask in asked.items()}

    def _heard(self) -> FeedState:
        """A verifier that has just asked for everything."""
        state, issuer = FeedState(), self.offline.issuer
        state.apply(verify(issuer.feed.statement(0), bundle=issuer.bundle), now=issuer.clock())
        return state

    def _svid_is_refused(self, heard: FeedState) -> bool:
        return _agreed(
            feed=self._match(heard, self.svid.marks()),
            crl=self.offline.is_on_crl(self.svid),
            ocsp=status(self.offline, self.svid) == "revoked",
        )

    def _token_is_refused(self, token: IssuedTaskToken, heard: FeedState) -> bool:
        verifier = TaskTokenVerifier(
            audience=NOTES,
            issuer=self.offline.config.token_issuer,
            bundle=lambda: self.offline.issuer.bundle,
            facts=heard,
            bearer=True,
            clock=self.offline.clock,
        )
        try:
            verifier.verify(token.token, Presented(), resource="notes", action="read")
        except (Revoked, UnknownAuthority):
            feed = True
        else:
            feed = False
        return _agreed(
            feed=feed,
            introspection=self._is_inactive(token.token),
            status_list=self._is_listed(token),
        )

    def _is_listed(self, token: IssuedTaskToken) -> bool:
        reference = token.content.status
        assert reference is not None
        known = status_list.verify(
            self.offline.issuer.status_lists.signed(reference.uri.rpartition("/")[2]),
            bundle=self.offline.issuer.bundle,
            issuer=self.offline.config.token_issuer,
            uri=reference.uri,
            now=self.offline.clock(),
        )
        try:
            status_list.check(reference, known, now=self.offline.clock())
        except Revoked:
            return True
        return False

    def _is_inactive(self, text: str) -> bool:
        told = self.offline.issuer.introspection.introspect(text, EVERYBODY, self.offline.clock())
        return told["active"] is not True

    def _jwt_is_refused(self, heard: FeedState) -> bool:
        bundle, now = self.offline.issuer.bundle, self.offline.clock()
        try:
            read = jwt_svid.validate(
                self.jwt.token,
                bundles={bundle.trust_domain: bundle},
                audience=NOTES,
                now=now,
            )
        except UnknownAuthority:
            feed = True
        else:
            feed = self._match(heard, read.marks())
        return _agreed(feed=feed, introspection=self._is_inactive(self.jwt.token))

    def _wit_is_refused(self, heard: FeedState) -> bool:
        bundle, now = self.offline.issuer.bundle, self.offline.clock()
        try:
            read = wit_svid.validate(self.wit.token, bundles={bundle.trust_domain: bundle}, now=now)
        except UnknownAuthority:
            return True
        return self._match(heard, read.claimed.marks())

    def _match(self, heard: FeedState, marks: tuple[str, ...]) -> bool:
        try:
            heard.check(marks, now=self.offline.clock(), max_age=MAX_AGE)
        except Revoked:
            return True
        return False


def _agreed(**said: bool) -> bool:
    assert len(set(said.values())) == 1, said
    return said["feed"]


def _is_refused(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except Refusal as refusal:
        assert refusal.kind is Kind.REVOKED, refusal  # noqa: PT017 (no is one of two answers)
        return True
    return False


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[Offline]:
    """An issuer of all kinds of credential, with status lists."""
    with offline_issuer(tmp_path / "issuer", **SETTINGS) as made:
        yield made


@pytest.fixture
def holder(offline: Offline) -> Holder:
    """Who is meant."""
    return Holder(offline, Nodes(offline).new("build-7"), offline.register(delegation=DEEP))


@pytest.fixture
def neighbour(offline: Offline) -> Holder:
    """Who has nothing in common with it but the issuer."""
    offline.signer("other", "payments")
    fields = {"agent": AgentId.parse("payments/summarizer"), "owner": "m@example.org"}
    manifest = offline.register(signer="other", delegation=DEEP, **fields)
    return Holder(offline, Nodes(offline).new("build-8", "payments"), manifest)


TOKENS = {"task", "task below", "task below that"}
ASKING = {
    "asking for a task", "asking for a task below", "asking for a JWT-SVID",
    "asking for a WIT-SVID",
}  # fmt: skip
OF_THE_INSTANCE = {"SVID", *TOKENS, "JWT-SVID", "WIT-SVID", *ASKING, "renewal"}
ALL = {*OF_THE_INSTANCE, "another instance there", "attestation elsewhere"}
ENDS: dict[str, set[str]] = {
    "namespace": ALL,
    "agent": ALL,
    "manifest": ALL,
    "signer": ALL,
    "owner": ALL,
    "node": ALL - {"attestation elsewhere"},
    "instance": OF_THE_INSTANCE,
    "task": {*TOKENS, "asking for a task below"},
    "task below": {"task below", "task below that", "asking for a task below"},
    "task below that": {"task below that", "asking for a task below"},
    "serial": {"SVID", *ASKING},
    "jti of a task token": {"task below"},
    "jti of a JWT-SVID": {"JWT-SVID"},
    "jti of a WIT-SVID": {"WIT-SVID"},
}


OF_THE_AUTHORITY: dict[str, set[str]] = {
    "CA": {
        "SVID",
        *ASKING,
        "renewal",
        "another instance there",
    },  # the node's SVID is below it, too
    "JWT key": {*TOKENS, "JWT-SVID"},
    "WIT key": {"WIT-SVID"},
}


def target_of(name: str, holder: Holder) -> str:
    """What a fact is about."""
    svid = holder.svid
    return {
        "namespace": "namespace:support",
        "agent": "agent:support/summarizer",
        "manifest": f"manifest:{svid.manifest}",
        "signer": "signer:ci",
        "owner": "owner:maria@example.org",
        "node": "node:build-7",
        "instance": f"instance:{svid.instance}",
        **{each: f"task:{token.content.task.id}" for each, token in holder.tasks.items()},
        "serial": f"serial:{svid.serial}",
        "jti of a task token": f"jti:{holder.tasks['task below'].content.jti}",
        "jti of a JWT-SVID": f"jti:{claims_in(holder.jwt.token)['jti']}",
        "jti of a WIT-SVID": f"jti:{claims_in(holder.wit.token)['jti']}",
        "CA": f"authority:{authority_of(svid)}",
        "JWT key": f"authority:{holder.offline.active(AuthorityKind.JWT)}",
        "WIT key": f"authority:{holder.offline.active(AuthorityKind.WIT)}",
    }[name]


@pytest.mark.parametrize("name", ENDS)
def test_what_a_fact_ends(offline: Offline, holder: Holder, neighbour: Holder, name: str) -> None:
    """Suspended, restored and revoked, past a restart: exactly what the table says, everywhere."""
    target = target_of(name, holder)
    assert (holder.ended(), neighbour.ended()) == (set(), set())
    for kind, ends in (("suspended", ENDS[name]), ("restored", set()), ("revoked", ENDS[name])):
        offline.clock.advance(seconds=1)
        offline.state(target, kind)
        assert (kind, holder.ended()) == (kind, ends)
        assert neighbour.ended() == set()
    offline.reopen()
    assert (holder.ended(), neighbour.ended()) == (ENDS[name], set())


@pytest.mark.parametrize("kind", ["suspended", "revoked"])
@pytest.mark.parametrize("name", OF_THE_AUTHORITY)
def test_what_a_fact_about_an_authority_ends(
    offline: Offline, holder: Holder, neighbour: Holder, name: str, kind: str
) -> None:
    """What it signed, whoever holds it; the next one serves who comes; restored all is well."""
    target, ends = target_of(name, holder), OF_THE_AUTHORITY[name]
    offline.state(target, kind)
    offline.issuer.keep_up()  # as over the wire: it is replaced at once
    for _ in range(2):
        assert (holder.ended(), neighbour.ended()) == (ends, ends)
        offline.reopen()
    later = Holder(offline, Nodes(offline).new("build-9"), holder.manifest)
    assert later.ended() == set()
    if kind == "suspended":
        offline.state(target, "restored")
        offline.issuer.keep_up()
        assert (holder.ended(), neighbour.ended(), later.ended()) == (set(), set(), set())
