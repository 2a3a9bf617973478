"""An agent's identity: obtained at the start, renewed for as long as it is open.

``AgentIdentity`` renews in one daemon thread; its twin for asyncio is in ``async_identity``. Both
run what ``keeper`` decides.

    with AgentIdentity(
        issuer_url="https://issuer.example.org:8443",
        trust=Trust.from_pin("sha256:…"),
        manifest_file=Path("agent.manifest"),
        code_root=Path("."),
        join_token_file=Path("/run/secrets/join-token"),
    ) as identity:
        identity.fetch_jwt_svid("https://tickets.example.org")

Through an outage the identity goes on as long as its SVID is good, and ``status`` says how late it
is. When the issuer has taken it back, or it is over, the next use says so.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from accredit_client import calls
from accredit_client.answers import JwtAnswer, TaskTokenAnswer
from accredit_client.base_identity import REFETCH_TIMEOUT, BaseIdentity, audiences_of
from accredit_client.call import Call
from accredit_client.calls import TaskTokenRequest
from accredit_client.effects import ThreadWaiter, Waiter
from accredit_client.errors import Closed
from accredit_client.revocations import (
    LEAVING,
    MAX_FOREIGN_FACTS,
    MAX_FOREIGN_LIFE,
    SILENCE,
    RevocationFeed,
    once_a_bundle,
)
from accredit_client.talk import Blocking, Conversation, Talk
from accredit_credentials.spiffe_id import TrustDomain
from accredit_credentials.x509_svid import X509Identity

if TYPE_CHECKING:
    from accredit_client.wire import Issuer

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class _Other:
    """The feed of another trust domain, and what it holds open."""

    url: str
    feed: RevocationFeed
    resources: ExitStack


class AgentIdentity(BaseIdentity):
    """An identity that one daemon thread renews; takes the arguments of ``BaseIdentity``.

    A context manager: the thread ends with the block.
    """

    feed: RevocationFeed | None = None
    """The revocation feed that is followed, if it was asked for."""

    _issuers: "dict[bool, Issuer]"
    _others: "dict[TrustDomain, _Other]"
    _thread: threading.Thread | None = None
    _resources: ExitStack

    def start(self, *, waiter: Waiter | None = None) -> Self:
        """Obtain the first SVID and begin to renew.

        Args:
            waiter: how to wait.

        Raises:
            IssuerUnreachable, IssuerUntrusted, IssuerRefused: the issuer was not reached, or no.
            AttestationError: there should be evidence, and it cannot be collected.
            Closed: it was closed.
        """
        self._check_open()
        if self._thread is not None:
            return self
        self._process = os.getpid()
        self._waiter = waiter or ThreadWaiter()
        self._changed = threading.Condition()
        self._issuers = {}
        self._others = {}
        with ExitStack() as undo:
            undo.callback(self._hang_up)
            undo.callback(self._keeper.close)
            self._keeper.open(self._waiter.wake)
            undo.callback(self._leave_others)
            self._begin()
            self._follow_others()
            if self._revocations and self._keeper.has_issuer:
                self.feed = undo.enter_context(self._follow(undo))
                self._facts = self.feed.state
            self._thread = threading.Thread(target=self._run, name="accredit-identity", daemon=True)
            self._thread.start()
            self._resources = undo.pop_all()
        return self

    def close(self) -> None:
        """Stop renewing and join the thread; a call under way ends first."""
        if self._closing:
            return
        self._closing = True
        if self._thread is None or os.getpid() != self._process:
            return
        self._waiter.wake()
        self._thread.join()
        self._resources.close()

    def wait_until_renewed(
        self, timeout: float, *, after: X509Identity | None = None
    ) -> X509Identity:
        """Wait until another identity is held than ``after``, or than now.

        Raises:
            NotReady: there was none in time.
        """
        old = self.x509 if after is None else after
        with self._changed:
            self._changed.wait_for(lambda: self._is_after(old), timeout)
        return self._renewed(old, timeout)

    def refetch_bundle(self, timeout: float = REFETCH_TIMEOUT) -> bool:
        """Fetch the bundle, where a key is missing in it; says whether another one came.

        Of all who ask at once one does it, and at most one in five seconds: whoever names keys at
        random gets no more than that out of it. For ``Guard(refetch=…)``.
        """
        self._check_open()
        before, looks = self._keeper.trusted(), self._keeper.looks
        if not self._ask_for_bundle(None):
            return False
        with self._changed:
            self._changed.wait_for(lambda: self._keeper.looks != looks, timeout)
        return self._keeper.trusted() is not before

    def fetch_jwt_svid(self, audience: str | Sequence[str]) -> JwtAnswer:
        """A JWT-SVID, for where mTLS cannot reach.

        Raises:
            IssuerUnreachable, IssuerRefused: the issuer was not reached, or said no.
            NotReady, IdentityExpired, IdentityRefused, Closed: the identity may not be used.
        """
        if self._daemon is not None:
            return self._from_daemon(partial(self._daemon.jwt_svid, audiences_of(audience)))
        return self._call(calls.jwt_svid(audience=audiences_of(audience)))

    def task_token(self, request: TaskTokenRequest) -> TaskTokenAnswer:
        """A task token; raises as ``fetch_jwt_svid``.

        One that is bound to the certificate is bound to the SVID of this moment.
        """
        if self._daemon is not None:
            return self._from_daemon(partial(self._daemon.task_token, request))
        return self._call(calls.task_token(request))

    def fetch_crls(self) -> tuple[bytes, ...]:
        """The CRLs (DER) of issuing CAs and of own roots; raises as ``fetch_jwt_svid``.

        From the issuer, whose address an identity from the node daemon may lack: ``pushed_crls``.
        """
        return self._call(calls.crls())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _from_daemon(self, asked: Callable[[], Future[A]]) -> A:
        self._check_open()
        self._keeper.held()
        try:
            return asked().result()
        except CancelledError:
            raise Closed("this identity was closed") from None

    def _call(self, call: Call[A]) -> A:
        self._check_open()
        self._keeper.held()
        return self._dial(public=call.public).send(call)

    def _ask_for_bundle(self, sequence: int | None) -> bool:
        asked = self._keeper.ask_for_bundle(sequence)
        if asked:
            self._waiter.wake()
        return asked

    def _dial(self, *, public: bool = False) -> "Issuer":
        from accredit_client.wire import Issuer  # noqa: PLC0415 (httpx2 is slow to import)

        if public not in self._issuers:
            contexts = self._public_contexts if public else self._issuer_contexts
            self._issuers[public] = Issuer(self._keeper.issuer_url, contexts)
        return self._issuers[public]

    def _hang_up(self) -> None:
        while self._issuers:
            self._issuers.popitem()[1].close()

    def _follow(self, undo: ExitStack) -> RevocationFeed:
        from accredit_client.wire import Issuer, Timeouts  # noqa: PLC0415 (as above)

        url, timeouts = self._keeper.issuer_url, Timeouts(read=SILENCE)
        issuer = undo.enter_context(Issuer(url, self._public_contexts, timeouts=timeouts))
        return RevocationFeed(
            issuer,
            self._keeper.trusted,
            clock=self._keeper.clock,
            draw=self._draw,
            ask=self._ask_for_bundle,
            confirm_at=undo.enter_context(Issuer(url, self._confirming_contexts)),
        )

    def _follow_others(self) -> None:
        """Follow the feeds of federated trust domains, as the bundle map says now."""
        federation = self.federation
        if federation is None:
            return
        wanted = federation.feeds_wanted()
        self._leave_others(
            {name for name, one in self._others.items() if one.url != wanted.get(name)}
        )
        for name in wanted.keys() - self._others.keys():
            with self._logged(name):
                self._others[name] = self._follow_other(name, wanted[name])
        federation.followed({name: (one.url, one.feed) for name, one in self._others.items()})

    def _follow_other(self, trust_domain: TrustDomain, url: str) -> "_Other":
        from accredit_client.wire import Issuer, Timeouts  # noqa: PLC0415 (as above)

        with ExitStack() as undo:
            contexts, timeouts = self._foreign_contexts(trust_domain), Timeouts(read=SILENCE)
            issuer = undo.enter_context(Issuer(url, contexts, timeouts=timeouts))
            feed = RevocationFeed(
                issuer,
                self._foreign_bundle(trust_domain),
                clock=self._keeper.clock,
                draw=self._draw,
                ask=once_a_bundle(lambda: self._ask_for_bundle(None)),
                max_facts=MAX_FOREIGN_FACTS,
                max_life=MAX_FOREIGN_LIFE,
            )
            feed.start()
            return _Other(url, feed, undo.pop_all())

    def _leave_others(self, names: "set[TrustDomain] | None" = None) -> None:
        """End feeds of others, which must not keep the renewals waiting whatever they do."""
        left = [self._others.pop(name) for name in (set(self._others) if names is None else names)]
        for other in left:
            other.feed.stop()
        until = time.monotonic() + LEAVING
        for other in left:
            # A thread that is still there would read from what is closed below: it ends alone.
            if other.feed.close(max(0.0, until - time.monotonic())):
                other.resources.close()

    def _begin(self) -> None:
        started = self._keeper.clock()
        while True:
            try:
                self._converse(self._keeper.begin())
            except Exception as error:  # noqa: BLE001 (raised there, unless waiting may help)
                self._waiter.wait(self._begin_failed(error, started))
            else:
                return

    def _run(self) -> None:
        while not self._closing:
            now = self._keeper.clock()
            pause = self._keeper.pause(now)
            if pause > 0:
                self._waiter.wait(pause)
                continue
            before = self._keeper.renewals
            try:
                self._converse(self._keeper.step(now))
                self._follow_others()
                self._tell(before)
            except Exception as error:  # noqa: BLE001 (a dead thread would be noticed too late)
                self._failed(error)
            with self._changed:
                self._changed.notify_all()

    def _converse(self, talk: Talk) -> None:
        conversation = Conversation(talk)
        while (wanted := conversation.wanted) is not None:
            try:
                if isinstance(wanted, Blocking):
                    result = wanted.run()
                else:
                    result = self._dial(public=wanted.public).send(wanted)
            except Exception as error:  # noqa: BLE001 (the talk decides what it means)
                conversation.failed(error)
            else:
                conversation.answered(result)
