"""Token Status Lists of task tokens: where each has its index, and what it says now.

An index is taken on the way to the token's intent and stands in the credential's row: nothing else
is stored. What a list says follows from the facts in force and from the rows of the tokens that
live, whenever somebody asks after a new fact: no fact waits for a list, and after a crash there is
nothing to repair. Only what new facts are about is looked at again; the very first time, everything
that lives.

Each process fills lists of its own, under ids that nobody guesses: two never share an index, and a
list goes away once everything in it is over.
"""

import asyncio
import json
import secrets
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, Row, String, func, select, type_coerce

from accredit_credentials.revocation import FactKind, FactSet, Target
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.status_list import (
    Status,
    StatusList,
    StatusListToken,
    StatusReference,
    put,
    sign,
)
from accredit_credentials.x509_svid import identity_marks
from accredit_issuer.authority.authorities import Authorities
from accredit_issuer.clock import Clock
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.revocation.carriers import TASK_TOKEN, carry
from accredit_issuer.revocation.feed import Feed
from accredit_issuer.revocation.revocation import Revocation
from accredit_issuer.revocation.status_indexes import SIZE, Indexes
from accredit_issuer.settings import Config
from accredit_issuer.store.database import Database
from accredit_issuer.store.models import credentials, instances, manifests, tasks

_log = structlog.get_logger("accredit.status_lists")

PATH = "/v1/status-lists"
BITS = 2  # there is a suspended beside the invalid
ID_OCTETS = 8
# Targets of new facts that are looked for one by one; of more, all that lives is read once.
MANY = 256
ROWS_AT_ONCE = 1000
SLACK = timedelta(seconds=10)  # so far back a clock may be set without anybody noticing

# Columns of a row that are of the token alone; the others are of all tokens of its holder.
_OWN = 5
_KINDS = ("instance", "authority", "manifest", "node", "signer", "owner")
_VALID = StatusList.of_values({}, size=SIZE, bits=BITS)


@dataclass(frozen=True, slots=True)
class Place:
    """The index that one token has, in which list."""

    list_id: str
    index: int
    uri: str

    @property
    def reference(self) -> StatusReference:
        """As the token says it."""
        return StatusReference(self.index, self.uri)


@dataclass(frozen=True, slots=True)
class _Signed:
    as_of: datetime
    authority: str
    text: str


class StatusLists:
    """The status lists of this issuer. ``url`` is None where tokens name none."""

    def __init__(
        self,
        config: Config,
        *,
        database: Database,
        authorities: Authorities,
        revocation: Revocation,
        feed: Feed,
        clock: Clock,
        new_indexes: Callable[[], Indexes] = Indexes,
    ) -> None:
        self.url = config.status_list_url and config.status_list_url + PATH
        self.ttl = config.status_list_ttl
        self._issuer = config.token_issuer
        self._database = database
        self._authorities = authorities
        self._revocation = revocation
        self._feed = feed
        self._clock = clock
        # Taking is for the event loop, which must not wait for whoever makes a list.
        self._taking = threading.Lock()
        self._new_indexes = new_indexes
        self._indexes = new_indexes()
        self._list_id = ""
        self._ends: dict[str, datetime] = {}
        self._making = threading.Lock()
        # Strangers that wait for a list must not fill the pool in which admins' calls are answered.
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="accredit-status-lists")
        self._through: int | None = None
        self._looked_at: datetime | None = None
        self._octets: dict[str, bytearray] = {}
        self._signed: dict[str, _Signed] = {}

    def take(self, expires_at: datetime) -> Place | None:
        """An index for a token that lives until then; None where tokens name no list."""
        if self.url is None:
            return None
        with self._taking:
            if not self._list_id or not self._indexes.left:
                self._indexes = self._new_indexes()
                self._list_id = secrets.token_hex(ID_OCTETS)
            list_id = self._list_id
            self._ends[list_id] = max(expires_at, self._ends.get(list_id, expires_at))
            index = self._indexes.take()
        return Place(list_id, index, self._uri(list_id))

    async def told_uris(self) -> list[str]:
        """As ``uris``, for the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._maker, self.uris)

    async def told(self, list_id: str) -> str:
        """As ``signed``, for the event loop: at once where nothing changed."""
        at_hand = self._at_hand(list_id)
        if at_hand is not None:
            return at_hand
        return await asyncio.get_running_loop().run_in_executor(self._maker, self.signed, list_id)

    def close(self) -> None:
        """End the thread that makes lists."""
        self._maker.shutdown()

    def uris(self) -> list[str]:
        """The lists that some living token may name, in no order that would say anything.

        Raises:
            Refusal: tokens name no lists here.
        """
        self._check_offered()
        with self._making:
            self._catch_up(self._clock())
            with self._taking:
                return sorted(map(self._uri, self._ends))

    def signed(self, list_id: str) -> str:
        """A list with all facts that are in force, signed.

        Raises:
            Refusal: there is no such list, or everything in it is over.
            Unavailable: it cannot be signed.
        """
        self._check_offered()
        with self._making:
            now = self._clock()
            self._catch_up(now)
            with self._taking:
                if list_id not in self._ends:
                    raise Refusal(Kind.NOT_FOUND, "no living token names this status list")
            return self._signed_list(list_id, now)

    def _check_offered(self) -> None:
        if self.url is None:
            raise Refusal(Kind.NOT_FOUND, "this issuer has no status lists")

    def _uri(self, list_id: str) -> str:
        return f"{self.url}/{list_id}"

    def _at_hand(self, list_id: str) -> str | None:
        now, known = self._clock(), self._signed.get(list_id)
        end = self._ends.get(list_id)
        if known is None or end is None or self._through != self._feed.through:
            return None
        stands = end > now and not self._is_set_back(now)
        return known.text if stands and self._is_fresh(known, now) else None

    def _is_set_back(self, now: datetime) -> bool:
        return self._looked_at is not None and now < self._looked_at - SLACK

    def _is_fresh(self, known: _Signed, now: datetime) -> bool:
        _, kid = self._authorities.jwt_signer()
        # With what a cache may add, nobody's list is older than its ttl by then.
        fresh = timedelta(seconds=self.ttl / 2)
        return known.authority == kid and timedelta(0) <= now - known.as_of < fresh

    def _signed_list(self, list_id: str, now: datetime) -> str:
        key, kid = self._authorities.jwt_signer()
        known = self._signed.get(list_id)
        if known and self._is_fresh(known, now):
            return known.text
        octets = self._octets.get(list_id)
        token = StatusListToken(
            issuer=self._issuer,
            uri=self._uri(list_id),
            issued_at=now,
            expires_at=now + timedelta(seconds=2 * self.ttl),
            ttl=self.ttl,
            statuses=_VALID if octets is None else StatusList(BITS, bytes(octets)),
        )
        signed = _Signed(now, kid, sign(token, key, kid))
        self._signed[list_id] = signed
        return signed.text

    def _catch_up(self, now: datetime) -> None:
        """Take up lists of before, drop those that are over, and look at what new facts mean."""
        self._begin_again_if_set_back(now)
        # Asked for before the facts and the rows are: what comes meanwhile is looked at twice,
        # and what was released before one of these facts is in the rows.
        through = self._feed.through
        if self._through != through:
            facts = self._feed.facts
            with self._database.read() as connection:
                if self._through is None:
                    self._take_up(connection, now)
                    if facts:
                        self._look_at(connection.execute(_living(now)))
                else:
                    first = bisect_right(facts, self._through, key=lambda fact: fact.sequence)
                    targets = {fact.target for fact in facts[first:]}
                    self._look_again(connection, targets, now)
            self._through = through
        self._drop(now)

    def _begin_again_if_set_back(self, now: datetime) -> None:
        """By a clock that was ahead, tokens were passed over that are alive by the right one."""
        if self._is_set_back(now):
            self._through = None
            self._octets.clear()
            self._signed.clear()
        if self._looked_at is None or self._through is None or now > self._looked_at:
            self._looked_at = now

    def _take_up(self, connection: Connection, now: datetime) -> None:
        ends = func.max(credentials.c.expires_at).label("ends")
        rows = connection.execute(
            select(credentials.c.status_list, ends)
            .where(*_lives(now))
            .group_by(credentials.c.status_list)
        ).all()
        with self._taking:
            for row in rows:
                known = self._ends.get(row.status_list, row.ends)
                self._ends[row.status_list] = max(row.ends, known)

    def _look_again(self, connection: Connection, targets: set[Target], now: datetime) -> None:
        if len(targets) > MANY:
            self._look_at(connection.execute(_living(now)))
            return
        for target in targets:
            condition = carry(target.kind, [target.value], [TASK_TOKEN])
            if condition is not None:
                self._look_at(connection.execute(_living(now).where(condition)))

    def _look_at(self, rows: Iterable[Row[Any]]) -> None:
        facts = self._revocation.facts
        of_holders: dict[tuple[Any, ...], Status] = {}  # what thousands of tokens have in common
        for row in rows:
            columns: tuple[Any, ...] = tuple(row)
            list_id, index, jti, task, ancestors = columns[:_OWN]
            holder = columns[_OWN:]
            status = of_holders.get(holder)
            if status is None:
                status = of_holders[holder] = status_of(facts, _holder_marks(holder))
            if status is not Status.INVALID:
                status = _stronger(status, status_of(facts, _own_marks(jti, task, ancestors)))
            if type(index) is int and 0 <= index < SIZE:
                self._put(list_id, index, status)
            else:
                # Spoilt, which the audit finds too. It keeps nobody else's end from being told.
                _log.error("a token has no such index", jti=jti, status_list=list_id)

    def _put(self, list_id: str, index: int, status: Status) -> None:
        octets = self._octets.get(list_id)
        if octets is None:
            if status is Status.VALID:
                return
            octets = self._octets[list_id] = bytearray(_VALID.octets)
        put(octets, index, status, bits=BITS)
        self._signed.pop(list_id, None)

    def _drop(self, now: datetime) -> None:
        with self._taking:
            over = [
                list_id
                for list_id, end in self._ends.items()
                if end <= now and list_id != self._list_id
            ]
            for list_id in over:
                del self._ends[list_id]
        for list_id in over:
            self._octets.pop(list_id, None)
            self._signed.pop(list_id, None)


def status_of(facts: FactSet, marks: Iterable[str]) -> Status:
    """What the facts say of a token with these marks: the strongest of all that match."""
    status = Status.VALID
    for mark in marks:
        fact = facts.match((mark,))
        if fact is not None:
            if fact.kind is FactKind.REVOKED:
                return Status.INVALID
            status = Status.SUSPENDED
    return status


def _stronger(one: Status, other: Status) -> Status:
    return Status.INVALID if Status.INVALID in (one, other) else max(one, other)


_spiffe_id = lru_cache(maxsize=4096)(SpiffeId.parse)  # an agent asks again and again


def _own_marks(jti: str, task: str | None, ancestors: str | None) -> Iterator[str]:
    """What a fact can match of one token alone, by its row and that of its task."""
    yield f"jti:{jti}"
    if task is not None:
        yield f"task:{task}"
    if ancestors is not None:
        yield from (f"task:{ancestor}" for ancestor in json.loads(ancestors))


def _holder_marks(holder: Sequence[Any]) -> Iterator[str]:
    """What a fact can match of all tokens of one holder: what they carry, and what we know."""
    subject, *known = holder
    yield from identity_marks(_spiffe_id(subject))
    for kind, value in zip(_KINDS, known, strict=True):
        if value is not None:
            yield f"{kind}:{value}"


def _lives(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        credentials.c.kind == TASK_TOKEN,
        credentials.c.expires_at > now - SLACK,
        credentials.c.status_list.is_not(None),
    )


def _living(now: datetime) -> Any:
    """The living tokens that have an index."""
    # Whatever a row is missing, the token has its index and is looked at.
    joined = (
        credentials.outerjoin(tasks, tasks.c.id == credentials.c.task)
        .outerjoin(instances, instances.c.id == credentials.c.instance)
        .outerjoin(manifests, manifests.c.digest == instances.c.manifest)
    )
    return (
        select(
            credentials.c.status_list,
            credentials.c.status_index,
            credentials.c.id,
            credentials.c.task,
            type_coerce(tasks.c.ancestors, String),
            credentials.c.subject,
            credentials.c.instance,
            credentials.c.authority,
            instances.c.manifest,
            instances.c.node,
            manifests.c.signer,
            manifests.c.owner,
        )
        .select_from(joined)
        .where(*_lives(now))
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
