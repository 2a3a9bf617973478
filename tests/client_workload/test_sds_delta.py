"""Incremental SDS: what a proxy is sent when, by names that come and go."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from grpclib import GRPCError, Status
from support.authority import Authority
from support.workload import FakeProvider, Served, refused, state_of

from accredit_client.daemon.newest import Each
from accredit_client.daemon.proto.envoy_discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from accredit_client.daemon.proto.envoy_tls_pb2 import Secret
from accredit_client.daemon.provider import NotYet, Refused, WorkloadState
from accredit_client.daemon.sds import SERVICE
from accredit_client.daemon.secrets import secret_of
from accredit_client.daemon.subscriptions import MAX_NAMES, TYPE_URL, DeltaSubscription

TRIAGE = "spiffe://example.org/ns/support/agent/triage"
SECOND = "spiffe://example.org/ns/support/agent/second"
OWN, OTHER = "spiffe://example.org", "spiffe://other.example"


@pytest.fixture
def state(provider: FakeProvider) -> WorkloadState:
    """The provider's state."""
    assert isinstance(provider.state, WorkloadState)
    return provider.state


@pytest.fixture
def lesser(state: WorkloadState) -> WorkloadState:
    """The same, when the second identity was withdrawn and the federation ended."""
    return replace(state, svids=state.svids[:1], federated={})


def asking(*names: str, leaving: tuple[str, ...] = (), **fields: Any) -> DeltaDiscoveryRequest:
    """A request of a proxy."""
    return DeltaDiscoveryRequest(
        type_url=TYPE_URL,
        resource_names_subscribe=names,
        resource_names_unsubscribe=leaving,
        **fields,
    )


def versions(response: DeltaDiscoveryResponse | None) -> dict[str, str]:
    """What was sent by name, each with the secret of its name, and its version."""
    assert response is not None
    assert response.type_url == TYPE_URL
    assert response.nonce
    for each in response.resources:
        secret = Secret()
        assert each.resource.Unpack(secret)
        assert secret.name == each.name
    return {each.name: each.version for each in response.resources}


def removed(response: DeltaDiscoveryResponse | None) -> list[str]:
    """What was said to be gone."""
    assert response is not None
    return list(response.removed_resources)


def begun(state: WorkloadState, *names: str, **fields: Any) -> tuple[DeltaSubscription, Any]:
    """A subscription, and its first answer."""
    subscription = DeltaSubscription()
    subscription.ask(asking(*names, **fields))
    return subscription, subscription.due(state)


def test_nothing_is_sent_before_something_was_asked(state: WorkloadState) -> None:
    """A stream that says nothing learns nothing."""
    assert DeltaSubscription().due(state) is None


def test_only_what_changed_is_sent(state: WorkloadState, authority: Authority) -> None:
    """The whole at first, nothing after an acknowledgement, then the one that is another."""
    subscription, first = begun(state, "default", "ROOTCA")
    assert set(versions(first)) == {"default", "ROOTCA"}
    assert secret_of(state, "default") is not None
    subscription.ask(asking(response_nonce=first.nonce))
    assert subscription.due(state) is None
    without = replace(state, crls=())
    second = subscription.due(without)
    assert set(versions(second)) == {"ROOTCA"}
    assert versions(second)["ROOTCA"] != versions(first)["ROOTCA"]
    assert second is not None
    assert second.nonce != first.nonce
    third = subscription.due(replace(without, svids=state_of(authority).svids))
    assert set(versions(third)) == {"default"}


def test_names_come_and_go(state: WorkloadState, authority: Authority) -> None:
    """Who asks for one more is sent that one; what was left is not sent when it changes."""
    subscription, _ = begun(state, "default")
    subscription.ask(asking("ROOTCA"))
    assert set(versions(subscription.due(state))) == {"ROOTCA"}
    subscription.ask(asking(leaving=("default", "never-asked")))
    assert subscription.due(state) is None
    assert set(versions(subscription.due(state_of(authority)))) == {"ROOTCA"}


def test_who_asks_again_is_answered_again(state: WorkloadState) -> None:
    """The proxy may have forgotten what we think it has; a stale nonce is no reason to wait."""
    subscription, _ = begun(state, "default", "ROOTCA")
    subscription.ask(asking("default", response_nonce="0"))
    assert set(versions(subscription.due(state))) == {"default"}
    assert subscription.due(state) is None
    subscription.ask(asking(leaving=("default",)))
    subscription.ask(asking("default"))
    assert set(versions(subscription.due(state))) == {"default"}


def test_what_a_proxy_brings_along_is_not_sent_again(state: WorkloadState) -> None:
    """After a reconnect: an equal version is known, another is replaced, one too many is gone."""
    _, first = begun(state, "default", "ROOTCA")
    known = versions(first)
    subscription, response = begun(
        state, "default", "ROOTCA", initial_resource_versions={**known, "left-long-ago": "1"}
    )
    assert response is None
    _, response = begun(
        state, "default", "ROOTCA", initial_resource_versions={**known, "ROOTCA": "old"}
    )
    assert versions(response) == {"ROOTCA": known["ROOTCA"]}
    _, response = begun(state, "default", "gone", initial_resource_versions={**known, "gone": "1"})
    assert (versions(response), removed(response)) == ({}, ["gone"])
    # Only the first message of a stream speaks for the stream before it.
    subscription.ask(asking(initial_resource_versions={"default": "old"}))
    assert subscription.due(state) is None


def test_what_is_withdrawn_is_named_once_and_comes_back(
    state: WorkloadState, lesser: WorkloadState
) -> None:
    """Others stay; the same name is sent again when the caller has it again."""
    subscription, _ = begun(state, TRIAGE, SECOND, OTHER)
    response = subscription.due(lesser)
    assert (versions(response), removed(response)) == ({}, [SECOND, OTHER])
    assert subscription.due(lesser) is None
    assert set(versions(subscription.due(state))) == {SECOND, OTHER}
    assert removed(subscription.withdrawn()) == [SECOND, TRIAGE, OTHER]
    assert subscription.withdrawn() is None
    assert set(versions(subscription.due(state))) == {SECOND, TRIAGE, OTHER}


@pytest.mark.parametrize("name", ["Default", TRIAGE + "/", "spiffe://third.example", ""])
def test_a_name_of_nothing_is_said_to_be_gone(state: WorkloadState, name: str) -> None:
    """At once, so that nobody waits for it; what is asked beside it is sent."""
    subscription, response = begun(state, "default", name)
    assert (set(versions(response)), removed(response)) == ({"default"}, [name])
    assert subscription.due(state) is None
    subscription.ask(asking(name))
    assert removed(subscription.due(state)) == [name]


@pytest.mark.parametrize("names", [(), ("*",)])
def test_who_names_nothing_or_everything_gets_everything(
    state: WorkloadState, lesser: WorkloadState, names: tuple[str, ...]
) -> None:
    """Each identity and each trust domain; what goes is named, what comes is sent."""
    subscription, response = begun(state, *names)
    assert set(versions(response)) == {TRIAGE, SECOND, OWN, OTHER}
    assert removed(subscription.due(lesser)) == [SECOND, OTHER]
    assert set(versions(subscription.due(state))) == {SECOND, OTHER}
    subscription.ask(asking("*"))
    assert set(versions(subscription.due(state))) == {TRIAGE, SECOND, OWN, OTHER}
    _, again = begun(state, *names, initial_resource_versions={TRIAGE: versions(response)[TRIAGE]})
    assert set(versions(again)) == {SECOND, OWN, OTHER}


def test_leaving_a_name_beside_the_wildcard_is_answered(state: WorkloadState) -> None:
    """The proxy cannot know whether the wildcard has it: it is told. Without wildcard, it knows."""
    subscription, _ = begun(state, "*", "default", TRIAGE)
    subscription.ask(asking(leaving=("default", TRIAGE)))
    response = subscription.due(state)
    assert (set(versions(response)), removed(response)) == ({TRIAGE}, ["default"])
    subscription.ask(asking("default", leaving=("*",)))
    assert set(versions(subscription.due(state))) == {"default"}
    assert subscription.due(replace(state, federated={}, crls=())) is None


def test_a_first_request_that_only_leaves_is_no_wildcard(state: WorkloadState) -> None:
    """Nothing named in either list means everything; something named in one does not."""
    _, response = begun(state, leaving=("default",))
    assert response is None


def test_a_refusal_is_told_and_not_answered(state: WorkloadState, authority: Authority) -> None:
    """The proxy's words come back, bounded and escaped; the next content is sent."""
    subscription, first = begun(state, "default")
    refusal = asking(response_nonce=first.nonce)
    refusal.error_detail.message = "bad\n" + "x" * 1000
    words = subscription.ask(refusal)
    assert words is not None
    assert words.startswith("'bad\\nxx")
    assert len(words) < 250
    assert subscription.ask(asking(response_nonce=first.nonce)) is None
    assert subscription.due(state) is None
    assert set(versions(subscription.due(state_of(authority)))) == {"default"}


def test_a_subscription_is_bounded_and_of_secrets(state: WorkloadState) -> None:
    """Names count over all requests, versions too; another type is refused."""
    half, rest = map(str, range(MAX_NAMES)), map(str, range(1, MAX_NAMES + 1))
    subscription = DeltaSubscription()
    subscription.ask(asking(*half))
    assert len(removed(subscription.due(state))) == MAX_NAMES
    brought = dict.fromkeys(map(str, range(MAX_NAMES + 1)), "1")
    for asked, request in (
        (subscription, asking(*rest)),
        (DeltaSubscription(), asking(initial_resource_versions=brought)),
        (DeltaSubscription(), DeltaDiscoveryRequest(type_url="type.googleapis.com/other")),
    ):
        with pytest.raises(GRPCError) as refusal:
            asked.ask(request)
        assert refusal.value.status is Status.INVALID_ARGUMENT


@pytest.mark.anyio
async def test_each_request_is_read_in_its_turn() -> None:
    """However many come before the first is looked at, none is dropped; the end comes last."""

    async def requests() -> AsyncIterator[int]:
        for number in range(1, 4):
            yield number

    async with Each(requests()) as each:
        assert [await each.next() for _ in range(3)] == [1, 2, 3]
        with pytest.raises(NotYet):
            await each.next()


@pytest.mark.anyio
async def test_a_proxy_is_sent_changes_and_told_of_the_end(
    served: Served, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """On the real socket, without the header: two requests at once, a rotation, a withdrawal."""
    answers: list[DeltaDiscoveryResponse] = []

    async def story() -> None:
        client, name = served.client(), SERVICE + "DeltaSecrets"
        async with client.talk(name, DeltaDiscoveryRequest, DeltaDiscoveryResponse) as stream:
            await stream.send_message(asking("default"))
            await stream.send_message(asking("ROOTCA", "nothing"))
            while len({name for each in answers for name in versions(each)}) < 2:
                answers.append(await stream.recv_message())
            refusal = asking(response_nonce=answers[-1].nonce)
            refusal.error_detail.message = "key does not fit"
            await stream.send_message(refusal)
            await served.until(lambda: "key does not fit" in caplog.text)
            served.provider.set(state_of(authority))
            answers.append(await stream.recv_message())
            served.provider.set(Refused("revoked"))
            answers.append(await stream.recv_message())
            await stream.recv_message()

    assert (await refused(story())).status is Status.PERMISSION_DENIED
    assert set(versions(answers[-2])) == {"default", "ROOTCA"}
    assert (versions(answers[-1]), removed(answers[-1])) == ({}, ["ROOTCA", "default"])
    assert "has no secret 'nothing'" in caplog.text
    await served.until(lambda: served.provider.watching == 0)


@pytest.mark.anyio
async def test_a_proxy_is_a_caller_like_any_other(served: Served) -> None:
    """Once asked, it is checked: another process, or one without identity, gets nothing."""

    async def story() -> None:
        name = SERVICE + "DeltaSecrets"
        async with served.client().talk(
            name, DeltaDiscoveryRequest, DeltaDiscoveryResponse
        ) as stream:
            await stream.send_message(asking("default"))
            await stream.recv_message()
            served.callers[-1].changed = True
            await stream.send_message(asking("ROOTCA"))
            await stream.recv_message()

    assert (await refused(story())).status is Status.PERMISSION_DENIED
    for failure, status in (
        (Refused("no agent"), Status.PERMISSION_DENIED),
        (NotYet("starting"), Status.UNAVAILABLE),
    ):
        served.provider.set(failure)
        assert (await refused(story())).status is status
