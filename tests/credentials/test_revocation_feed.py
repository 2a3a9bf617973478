"""The revocation feed: which statements continue what is known, and when knowledge is too old."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from support.authority import HOUR, NOW, Authority
from support.tokens import claims_in, forge

from accredit_credentials import revocation_feed
from accredit_credentials.errors import (
    InvalidRevocation,
    InvalidToken,
    Revoked,
    Stale,
    UnknownAuthority,
    Untrusted,
)
from accredit_credentials.keys import generate_key
from accredit_credentials.revocation import FactKind, RevocationFact, Target, TargetKind
from accredit_credentials.revocation_feed import FeedState, Gap, Statement

MAX_AGE = 30.0


def fact(sequence: int, task: str = "", kind: FactKind = FactKind.REVOKED) -> RevocationFact:
    """A fact about a task, named by its number where no name is given."""
    return RevocationFact(
        sequence=sequence,
        target=Target(TargetKind.TASK, task or f"t{sequence}"),
        kind=kind,
        at=NOW,
        expires_at=NOW + HOUR,
        reason="test",
    )


def statement(after: int, through: int, *facts: RevocationFact, seconds: float = 0) -> Statement:
    """A statement made some seconds after ``NOW``."""
    return Statement(
        trust_domain=Authority().trust_domain,
        after=after,
        through=through,
        as_of=NOW + timedelta(seconds=seconds),
        facts=facts,
    )


def state_of(*statements: Statement) -> FeedState:
    """What a verifier knows after these statements."""
    state = FeedState()
    for each in statements:
        state.apply(each, now=each.as_of)
    return state


def revoked(state: FeedState, *, seconds: float = 0) -> set[str]:
    """Which of the first tasks are refused."""
    refused = set()
    for n in range(1, 10):
        try:
            state.check([f"task:t{n}"], now=NOW + timedelta(seconds=seconds), max_age=MAX_AGE)
        except Revoked:
            refused.add(f"t{n}")
    return refused


# --- signed statements --------------------------------------------------------------------------


@pytest.fixture
def text(authority: Authority) -> str:
    """A good statement, signed."""
    return revocation_feed.sign(statement(3, 7, fact(4), fact(7)), authority.jwt_key, authority.kid)


@pytest.fixture
def changed(authority: Authority, text: str) -> Callable[..., str]:
    """Signs the good claims again, with some changed; None removes one."""

    def change(**claims: object) -> str:
        good = {**claims_in(text), **claims}
        kept = {name: value for name, value in good.items() if value is not None}
        header = {"alg": "ES256", "kid": authority.kid, "typ": revocation_feed.TYPE}
        return forge(header, kept, authority.jwt_key)

    return change


def test_a_statement_is_read_back(authority: Authority, text: str) -> None:
    """Every field and every fact survives the way."""
    assert revocation_feed.verify(text, bundle=authority.bundle) == statement(
        3, 7, fact(4), fact(7)
    )


def test_a_statement_may_be_long(authority: Authority) -> None:
    """A snapshot of thousands of facts is longer than a token may be."""
    facts = [fact(n) for n in range(1, 2001)]
    long = revocation_feed.sign(statement(0, 2000, *facts), authority.jwt_key, authority.kid)
    assert len(long) > 200_000
    assert len(revocation_feed.verify(long, bundle=authority.bundle).facts) == 2000


def test_only_the_trust_domain_speaks(
    authority: Authority, other_authority: Authority, text: str
) -> None:
    """Another key, another domain's key and another domain's name are refused."""
    good = statement(0, 0)
    for key, kid, bundle in [
        (generate_key(), authority.kid, authority.bundle),
        (authority.jwt_key, "other", authority.bundle),
        (other_authority.jwt_key, other_authority.kid, authority.bundle),
        (authority.jwt_key, authority.kid, replace(authority.bundle, jwt_authorities={})),
        (authority.jwt_key, authority.kid,
         replace(authority.bundle, trust_domain=other_authority.trust_domain)),
    ]:  # fmt: skip
        with pytest.raises(Untrusted):
            revocation_feed.verify(revocation_feed.sign(good, key, kid), bundle=bundle)


@pytest.mark.parametrize("claim", ["iss", "iat", "after", "through", "facts"])
@pytest.mark.parametrize("value", [None, True, "x", -1, {}, [1]])
def test_each_claim_is_required(
    claim: str, value: object, authority: Authority, changed: Callable[..., str]
) -> None:
    """Drop or spoil one after the other: each is refused."""
    revocation_feed.verify(changed(), bundle=authority.bundle)
    with pytest.raises((InvalidToken, InvalidRevocation, Untrusted)):
        revocation_feed.verify(changed(**{claim: value}), bundle=authority.bundle)


@pytest.mark.parametrize(
    ("after", "through", "sequences"),
    [
        (4, 3, []),
        (3, 7, [3]),
        (3, 7, [8]),
        (3, 7, [5, 4]),
        (3, 7, [4, 4]),
        (3, 7, [0]),
        (3, 3, [3]),
        (0, 0, [1]),
    ],
)
def test_facts_stand_in_order_between_the_ends(
    after: int,
    through: int,
    sequences: list[int],
    authority: Authority,
    changed: Callable[..., str],
) -> None:
    """Outside, twice or out of order: the statement contradicts itself and is refused."""
    facts = [{**fact(1).to_claim(), "seq": n} for n in sequences]
    with pytest.raises(InvalidRevocation):
        revocation_feed.verify(
            changed(after=after, through=through, facts=facts), bundle=authority.bundle
        )


@pytest.mark.parametrize(
    "spoiled", [{"kind": "pardoned"}, {"kind": ["revoked"]}, {"target": "x"}, {"exp": True}]
)
def test_one_unreadable_fact_spoils_the_statement(
    spoiled: dict[str, Any], authority: Authority, changed: Callable[..., str]
) -> None:
    """What is not understood might revoke: it is not passed over."""
    facts = [fact(4).to_claim(), {**fact(5).to_claim(), **spoiled}]
    with pytest.raises(InvalidRevocation):
        revocation_feed.verify(changed(facts=facts), bundle=authority.bundle)


def test_a_key_that_was_removed_says_nothing_more(authority: Authority, text: str) -> None:
    """What it signed while it was in the bundle counts as little as what it signs now."""
    key, kid = authority.jwt_key, authority.kid
    after = replace(authority.bundle, jwt_authorities={"next": generate_key().public_key()})
    revocation_feed.verify(text, bundle=authority.bundle)
    for each in (text, revocation_feed.sign(statement(0, 9, seconds=1), key, kid)):
        with pytest.raises(UnknownAuthority):
            revocation_feed.verify(each, bundle=after)
    taken = replace(authority.bundle, jwt_authorities={kid: generate_key().public_key()})
    with pytest.raises(Untrusted):
        revocation_feed.verify(text, bundle=taken)


def test_no_part_of_a_statement_is_one(authority: Authority, text: str) -> None:
    """Cut off anywhere, or with something behind it, it is refused, and never another error."""
    for part in [*(text[:end] for end in range(len(text))), f"{text}A", f"{text}.", f"{text}\n"]:
        with pytest.raises((InvalidToken, Untrusted)):
            revocation_feed.verify(part, bundle=authority.bundle)


# --- what a verifier knows ----------------------------------------------------------------------


def test_nothing_known_is_nothing_accepted() -> None:
    """Before the first statement every credential is refused."""
    state = FeedState()
    assert (state.as_of, state.through, len(state)) == (None, 0, 0)
    with pytest.raises(Stale, match="nothing is known"):
        state.check([], now=NOW, max_age=1e9)


def test_statements_continue_each_other() -> None:
    """Snapshot, then what came after, then a heartbeat: all facts are in force."""
    state = state_of(
        statement(0, 3, fact(1), fact(3)),
        statement(3, 5, fact(5), seconds=1),
        statement(5, 5, seconds=2),
    )
    assert revoked(state) == {"t1", "t3", "t5"}
    assert (state.through, state.as_of) == (5, NOW + timedelta(seconds=2))


def test_a_gap_is_found() -> None:
    """A statement after facts that are not known changes nothing, and says so."""
    state = state_of(statement(0, 3, fact(3)))
    with pytest.raises(Gap):
        state.apply(statement(4, 5, fact(5), seconds=1), now=NOW)
    assert (revoked(state), state.through, state.as_of) == ({"t3"}, 3, NOW)


def test_the_first_statement_is_a_snapshot() -> None:
    """Without one, even facts that continue nothing leave a gap."""
    with pytest.raises(Gap):
        FeedState().apply(statement(1, 1), now=NOW)


def test_an_overlap_adds_only_what_is_new() -> None:
    """Facts that are known already are not applied again over later ones."""
    state = state_of(
        statement(0, 1, fact(1, "t1", FactKind.SUSPENDED)),
        statement(1, 2, fact(2, "t1", FactKind.RESTORED), seconds=1),
        statement(1, 3, fact(2, "t1", FactKind.RESTORED), fact(3), seconds=2),
    )
    assert revoked(state) == {"t3"}
    again = statement(1, 3, fact(2, "t3", FactKind.RESTORED), fact(3), seconds=3)
    state.apply(again, now=again.as_of)
    assert revoked(state) == {"t3"}


def test_a_replay_makes_nothing_fresher() -> None:
    """The same statement again changes neither facts nor age."""
    first = statement(0, 1, fact(1))
    state = state_of(first, first)
    assert (revoked(state), state.as_of) == ({"t1"}, NOW)
    later = NOW + timedelta(seconds=40)
    state.apply(first, now=later)
    with pytest.raises(Stale):
        state.check([], now=later, max_age=MAX_AGE)


@pytest.mark.parametrize(
    "late",
    [
        statement(0, 1),
        statement(0, 5, seconds=-1),
        statement(5, 5, seconds=-1),
        statement(0, 4, seconds=1),
        statement(4, 4, seconds=1),
        statement(0, 0, seconds=1),
    ],
)
def test_nothing_goes_back(late: Statement) -> None:
    """An older statement, or one that knows less, changes nothing, snapshot or not."""
    state = state_of(statement(0, 5, fact(1), fact(5)))
    with pytest.raises(InvalidRevocation):
        state.apply(late, now=NOW + timedelta(seconds=2))
    assert (revoked(state), state.through, state.as_of) == ({"t1", "t5"}, 5, NOW)


def test_reordered_statements_are_refused() -> None:
    """The second before the first is a gap; the first after the second is too old."""
    first, second = statement(1, 2, fact(2), seconds=1), statement(2, 3, fact(3), seconds=2)
    state = state_of(statement(0, 1, fact(1)))
    with pytest.raises(Gap):
        state.apply(second, now=second.as_of)
    state.apply(first, now=first.as_of)
    state.apply(second, now=second.as_of)
    with pytest.raises(InvalidRevocation, match="older"):
        state.apply(first, now=second.as_of)
    assert revoked(state) == {"t1", "t2", "t3"}


@pytest.mark.parametrize(
    ("known", "after", "through", "words", "gap"),
    [
        ("a", 2, 2, ("a", "a"), False),
        ("a", 2, 3, ("a", "b"), False),
        ("a", 1, 2, ("c", "a"), False),
        ("a", 1, 3, ("c", "b"), False),
        ("a", 2, 3, ("b", "b"), True),
        ("a", 2, 2, ("b", "b"), True),
        ("a", 1, 2, ("c", "b"), True),
        ("a", 0, 2, (None, "b"), False),
        ("a", 2, 3, (None, "b"), True),
        ("a", 2, 2, (None, None), True),
        (None, 2, 3, ("b", "b"), False),
    ],
)
def test_another_history_is_a_gap(
    known: str | None, after: int, through: int, words: tuple[str | None, str | None], gap: bool
) -> None:
    """Where both say which fact a number means, and differ; a snapshot replaces what is known."""
    state = state_of(replace(statement(0, 2, fact(1), fact(2)), newest=known))
    facts = [fact(n, f"t{n + 3}") for n in range(after + 1, through + 1)]
    told = replace(
        statement(after, through, *facts, seconds=1), continues=words[0], newest=words[1]
    )
    if not gap:
        state.apply(told, now=told.as_of)
        assert state.as_of == told.as_of
        return
    with pytest.raises(Gap, match="fact 2 is another"):
        state.apply(told, now=told.as_of)
    assert (revoked(state), state.through, state.as_of) == ({"t1", "t2"}, 2, NOW)
    everything = replace(statement(0, 3, fact(3), seconds=2), newest="c")
    state.apply(everything, now=everything.as_of)
    assert revoked(state) == {"t3"}


@pytest.mark.parametrize("name", ["continues", "newest"])
@pytest.mark.parametrize("value", ["", 1, True, ["a"], {}])
def test_a_word_is_a_text(
    name: str, value: object, authority: Authority, changed: Callable[..., str]
) -> None:
    """A statement that names a fact by anything else is refused."""
    revocation_feed.verify(changed(**{name: "a"}), bundle=authority.bundle)
    with pytest.raises(InvalidToken):
        revocation_feed.verify(changed(**{name: value}), bundle=authority.bundle)


@pytest.mark.parametrize(("seconds", "accepted"), [(60, True), (60.5, False), (1e6, False)])
def test_a_statement_from_the_future_is_refused(seconds: float, accepted: bool) -> None:
    """A minute is a clock; more would keep old knowledge fresh."""
    state = state_of(statement(0, 0))
    ahead = statement(0, 1, fact(1), seconds=seconds)
    if accepted:
        state.apply(ahead, now=NOW)
    else:
        with pytest.raises(InvalidRevocation, match="future"):
            state.apply(ahead, now=NOW)
        assert state.as_of == NOW


@pytest.mark.parametrize(("seconds", "accepted"), [(0, True), (30, True), (30.5, False)])
def test_knowledge_grows_stale(seconds: float, accepted: bool) -> None:
    """Older than the stated limit, it refuses everything, revoked or not."""
    state = state_of(statement(0, 1, fact(1)))
    now = NOW + timedelta(seconds=seconds)
    if accepted:
        state.check(["task:t2"], now=now, max_age=MAX_AGE)
        with pytest.raises(Revoked):
            state.check(["task:t1"], now=now, max_age=MAX_AGE)
    else:
        for mark in ("task:t1", "task:t2"):
            with pytest.raises(Stale, match="30"):
                state.check([mark], now=now, max_age=MAX_AGE)


def test_a_heartbeat_makes_knowledge_fresh() -> None:
    """A statement without facts is enough."""
    state = state_of(statement(0, 1, fact(1)), statement(1, 1, seconds=40))
    assert revoked(state, seconds=60) == {"t1"}


def test_a_snapshot_replaces_what_is_known() -> None:
    """Facts that are no longer in force at the issuer are gone."""
    state = state_of(
        statement(0, 3, fact(1, kind=FactKind.SUSPENDED), fact(2), fact(3)),
        statement(0, 4, fact(2), fact(4), seconds=1),
    )
    assert revoked(state) == {"t2", "t4"}


@pytest.mark.parametrize("kind", [FactKind.SUSPENDED, FactKind.RESTORED])
def test_a_revocation_is_never_weakened(kind: FactKind) -> None:
    """Later facts about the same target leave it revoked."""
    state = state_of(statement(0, 1, fact(1)), statement(1, 2, fact(2, "t1", kind), seconds=1))
    with pytest.raises(Revoked, match="is revoked"):
        state.check(["task:t1"], now=NOW, max_age=MAX_AGE)


def test_a_restoration_ends_a_suspension() -> None:
    """Suspended, restored, suspended again."""
    suspended, restored = FactKind.SUSPENDED, FactKind.RESTORED
    state = state_of(statement(0, 1, fact(1, kind=suspended)))
    assert revoked(state) == {"t1"}
    state.apply(statement(1, 2, fact(2, "t1", restored)), now=NOW)
    assert revoked(state) == set()
    state.apply(statement(2, 3, fact(3, "t1", suspended)), now=NOW)
    assert revoked(state) == {"t1"}


def test_expired_facts_take_no_room() -> None:
    """With each statement, facts that no living credential can match are forgotten."""
    state = state_of(statement(0, 2, fact(1), fact(2)))
    assert len(state) == 2
    heartbeat = statement(2, 2, seconds=3600)
    state.apply(heartbeat, now=heartbeat.as_of)
    assert len(state) == 0


def test_what_is_known_has_a_bound() -> None:
    """Too many facts are not taken in: a continuation asks for a snapshot, and that is refused."""
    state = FeedState(max_facts=2)
    state.apply(statement(0, 2, fact(1), fact(2)), now=NOW)
    state.apply(statement(2, 2, seconds=1), now=NOW + timedelta(seconds=1))
    with pytest.raises(Gap, match="more than 2"):
        state.apply(statement(2, 3, fact(3), seconds=1), now=NOW + timedelta(seconds=1))
    with pytest.raises(InvalidRevocation, match="limit is 2"):
        state.apply(statement(0, 3, fact(1), fact(2), fact(3), seconds=2), now=NOW)
    assert (len(state), state.through) == (2, 2)
    with pytest.raises(Stale):
        state.check([], now=NOW + timedelta(seconds=MAX_AGE + 2), max_age=MAX_AGE)
    state.apply(statement(0, 3, fact(2), fact(3), seconds=2), now=NOW)
    assert state.through == 3


def test_how_long_a_fact_may_hold_has_a_bound() -> None:
    """A fact to the bound is taken in; one of a second more is not, nor what is beside it."""
    state, bound = FeedState(max_life=timedelta(days=7)), NOW + timedelta(days=7)
    longest = replace(fact(1), expires_at=bound)
    state.apply(statement(0, 1, longest), now=NOW)
    assert revoked(state) == {"t1"}
    too_long = replace(fact(3), expires_at=bound + timedelta(seconds=1))
    with pytest.raises(InvalidRevocation, match=r"fact 3 holds until .* limit is 7 days"):
        state.apply(statement(1, 3, fact(2), too_long), now=NOW)
    assert (len(state), state.through) == (1, 1)
    # Our own issuer knows what its facts are about: they have no bound.
    state_of(statement(0, 3, too_long))


def test_a_fact_that_was_stated_twice_is_measured_from_its_statement() -> None:
    """What began long ago may hold on: only its end is compared, with the statement's moment."""
    state, days = FeedState(max_life=timedelta(days=7)), 24 * 3600
    old = replace(fact(1), expires_at=NOW + timedelta(days=16))
    with pytest.raises(InvalidRevocation, match="fact 1"):
        state.apply(statement(0, 1, old, seconds=8 * days), now=NOW + timedelta(days=8))
    state.apply(statement(0, 1, old, seconds=9 * days), now=NOW + timedelta(days=9))
    assert len(state) == 1


def test_a_statement_tells_which_bundle_is_in_force() -> None:
    """A verifier learns from the feed that it has to fetch the bundle again."""
    authority = Authority()
    made = replace(statement(0, 3), bundle=17)
    text = revocation_feed.sign(made, authority.jwt_key, authority.kid)
    assert revocation_feed.verify(text, bundle=authority.bundle).bundle == 17


@pytest.mark.parametrize("value", [-1, True, "17", 1.5, [17]])
def test_a_bundle_sequence_is_a_whole_number(value: object) -> None:
    """A statement that names a bundle by anything else is refused."""
    authority = Authority()
    claims = {"iss": "spiffe://example.org", "iat": int(NOW.timestamp()), "after": 0, "through": 0}
    text = forge(
        {"kid": authority.kid, "typ": revocation_feed.TYPE, "alg": "ES256"},
        {**claims, "facts": [], "bundle": value},
        authority.jwt_key,
    )
    with pytest.raises(InvalidRevocation):
        revocation_feed.verify(text, bundle=authority.bundle)


# --- a snapshot in pages ------------------------------------------------------------------------


def page(after: int, through: int, *facts: RevocationFact, seconds: float = 0) -> Statement:
    """A statement that another follows."""
    return replace(statement(after, through, *facts, seconds=seconds), more=True)


def test_a_page_says_that_more_follow(authority: Authority) -> None:
    """The claim is there for a page, and for nothing else."""
    for made in (page(0, 7, fact(4)), statement(0, 7, fact(4))):
        text = revocation_feed.sign(made, authority.jwt_key, authority.kid)
        assert ("more" in claims_in(text)) is made.more
        assert revocation_feed.verify(text, bundle=authority.bundle) == made


@pytest.mark.parametrize("changes", [{"more": 1}, {"more": "true"}, {"more": []},
                                     {"more": True, "through": 3, "facts": []}])  # fmt: skip
def test_a_page_that_is_none_is_refused(
    changes: dict[str, Any], authority: Authority, changed: Callable[..., str]
) -> None:
    """More is a word of truth, and a page that tells nothing could go on for ever."""
    revocation_feed.verify(changed(more=True), bundle=authority.bundle)
    with pytest.raises(InvalidRevocation, match="more"):
        revocation_feed.verify(changed(**changes), bundle=authority.bundle)


def test_nothing_is_known_before_the_last_page() -> None:
    """A new verifier accepts nothing by half a snapshot, and everything is known with the whole."""
    state = FeedState()
    assert state.apply(page(0, 2, fact(1), fact(2)), now=NOW) == ()
    assert (state.as_of, state.through, state.next) == (None, 0, 2)
    with pytest.raises(Stale):
        state.check(["task:t9"], now=NOW, max_age=MAX_AGE)
    told = state.apply(statement(2, 5, fact(5), seconds=1), now=NOW)
    assert [each.sequence for each in told] == [1, 2, 5]
    assert revoked(state, seconds=1) == {"t1", "t2", "t5"}
    assert (state.through, state.next, state.as_of) == (5, 5, NOW + timedelta(seconds=1))


def test_pages_make_nothing_fresher() -> None:
    """Who knows something and is cut off in the middle of the pages grows stale by its own age."""
    state = state_of(statement(0, 1, fact(1)))
    state.apply(page(0, 2, fact(2), seconds=20), now=NOW + timedelta(seconds=20))
    state.apply(page(2, 4, fact(4), seconds=29), now=NOW + timedelta(seconds=29))
    assert revoked(state, seconds=30) == {"t1"}
    with pytest.raises(Stale):
        state.check([], now=NOW + timedelta(seconds=31), max_age=MAX_AGE)


def test_a_page_of_what_follows_is_known_at_once_and_no_fresher() -> None:
    """Facts that continue what is known are applied as they come."""
    state = state_of(statement(0, 1, fact(1)))
    told = state.apply(page(1, 3, fact(2), seconds=20), now=NOW + timedelta(seconds=20))
    assert [each.sequence for each in told] == [2]
    assert revoked(state, seconds=20) == {"t1", "t2"}
    assert (state.as_of, state.through, state.next) == (NOW, 3, 3)


@pytest.mark.parametrize(
    ("following", "error"),
    [
        (statement(4, 9, fact(9), seconds=1), Gap),
        (statement(3, 9, fact(9), seconds=-1), InvalidRevocation),
        (statement(3, 9, fact(9), seconds=90), InvalidRevocation),
        (statement(3, 4, fact(4), seconds=1), InvalidRevocation),
    ],
    ids=["a page is missing", "an older page", "from the future", "the last knows less than we"],
)
def test_pages_that_do_not_fit_change_nothing(following: Statement, error: type[Exception]) -> None:
    """Left out, replayed, of another clock, of another past: what was known stays, and its age."""
    state = state_of(statement(0, 5, fact(1), fact(5)))
    state.apply(page(0, 3, fact(2), fact(3)), now=NOW)
    with pytest.raises(error):
        state.apply(following, now=NOW)
    assert (revoked(state), state.through, state.as_of) == ({"t1", "t5"}, 5, NOW)


def test_a_snapshot_in_pages_may_begin_anew() -> None:
    """After a gap the first page comes again, and what came of the former try is not mixed in."""
    state = state_of(statement(0, 1, fact(1)))
    state.apply(page(0, 3, fact(2)), now=NOW)
    state.apply(page(0, 4, fact(3)), now=NOW)
    state.apply(statement(4, 6, fact(6)), now=NOW)
    assert revoked(state) == {"t3", "t6"}


def test_a_bound_counts_all_pages() -> None:
    """Facts do not become fewer by coming one page after the other."""
    state = FeedState(max_facts=3)
    state.apply(page(0, 2, fact(1), fact(2)), now=NOW)
    with pytest.raises(Gap, match="more than 3"):
        state.apply(statement(2, 4, fact(3), fact(4)), now=NOW)
    assert (len(state), state.as_of, state.next) == (0, None, 0)
