"""Fetching a bundle over real TLS: who is believed, and how much of what is said is read."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.authority import Authority
from support.bundle_endpoint import (
    BundleEndpoint,
    Served,
    document,
    redirect,
    spiffe_endpoint,
    web_endpoint,
)

from accredit_credentials.bundle import MAX_BUNDLE_BYTES, TrustBundle
from accredit_credentials.spiffe_id import SpiffeId
from accredit_issuer.federation.fetching import (
    Endpoint,
    FetchFailed,
    SpiffeEndpoint,
    WebEndpoint,
    fetch,
)
from accredit_issuer.federation.rules import MAX_REDIRECTS

BUNDLE: dict[str, Any] = {"keys": [], "spiffe_sequence": 1}
SERVER = SpiffeId.parse("spiffe://b.example/accredit/issuer")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """The CA that stands for the Web PKI."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its certificate in a file."""
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return file


@pytest.fixture(scope="module")
def b_example() -> Authority:
    """Another trust domain, valid by the real clock."""
    return Authority("b.example", now=datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def web(ca: trustme.CA) -> Iterator[BundleEndpoint]:
    """An https_web endpoint that serves a bundle."""
    with web_endpoint(ca) as made:
        made.serve(BUNDLE)
        yield made


@pytest.fixture
def spiffe(b_example: Authority) -> Iterator[BundleEndpoint]:
    """An https_spiffe endpoint that serves a bundle."""
    with spiffe_endpoint(b_example.issue(SERVER)) as made:
        made.serve(BUNDLE)
        yield made


def fetched(endpoint: Endpoint, seconds: float = 8.0) -> bytes:
    """Fetch, in this thread."""
    return asyncio.run(fetch(endpoint, seconds=seconds))


def refused(endpoint: Endpoint, why: str) -> str:
    """Fetch what must not be had; returns what is said."""
    with pytest.raises(FetchFailed, match=why) as refusal:
        fetched(endpoint)
    return str(refusal.value)


@pytest.mark.spec("SPIFFE-84")
@pytest.mark.spec("SPIFFE-89")
def test_https_web_trusts_the_web_pki(web: BundleEndpoint, ca_file: Path) -> None:
    """A certificate for the host under a trusted CA is enough."""
    assert json.loads(fetched(WebEndpoint(url=web.url, ca_file=ca_file))) == BUNDLE


@pytest.mark.spec("SPIFFE-84")
@pytest.mark.spec("SPIFFE-90")
def test_https_spiffe_trusts_one_spiffe_id(spiffe: BundleEndpoint, b_example: Authority) -> None:
    """An X.509-SVID of the configured ID is enough, whatever the host is called."""
    endpoint = SpiffeEndpoint(url=spiffe.url, spiffe_id=SERVER, bundle=b_example.bundle)
    assert json.loads(fetched(endpoint)) == BUNDLE


@pytest.mark.spec("SPIFFE-87")
def test_nothing_is_shown_of_us(
    web: BundleEndpoint, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No credential, no cookie, no compression; a proxy of the environment is not used."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    web.answers["/first"] = Served(
        status=302, headers={"Location": web.url, "Set-Cookie": "a=b; Path=/; Secure"}
    )
    assert fetched(WebEndpoint(url=web.at("/first"), ca_file=ca_file))
    assert [path for path, _ in web.requests] == ["/first", "/bundle"]
    for _, headers in web.requests:
        assert not headers.keys() & {"cookie", "authorization", "referer"}
        assert headers["accept-encoding"] == "identity"


@pytest.mark.spec("SPIFFE-89")
def test_https_web_another_host_name(ca: trustme.CA, ca_file: Path) -> None:
    """A good certificate for another name is refused."""
    with web_endpoint(ca, named="localhost.example") as other:
        other.serve(BUNDLE)
        refused(WebEndpoint(url=other.url, ca_file=ca_file), "not the one that is trusted")
        assert other.requests == []


@pytest.mark.spec("SPIFFE-89")
def test_https_web_another_ca(ca_file: Path) -> None:
    """A certificate for the host under a CA that nobody trusts is refused."""
    with web_endpoint(trustme.CA()) as other:
        refused(WebEndpoint(url=other.url, ca_file=ca_file), "not the one that is trusted")
        assert other.requests == []


def test_https_web_trusts_the_systems_cas_only(web: BundleEndpoint) -> None:
    """Without a file the system's CAs decide, and ours is none of them."""
    refused(WebEndpoint(url=web.url), "not the one that is trusted")
    assert web.requests == []


@pytest.mark.spec("SPIFFE-90")
def test_https_spiffe_is_not_for_the_web_pki(web: BundleEndpoint, b_example: Authority) -> None:
    """A certificate of the Web PKI is no X.509-SVID."""
    endpoint = SpiffeEndpoint(url=web.url, spiffe_id=SERVER, bundle=b_example.bundle)
    refused(endpoint, "not the one that is trusted")


def test_https_web_is_not_for_svids(spiffe: BundleEndpoint, ca_file: Path) -> None:
    """An X.509-SVID is no certificate of the Web PKI."""
    refused(WebEndpoint(url=spiffe.url, ca_file=ca_file), "not the one that is trusted")


@pytest.mark.spec("SPIFFE-90")
@pytest.mark.parametrize(
    "path", ["/accredit/issuers", "/accredit", "/Accredit/issuer", "/accredit/issuer/2"]
)
def test_https_spiffe_another_id(b_example: Authority, path: str) -> None:
    """Another holder of an SVID of the same trust domain is refused, and not even asked."""
    with spiffe_endpoint(b_example.issue(b_example.id(path))) as other:
        other.serve(BUNDLE)
        endpoint = SpiffeEndpoint(url=other.url, spiffe_id=SERVER, bundle=b_example.bundle)
        said = refused(endpoint, "must be spiffe://b.example/accredit/issuer")
        assert ": peer refused: the endpoint must be " in said, "as words, and no tuple"
        assert other.requests == []


@pytest.mark.spec("SPIFFE-90")
def test_https_spiffe_another_authority(b_example: Authority) -> None:
    """The right ID under a root that the bundle does not have is refused."""
    with spiffe_endpoint(Authority("b.example", now=b_example.now).issue(SERVER)) as other:
        endpoint = SpiffeEndpoint(url=other.url, spiffe_id=SERVER, bundle=b_example.bundle)
        refused(endpoint, "not the one that is trusted")


@pytest.mark.spec("SPIFFE-83")
def test_https_spiffe_an_authority_speaks_for_its_own_domain(b_example: Authority) -> None:
    """A root of the bundle that signs for another trust domain is refused."""
    c_example = SpiffeId.parse("spiffe://c.example/accredit/issuer")
    with spiffe_endpoint(b_example.issue(c_example)) as other:
        endpoint = SpiffeEndpoint(url=other.url, spiffe_id=c_example, bundle=b_example.bundle)
        refused(endpoint, "not of the trust domain")


@pytest.mark.spec("SPIFFE-90")
def test_https_spiffe_an_expired_svid(b_example: Authority) -> None:
    """An SVID that is over is refused."""
    over = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=5)
    with spiffe_endpoint(b_example.issue(SERVER, not_after=over)) as other:
        endpoint = SpiffeEndpoint(url=other.url, spiffe_id=SERVER, bundle=b_example.bundle)
        refused(endpoint, "expired")


def test_https_spiffe_without_authorities(spiffe: BundleEndpoint, b_example: Authority) -> None:
    """A bundle that holds nothing authenticates nobody."""
    empty = TrustBundle(b_example.trust_domain)
    refused(SpiffeEndpoint(url=spiffe.url, spiffe_id=SERVER, bundle=empty), "no X.509 authorities")


@pytest.mark.spec("SPIFFE-91")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_forgotten(
    web: BundleEndpoint, ca_file: Path, status: int
) -> None:
    """A permanent one too: the next fetch begins at the configured address."""
    web.answers["/old"] = redirect("/bundle", status)
    endpoint = WebEndpoint(url=web.at("/old"), ca_file=ca_file)
    for _ in range(2):
        assert json.loads(fetched(endpoint)) == BUNDLE
    assert [path for path, _ in web.requests] == ["/old", "/bundle"] * 2


@pytest.mark.spec("SPIFFE-91")
@pytest.mark.parametrize(
    "location",
    [
        "http://localhost/bundle",
        "https://me:secret@localhost/bundle",
        "file:///etc/passwd",
        "",
        "#x",
    ],
)
def test_a_redirect_elsewhere_is_refused(web: BundleEndpoint, ca_file: Path, location: str) -> None:
    """To what is no endpoint URL, or to nowhere; nothing of it is repeated."""
    web.answers["/old"] = redirect(location)
    said = refused(WebEndpoint(url=web.at("/old"), ca_file=ca_file), "redirect|fragment")
    assert "secret" not in said
    assert "passwd" not in said


@pytest.mark.spec("SPIFFE-91")
def test_a_redirect_is_checked_like_the_endpoint(
    web: BundleEndpoint, ca: trustme.CA, ca_file: Path, b_example: Authority
) -> None:
    """To another host name of ours: yes. To whom the profile does not trust: no, in both."""
    with (
        web_endpoint(ca, "127.0.0.1") as good,
        web_endpoint(trustme.CA()) as bad,
        spiffe_endpoint(b_example.issue(SERVER)) as one,
        spiffe_endpoint(b_example.issue(SERVER)) as same,
        spiffe_endpoint(b_example.issue(b_example.id("/other"))) as other,
    ):
        for target in (good, bad, same, other):
            target.serve(BUNDLE)
        web.serve(redirect(good.url))
        assert json.loads(fetched(WebEndpoint(url=web.url, ca_file=ca_file))) == BUNDLE
        web.serve(redirect(bad.url))
        refused(WebEndpoint(url=web.url, ca_file=ca_file), "not the one that is trusted")
        endpoint = SpiffeEndpoint(url=one.url, spiffe_id=SERVER, bundle=b_example.bundle)
        one.serve(redirect(same.url))
        assert json.loads(fetched(endpoint)) == BUNDLE
        for elsewhere in (other, good):
            one.serve(redirect(elsewhere.url))
            refused(endpoint, "trusted")
        assert bad.requests == other.requests == []


@pytest.mark.spec("SPIFFE-91")
def test_redirects_end(web: BundleEndpoint, ca_file: Path) -> None:
    """Three are followed, a fourth is not, and neither is a circle."""
    for step in range(MAX_REDIRECTS):
        web.answers[f"/{step}"] = redirect(f"/{step + 1}")
    web.answers[f"/{MAX_REDIRECTS}"] = document(BUNDLE)
    assert fetched(WebEndpoint(url=web.at("/0"), ca_file=ca_file))
    web.answers[f"/{MAX_REDIRECTS}"] = redirect("/bundle")
    refused(WebEndpoint(url=web.at("/0"), ca_file=ca_file), "more than 3 times")
    web.requests.clear()
    web.answers["/circle"] = redirect("/circle")
    refused(WebEndpoint(url=web.at("/circle"), ca_file=ca_file), "more than 3 times")
    assert len(web.requests) == 1 + MAX_REDIRECTS


@pytest.mark.parametrize("status", [204, 206, 304, 400, 401, 404, 500, 503])
def test_another_status_is_no_bundle(web: BundleEndpoint, ca_file: Path, status: int) -> None:
    """Only 200 is an answer."""
    web.serve(Served(status=status, body=b"" if status in {204, 304} else b'{"keys": []}'))
    refused(WebEndpoint(url=web.url, ca_file=ca_file), f"status {status}")


def test_ten_megabytes_cost_one(web: BundleEndpoint, ca_file: Path) -> None:
    """Reading ends at the bound, whatever the length is said to be; nothing more is taken."""
    size = 10 * 1024 * 1024
    for headers in ({}, {"Content-Length": str(size + len(b'{"keys": []}'))}):
        web.sent = 0
        web.serve(Served(body=b'{"keys": []}', headers=headers, padding=size))
        refused(WebEndpoint(url=web.url, ca_file=ca_file), "larger than 1048576 bytes")
        # Socket buffers hold a few more than were read.
        assert web.sent < 9 * MAX_BUNDLE_BYTES


def test_a_bundle_at_the_bound_is_read(web: BundleEndpoint, ca_file: Path) -> None:
    """One mebibyte is not too much."""
    web.serve(Served(body=b" " * (MAX_BUNDLE_BYTES % 16384), padding=MAX_BUNDLE_BYTES))
    assert len(fetched(WebEndpoint(url=web.url, ca_file=ca_file))) == MAX_BUNDLE_BYTES


def test_an_endpoint_that_never_answers(web: BundleEndpoint, ca_file: Path) -> None:
    """Everything together has one deadline."""
    web.serve(Served(silent=True))
    with pytest.raises(FetchFailed, match="longer than"):
        fetched(WebEndpoint(url=web.url, ca_file=ca_file), seconds=0.3)


def test_nobody_there(ca: trustme.CA, ca_file: Path) -> None:
    """A closed port is said with host and port, and so is a name that nobody has."""
    with web_endpoint(ca) as gone:
        url, port = gone.url, gone.port
    said = refused(WebEndpoint(url=url, ca_file=ca_file), "did not answer")
    assert said == f"localhost:{port} did not answer: the connection was refused"
    said = refused(WebEndpoint(url="https://nobody.invalid/x", ca_file=ca_file), "did not answer")
    assert said == "nobody.invalid:443 did not answer: the name is not known"


def test_where_a_redirect_leads_is_not_repeated(ca: trustme.CA, ca_file: Path) -> None:
    """Host and port of a hop are the endpoint's words, and not in what is said."""
    with web_endpoint(ca) as web:
        web.serve(redirect("https://canary.invalid/"))
        said = refused(WebEndpoint(url=web.url, ca_file=ca_file), "did not answer")
    assert said == "where the endpoint redirects to did not answer: the name is not known"


@pytest.mark.spec("SPIFFE-86")
@pytest.mark.parametrize("url", ["http://localhost/", "https://me@localhost/", "localhost"])
def test_only_endpoint_urls_are_asked(url: str, ca_file: Path) -> None:
    """What is no endpoint URL is not asked, even if it came past the door."""
    refused(WebEndpoint(url=url, ca_file=ca_file), "endpoint_url")


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "x"])
def test_the_content_type_is_not_looked_at(web: BundleEndpoint, ca_file: Path, kind: str) -> None:
    """It SHOULD be application/json: nobody depends on it."""
    web.serve(Served(body=b'{"keys": []}', headers={"Content-Type": kind}))
    assert fetched(WebEndpoint(url=web.url, ca_file=ca_file)) == b'{"keys": []}'
