"""A resource server that knows OAuth, PyJWT and zlib, and nothing of us, decides by a status list.

The other reader of what we publish: it shares no code with ``accredit_credentials.status_list``.
"""

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from support.issuer import running_issuer
from support.raw_http import RawClient
from support.wire import Wire

from accredit_client import calls

LISTS = "https://lists.example.org"
AUDIENCE = "https://tickets.example.org"


@dataclass
class ResourceServer:
    """All that it knows is the issuer's URL."""

    http: RawClient

    def fetch(self, url: str) -> bytes:
        """A document of the issuer, whatever name it has in it."""
        path = "/" + url.split("/", 3)[3]
        answer = self.http.ask("GET", path, headers={"Accept": "application/statuslist+jwt"})
        assert answer.status == 200
        return answer.body

    def decoded(self, token: str, **expected: Any) -> dict[str, Any]:
        """The claims of a token that the issuer signed."""
        metadata = json.loads(self.fetch(f"{LISTS}/.well-known/oauth-authorization-server"))
        keys = jwt.PyJWKSet.from_json(self.fetch(metadata["jwks_uri"]).decode())
        key = keys[jwt.get_unverified_header(token)["kid"]]
        claims: dict[str, Any] = jwt.decode(
            token, key, algorithms=["ES256"], issuer=metadata["issuer"], **expected
        )
        return claims

    def status(self, token: str) -> int:
        """What the list says of a token (draft-ietf-oauth-status-list-21 §8.3)."""
        claims = self.decoded(token, audience=AUDIENCE)
        reference = claims["status"]["status_list"]
        text = self.fetch(reference["uri"]).decode()
        assert jwt.get_unverified_header(text)["typ"] == "statuslist+jwt"
        listed = self.decoded(text, subject=reference["uri"])
        bits, packed = listed["status_list"]["bits"], listed["status_list"]["lst"]
        octets = zlib.decompress(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
        position = reference["idx"] * bits
        return octets[position // 8] >> position % 8 & (1 << bits) - 1

    def listed(self) -> list[str]:
        """Every list of the issuer, found by its metadata (§9)."""
        metadata = json.loads(self.fetch(f"{LISTS}/.well-known/oauth-authorization-server"))
        lists = json.loads(self.fetch(metadata["status_list_aggregation_endpoint"]))
        return list(lists["status_lists"])


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """An issuer whose task tokens name status lists."""
    with running_issuer(tmp_path / "issuer", revocation={"status_list_url": LISTS}) as running:
        yield Wire(running, tmp_path)


def test_a_plain_resource_server_learns_of_each_fact(wire: Wire) -> None:
    """Valid, suspended, valid again, invalid; the neighbour's token is valid throughout."""
    server = ResourceServer(wire.nobody)
    body = {"resource": "tickets", "actions": ["read"], "task": {"purpose": "x"}}
    token, neighbour = (
        str(wire.as_agent.ask("POST", "/v1/task-tokens", body).json["access_token"])
        for _ in range(2)
    )
    task = server.decoded(token, audience=AUDIENCE)["task"]["id"]
    assert server.status(token) == 0
    with wire.running.connect(wire.admin.identity) as client:
        for kind, expected in (("suspended", 2), ("restored", 0), ("revoked", 1)):
            client.send(calls.revoke(target=f"task:{task}", kind=kind, reason="x"))
            assert server.status(token) == expected
            assert server.status(neighbour) == 0
    uri = server.decoded(token, audience=AUDIENCE)["status"]["status_list"]["uri"]
    assert server.listed() == [uri]
