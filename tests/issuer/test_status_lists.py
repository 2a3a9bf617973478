"""Token Status Lists: every task token has an index of its own, and the facts say what it means."""

import asyncio
import functools
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update
from starlette.testclient import TestClient
from support.issuer import log_in, running_issuer
from support.nodes import Nodes
from support.offline import Offline, offline_issuer, task_request
from support.raw_http import RawClient
from support.tokens import claims_in

from accredit_credentials import jws, status_list
from accredit_credentials.errors import Expired, Revoked
from accredit_credentials.revocation import FactKind, FactSet, RevocationFact, Target
from accredit_credentials.spiffe_id import AgentId
from accredit_credentials.status_list import Status, StatusListToken
from accredit_credentials.task_token import TaskToken
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.app import make_app, make_public_app
from accredit_issuer.audit.inspection import inspect
from accredit_issuer.audit.log import Log
from accredit_issuer.audit.report import Report
from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation.status_indexes import MOST_TAKEN, SIZE, Indexes
from accredit_issuer.revocation.status_lists import StatusLists, status_of
from accredit_issuer.store.models import credentials

URL = "https://lists.example.org"
TTL = 30
TIMEOUT = 20.0


@contextmanager
def issuer_with_lists(folder: Path) -> Iterator[Offline]:
    """An issuer whose task tokens name status lists."""
    with offline_issuer(folder, revocation={"status_list_url": URL}) as offline:
        yield offline


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[Offline]:
    """The same."""
    with issuer_with_lists(tmp_path / "issuer") as offline:
        yield offline


def token_of(offline: Offline, svid: X509Svid, **changes: Any) -> TaskToken:
    """A task token of an instance."""
    return offline.task_token(svid, **changes).content


def fetched(offline: Offline, token: TaskToken) -> StatusListToken:
    """What a relying party knows that fetches the token's list now, and verifies it."""
    assert token.status is not None
    text = offline.issuer.status_lists.signed(token.status.uri.rpartition("/")[2])
    return status_list.verify(
        text,
        bundle=offline.issuer.bundle,
        issuer=token.issuer,
        uri=token.status.uri,
        now=offline.clock(),
    )


def status(offline: Offline, token: TaskToken) -> Status:
    """What the list says of a token."""
    assert token.status is not None
    return Status(fetched(offline, token).statuses.value(token.status.index))


def targets_of(token: TaskToken) -> dict[str, str]:
    """Everything that a fact can be about and that means this token."""
    return {
        "jti": f"jti:{token.jti}",
        "task": f"task:{token.task.id}",
        "parent task": f"task:{token.task.parent}",
        "first task": f"task:{token.task.ancestors[0]}",
        "instance": f"instance:{token.agent.instance}",
        "manifest": f"manifest:{token.agent.manifest}",
        "agent": "agent:support/summarizer",
        "namespace": "namespace:support",
        "signer": "signer:ci",
        "owner": "owner:maria@example.org",
        "authority": f"authority:{token.authority}",
    }


NAMES = (
    "jti", "task", "parent task", "first task", "instance", "manifest", "agent", "namespace",
    "signer", "owner", "authority",
)  # fmt: skip


def below_two(offline: Offline, svid: X509Svid) -> TaskToken:
    """A token of a task that stands below two others."""
    first = token_of(offline, svid)
    second = token_of(offline, svid, parent_id=first.task.id)
    return token_of(offline, svid, parent_id=second.task.id)


def test_without_the_setting_tokens_stay_as_they_were(offline: Offline) -> None:
    """No claim, no row, nothing in the record, and no list to be had."""
    token = offline.task_token(offline.agent())
    assert token.content.status is None
    assert "status" not in claims_in(token.token)
    with offline.issuer.database.read() as connection:
        row = connection.execute(
            select(credentials).where(credentials.c.id == token.content.jti)
        ).one()
    assert (row.status_list, row.status_index) == (None, None)
    assert b"status_" not in offline.leaves()[-1]
    for ask in (offline.issuer.status_lists.uris, lambda: offline.issuer.status_lists.signed("ab")):
        with pytest.raises(Refusal) as refused:
            ask()
        assert refused.value.kind is Kind.NOT_FOUND


def test_a_task_token_names_its_index(listing: Offline) -> None:
    """Claim, row and record say the same list and index; other credentials have none."""
    svid = listing.agent()
    token = listing.task_token(svid)
    reference = token.content.status
    assert reference is not None
    list_id = reference.uri.removeprefix(f"{URL}/v1/status-lists/")
    assert claims_in(token.token)["status"] == {
        "status_list": {"idx": reference.index, "uri": reference.uri}
    }
    record = listing.leaves()[-1]
    assert f'"status_index":{reference.index},"status_list":"{list_id}"'.encode() in record
    jwt = listing.do(listing.issuer.issuance.tokens.jwt_svid(svid, ("https://a.example",)))
    assert "status" not in claims_in(jwt.token)
    with listing.issuer.database.read() as connection:
        rows = connection.execute(select(credentials).where(credentials.c.status_list.is_not(None)))
        assert [(r.id, r.status_list, r.status_index) for r in rows] == [
            (token.content.jti, list_id, reference.index)
        ]


def test_the_list_has_the_form_of_the_draft(listing: Offline) -> None:
    """Two bits, its own URI, whole seconds, over at twice its ttl, by the active JWT key."""
    token = token_of(listing, listing.agent())
    assert token.status is not None
    text = listing.issuer.status_lists.signed(token.status.uri.rpartition("/")[2])
    claims, now = claims_in(text), int(listing.clock().timestamp())
    assert jws.parse(text, types=status_list.TYPES).header == {
        "alg": "ES256",
        "kid": listing.active(AuthorityKind.JWT),
        "typ": "statuslist+jwt",
    }
    assert claims.pop("status_list")["bits"] == 2
    assert claims == {
        "iss": token.issuer,
        "sub": token.status.uri,
        "iat": now,
        "exp": now + 2 * TTL,
        "ttl": TTL,
    }
    known = fetched(listing, token)
    assert known.statuses.size == SIZE
    assert not any(known.statuses.octets)


@pytest.mark.parametrize("name", NAMES)
def test_each_target_ends_the_token(listing: Offline, name: str) -> None:
    """A fact about anything that the token is of makes its index invalid, past a restart too."""
    token = below_two(listing, listing.agent())
    assert status(listing, token) is Status.VALID
    listing.state(targets_of(token)[name])
    assert status(listing, token) is Status.INVALID
    listing.reopen()
    assert status(listing, token) is Status.INVALID


@pytest.mark.parametrize("name", NAMES)
def test_a_suspension_is_told_and_taken_back(listing: Offline, name: str) -> None:
    """Suspended is its own value, restored is valid again, each past a restart too."""
    token = below_two(listing, listing.agent())
    target = targets_of(token)[name]
    for kind, expected in (("suspended", Status.SUSPENDED), ("restored", Status.VALID)):
        listing.state(target, kind)
        assert status(listing, token) is expected
        listing.reopen()
        assert status(listing, token) is expected


@pytest.mark.parametrize("name", [name for name in NAMES if name != "authority"])
def test_the_nearest_neighbour_stays_valid(listing: Offline, name: str) -> None:
    """A fact makes nothing of another task, instance, agent, namespace, signer or owner invalid."""
    listing.signer("other", "payments", "support2", "support")
    fields = {"signer": "other", "owner": "m@example.org"}
    neighbours = [
        token_of(listing, listing.agent(agent=AgentId.parse(agent), **fields))
        for agent in ("support/summarizer2", "support2/summarizer", "payments/summarizer")
    ]
    svid = listing.agent()
    above = token_of(listing, svid)
    other_task = token_of(listing, svid)
    token = token_of(listing, svid, parent_id=above.task.id)
    token = token_of(listing, svid, parent_id=token.task.id)
    listing.state(targets_of(token)[name])
    assert status(listing, token) is Status.INVALID
    if name == "namespace":
        neighbours = neighbours[1:]  # the first is of the same
    if name in {"jti", "task", "parent task", "first task"}:
        neighbours.append(other_task)
    for neighbour in neighbours:
        assert status(listing, neighbour) is Status.VALID


def test_a_fact_about_a_node_ends_what_runs_there(listing: Offline) -> None:
    """The token of an instance on the node, and not that of one beside it; restored with it."""
    nodes = Nodes(listing)
    manifest = listing.register()
    there, elsewhere = (
        token_of(listing, nodes.run(nodes.new(name), manifest)) for name in ("build-7", "build-8")
    )
    for kind, expected in (
        ("suspended", Status.SUSPENDED), ("restored", Status.VALID), ("revoked", Status.INVALID)
    ):  # fmt: skip
        listing.state("node:build-7", kind)
        assert status(listing, there) is expected
        assert status(listing, elsewhere) is Status.VALID


def test_the_strongest_fact_counts(listing: Offline) -> None:
    """Of two suspensions one remains when the other ends; a revocation outweighs both."""
    svid = listing.agent()
    token = token_of(listing, svid)
    instance, agent = f"instance:{svid.instance}", "agent:support/summarizer"
    for target, kind, expected in (
        (instance, "suspended", Status.SUSPENDED),
        (agent, "suspended", Status.SUSPENDED),
        (instance, "restored", Status.SUSPENDED),
        (f"jti:{token.jti}", "revoked", Status.INVALID),
        (agent, "restored", Status.INVALID),
    ):
        listing.state(target, kind)
        assert status(listing, token) is expected


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([], Status.VALID),
        ([FactKind.SUSPENDED], Status.SUSPENDED),
        ([FactKind.REVOKED], Status.INVALID),
        ([FactKind.SUSPENDED, FactKind.REVOKED], Status.INVALID),
        ([FactKind.REVOKED, FactKind.SUSPENDED], Status.INVALID),
    ],
)
def test_what_facts_say_of_marks(offline: Offline, kinds: list[FactKind], expected: Status) -> None:
    """The table: none, one or several facts, each about another of the token's marks."""
    now = offline.clock()
    marks = [f"task:{number}" for number in range(len(kinds))]
    facts = FactSet(
        RevocationFact(
            sequence=number + 1, target=Target.parse(mark), kind=kind, at=now, expires_at=now,
            reason="x",
        )
        for number, (mark, kind) in enumerate(zip(marks, kinds, strict=True))
    )  # fmt: skip
    assert status_of(facts, ["jti:1", *marks]) is expected
    assert status_of(facts, ["jti:1"]) is Status.VALID


def test_many_facts_at_once_are_all_told(listing: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    """More new facts than are looked for one by one change the lists as each would."""
    monkeypatch.setattr("accredit_issuer.revocation.status_lists.MANY", 3)
    svid = listing.agent()
    tokens = [token_of(listing, svid) for _ in range(6)]
    assert {status(listing, token) for token in tokens} == {Status.VALID}
    for token in tokens[:-1]:
        listing.state(f"jti:{token.jti}", "suspended")
    assert [status(listing, token) for token in tokens] == [Status.SUSPENDED] * 5 + [Status.VALID]
    for token in tokens[:-1]:
        listing.state(f"jti:{token.jti}", "restored")
    assert {status(listing, token) for token in tokens} == {Status.VALID}


def test_a_fact_that_was_never_told_is_on_the_list_after_a_restart(
    listing: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends between the fact's commit and all that follows it: the next one knows."""
    token = token_of(listing, listing.agent())
    assert status(listing, token) is Status.VALID
    with monkeypatch.context() as patched:
        patched.setattr(listing.issuer.feed, "publish", _die)
        listing.state(f"task:{token.task.id}")
    assert status(listing, token) is Status.VALID, "nothing was told yet"
    listing.reopen()
    assert status(listing, token) is Status.INVALID


def _die(_facts: object) -> None:
    raise SystemError("killed")


def test_a_fact_that_comes_while_a_list_is_made_is_on_the_next(
    listing: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the moment: what one look at the rows missed, the next does not."""
    token = token_of(listing, listing.agent())
    status(listing, token)
    listing.state("agent:support/summarizer", "suspended")
    lists = listing.issuer.status_lists
    look_again = lists._look_again

    def interrupted(*arguments: Any) -> None:
        look_again(*arguments)
        monkeypatch.undo()
        listing.state(f"jti:{token.jti}")

    monkeypatch.setattr(lists, "_look_again", interrupted)
    assert status(listing, token) is Status.SUSPENDED
    assert status(listing, token) is Status.INVALID


@pytest.mark.parametrize("minutes", [10, 60 * 24])
def test_a_clock_that_was_ahead_hides_no_fact(listing: Offline, minutes: int) -> None:
    """By it the token was over when the fact came; put right, the list has the fact."""
    token = token_of(listing, listing.agent())
    assert status(listing, token) is Status.VALID
    right = listing.clock()
    listing.clock.advance(minutes=minutes)
    listing.state("agent:support/summarizer")
    listing.issuer.status_lists.uris()
    listing.clock.now = right + timedelta(seconds=1)
    assert token.status is not None
    path = token.status.uri.removeprefix(URL)
    text = ask(listing, path).text
    assert text == listing.issuer.status_lists.signed(path.rpartition("/")[2])
    assert status(listing, token) is Status.INVALID


def test_a_clock_that_is_put_right_by_seconds_hides_no_fact(listing: Offline) -> None:
    """What ended a moment ago is looked at, too: nothing is begun again for a small step."""
    token = token_of(listing, listing.agent())
    status(listing, token)
    listing.clock.now = token.expires_at + timedelta(seconds=5)
    listing.state(f"jti:{token.jti}")
    listing.issuer.status_lists.uris()
    listing.clock.now = token.expires_at - timedelta(seconds=4)
    assert status(listing, token) is Status.INVALID


def lists_of(offline: Offline, new_indexes: Callable[[], Indexes]) -> StatusLists:
    """Status lists beside the issuer's own, with smaller ones."""
    issuer = offline.issuer
    return StatusLists(
        offline.config,
        database=issuer.database,
        authorities=issuer.authorities,
        revocation=issuer.revocation,
        feed=issuer.feed,
        clock=offline.clock,
        new_indexes=new_indexes,
    )


def test_two_tokens_never_share_an_index(listing: Offline) -> None:
    """Taken on eight threads at once, over several lists: as many places as were asked for."""
    lists = lists_of(listing, functools.partial(Indexes, bits=9, most=256))
    end = listing.clock() + timedelta(minutes=5)
    taken: list[tuple[str, int]] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait()
        for _ in range(200):
            place = lists.take(end)
            assert place is not None
            taken.append((place.list_id, place.index))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == len(taken) == 1600
    assert len({list_id for list_id, _ in taken}) == 7
    assert max(index for _, index in taken) < 512


def test_an_index_is_drawn_until_it_is_free() -> None:
    """The draws are the CSPRNG's alone, and one that was given already is drawn again."""
    draws = iter([3, 3, 3, 1, 1, 3, 0])
    indexes = Indexes(2, 3, lambda bits: next(draws) if bits == 2 else -1)
    assert [indexes.take() for _ in range(3)] == [3, 1, 0]
    with pytest.raises(ValueError, match="full"):
        indexes.take()


def test_indexes_tell_nothing_of_the_order() -> None:
    """As many go up from one token to the next as go down, over the whole list."""
    indexes = Indexes()
    taken = [indexes.take() for _ in range(2000)]
    rises = sum(a < b for a, b in itertools.pairwise(taken))
    assert 850 < rises < 1150
    assert min(taken) < SIZE // 50
    assert max(taken) > SIZE - SIZE // 50
    # By the system's own randomness: a seed of the program's changes nothing.
    random.seed(1)
    first = [Indexes().take() for _ in range(8)]
    random.seed(1)
    assert [Indexes().take() for _ in range(8)] != first
    assert MOST_TAKEN <= SIZE // 2


def test_a_list_goes_away_once_everything_in_it_is_over(listing: Offline) -> None:
    """Listed while one of its tokens lives, and gone after; the one that is filled stays."""
    listing.issuer.status_lists = lists = lists_of(listing, lambda: Indexes(3, 2))
    now = listing.clock()
    ends = [now + timedelta(seconds=seconds) for seconds in (10, 20, 30, 40)]
    places = [place for end in ends if (place := lists.take(end))]
    first, second = places[0].uri, places[2].uri
    assert lists.uris() == sorted([first, second])
    listing.clock.now = ends[1] - timedelta(microseconds=1)
    assert first in lists.uris()
    listing.clock.now = ends[1]
    assert lists.uris() == [second]
    with pytest.raises(Refusal) as refused:
        lists.signed(places[0].list_id)
    assert refused.value.kind is Kind.NOT_FOUND
    listing.clock.now = ends[3] + timedelta(hours=1)
    assert lists.uris() == [second]


def test_after_a_restart_lists_of_before_live_on(listing: Offline) -> None:
    """A token of before finds its list, without any fact; new tokens begin another list."""
    svid = listing.agent()
    before = token_of(listing, svid)
    listing.reopen()
    assert status(listing, before) is Status.VALID
    after = token_of(listing, svid)
    assert before.status is not None
    assert after.status is not None
    assert listing.issuer.status_lists.uris() == sorted([before.status.uri, after.status.uri])
    listing.clock.advance(seconds=301)
    assert listing.issuer.status_lists.uris() == [after.status.uri]


def test_one_signature_serves_all_until_something_changes(listing: Offline) -> None:
    """The same text for half of the ttl; another after it, by another key, and at each fact."""
    svid = listing.agent()
    token = token_of(listing, svid)
    assert token.status is not None
    list_id = token.status.uri.rpartition("/")[2]
    signed = listing.issuer.status_lists.signed
    texts = [signed(list_id)]
    listing.clock.advance(seconds=TTL / 2 - 1)
    token_of(listing, svid)
    assert signed(list_id) == texts[0]
    listing.clock.advance(seconds=1)
    texts.append(signed(list_id))
    listing.replace(AuthorityKind.JWT)
    texts.append(signed(list_id))
    listing.state(f"task:{token.task.id}")
    texts.append(signed(list_id))
    assert len(set(texts)) == len(texts)
    assert signed(list_id) == texts[-1]


def test_what_is_at_hand_needs_no_other_thread(
    listing: Offline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again with nothing new, the event loop answers; after a fact it does not."""
    svid = listing.agent()
    token = token_of(listing, svid)
    assert token.status is not None
    lists, list_id = listing.issuer.status_lists, token.status.uri.rpartition("/")[2]
    before = listing.do(lists.told(list_id))
    monkeypatch.setattr(lists, "signed", lambda _list_id: "made anew")
    assert listing.do(lists.told(list_id)) == before
    listing.state(f"serial:{svid.serial}")
    assert listing.do(lists.told(list_id)) == "made anew"


def test_a_fact_about_others_makes_no_list_anew(listing: Offline) -> None:
    """A fact that no living token matches leaves the signed list as it is."""
    token = token_of(listing, listing.agent())
    other = listing.agent()
    assert token.status is not None
    list_id = token.status.uri.rpartition("/")[2]
    before = listing.issuer.status_lists.signed(list_id)
    listing.state(f"serial:{other.serial}")
    listing.state(f"instance:{other.instance}")
    assert listing.issuer.status_lists.signed(list_id) == before


def test_a_relying_party_decides_by_the_list(listing: Offline) -> None:
    """The whole way: accepted, then refused as soon as it fetches again, at its end at the latest.

    Whoever keeps an old list learns nothing, and refuses once it is over.
    """
    token = token_of(listing, listing.agent())
    assert token.status is not None
    old = fetched(listing, token)
    status_list.check(token.status, old, now=listing.clock())
    listing.state("agent:support/summarizer")
    status_list.check(token.status, old, now=listing.clock())
    with pytest.raises(Revoked, match="invalid"):
        status_list.check(token.status, fetched(listing, token), now=listing.clock())
    text = listing.issuer.status_lists.signed(token.status.uri.rpartition("/")[2])
    listing.clock.advance(seconds=2 * TTL)
    with pytest.raises(Expired):
        status_list.verify(
            text,
            bundle=listing.issuer.bundle,
            issuer=token.issuer,
            uri=token.status.uri,
            now=listing.clock(),
        )


def test_tokens_asked_for_at_once_have_places_of_their_own(listing: Offline) -> None:
    """Three hundred on one event loop: each row has the place that its token says."""
    svid = listing.agent()

    async def ask_all() -> list[TaskToken]:
        tokens = listing.issuer.issuance.tokens
        asked = (tokens.task_token(svid, task_request()) for _ in range(300))
        return [each.content for each in await asyncio.gather(*asked)]

    said = {
        (token.jti, token.status.uri.rpartition("/")[2], token.status.index)
        for token in listing.do(ask_all())
        if token.status is not None
    }
    with listing.issuer.database.read() as connection:
        rows = connection.execute(select(credentials).where(credentials.c.kind == "task")).all()
    assert {(row.id, row.status_list, row.status_index) for row in rows} == said
    assert len({(list_id, index) for _, list_id, index in said}) == 300


def test_who_waits_for_a_list_keeps_nobody_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More strangers than the pool has threads wait for a list; an admin is answered meanwhile."""
    lists = {"status_list_url": URL}
    with running_issuer(tmp_path / "issuer", revocation=lists) as running:
        admin = log_in(running, running.first_token)
        made, made_to_wait = threading.Event(), running.issuer.status_lists
        catch_up = made_to_wait._catch_up
        monkeypatch.setattr(
            made_to_wait, "_catch_up", lambda now: (made.wait(TIMEOUT), catch_up(now))
        )
        stranger = RawClient.at(running.url, running.bundle)
        answers: list[int] = []

        def ask_for_lists() -> None:
            answers.append(stranger.ask("GET", "/v1/status-lists").status)

        threads = [threading.Thread(target=ask_for_lists) for _ in range(50)]
        for thread in threads:
            thread.start()
        try:
            caller = RawClient.at(running.url, running.bundle, admin.identity)
            for _ in range(3):
                assert caller.ask("GET", "/v1/agents").status == 200
            assert answers == []
        finally:
            made.set()
            for thread in threads:
                thread.join(TIMEOUT)
        assert answers == [200] * 50


def audited(offline: Offline) -> Report:
    """What an audit of an open issuer finds."""
    log = Log(offline.config.log_origin, offline.issuer.keys.load_log_key())
    with offline.issuer.database.read() as connection:
        return inspect(connection, offline.config, log, offline.clock())


@pytest.mark.parametrize(
    "values", [{"status_index": 5}, {"status_list": "ab"}, {"status_list": None}]
)
def test_an_audit_finds_an_index_that_was_changed(
    listing: Offline, values: dict[str, object]
) -> None:
    """Whoever moves a token to another index, so that nobody hears of its end, is found out."""
    token = token_of(listing, listing.agent())
    assert audited(listing).ok
    with listing.issuer.database.writing.begin() as connection:
        connection.execute(
            update(credentials).where(credentials.c.id == token.jti).values(**values)
        )
    (found,) = audited(listing).findings
    assert "differ in: status_" in found.problem


@pytest.mark.parametrize("index", [SIZE, -1, 2**40, None, "x"])
@pytest.mark.parametrize("restarted", [False, True])
def test_an_index_outside_of_the_list_keeps_nobody_else_from_being_told(
    listing: Offline, index: object, restarted: bool
) -> None:
    """A row that somebody spoilt is found by the audit, and all other tokens are told."""
    svid = listing.agent()
    spoilt, other, neighbour = (token_of(listing, svid) for _ in range(3))
    with listing.issuer.database.writing.begin() as connection:
        connection.execute(
            text("UPDATE credential SET status_index = :index WHERE id = :id"),
            {"index": index, "id": spoilt.jti},
        )
    if restarted:
        listing.reopen()
    for token in (spoilt, other):
        listing.state(f"jti:{token.jti}")
    assert status(listing, other) is Status.INVALID
    assert status(listing, neighbour) is Status.VALID
    listing.state(f"instance:{svid.instance}")
    assert status(listing, neighbour) is Status.INVALID
    assert any("status_" in each.problem for each in audited(listing).findings)


def ask(offline: Offline, path: str, method: str = "GET", **headers: str) -> Any:
    """What the issuer answers a stranger."""
    with TestClient(make_app(offline.issuer)) as client:
        return client.request(method, path, headers=headers)


def test_over_http(listing: Offline) -> None:
    """Media type, tag and age; HEAD and 304; listed, and announced in the issuer's metadata."""
    token = token_of(listing, listing.agent())
    assert token.status is not None
    path = token.status.uri.removeprefix(URL)
    answer = ask(listing, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/statuslist+jwt"
    assert answer.headers["cache-control"] == f"max-age={TTL // 2}"
    assert answer.text == listing.issuer.status_lists.signed(path.rpartition("/")[2])
    head = ask(listing, path, "HEAD")
    assert (head.text, head.headers["etag"]) == ("", answer.headers["etag"])
    tag = {"If-None-Match": answer.headers["etag"]}
    assert ask(listing, path, **tag).status_code == 304
    listing.state("agent:support/summarizer")
    assert ask(listing, path, **tag).status_code == 200
    listed = ask(listing, "/v1/status-lists")
    assert listed.headers["content-type"] == "application/json"
    assert listed.json() == {"status_lists": [token.status.uri]}
    metadata = ask(listing, "/.well-known/oauth-authorization-server").json()
    assert metadata["status_list_aggregation_endpoint"] == f"{URL}/v1/status-lists"


@pytest.mark.parametrize(
    ("path", "status_code"),
    [
        ("/v1/status-lists/0123456789abcdef", 404),
        ("/v1/status-lists/" + "0" * 65, 400),
        ("/v1/status-lists/XYZ", 400),
        ("/v1/status-lists/", 404),
        ("{list}?time=1686925000", 501),
        ("{list}0", 404),
    ],
)
def test_what_is_not_there(listing: Offline, path: str, status_code: int) -> None:
    """Unknown and malformed ids; and no list of another time is passed off as that of now."""
    token = token_of(listing, listing.agent())
    assert token.status is not None
    answer = ask(listing, path.format(list=token.status.uri.removeprefix(URL)))
    assert answer.status_code == status_code
    assert answer.headers["content-type"] == "application/problem+json"


def test_without_the_setting_nothing_is_announced(offline: Offline) -> None:
    """Neither endpoint, nor in the metadata, nor for strangers."""
    assert ask(offline, "/v1/status-lists").status_code == 404
    metadata = ask(offline, "/.well-known/oauth-authorization-server").json()
    assert "status_list_aggregation_endpoint" not in metadata


def test_a_web_ca_s_clients_have_them_too(listing: Offline) -> None:
    """The listener under a Web CA's certificate serves the lists that tokens name."""
    token = token_of(listing, listing.agent())
    assert token.status is not None
    with TestClient(make_public_app(listing.issuer)) as client:
        path = token.status.uri.removeprefix(URL)
        assert client.get(path).text == ask(listing, path).text
        assert client.get("/v1/status-lists").json() == {"status_lists": [token.status.uri]}


def test_other_settings_other_times(tmp_path: Path) -> None:
    """The ttl is the operator's; what follows from it follows."""
    lists = {"status_list_url": f"{URL}/", "status_list_ttl": 7}
    with offline_issuer(tmp_path / "issuer", revocation=lists) as offline:
        token = token_of(offline, offline.agent())
        known = fetched(offline, token)
        assert (known.ttl, known.expires_at - known.issued_at) == (7, timedelta(seconds=14))
        assert token.status is not None
        assert token.status.uri.startswith(f"{URL}/v1/status-lists/")
        path = token.status.uri.removeprefix(URL)
        assert ask(offline, path).headers["cache-control"] == "max-age=3"
