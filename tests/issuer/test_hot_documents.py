"""CRLs without the framework in between: the same answers, and only those that are at hand."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from support.offline import Offline

from accredit_issuer.api.hot_documents import HotCrls
from accredit_issuer.app import make_app
from accredit_issuer.authority.lifecycle import AuthorityKind


class Passing:
    """The framework, and how often it was asked."""

    def __init__(self, offline: Offline) -> None:
        self.app = make_app(offline.issuer)
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        self.asked += scope["type"] == "http"
        await self.app(scope, receive, send)


@pytest.fixture
def passing(offline: Offline) -> Passing:
    """The framework behind."""
    return Passing(offline)


@pytest.fixture
def hot(offline: Offline, passing: Passing) -> Iterator[TestClient]:
    """Who asks the issuer as it is served."""
    app = HotCrls(passing, offline.issuer.revocation.crls, int(offline.config.heartbeat))
    with TestClient(app) as client:
        yield client


@pytest.fixture
def slow(passing: Passing) -> TestClient:
    """Who asks the framework alone."""
    return TestClient(passing.app)


def crl_path(offline: Offline) -> str:
    """Where the CRL of the issuing CA is."""
    return f"/v1/crl/{offline.active(AuthorityKind.X509)}.crl"


@pytest.mark.parametrize(
    "shown",
    [
        [], ["{tag}"], ["W/{tag}"], ['"x", {tag}'], ['"x"', "{tag}"], ["*"],
        ['"x"'], ["{tag}x"], [""], ["tag"], ['"x", '], ["{tag},"], ["{tag} {tag}"], ["\xff"],
    ],
)  # fmt: skip
def test_it_answers_as_the_framework_does(
    offline: Offline, hot: TestClient, slow: TestClient, passing: Passing, shown: list[str]
) -> None:
    """Whatever tags are shown: the same status, headers and bytes."""
    path = crl_path(offline)
    tag = slow.get(path).headers["etag"]
    headers = [("if-none-match", each.replace("{tag}", tag).encode("latin-1")) for each in shown]
    answers = [client.get(path, headers=headers) for client in (hot, slow)]
    told = [
        (each.status_code, sorted(each.headers.multi_items()), each.content) for each in answers
    ]
    assert told[0] == told[1]
    assert passing.asked == 0


@pytest.mark.parametrize(
    "asked",
    [
        "HEAD {crl}", "POST {crl}", "GET {crl}/", "GET /{crl}", "GET {upper}",
        "GET /v1/crl/00.crl", "GET /v1/crl/.crl", "GET /v1/crl/../crls", "GET /v1/crls",
    ],
)  # fmt: skip
def test_everything_else_is_the_frameworks(
    offline: Offline, hot: TestClient, slow: TestClient, passing: Passing, asked: str
) -> None:
    """Another method, a near path, a CA that nobody knows: what it says is said."""
    found = crl_path(offline)
    upper = found.replace(offline.active(AuthorityKind.X509), "A" * 64)
    method, path = asked.format(crl=found, upper=upper).split(" ")
    answers = [client.request(method, path) for client in (hot, slow)]
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].content == answers[1].content
    assert passing.asked == 1


def test_a_fact_is_in_the_next_answer(offline: Offline, hot: TestClient) -> None:
    """Who shows the tag of before gets the CRL that has it, and then is told that it has it."""
    path, svid = crl_path(offline), offline.agent()
    before = hot.get(path)
    offline.state(f"serial:{svid.serial}")
    after = hot.get(path, headers={"if-none-match": before.headers["etag"]})
    crl = offline.issuer.revocation.crls.of(offline.active(AuthorityKind.X509))
    assert crl is not None
    assert (after.status_code, after.content) == (200, crl.der)
    assert after.content != before.content
    assert hot.get(path, headers={"if-none-match": after.headers["etag"]}).status_code == 304
