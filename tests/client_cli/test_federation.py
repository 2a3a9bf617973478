"""``accredit federation``, against one issuer and the bundle endpoint of another trust domain."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from client_cli.workplace import World, accredit, succeed
from support.authority import Authority
from support.bundle_endpoint import BundleEndpoint, Served, spiffe_endpoint

from accredit_credentials.spiffe_id import issuer_id

PAYERS = "spiffe://b.example/ns/pay/* https://ledger.example.org read,list"


@pytest.fixture(scope="module")
def b_example() -> Authority:
    """Another trust domain, valid by the real clock."""
    return Authority("b.example", now=datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def endpoint(b_example: Authority, world: World) -> Iterator[BundleEndpoint]:
    """Its bundle endpoint; no relationship is left behind."""
    with spiffe_endpoint(b_example.issue(issuer_id(b_example.trust_domain))) as made:
        made.serve(b_example.bundle)
        yield made
    accredit("federation", "remove", "b.example")


@pytest.fixture
def arguments(endpoint: BundleEndpoint, b_example: Authority, tmp_path: Path) -> list[str]:
    """What ``federation add`` is given."""
    file = tmp_path / "b.example.json"
    file.write_text(b_example.bundle.to_json())
    return [
        "federation", "add", "b.example", "--url", endpoint.url,
        "--endpoint-profile", "https_spiffe", "--bundle", str(file),
        "--endpoint-id", "spiffe://b.example/accredit/issuer",
    ]  # fmt: skip


def test_from_nothing_to_nothing(
    world: World, endpoint: BundleEndpoint, arguments: list[str]
) -> None:
    """A relationship is made, shown, given terms, and ended."""
    added = succeed(*arguments, "--feed", "https://issuer.b.example:8443", "--allow", PAYERS)
    assert "state" in added.out
    assert "current" in added.out
    assert PAYERS in added.out
    assert "asking its endpoint" in added.err
    (listed,) = succeed("federation", "list", "--json").document
    assert listed == succeed("federation", "show", "b.example", "--json").document | {
        "age_seconds": listed["age_seconds"]
    }
    assert listed["allows"][0]["actions"] == ["read", "list"]
    assert listed["bundle"]["x509_authorities"] == 1
    assert "b.example" in succeed("federation", "list").out
    succeed("federation", "allow", "b.example", "--nothing")
    assert succeed("federation", "show", "b.example", "--json").document["allows"] == []
    assert "ended" in succeed("federation", "remove", "b.example").out
    assert succeed("federation", "list").err == "no federated trust domains\n"
    assert accredit("federation", "show", "b.example").code == 1


def test_a_failure_is_one_line(
    world: World, endpoint: BundleEndpoint, arguments: list[str], b_example: Authority
) -> None:
    """What went wrong and what holds now are said; a first fetch that fails is exit code 1."""
    endpoint.serve(Served(status=503))
    added = accredit(*arguments)
    assert added.code == 1
    assert "last attempt failed: the endpoint answered with the status 503" in added.err
    assert "the given bundle stays in use" in added.err
    assert "the relationship is kept" in added.err
    assert "accredit federation refresh b.example" in added.err
    assert "given by hand, not confirmed" in added.out
    assert "given by hand, not confirmed" in succeed("federation", "list").out
    assert accredit("federation", "refresh", "b.example").code == 1
    endpoint.serve(replace(b_example.bundle, sequence=7))
    refreshed = succeed("federation", "refresh", "b.example", "--json").document
    assert (refreshed["bundle"]["sequence"], refreshed["failure"]) == (7, None)


def test_a_given_bundle_that_does_not_vouch_for_the_endpoint(
    world: World, endpoint: BundleEndpoint, arguments: list[str], tmp_path: Path
) -> None:
    """The file is doubted as long as no fetch confirmed it, and it has no age."""
    other = Authority("b.example", now=datetime.now(UTC).replace(microsecond=0))
    (tmp_path / "b.example.json").write_text(other.bundle.to_json())
    added = accredit(*arguments)
    assert added.code == 1
    assert "wrong or outdated bundle file?" in added.err
    (listed,) = succeed("federation", "list", "--json").document
    assert (listed["state"], listed["fetched_at"], listed["age_seconds"]) == (
        "unconfirmed", None, None,
    )  # fmt: skip
    assert listed["waiting_seconds"] >= 0


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--allow", "everything"], 2, "--allow must be"),
        (["--allow", "spiffe://b.example https://a read"], 1, "spiffe://b.example/*"),
        (["--allow", "spiffe://c.example/* https://a read"], 1, "not of the trust domain"),
        (["--allow", "spiffe://b.example/* https://a *"], 1, "action"),
        (["--allow", "spiffe://b.example/* ledger read"], 1, "--allow must be a URL"),
        (["--url", "http://b.example"], 1, "--url must begin with https://"),
        (["--url", "https://me:secret@b.example"], 1, "user name"),
        (["--feed", "https://b.example/v1/bundle"], 1, "--feed must be https://host[:port]"),
        (["--feed", "https://b.example/"], 1, "without a path"),
        (["--feed", "b.example"], 1, "--feed must begin with https://"),
        (["--endpoint-profile", "https_web"], 1, "--endpoint-id must be given with"),
        (["--endpoint-id", "b.example"], 1, "--endpoint-id: "),
        (["--allow", "spiffe://b.example/* https:ledger read"], 1, "must be a URL"),
        (
            ["--endpoint-id", "spiffe://c.example/x"],
            1,
            "--endpoint-id is of c.example, the relationship is with b.example",
        ),
        (["--bundle", "missing.json"], 1, "missing.json"),
    ],
)
def test_what_does_not_hold_is_refused(
    world: World, arguments: list[str], more: list[str], code: int, said: str
) -> None:
    """One line says what was wrong, nothing is made, and no secret is repeated."""
    result = accredit(*arguments, *more)
    assert result.code == code
    assert said in result.err
    assert "secret" not in result.err
    assert succeed("federation", "list", "--json").document == []


def test_allowing_says_what(world: World) -> None:
    """Neither forgetting --allow nor saying both means nothing by accident."""
    for more in ([], ["--nothing", "--allow", PAYERS]):
        assert accredit("federation", "allow", "b.example", *more).code == 2


def test_the_list_is_one_document(world: World, arguments: list[str]) -> None:
    """Programs read what people see."""
    succeed(*arguments)
    document = json.loads(succeed("federation", "list", "--json").out)
    assert [each["trust_domain"] for each in document] == ["b.example"]
