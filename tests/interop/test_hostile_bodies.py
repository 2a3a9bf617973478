"""Requests that JSON allows and text does not: half characters, control characters.

A JSON string may hold half of a surrogate pair, which no UTF-8 can. schemathesis makes none.
"""

import http.client
import json
from typing import Any

import pytest
from support.interop_world import World

from accredit_credentials.tls import client_context
from accredit_credentials.x509_svid import X509Identity

HALF = "\ud800"


def post(world: World, path: str, body: dict[str, Any], identity: X509Identity) -> int:
    """The status of one call, written as JSON escapes whatever UTF-8 cannot write."""
    context = client_context(
        bundle=world.running.bundle, peer_check=lambda _svid: None, identity=identity
    )
    connection = http.client.HTTPSConnection(*world.address, context=context, timeout=10)
    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", path, body=json.dumps(body).encode(), headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def task(**changes: Any) -> dict[str, Any]:
    """A request for a task token that would be granted, with changes."""
    return {
        "resource": "tickets",
        "actions": ["read"],
        "task": {"purpose": "interop"},
        **changes,
    }


REQUESTS = {
    "audience": ("/v1/svids/jwt", {"audience": [HALF]}),
    "resource": ("/v1/task-tokens", task(resource=HALF)),
    "action": ("/v1/task-tokens", task(actions=[HALF])),
    "purpose": ("/v1/task-tokens", task(task={"purpose": HALF})),
    "task id": ("/v1/task-tokens", task(task={"purpose": "interop", "id": HALF})),
    "principal": ("/v1/task-tokens", task(principal=HALF)),
    "evidence": ("/v1/svids/x509", {"csr": "", "evidence": [{HALF: HALF}]}),
    "csr": ("/v1/svids/x509", {"csr": HALF, "evidence": []}),
}


@pytest.mark.parametrize("where", REQUESTS)
def test_half_a_character_is_refused(world: World, where: str) -> None:
    """Half of a surrogate pair anywhere in a request is the caller's fault, not ours."""
    path, body = REQUESTS[where]
    status = post(world, path, body, world.identity)
    assert 400 <= status < 500, status


def test_an_admins_half_character_is_refused(world: World) -> None:
    """The same holds for admins."""
    for body in ({"target": HALF, "reason": "x"}, {"target": "agent:a/b", "reason": HALF}):
        status = post(world, "/v1/revocations", body, world.admin.identity)
        assert 400 <= status < 500, status
