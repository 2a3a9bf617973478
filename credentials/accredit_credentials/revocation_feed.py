"""The revocation feed: signed statements of facts, and what a verifier knows from them.

A statement says: "of the facts after ``after``, those still in force up to ``through`` are these,
as of ``as_of``". A statement without facts is the heartbeat. What is too much for one statement
comes in pages: all but the last say that there are more, and only the last makes knowledge fresh.
``FeedState.apply`` decides whether a statement continues what is known; ``FeedState.check`` decides
whether a credential may be accepted, and refuses when the knowledge is too old (fail closed).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from accredit_credentials import jws
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import InvalidRevocation, Stale, Untrusted
from accredit_credentials.keys import PrivateKey
from accredit_credentials.packed_facts import PackedFacts
from accredit_credentials.revocation import RevocationFact, TargetKind, is_sequence
from accredit_credentials.spiffe_id import TrustDomain

TYPE = "accredit-revocations+jwt"
TYPES: frozenset[str | None] = frozenset({TYPE})
CLOCK_LEEWAY = 60.0  # seconds that the issuer's clock may be ahead of the verifier's


class Gap(InvalidRevocation):
    """The statement does not continue what is known; ask for everything again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One signed statement of the feed.

    Attributes:
        trust_domain: whose facts these are.
        after: the sequence number that the statement continues; 0 for a snapshot.
        through: the newest sequence number at the time.
        as_of: the moment it was made.
        facts: the facts between ``after`` and ``through`` that are still in force, in order.
        more: whether there are facts after ``through``: it is a page, and another follows.
        bundle: the sequence number of the trust bundle at that moment: who knows an older one
            fetches it again; None where the statement does not say.
        continues: which fact ``after`` is, in a word that means nothing else; None in a snapshot.
        newest: the same of ``through``. Numbers are given again once an old backup was restored.
    """

    trust_domain: TrustDomain
    after: int
    through: int
    as_of: datetime
    facts: tuple[RevocationFact, ...]
    more: bool = False
    bundle: int | None = None
    continues: str | None = None
    newest: str | None = None


def sign(statement: Statement, key: PrivateKey, kid: str) -> str:
    """Sign a statement as a JWS with its own ``typ``."""
    claims: dict[str, Any] = {
        "iss": str(statement.trust_domain.id),
        "iat": jws.epoch(statement.as_of),
        "after": statement.after,
        "through": statement.through,
        "facts": [fact.to_claim() for fact in statement.facts],
    }
    if statement.more:
        claims["more"] = True
    if statement.bundle is not None:
        claims["bundle"] = statement.bundle
    words = {"continues": statement.continues, "newest": statement.newest}
    claims |= {name: word for name, word in words.items() if word is not None}
    return jws.sign(claims, key, header={"kid": kid, "typ": TYPE})


def verify(text: str, *, bundle: TrustBundle) -> Statement:
    """Decide whether the trust domain made this statement. Its age is ``FeedState``'s matter.

    Raises:
        InvalidToken, InvalidRevocation: not of the form of a statement.
        Untrusted: another trust domain, or no authority of the bundle signed it.
    """
    unverified = jws.parse(text, types=TYPES, limit=jws.MAX_STATEMENT_BYTES)
    jws.verify_with(unverified, bundle.jwt_authorities)
    claims = unverified.claims
    if jws.text_claim(claims, "iss") != str(bundle.trust_domain.id):
        raise Untrusted(f"statement must be of the trust domain {bundle.trust_domain}")
    after, through = claims.get("after"), claims.get("through")
    if not is_sequence(after) or not is_sequence(through) or after > through:
        raise InvalidRevocation("statement must have 'after' and 'through', in this order")
    bundle_sequence = claims.get("bundle")
    if bundle_sequence is not None and not is_sequence(bundle_sequence):
        raise InvalidRevocation("statement's 'bundle' must be a sequence number")
    more = claims.get("more", False)
    if not isinstance(more, bool) or (more and after == through):
        raise InvalidRevocation("statement's 'more' must be true or false, and of a page of facts")
    values = claims.get("facts")
    if not isinstance(values, list):
        raise InvalidRevocation("statement must have 'facts', an array")
    facts = tuple(map(RevocationFact.of_claim, values))
    sequences = [after, *(fact.sequence for fact in facts), through + 1]
    if any(later <= earlier for earlier, later in pairwise(sequences)):
        raise InvalidRevocation("statement's facts must stand in order between after and through")
    return Statement(
        trust_domain=bundle.trust_domain,
        after=after,
        through=through,
        as_of=jws.time_claim(claims, "iat"),
        facts=facts,
        more=more,
        bundle=bundle_sequence,
        continues=jws.optional_text_claim(claims, "continues"),
        newest=jws.optional_text_claim(claims, "newest"),
    )


class _Coming:
    """A snapshot of which not all pages are there yet; nothing is decided by it."""

    def __init__(self) -> None:
        self.facts = PackedFacts()
        self.through = 0
        self.as_of: datetime | None = None
        self.told: list[RevocationFact] = []


class FeedState:
    """What a verifier knows of revocation, and as of when.

    One thread applies statements; any number of threads check.

    Args:
        max_facts: how many may be in force at once; None is any number. Beyond it no statement is
            taken in, and what is known grows stale.
        max_life: how long after its statement a fact may hold; None is any time. A statement with
            one that holds for longer is not taken in: a fact that ended before its time would bring
            back what it took.
    """

    def __init__(self, *, max_facts: int | None = None, max_life: timedelta | None = None) -> None:
        self._max_facts = max_facts
        self._max_life = max_life
        self._facts = PackedFacts()
        self._through = 0
        self._newest: str | None = None
        self._as_of: datetime | None = None
        self._authorities: frozenset[str] = frozenset()
        self._coming: _Coming | None = None

    @property
    def authorities(self) -> frozenset[str]:
        """The marks of authorities that facts are about; the same object while none changes."""
        return self._authorities

    @property
    def through(self) -> int:
        """The newest sequence number that is known."""
        return self._through

    @property
    def as_of(self) -> datetime | None:
        """The moment of the newest statement that told all; None before the first."""
        return self._as_of

    @property
    def next(self) -> int:
        """What to ask for: the facts after this one."""
        if self._coming is not None:
            return self._coming.through
        return 0 if self._as_of is None else self._through

    def __len__(self) -> int:
        return len(self._facts)

    def apply(self, statement: Statement, *, now: datetime) -> tuple[RevocationFact, ...]:
        """Take in a verified statement; returns the facts in it that are decided by from now on.

        A snapshot replaces what is known, once its last page is there; any other statement
        continues it. Of a page that others follow the facts are known, and no fresher.

        Raises:
            Gap: facts between what is known and the statement are missing, it continues another
                history, or the facts would be too many with what is known: a snapshot may have
                fewer.
            InvalidRevocation: older than what is known, from the future, of too many facts, or of
                one that holds for too long.
        """
        self._check_moment(statement, now)
        self._check_lives(statement)
        coming = self._coming
        self._coming = None  # whatever is wrong with the next page, the snapshot begins anew
        if statement.after == 0:
            coming = _Coming()
        elif coming is not None and statement.after > coming.through:
            raise Gap(f"statement continues fact {statement.after}, known is {coming.through}")
        if coming is None:
            return self._continue(statement, now)
        self._check_number(statement, 0 if statement.after == 0 else len(coming.facts))
        for fact in statement.facts:
            if fact.sequence > coming.through:
                coming.facts.apply(fact)
                if fact.sequence > self._through:
                    coming.told.append(fact)
        coming.through, coming.as_of = statement.through, statement.as_of
        if statement.more:
            self._coming = coming
            return ()
        self._check_not_back(statement)
        self._facts = coming.facts
        self._learn(statement, now, authorities=True)
        return tuple(coming.told)

    def _continue(self, statement: Statement, now: datetime) -> tuple[RevocationFact, ...]:
        """Take in what follows upon what is known."""
        self._check_not_back(statement)
        self._check_number(statement, len(self._facts))
        if self._as_of is None or statement.after > self._through:
            raise Gap(f"statement continues fact {statement.after}, known is {self._through}")
        if self._is_fork(statement):
            raise Gap(f"statement's fact {self._through} is another than the one that is known")
        new = tuple(fact for fact in statement.facts if fact.sequence > self._through)
        for fact in new:
            self._facts.apply(fact)
        told = any(fact.target.kind is TargetKind.AUTHORITY for fact in new)
        self._learn(statement, now, authorities=told)
        return new

    def _learn(self, statement: Statement, now: datetime, *, authorities: bool) -> None:
        """All that the statement tells is applied; ``authorities`` may have come or gone by it."""
        # All facts are looked at only where one about an authority may have come or gone.
        if self._facts.drop_expired(now) or authorities:
            marks = self._facts.marks_of(TargetKind.AUTHORITY)
            if marks != self._authorities:
                self._authorities = marks
        self._through = statement.through
        self._newest = statement.newest
        if not statement.more:
            self._as_of = statement.as_of

    def about(self, marks: Iterable[str]) -> tuple[RevocationFact, ...]:
        """The facts in force about a credential with these marks, in their order."""
        marks = frozenset(marks)
        return tuple(fact for fact in self._facts if str(fact.target) in marks)

    def _check_moment(self, statement: Statement, now: datetime) -> None:
        if (statement.as_of - now).total_seconds() > CLOCK_LEEWAY:
            raise InvalidRevocation("statement comes from the future: compare the clocks")
        newest = self._as_of if self._coming is None else self._coming.as_of
        if newest is not None and statement.as_of < newest:
            raise InvalidRevocation("statement is older than what is known")

    def _check_not_back(self, statement: Statement) -> None:
        if statement.through < self._through:
            raise InvalidRevocation(
                f"statement goes back: it knows {statement.through} facts, "
                f"{self._through} are known"
            )

    def _is_fork(self, statement: Statement) -> bool:
        """Whether the newest fact that is known is another there; who cannot tell any more, too."""
        theirs = {statement.after: statement.continues, statement.through: statement.newest}
        said = theirs.get(self._through, self._newest)
        return self._newest is not None and said != self._newest

    def _check_number(self, statement: Statement, known: int) -> None:
        if self._max_facts is None:
            return
        told = len(statement.facts)
        if told > self._max_facts:
            raise InvalidRevocation(f"statement has {told} facts, the limit is {self._max_facts}")
        if told + known > self._max_facts:
            raise Gap(f"more than {self._max_facts} facts would be known")

    def _check_lives(self, statement: Statement) -> None:
        if self._max_life is None:
            return
        # From the statement on: a fact that was stated twice holds from the first to the second's
        # end.
        for fact in statement.facts:
            if fact.expires_at - statement.as_of > self._max_life:
                raise InvalidRevocation(
                    f"fact {fact.sequence} holds until {fact.expires_at:%Y-%m-%dT%H:%M:%SZ}, the "
                    f"limit is {self._max_life.days} days after its statement"
                )

    def check(self, marks: Iterable[str], *, now: datetime, max_age: float) -> None:
        """Decide whether a credential with these marks may be accepted.

        Raises:
            Stale: the newest statement is older than ``max_age`` seconds, or there is none.
            Revoked: a fact matches.
        """
        if self._as_of is None:
            raise Stale("nothing is known of revocation yet")
        age = (now - self._as_of).total_seconds()
        if age > max_age:
            raise Stale(
                f"what is known of revocation is {age:.0f} seconds old, the limit is {max_age:.0f}"
            )
        self._facts.check(marks)

    def check_known(self, marks: Iterable[str]) -> None:
        """Decide by what is known, however old it is: for who would tell of newer facts.

        Raises:
            Revoked: a fact matches.
        """
        self._facts.check(marks)
