"""Streams of security events: who is told of facts, and how far each one is.

A stream is a row with the number of the newest fact up to which its receiver accepted everything.
Its events are made of the facts after it, whenever they are asked for: nothing is copied, and what
is durable is the fact (docs/adr/0022-streams-remember-how-far-they-are.md). Facts that expired are
not told; who is new, or was away for longer, is told those that are left.

Kept in memory, and gone with the process: what was accepted ahead of an earlier event, a
verification that was asked for, and what went wrong last.
"""

import re
import threading
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import islice
from typing import Any

import structlog
from sqlalchemy import Row, delete, func, insert, select, update

from accredit_credentials import jws, security_event
from accredit_credentials.errors import CredentialError
from accredit_credentials.federation import check_https_url
from accredit_credentials.revocation import RevocationFact
from accredit_credentials.security_event import InitiatingEntity, SecurityEvent
from accredit_credentials.spiffe_id import SpiffeId, check_name
from accredit_issuer.audit.records import Record, RecordKind
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.clock import Clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.changes import Actor, Changes
from accredit_issuer.revocation.feed import Feed
from accredit_issuer.settings import Config
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import facts, streams
from accredit_issuer.store.writer import Transaction, Writer

BEHIND = timedelta(minutes=1)  # that the oldest event may wait
MAX_STREAMS = 64
MAX_AUDIENCE_LENGTH = 512
MAX_STATE_LENGTH = 1024  # of a verification

_AUDIENCE = re.compile(r"[!-~]+")  # it ends in tables and logs
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_log = structlog.get_logger("accredit.signals")


class Method(Enum):
    """How a receiver gets its events; the value is its name in the framework."""

    PUSH = "urn:ietf:rfc:8935"
    POLL = "urn:ietf:rfc:8936"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAsked:
    """A stream that somebody wants: pushed to an endpoint, or polled by a receiver."""

    name: str
    audience: str
    endpoint_url: str | None = None
    receiver: SpiffeId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream, and how far it is.

    Attributes:
        id: in every ``jti`` that is sent on it.
        name: what admins call it.
        audience: whom its events are for.
        endpoint_url: where they are pushed to; None where they are polled.
        receiver: the SPIFFE ID that may poll; None where they are pushed.
        through: the newest fact up to which everything was accepted.
        accepted_at: when something last was.
    """

    id: str
    name: str
    audience: str
    endpoint_url: str | None
    receiver: str | None
    created_at: datetime
    created_by: str
    through: int
    accepted_at: datetime | None

    @property
    def method(self) -> Method:
        """How its events are delivered."""
        return Method.POLL if self.endpoint_url is None else Method.PUSH


@dataclass(frozen=True, slots=True)
class Standing:
    """A stream, what waits for its receiver, since when, and what went wrong last."""

    stream: Stream
    waiting: int
    oldest: datetime | None
    failure: str | None

    def behind(self, now: datetime) -> bool:
        """Whether something waits for longer than a receiver that works takes."""
        if self.oldest is None:
            return False
        return now - max(self.oldest, self.stream.created_at) > BEHIND


class Streams:
    """The streams of one issuer.

    ``at_most`` tells a moment that has certainly come, also by a clock that is ahead.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        changes: Changes,
        writer: Writer,
        *,
        feed: Feed,
        authorities: Authorities,
        clock: Clock,
        at_most: Clock,
    ) -> None:
        self._config = config
        self._database = database
        self._changes = changes
        self._writer = writer
        self._feed = feed
        self._authorities = authorities
        self._clock = clock
        self._at_most = at_most
        self._lock = threading.Lock()
        self._ahead: dict[str, set[int]] = {}
        self._verifications: dict[str, SecurityEvent] = {}
        self._failures: dict[str, str] = {}
        self._heeding: list[Callable[[], None]] = []
        feed.heed(self._tell)

    def heed(self, call: Callable[[], None]) -> None:
        """Call this, on any thread, whenever there may be something new to send."""
        self._heeding.append(call)

    # Streams.

    def all(self) -> tuple[Stream, ...]:
        """Every stream, by name."""
        with self._database.read() as connection:
            return tuple(map(_stream, connection.execute(select(streams).order_by(streams.c.name))))

    def one(self, stream_id: str) -> Stream | None:
        """The stream with this id."""
        with self._database.read() as connection:
            row = connection.execute(select(streams).where(streams.c.id == stream_id)).first()
        return None if row is None else _stream(row)

    def of_receiver(self, stream_id: str, spiffe_id: str) -> Stream:
        """The stream that this SPIFFE ID polls.

        Raises:
            Refusal: there is none for it, whatever there is for others.
        """
        stream = self.one(stream_id)
        if stream is None or stream.receiver != spiffe_id:
            raise Refusal(Kind.NOT_FOUND, "no stream with this id is yours to poll")
        return stream

    def standing(self, stream: Stream) -> Standing:
        """How a stream stands."""
        waiting = list(self._waiting(stream))
        return Standing(
            stream,
            len(waiting),
            waiting[0].at if waiting else None,
            self._failures.get(stream.id),
        )

    def add(self, asked: StreamAsked, *, by: Actor, now: datetime) -> Stream:
        """Begin a stream. Saying the same again is no error, and changes nothing.

        Raises:
            Refusal: wrong values, too many streams, or one of this name with other values.
            Unavailable: it could not be recorded.
        """
        self._check(asked)
        stream_id = uuid.uuid4().hex
        values = {
            "audience": asked.audience,
            "endpoint_url": asked.endpoint_url,
            "receiver": None if asked.receiver is None else str(asked.receiver),
        }

        def work(transaction: Transaction) -> Stream:
            known = transaction.execute(select(streams).where(streams.c.name == asked.name)).first()
            if known is not None:
                if all(getattr(known, name) == value for name, value in values.items()):
                    return _stream(known)
                raise Refusal(
                    Kind.CONFLICT,
                    f"the stream {asked.name} exists with other values: remove it first",
                )
            number = transaction.execute(select(func.count()).select_from(streams)).scalar_one()
            if number >= MAX_STREAMS:
                raise Refusal(Kind.CONFLICT, f"there are {MAX_STREAMS} streams already")
            index = _record(
                transaction,
                RecordKind.STREAM_ADDED,
                asked.name,
                {"id": stream_id, **values},
                by=by,
                now=now,
            )
            transaction.execute(
                insert(streams).values(
                    id=stream_id,
                    name=asked.name,
                    created_at=now,
                    created_by=by.name,
                    log_index=index,
                    through=0,
                    **values,
                )
            )
            transaction.after_commit(self._tell)
            row = transaction.execute(select(streams).where(streams.c.id == stream_id)).one()
            return _stream(row)

        return self._changes.make(work, by=by)

    def remove(self, name: str, *, by: Actor, now: datetime) -> None:
        """End a stream; what waits for its receiver is not sent any more.

        Raises:
            Refusal: there is none of this name.
            Unavailable: it could not be recorded.
        """

        def work(transaction: Transaction) -> None:
            row = transaction.execute(select(streams).where(streams.c.name == name)).first()
            if row is None:
                raise Refusal(Kind.NOT_FOUND, f"no stream is called {name[:63]}")
            _record(transaction, RecordKind.STREAM_REMOVED, name, {"id": row.id}, by=by, now=now)
            transaction.execute(delete(streams).where(streams.c.id == row.id))

            def forget() -> None:
                with self._lock:
                    for kept in (self._ahead, self._verifications, self._failures):
                        kept.pop(row.id, None)
                self._tell()

            transaction.after_commit(forget)

        self._changes.make(work, by=by)

    # What is sent.

    def due(self, stream: Stream, limit: int) -> tuple[tuple[SecurityEvent, ...], bool]:
        """The next events, oldest first, and whether there are more.

        A verification that was asked for comes before everything else.
        """
        with self._lock:
            verification = self._verifications.get(stream.id)
            ahead = frozenset(self._ahead.get(stream.id, ()))
        first = () if verification is None or not limit else (verification,)
        room = max(0, limit - len(first))
        waiting = (each for each in self._waiting(stream) if each.sequence not in ahead)
        told = list(islice(waiting, room + 1))
        return (*first, *self._events(stream, told[:room])), len(told) > room

    def signed(self, event: SecurityEvent) -> str:
        """The SET of an event, by the key that signs now.

        Raises:
            Unavailable: there is none.
        """
        key, kid = self._authorities.jwt_signer()
        return security_event.sign(event, key, kid)

    def verify_by(self, name: str, *, by: Actor) -> Stream:
        """As ``verify``, for an admin who still may.

        Raises:
            Refusal: there is no stream of this name, or the admin was taken back meanwhile.
            Unavailable: nothing can be written now.
        """

        def work(transaction: Transaction) -> Stream:
            row = transaction.execute(select(streams).where(streams.c.name == name)).first()
            if row is None:
                raise Refusal(Kind.NOT_FOUND, f"no stream is called {name[:63]}")
            stream = _stream(row)
            transaction.after_commit(lambda: self.verify(stream))
            return stream

        return self._changes.make(work, by=by)

    def verify(self, stream: Stream, *, state: str | None = None) -> None:
        """Have an event sent that shows that the stream works; a newer one replaces it."""
        with self._lock:
            self._verifications[stream.id] = security_event.verification(
                issuer=self._config.token_issuer,
                audience=stream.audience,
                jti=f"{stream.id}.{uuid.uuid4().hex}",
                stream=stream.id,
                issued_at=jws.epoch(self._clock()),
                state=state,
            )
        self._tell()

    def verifying(self, stream_id: str) -> str | None:
        """The ``jti`` of the verification that was asked for and is not accepted yet."""
        with self._lock:
            asked = self._verifications.get(stream_id)
        return None if asked is None else asked.jti

    def accept(self, stream: Stream, jtis: Iterable[str]) -> Future[None] | None:
        """The receiver has these events; the future answers once that is durable.

        What the stream never sent is passed over. None where there is nothing to write.
        """
        accepted = frozenset(jtis)
        known = self.one(stream.id)
        if known is None:
            return None
        waiting = self._waiting(known)
        numbers = _numbers(known, accepted)
        with self._lock:
            verification = self._verifications.get(known.id)
            verified = verification is not None and verification.jti in accepted
            if verified:
                del self._verifications[known.id]
            ahead = self._ahead.setdefault(known.id, set())
            ahead |= {number for number in numbers if known.through < number <= self._feed.through}
            through = known.through
            for each in waiting:
                if each.sequence not in ahead:
                    break
                through = each.sequence
            self._failures.pop(known.id, None)
        if through == known.through and not verified:
            return None
        return self._writer.run(lambda t: self._move(t, known.id, through))

    def failed(self, stream: Stream, reason: str) -> None:
        """Something went wrong with a stream; the text is ours, and holds nothing of the answer."""
        with self._lock:
            self._failures[stream.id] = reason

    def refused(self, stream: Stream, event: SecurityEvent, reason: str) -> Future[None] | None:
        """The receiver does not take an event: it is told, and not sent again."""
        _log.error("security event refused", stream=stream.name, jti=event.jti, reason=reason)
        done = self.accept(stream, [event.jti])
        self.failed(stream, reason)
        return done

    def _move(self, transaction: Transaction, stream_id: str, through: int) -> None:
        values: dict[str, Any] = {"accepted_at": self._clock()}
        transaction.execute(
            update(streams)
            .where(streams.c.id == stream_id, streams.c.through <= through)
            .values(through=through, **values)
        )

        def pass_on() -> None:
            with self._lock:
                ahead = self._ahead.get(stream_id, set())
                ahead -= {each for each in ahead if each <= through}

        transaction.after_commit(pass_on)

    def _waiting(self, stream: Stream) -> Iterator[RevocationFact]:
        """The facts after those that were accepted, but for the expired; one after the other."""
        known = self._feed.facts
        now = self._at_most()  # what is passed over once is never told
        start = bisect_right(known, stream.through, key=lambda fact: fact.sequence)
        return (known[at] for at in range(start, len(known)) if known[at].expires_at > now)

    def _events(self, stream: Stream, told: Sequence[RevocationFact]) -> list[SecurityEvent]:
        query = select(facts.c.sequence, facts.c.actor).where(
            facts.c.sequence.in_([fact.sequence for fact in told])
        )
        with self._database.read() as connection:
            actors = {row.sequence: row.actor for row in connection.execute(query)}
        return [
            security_event.of_fact(
                fact,
                self._initiating(actors.get(fact.sequence, "")),
                trust_domain=self._config.trust_domain,
                issuer=self._config.token_issuer,
                audience=stream.audience,
                jti=_jti(stream, fact),
            )
            for fact in told
        ]

    def _initiating(self, actor: str) -> InitiatingEntity:
        is_admin = actor.startswith(f"{self._config.trust_domain.id}/admin/")
        return InitiatingEntity.ADMIN if is_admin else InitiatingEntity.SYSTEM

    def _check(self, asked: StreamAsked) -> None:
        try:
            check_name(asked.name, "stream's name")
            if asked.endpoint_url is not None:
                check_https_url(asked.endpoint_url, "endpoint_url")
        except CredentialError as error:
            raise Refusal(Kind.MALFORMED, str(error)) from None
        if not _AUDIENCE.fullmatch(asked.audience) or len(asked.audience) > MAX_AUDIENCE_LENGTH:
            raise Refusal(
                Kind.MALFORMED,
                f"audience must be 1 to {MAX_AUDIENCE_LENGTH} printable characters without spaces",
            )
        if (asked.endpoint_url is None) == (asked.receiver is None):
            raise Refusal(Kind.MALFORMED, "a stream has either an endpoint_url or a receiver")
        if asked.endpoint_url is not None and "?" in asked.endpoint_url:
            # What stands there is often a secret, and the address ends in log and listings.
            raise Refusal(Kind.MALFORMED, "endpoint_url must not have a query")
        receiver = asked.receiver
        if receiver is not None and (
            receiver.trust_domain != self._config.trust_domain or not receiver.path
        ):
            raise Refusal(
                Kind.MALFORMED, f"receiver must be a SPIFFE ID of {self._config.trust_domain}"
            )

    def _tell(self) -> None:
        for call in self._heeding:
            call()


def _jti(stream: Stream, fact: RevocationFact) -> str:
    return f"{stream.id}.{fact.sequence}"


def _numbers(stream: Stream, jtis: Iterable[str]) -> Iterator[int]:
    """The facts that these are events of, as far as they can be."""
    for jti in jtis:
        prefix, _, number = jti.partition(".")
        if prefix == stream.id and _NUMBER.fullmatch(number):
            yield int(number)


def _record(
    transaction: Transaction,
    kind: RecordKind,
    name: str,
    details: dict[str, Any],
    *,
    by: Actor,
    now: datetime,
) -> int:
    return transaction.record(
        Record(kind=kind, at=now, actor=by.name, subject=name, details=details)
    )


def _stream(row: Row[Any]) -> Stream:
    return Stream(
        id=row.id,
        name=row.name,
        audience=row.audience,
        endpoint_url=row.endpoint_url,
        receiver=row.receiver,
        created_at=row.created_at,
        created_by=row.created_by,
        through=row.through,
        accepted_at=row.accepted_at,
    )
