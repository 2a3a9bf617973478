"""Our own calls beside the Workload API."""

from datetime import timedelta
from typing import Any

import pytest
from grpclib import Status
from support.authority import NOW
from support.workload import Served, refused

from accredit_client.calls import TaskTokenRequest
from accredit_client.daemon import own_calls
from accredit_client.daemon.own_calls import SERVICE
from accredit_client.daemon.proto import accredit_workload_pb2 as pb
from accredit_client.daemon.provider import RevocationNotice
from accredit_client.errors import IssuerRefused, IssuerUnreachable
from accredit_credentials.revocation import FactKind, RevocationFact, Target

pytestmark = pytest.mark.anyio

TASK, NOTICES = SERVICE + "FetchTaskToken", SERVICE + "WatchRevocations"


def asked(**fields: Any) -> pb.FetchTaskTokenRequest:
    """A good request, or one with other fields."""
    good = {"resource": "tickets", "actions": ["read"], "purpose": "triage"}
    return pb.FetchTaskTokenRequest(**{**good, **fields})


def fact(number: int) -> RevocationFact:
    """A fact."""
    return RevocationFact(
        sequence=number,
        target=Target.parse(f"task:{number}"),
        kind=FactKind.REVOKED,
        at=NOW,
        expires_at=NOW + timedelta(hours=1),
        reason="stop",
    )


async def test_a_task_token_is_asked_for_as_it_was_said(served: Served) -> None:
    """Resource, actions, purpose, binding; what is empty is absent."""
    answer = await served.client().ask(TASK, asked(), pb.FetchTaskTokenResponse)
    assert (answer.access_token, answer.task_id) == ("token-canary", "task-1")
    assert answer.expires_at.ToDatetime(NOW.tzinfo) == NOW + timedelta(minutes=5)
    spiffe_id = "spiffe://example.org/ns/support/agent/second"
    more = asked(task_id="t", principal="user:ann", binding="dpop", jkt="k", spiffe_id=spiffe_id)
    await served.client().ask(TASK, more, pb.FetchTaskTokenResponse)
    plain = TaskTokenRequest(resource="tickets", actions=("read",), purpose="triage")
    rich = TaskTokenRequest(
        resource="tickets",
        actions=("read",),
        purpose="triage",
        task_id="t",
        principal="user:ann",
        binding="dpop",
        jkt="k",
    )
    found = [(kind, request, str(one)) for kind, request, one in served.provider.asked]
    assert found == [("task", plain, "None"), ("task", rich, spiffe_id)]


@pytest.mark.parametrize(
    "fields",
    [
        {"resource": ""},
        {"purpose": ""},
        {"actions": []},
        {"actions": ["read", ""]},
        {"actions": ["read"] * 65},
        {"binding": "any"},
        {"binding": "dpop"},
        {"jkt": "k"},
        {"spiffe_id": "no-id"},
    ],
)
async def test_what_is_no_request_is_an_invalid_argument(
    served: Served, fields: dict[str, Any]
) -> None:
    """Nothing is guessed, and the issuer is not asked."""
    call = served.client().ask(TASK, asked(**fields), pb.FetchTaskTokenResponse)
    assert (await refused(call)).status is Status.INVALID_ARGUMENT
    assert served.provider.asked == []


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (IssuerRefused("not-declared", "tickets:delete", 403), Status.PERMISSION_DENIED),
        (IssuerRefused("busy", "later", 429), Status.UNAVAILABLE),
        (IssuerRefused("internal", "broken", 500), Status.UNAVAILABLE),
        (IssuerUnreachable("nobody answers"), Status.UNAVAILABLE),
    ],
)
async def test_the_issuers_answer_is_handed_on(
    served: Served, failure: Exception, status: Status
) -> None:
    """Would not is PermissionDenied with the reason, could not is Unavailable."""

    async def task_token(*_: object) -> Any:
        raise failure

    served.provider.task_token = task_token  # type: ignore[method-assign]
    error = await refused(served.client().ask(TASK, asked(), pb.FetchTaskTokenResponse))
    assert (error.status, error.message) == (status, str(failure))


async def test_the_header_is_asked_for_here_too(served: Served) -> None:
    """What a proxy cannot be talked into there, it cannot here."""
    call = served.client().ask(TASK, asked(), pb.FetchTaskTokenResponse, ())
    assert (await refused(call)).status is Status.INVALID_ARGUMENT


async def test_no_fact_is_lost_to_a_slow_reader(served: Served) -> None:
    """Facts that came meanwhile are told together, in their order."""
    request = pb.WatchRevocationsRequest()
    async with served.client().watch(NOTICES, request, pb.RevocationNotice) as stream:
        assert (await stream.recv_message()).sequence == 0
        for number in (1, 2, 3):
            served.provider.tell(RevocationNotice(sequence=number, facts=(fact(number),)))
        message = await stream.recv_message()
        while message.sequence < 3:
            later = await stream.recv_message()
            message.facts.extend(later.facts)
            message.sequence = later.sequence
        assert [(each.sequence, each.target) for each in message.facts] == [
            (1, "task:1"),
            (2, "task:2"),
            (3, "task:3"),
        ]
        assert message.facts[0].at.ToDatetime(NOW.tzinfo) == NOW
        assert (message.facts[0].kind, message.facts[0].reason) == ("revoked", "stop")


async def test_facts_that_wait_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many unread facts end the stream; the next one begins with all of them."""
    monkeypatch.setattr(own_calls, "MAX_WAITING_FACTS", 2)
    request = pb.WatchRevocationsRequest()
    async with served.client().watch(NOTICES, request, pb.RevocationNotice) as stream:
        await stream.recv_message()
        for number in (1, 2, 3):
            served.provider.tell(RevocationNotice(sequence=number, facts=(fact(number),)))
        error = await refused(stream.recv_message())
        assert error.status is Status.RESOURCE_EXHAUSTED
