"""The revocation feed: signed statements of facts, and what a verifier knows from them.

A statement says: "of the facts after ``after``, those still in force up to ``through`` are these,
as of ``as_of``". A statement without facts is the heartbeat. ``FeedState.apply`` decides whether a
statement continues what is known; ``FeedState.check`` decides whether a credential may be
accepted, and refuses when the knowledge is too old (fail closed).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, TypeGuard

from accredit_credentials import jws
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.errors import InvalidRevocation, Stale, Untrusted
from accredit_credentials.keys import PrivateKey
from accredit_credentials.revocation import FactSet, RevocationFact, TargetKind
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
    if not _is_sequence(after) or not _is_sequence(through) or after > through:
        raise InvalidRevocation("statement must have 'after' and 'through', in this order")
    bundle_sequence = claims.get("bundle")
    if bundle_sequence is not None and not _is_sequence(bundle_sequence):
        raise InvalidRevocation("statement's 'bundle' must be a sequence number")
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
        bundle=bundle_sequence,
        continues=jws.optional_text_claim(claims, "continues"),
        newest=jws.optional_text_claim(claims, "newest"),
    )


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
        self._facts = FactSet()
        self._through = 0
        self._newest: str | None = None
        self._as_of: datetime | None = None
        self._authorities: frozenset[str] = frozenset()

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
        """The moment of the newest statement; None before the first."""
        return self._as_of

    def __len__(self) -> int:
        return len(self._facts)

    def apply(self, statement: Statement, *, now: datetime) -> None:
        """Take in a verified statement.

        A snapshot replaces what is known; any other continues it.

        Raises:
            Gap: facts between what is known and the statement are missing, it continues another
                history, or the facts would be too many with what is known: a snapshot may have
                fewer.
            InvalidRevocation: older than what is known, from the future, of too many facts, or of
                one that holds for too long.
        """
        self._check_order(statement, now)
        self._check_number(statement)
        self._check_lives(statement)
        if statement.after == 0:
            self._facts = FactSet(statement.facts)
        elif self._as_of is None or statement.after > self._through:
            raise Gap(f"statement continues fact {statement.after}, known is {self._through}")
        elif self._is_fork(statement):
            raise Gap(f"statement's fact {self._through} is another than the one that is known")
        else:
            for fact in statement.facts:
                if fact.sequence > self._through:
                    self._facts.apply(fact)
        dropped = self._facts.drop_expired(now)
        # All facts are looked at only where one about an authority may have come or gone.
        told = any(fact.target.kind is TargetKind.AUTHORITY for fact in statement.facts)
        if told or dropped or statement.after == 0:
            authorities = self._facts.marks_of(TargetKind.AUTHORITY)
            if authorities != self._authorities:
                self._authorities = authorities
        self._through = statement.through
        self._newest = statement.newest
        self._as_of = statement.as_of

    def about(self, marks: Iterable[str]) -> tuple[RevocationFact, ...]:
        """The facts in force about a credential with these marks, in their order."""
        marks = frozenset(marks)
        return tuple(fact for fact in self._facts if str(fact.target) in marks)

    def _check_order(self, statement: Statement, now: datetime) -> None:
        if (statement.as_of - now).total_seconds() > CLOCK_LEEWAY:
            raise InvalidRevocation("statement comes from the future: compare the clocks")
        if self._as_of is not None and statement.as_of < self._as_of:
            raise InvalidRevocation("statement is older than what is known")
        if statement.through < self._through:
            raise InvalidRevocation(
                f"statement goes back: it knows {statement.through} facts, "
                f"{self._through} are known"
            )

    def _is_fork(self, statement: Statement) -> bool:
        """Whether the facts up to what is known are others, as far as both sides can tell."""
        theirs = {statement.after: statement.continues, statement.through: statement.newest}
        said = theirs.get(self._through)
        return None not in {said, self._newest} and said != self._newest

    def _check_number(self, statement: Statement) -> None:
        if self._max_facts is None:
            return
        told = len(statement.facts)
        if told > self._max_facts:
            raise InvalidRevocation(f"statement has {told} facts, the limit is {self._max_facts}")
        if statement.after and told + len(self._facts) > self._max_facts:
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


def _is_sequence(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
