"""One identity of one process, as it stands: held, refused, ended, due. It does nothing by itself.

Other code than was signed ends an instance for as long as its process lives: it may have loaded
what was there meanwhile. A refusal, the issuer's or ours, withdraws too, and is looked at anew when
somebody asks, not before a pause. An issuer that is away changes nothing until an SVID is over.
What facts of revocation say is asked at each answer: who is suspended and restored is served again.
"""

from dataclasses import dataclass, field
from datetime import datetime

from accredit_client import renewal
from accredit_client.daemon.agents import AgentEntry
from accredit_client.daemon.provider import NotYet, Refused
from accredit_client.renewal import Life
from accredit_credentials.errors import Revoked, Stale
from accredit_credentials.revocation_feed import FeedState
from accredit_credentials.x509_svid import X509Identity

ANY_AGE = float("inf")


@dataclass(slots=True)
class Instance:
    """One identity of one process, as it stands now.

    Attributes:
        entry: what it is of.
        id: as the issuer names it; None before its birth.
        identity: its SVID and key.
        life: when the SVID is renewed, and over.
        ended: why it is over for as long as the process lives.
        refused: why it is withdrawn; looked at anew when somebody asks, from ``try_at`` on.
        wanted: somebody has asked anew.
        failures: tries in a row that brought nothing.
        try_at: before this nothing is tried.
    """

    entry: AgentEntry
    id: str | None = None
    identity: X509Identity | None = field(default=None, repr=False)
    life: Life | None = None
    ended: str | None = None
    refused: str | None = None
    wanted: bool = False
    failures: int = 0
    try_at: datetime | None = None

    def due(self, now: datetime) -> datetime | None:
        """When it is to be obtained or renewed by itself; None: not at all."""
        if self.ended is not None or (self.refused is not None and not self.wanted):
            return None
        planned = now if self.life is None or self.wanted else self.life.renew_at
        return planned if self.try_at is None else max(planned, self.try_at)

    def next_change(self, now: datetime) -> datetime | None:
        """When something is due, or the SVID over."""
        moments = [self.due(now)]
        if self.life is not None and not self.life.expired(now):
            # The first moment at which it is over: ``expired`` counts the last one in.
            moments.append(renewal.later(self.life.not_after, 0.001))
        return min((each for each in moments if each is not None), default=None)

    def usable(self, now: datetime, facts: FeedState | None) -> X509Identity:
        """The SVID, if it may be used.

        Raises:
            Refused: it was withdrawn, or a fact stands against it.
            NotYet: there is none yet, or it is over and the issuer away.
        """
        if self.ended is not None or self.refused is not None:
            raise Refused(str(self.ended or self.refused))
        if self.identity is None or self.life is None:
            raise NotYet("the issuer has not answered yet")
        if facts is not None:
            try:
                facts.check(self.identity.svid.marks(), now=now, max_age=ANY_AGE)
            except Revoked as error:
                raise Refused(str(error)) from None
            except Stale:
                pass  # nothing is known yet: the issuer has just certified it
        if self.life.expired(now):
            raise NotYet("the SVID is over, and the issuer has not answered")
        return self.identity

    def takes(self, identity: X509Identity, life: Life) -> None:
        """Hold a new SVID."""
        self.id, self.identity, self.life = identity.svid.instance, identity, life
        self.refused, self.wanted, self.try_at, self.failures = None, False, None, 0

    def is_refused(self, why: str, again: datetime, *, same: bool = True) -> None:
        """Withdraw it; it may be asked for anew from ``again`` on.

        Who was revoked stays the same instance: asking again brings no other one.

        Args:
            why: told to who asks.
            again: the earliest moment of the next try.
            same: whether the next try is for the same instance, if it was born.
        """
        self.refused, self.wanted, self.try_at = why, False, again
        self.failures += 1
        if not same:
            self.id = None

    def is_over(self, why: str) -> None:
        """Withdraw it for as long as the process lives."""
        self.ended, self.wanted = why, False

    def restored(self, now: datetime) -> None:
        """An admin has looked at what ended it: it may be measured again when somebody asks."""
        if self.ended is not None:
            self.refused, self.ended, self.try_at = self.ended, None, now

    def failed(self, again: datetime) -> None:
        """Take note that a try brought nothing: what is held stays."""
        self.wanted, self.try_at = False, again
        self.failures += 1
