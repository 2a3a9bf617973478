"""Which methods a path has: said wherever one is refused (RFC 9110 §15.5.6)."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.issuer import RunningIssuer, running_issuer
from support.raw_http import RawClient

from accredit_issuer.api.hot import HotRoute
from accredit_issuer.app import make_app, make_public_app


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningIssuer]:
    """An issuer on loopback."""
    folder: Path = tmp_path_factory.mktemp("issuer")
    with running_issuer(folder / "data") as running:
        yield running


def paths(app: Any) -> dict[str, set[str]]:
    """Every path with the methods that its routes declare."""
    found = defaultdict(set)
    for route in app.routes:
        found[re.sub(r"{[^}]*}", "1", route.path)] |= set(route.methods)
    return dict(found)


def test_each_refusal_names_what_the_path_has(running: RunningIssuer) -> None:
    """Agents' calls and all others alike: every method of the path, and none that is refused."""
    app = make_app(running.issuer)
    client = RawClient.at(running.url, running.bundle)
    known = paths(app)
    for path, methods in known.items():
        answer = client.ask("PROPFIND", path)
        assert (answer.status, answer.kind) == (405, "method-not-allowed"), path
        allowed = set(answer.headers["allow"].split(", "))
        assert methods <= allowed, path
        for other in allowed - methods:  # of a route that takes any name there
            assert client.ask(other, path).status != 405, (other, path)
    assert any(len(methods) > 1 for methods in known.values()), "two routes of one path"
    assert any(isinstance(route, HotRoute) for route in app.routes)


def test_only_a_refused_method_is_told_so(running: RunningIssuer) -> None:
    """What has no such path, and what is answered, says nothing of methods."""
    client = RawClient.at(running.url, running.bundle)
    for path, status in (("/v1/nothing", 404), ("/v1/bundle", 200), ("/v1/whoami", 401)):
        answer = client.ask("GET", path)
        assert (answer.status, "allow" in answer.headers) == (status, False)


def test_the_public_documents_can_be_read_only(running: RunningIssuer) -> None:
    """The listener for strangers names the methods that it has there, not those of the API."""
    app = make_public_app(running.issuer)
    with TestClient(app) as client:
        for path, methods in paths(app).items():
            answer = client.request("POST", path)
            assert answer.status_code == 405, path
            assert set(answer.headers["allow"].split(", ")) == methods
            assert "POST" not in methods
        assert client.post("/v1/attestations/nonce").status_code == 404
