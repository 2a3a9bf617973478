"""Revocation facts, and whether one of them matches a credential.

A fact says "from this moment, nothing matching this target is valid". ``FactSet`` decides by set
look-ups on what a credential carries (its ``marks``): the cost does not grow with the number of
credentials or facts. Targets that credentials do not carry (signer, owner, the node that an
instance runs on) are expanded by the issuer into targets that they do, before they come here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self, TypeGuard

from accredit_credentials import jws
from accredit_credentials.errors import InvalidRevocation, InvalidToken, Revoked

MAX_VALUE_LENGTH = 512
MAX_REASON_LENGTH = 500
MAX_SEQUENCE = 2**53 - 1  # what every reader of JSON understands: RFC 7493, 2.2


class TargetKind(StrEnum):
    """What a fact can be about."""

    NAMESPACE = "namespace"
    AGENT = "agent"
    MANIFEST = "manifest"
    INSTANCE = "instance"
    TASK = "task"
    SERIAL = "serial"
    JTI = "jti"
    AUTHORITY = "authority"
    ADMIN = "admin"
    SIGNER = "signer"
    OWNER = "owner"
    NODE = "node"


# Not in any credential: the issuer expands a fact about one of these. A node's own SVID carries the
# node; what runs there does not, so that the issuer expands a fact about it as well.
EXPANDED = frozenset({TargetKind.SIGNER, TargetKind.OWNER})


class FactKind(StrEnum):
    """What a fact says of its target."""

    REVOKED = "revoked"
    SUSPENDED = "suspended"
    RESTORED = "restored"  # ends a suspension; nothing ends a revocation


_TARGET_KINDS = frozenset(kind.value for kind in TargetKind)
_FACT_KINDS = frozenset(kind.value for kind in FactKind)


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """What a fact is about. ``str(target)`` is the mark that a credential carries."""

    kind: TargetKind
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``kind:value``.

        Raises:
            InvalidRevocation: an unknown kind, or a value that is empty, too long or unprintable.
        """
        kind, colon, value = text.partition(":")
        if not colon or kind not in _TARGET_KINDS:
            raise InvalidRevocation(
                f"target must be kind:value, with a kind of {', '.join(TargetKind)}"
            )
        if not value or len(value) > MAX_VALUE_LENGTH or not value.isprintable():
            raise InvalidRevocation(
                f"target value must be 1 to {MAX_VALUE_LENGTH} printable characters"
            )
        return cls(TargetKind(kind), value)

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationFact:
    """One statement about one target.

    Attributes:
        sequence: its place among all facts of the trust domain, from 1.
        target: what it is about.
        kind: what it says.
        at: from which moment.
        expires_at: after which no credential that it could match is alive.
        reason: why, in the words of the one who said it.
    """

    sequence: int
    target: Target
    kind: FactKind
    at: datetime
    expires_at: datetime
    reason: str

    def to_claim(self) -> dict[str, Any]:
        """The fact as it stands in a signed statement."""
        return {
            "seq": self.sequence,
            "target": str(self.target),
            "kind": self.kind.value,
            "at": jws.epoch(self.at),
            "exp": jws.epoch(self.expires_at),
            "reason": self.reason,
        }

    @classmethod
    def of_claim(cls, value: object) -> "RevocationFact":
        """Read a fact of a signed statement.

        Raises:
            InvalidRevocation: a member is missing or of another form.
        """
        if not isinstance(value, Mapping):
            raise InvalidRevocation("fact must be an object")
        sequence = value.get("seq")
        if not is_sequence(sequence) or sequence < 1:
            raise InvalidRevocation("fact must have 'seq', a number from 1 to 2^53 - 1")
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in _FACT_KINDS:
            raise InvalidRevocation(f"fact's kind must be one of {', '.join(FactKind)}")
        try:
            return cls(
                sequence=sequence,
                target=Target.parse(jws.text_claim(value, "target")),
                kind=FactKind(kind),
                at=jws.time_claim(value, "at"),
                expires_at=jws.time_claim(value, "exp"),
                reason=jws.text_claim(value, "reason"),
            )
        except InvalidToken as error:
            raise InvalidRevocation(f"fact: {error}") from None


def is_sequence(value: object) -> TypeGuard[int]:
    """Whether this is a sequence number, or 0 for none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEQUENCE


def successor(known: RevocationFact | None, fact: RevocationFact) -> RevocationFact | None:
    """What stands about a target, of which ``known`` stood, once ``fact`` is stated.

    Nothing weakens or ends a revocation, and neither fact is forgotten before its time.
    """
    if fact.kind is FactKind.RESTORED:
        return None if known is None or known.kind is FactKind.SUSPENDED else known
    if known is None:
        return fact
    strongest = known if known.kind is FactKind.REVOKED else fact
    return replace(strongest, expires_at=max(known.expires_at, fact.expires_at))


def refusal_of(fact: RevocationFact) -> str:
    """What to say to who shows a credential that this fact matches."""
    return f"{fact.target} is {fact.kind.value} since {fact.at:%Y-%m-%dT%H:%M:%SZ}: {fact.reason!r}"


class FactSet:
    """The facts in force. Applying a fact is the only way it changes.

    Reading from several threads while one applies is safe: each change is one dict operation.
    """

    def __init__(self, facts: Iterable[RevocationFact] = ()) -> None:
        self._by_mark: dict[str, RevocationFact] = {}
        for fact in facts:
            self.apply(fact)

    def apply(self, fact: RevocationFact) -> None:
        """Put one fact into force; facts come in the order of their sequence."""
        mark = str(fact.target)
        standing = successor(self._by_mark.get(mark), fact)
        if standing is not None:
            self._by_mark[mark] = standing
        else:
            self._by_mark.pop(mark, None)

    def match(self, marks: Iterable[str]) -> RevocationFact | None:
        """The fact that matches a credential with these marks, if any."""
        by_mark = self._by_mark
        for mark in marks:
            fact = by_mark.get(mark)
            if fact is not None:
                return fact
        return None

    def check(self, marks: Iterable[str]) -> None:
        """Decide whether a credential with these marks may be accepted.

        Raises:
            Revoked: a fact matches; the message says which, since when and why.
        """
        fact = self.match(marks)
        if fact is not None:
            raise Revoked(refusal_of(fact))

    def drop_expired(self, now: datetime) -> int:
        """Forget facts that no living credential can match; returns how many."""
        over = [mark for mark, fact in self._by_mark.items() if fact.expires_at <= now]
        for mark in over:
            del self._by_mark[mark]
        return len(over)

    def marks_of(self, kind: TargetKind) -> frozenset[str]:
        """The marks of this kind that facts in force are about."""
        prefix = f"{kind.value}:"
        return frozenset(mark for mark in self._by_mark if mark.startswith(prefix))

    def __iter__(self) -> Iterator[RevocationFact]:
        return iter(sorted(self._by_mark.values(), key=lambda fact: fact.sequence))

    def __len__(self) -> int:
        return len(self._by_mark)
