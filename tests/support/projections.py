"""What every projection of revocation says of one instance, each asked as its readers ask."""

import asyncio
import json
from typing import Any

import pytest
from support.event_receiver import unverified
from support.ocsp import status
from support.offline import Offline

from accredit_credentials import status_list
from accredit_credentials.revocation import FactKind
from accredit_credentials.revocation_feed import verify
from accredit_credentials.security_event import SESSION_ESTABLISHED
from accredit_credentials.spiffe_id import SpiffeId
from accredit_credentials.x509_svid import X509Svid
from accredit_issuer.audit.records import RecordKind
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance.tokens import IssuedTaskToken
from accredit_issuer.registry.changes import Local
from accredit_issuer.revocation.introspection import Viewer
from accredit_issuer.signals.polling import Polled
from accredit_issuer.signals.streams import StreamAsked

LISTS: dict[str, Any] = {"revocation": {"status_list_url": "https://lists.example.org"}}
"""Settings with which all of them are there."""

STREAM = "siem"


def add_stream(offline: Offline) -> None:
    """A stream of security events, from which nobody has asked anything yet."""
    asked = StreamAsked(
        name=STREAM,
        audience="https://siem.example.org",
        receiver=SpiffeId.parse("spiffe://example.org/ns/security/agent/siem"),
    )
    offline.issuer.streams.add(asked, by=Local("test"), now=offline.clock())


def projections(offline: Offline, svid: X509Svid, token: IssuedTaskToken) -> dict[str, bool]:
    """What each of them says: whether the instance is taken back."""
    issuer, target = offline.issuer, f"instance:{svid.instance}"
    told = verify(issuer.feed.statement(0), bundle=issuer.bundle).facts
    stated = stated_of(offline)
    about = [fact for subject, fact in stated if subject == target]
    events = _events(offline, svid.instance)
    _check_confirmations(offline, len(stated))
    return {
        "the issuer's own decisions": issuer.revocation.facts.match(svid.marks()) is not None,
        "feed": target in {str(each.target) for each in told},
        "crl": offline.is_on_crl(svid),
        "status list": _is_listed(offline, token),
        "ocsp": status(offline, svid) == "revoked",
        "introspection": not _is_active(offline, token),
        "log": about[-1:] not in ([], [FactKind.RESTORED.value]),
        "security events": events[-1:] not in ([], [SESSION_ESTABLISHED]),
    }


def stated_of(offline: Offline) -> list[tuple[str, str]]:
    """Target and kind of each fact in the log."""
    records = [json.loads(leaf) for leaf in offline.leaves()]
    return [
        (each["subject"], each["details"]["fact"])
        for each in records
        if each["kind"] == RecordKind.FACT_STATED.value
    ]


def _is_listed(offline: Offline, token: IssuedTaskToken) -> bool:
    status_of_it, issuer = token.content.status, offline.issuer
    assert status_of_it is not None
    uri = status_of_it.uri
    found = status_list.verify(
        issuer.status_lists.signed(uri.rpartition("/")[2]),
        bundle=issuer.bundle,
        issuer=issuer.config.token_issuer,
        uri=uri,
        now=offline.clock(),
    )
    return found.statuses.value(status_of_it.index) != status_list.Status.VALID


def _is_active(offline: Offline, token: IssuedTaskToken) -> bool:
    everything = Viewer(audiences=frozenset(), namespaces=None)
    told = offline.issuer.introspection.introspect(token.token, everything, offline.clock())
    return told["active"] is True


def _events(offline: Offline, subject: str) -> list[str]:
    """The types of the events about it that wait for the stream's receiver, in their order."""
    (stream,) = offline.issuer.streams.all()
    asked = Polled(max_events=100, at_once=True, acknowledged=(), refused=())
    answer = asyncio.run(offline.issuer.stream_polling.answer(stream, asked, longest_wait=1.0))
    claims = [unverified(text) for text in answer.sets.values()]
    return [next(iter(each["events"])) for each in claims if subject in str(each["sub_id"])]


def _check_confirmations(offline: Offline, newest: int) -> None:
    """What is durable can be confirmed, and nothing beyond it."""
    audience = offline.issuer.feed.audience
    with audience.listening() as listener_id:
        audience.acknowledge(listener_id, newest, None)
        with pytest.raises(Refusal) as refusal:
            audience.acknowledge(listener_id, newest + 1, None)
        assert refusal.value.kind is Kind.CONFLICT
