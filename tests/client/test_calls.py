"""Calls: what is sent, and how what comes back is read."""

import json

import pytest

from accredit_client import calls
from accredit_client.call import Reply, retry_after
from accredit_client.calls import TaskTokenRequest
from accredit_client.errors import InvalidAnswer, IssuerRefused
from accredit_credentials.spiffe_id import AgentId, TrustDomain

MOMENT = "2026-11-21T09:30:00Z"


def _problem(**members: object) -> bytes:
    return json.dumps({"type": "urn:accredit:problem:not-declared", **members}).encode()


def test_a_task_token_is_asked_for_as_documented() -> None:
    """The body is the one of docs/api.md, member by member."""
    call = calls.task_token(
        TaskTokenRequest(
            resource="tickets",
            actions=("read",),
            purpose="summarise ticket 4711",
            principal="user:maria@example.org",
            binding="dpop",
            jkt="thumbprint",
        )
    )
    assert (call.method, call.path) == ("POST", "/v1/task-tokens")
    assert json.loads(call.content or b"") == {
        "resource": "tickets",
        "actions": ["read"],
        "task": {"purpose": "summarise ticket 4711", "id": None, "parent": None},
        "principal": "user:maria@example.org",
        "binding": {"kind": "dpop", "jkt": "thumbprint"},
    }


def test_names_in_paths_are_quoted() -> None:
    """What stands in a path cannot leave its place in it."""
    assert calls.log_explain("../admins?x").path == "/v1/log/explain/..%2Fadmins%3Fx"
    assert calls.crl("a/b").path == "/v1/crl/a%2Fb.crl"
    path = calls.manifests(agent=AgentId.parse("support/triage")).path
    assert path == "/v1/manifests?agent=support%2Ftriage"


def test_a_good_answer_is_typed() -> None:
    """Moments have their time zone, ids are SPIFFE IDs, and unknown members are ignored."""
    body = {"nonce": "n", "expires_at": MOMENT, "more": 1}
    answer = calls.nonce().answer(Reply(200, json.dumps(body).encode()))
    assert answer.nonce == "n"
    assert answer.expires_at.isoformat() == "2026-11-21T09:30:00+00:00"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b'{"nonce": "a", "nonce": "b"}', "stands twice"),
        (b'{"nonce": 1}', "'nonce', a text"),
        (b'{"nonce": "n"}', "'expires_at', a text"),
        (b'{"nonce": "n", "expires_at": "soon"}', "RFC 3339"),
        (b'{"nonce": "n", "expires_at": "2026-11-21T09:30:00"}', "time zone"),
    ],
)
def test_an_answer_of_another_form_is_refused(body: bytes, named: str) -> None:
    """What is missing or of another type is named; nothing is guessed."""
    with pytest.raises(InvalidAnswer, match=named):
        calls.nonce().answer(Reply(200, body))


def test_a_problem_becomes_a_typed_refusal() -> None:
    """Kind, detail and status come from the problem document."""
    reply = Reply(403, _problem(title="t", detail="resource 'payroll' is not declared"), 7.0)
    with pytest.raises(IssuerRefused, match="payroll") as refused:
        calls.whoami().answer(reply)
    error = refused.value
    assert (error.kind, error.status, error.retry_after) == ("not-declared", 403, 7.0)
    assert not error.for_good
    assert not error.for_now


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"type": "about:blank"}', b"[1]"])
def test_any_other_refusal_is_still_one(body: bytes) -> None:
    """A proxy's error page is a refusal of an unknown kind, with its status."""
    with pytest.raises(IssuerRefused) as refused:
        calls.whoami().answer(Reply(502, body))
    assert (refused.value.kind, refused.value.status) == ("unknown", 502)
    assert refused.value.for_now


def test_a_redirect_is_a_refusal() -> None:
    """No redirect is an answer."""
    with pytest.raises(IssuerRefused, match="302"):
        calls.whoami().answer(Reply(302, b""))


def test_words_of_the_issuer_cannot_forge_log_lines() -> None:
    """Line breaks and escapes of a problem's detail do not survive."""
    with pytest.raises(IssuerRefused) as refused:
        calls.whoami().answer(Reply(403, _problem(detail="no\r\n\x1b[31mroot logged in")))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("", None), ("7", 7.0), ("-1", None), ("٣", None), ("9" * 400, 3600.0)],
)
def test_retry_after_is_read_with_care(header: str | None, seconds: float | None) -> None:
    """Only whole seconds count, and only up to an hour."""
    assert retry_after(header) == seconds


def test_a_bundle_is_read_for_the_trust_domain_that_was_asked() -> None:
    """A bundle's trust domain is known beforehand, never read from the answer."""
    trust_domain = TrustDomain.parse("example.org")
    bundle = calls.bundle(trust_domain).answer(Reply(200, b'{"keys": []}'))
    assert bundle.trust_domain == trust_domain
    with pytest.raises(InvalidAnswer, match="keys"):
        calls.bundle(trust_domain).answer(Reply(200, b"{}"))
