"""What a manifest may say: tables of values, accepted and refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accredit_attestors.errors import InvalidLevel, InvalidManifest, ManifestExpired
from accredit_attestors.manifest import (
    Action,
    Artefact,
    Assurance,
    Code,
    Delegation,
    Limits,
    Manifest,
    Resource,
    Risk,
    Role,
)
from accredit_credentials.spiffe_id import AgentId

_READ = (Action("read", Risk.LOW),)
_DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "0"},
        {"version": "2026.1.31+build_7-rc.1"},
        {"version": "v" * 64},
        {"owner": "a.b+c@mail.example.co.uk"},
        {"owner": "a" * 64 + "@example.com"},
        {"purpose": "x"},
        {"purpose": "ü" * 500},
        {"resources": ()},
        {"delegation": Delegation(8, (AgentId.parse("a/b"),))},
        {"limits": Limits(x509_svid_seconds=1, jwt_svid_seconds=3600, task_token_seconds=1)},
        {"expires_at": datetime(2027, 3, 1, 12, tzinfo=UTC)},
    ],
)
def test_value_at_its_bound_is_accepted(manifest: Manifest, changes: dict[str, Any]) -> None:
    """The last value inside of each bound is accepted."""
    assert replace(manifest, **changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": ""}, "version"),
        ({"version": "-1"}, "version"),
        ({"version": "1\n"}, "version"),
        ({"version": "v" * 65}, "version"),
        ({"version": "1/2"}, "version"),
        ({"owner": "Ada@example.com"}, "owner"),
        ({"owner": "ada@localhost"}, "owner"),
        ({"owner": "ada@example.com,bob@example.com"}, "owner"),
        ({"owner": "ada@example.com\n"}, "owner"),
        ({"owner": "Ada <ada@example.com>"}, "owner"),
        ({"owner": "a..b@example.com"}, "owner"),
        ({"owner": "a" * 65 + "@example.com"}, "owner"),
        ({"owner": "a@" + "b" * 63 + ".example.com" * 20}, "owner"),
        ({"purpose": ""}, "purpose"),
        ({"purpose": "  "}, "purpose"),
        ({"purpose": "x" * 501}, "purpose"),
        ({"purpose": "two\nlines"}, "purpose"),
        ({"purpose": "colour \x1b[31m"}, "purpose"),
        ({"purpose": "turned \u202e around"}, "purpose"),
        ({"purpose": "half a \ud800 pair"}, "purpose"),
        ({"resources": (Resource("a", "https://a.example", _READ),) * 2}, "resource 'a'"),
        (
            {
                "resources": (
                    Resource("a", "https://a.example", _READ),
                    Resource("b", "https://a.example", _READ),
                )
            },
            "audience",
        ),
        (
            {
                "resources": tuple(
                    Resource(f"r{i}", f"https://r{i}.example", _READ) for i in range(65)
                )
            },
            "65 resources",
        ),
        ({"artefacts": (Artefact(Role.MODEL, "m", _DIGEST),) * 2}, "artefact"),
        ({"expires_at": datetime(2026, 2, 28, 12, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": datetime(2027, 3, 1, 12, 0, 1, tzinfo=UTC)}, "366 days"),
        ({"expires_at": datetime(9999, 12, 31, tzinfo=UTC)}, "366 days"),
        ({"issued_at": datetime(2026, 3, 1)}, "issued_at"),  # noqa: DTZ001 (what is refused)
        ({"issued_at": datetime(2026, 3, 1, 0, 0, 0, 1, tzinfo=UTC)}, "issued_at"),
    ],
)
def test_value_out_of_bounds_is_refused(
    manifest: Manifest, changes: dict[str, Any], named: str
) -> None:
    """The first value outside of each bound is refused, and the message names it."""
    with pytest.raises(InvalidManifest, match=named):
        replace(manifest, **changes)


@pytest.mark.parametrize(
    "audience",
    [
        "https://a.example",
        "https://a.example:8443/v1/orders?tenant=7",
        "https://[2001:db8::1]/",
        "https://10.0.0.1/a%20b",
        "spiffe://example.com/ns/a",
        "spiffe://example.com",
        "https://a.example/" + "x" * 2030,
    ],
)
def test_audience_is_accepted(audience: str) -> None:
    """An absolute https URL or a SPIFFE ID may be an audience."""
    assert Resource("r", audience, _READ).audience == audience


@pytest.mark.parametrize(
    "audience",
    [
        "",
        "a.example",
        "//a.example",
        "http://a.example",
        "HTTPS://a.example",
        "https://A.example",
        "https://",
        "https:///path",
        "https://a.example#part",
        "https://a.example/#",
        "https://user@a.example",
        "https://user:secret@a.example",
        "https://a.example\\@b.example",
        "https://a.example/ b",
        "https://a.example/\n",
        "https://a.example/%zz",
        "https://a.example:0",
        "https://a.example:65536",
        "https://a.example:",
        "https://-a.example",
        "https://ä.example",
        "https://a.example/" + "x" * 2031,
        "https://evil.example/https://trusted.example#",
        "spiffe://Example.com/a",
        "SPIFFE://example.com/a",
        "spiffe://example.com/a/../b",
        "spiffe://example.com/a/",
        "spiffe://user@example.com/a",
        "urn:orders",
    ],
)
def test_audience_is_refused(audience: str) -> None:
    """Anything else, or another spelling of an accepted audience, is refused."""
    with pytest.raises(InvalidManifest, match="audience"):
        Resource("r", audience, _READ)


@pytest.mark.parametrize("name", ["", "Upper", "-a", "a-", "a b", "a\n", "a" * 64, "ä"])
def test_name_is_refused(name: str) -> None:
    """Resources and actions are named like agents, and nothing else is a name."""
    with pytest.raises(InvalidManifest, match="resource"):
        Resource(name, "https://a.example", _READ)
    with pytest.raises(InvalidManifest, match="action"):
        Action(name, Risk.LOW)
    assert Resource("a" * 63, "https://a.example", (Action("a.b_c-d", Risk.LOW),))


def test_resource_without_actions_is_refused() -> None:
    """A resource declares 1 to 64 different actions."""
    for actions in ((), _READ * 2, tuple(Action(f"a{i}", Risk.LOW) for i in range(65))):
        with pytest.raises(InvalidManifest, match="action"):
            Resource("r", "https://a.example", actions)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Delegation(-1), "max_depth"),
        (lambda: Delegation(9), "max_depth"),
        (lambda: Delegation(1, (AgentId.parse("a/b"),) * 2), "a/b"),
        (lambda: Delegation(1, tuple(AgentId("a", f"b{i}") for i in range(65))), "65 agents"),
        (lambda: Limits(x509_svid_seconds=0), "x509_svid_seconds"),
        (lambda: Limits(x509_svid_seconds=86401), "x509_svid_seconds"),
        (lambda: Limits(jwt_svid_seconds=3601), "jwt_svid_seconds"),
        (lambda: Limits(task_token_seconds=301), "task_token_seconds"),
        (lambda: Code("sha256:" + "AB" * 32), "code digest"),
        (lambda: Code("ab" * 32), "code digest"),
        (lambda: Code(_DIGEST + "\n"), "code digest"),
        (lambda: Code(_DIGEST, include=()), "include"),
        (lambda: Code(_DIGEST, exclude=("../x",)), "pattern"),
        (lambda: Artefact(Role.MODEL, "", _DIGEST), "artefact"),
        (lambda: Artefact(Role.MODEL, "m", "sha1:00"), "artefact m"),
        (lambda: Role.parse("weights"), "role"),
    ],
)
def test_part_out_of_bounds_is_refused(make: Any, named: str) -> None:
    """Delegation, limits, code and artefacts check themselves; zero is never unlimited."""
    with pytest.raises(InvalidManifest, match=named):
        make()


def test_dates_bound_validity(manifest: Manifest) -> None:
    """A manifest is valid from 60 s before it was issued until just before it expires."""
    second = timedelta(seconds=1)
    manifest.check_valid_at(manifest.issued_at - 60 * second)
    manifest.check_valid_at(manifest.expires_at - second)
    for moment in (manifest.issued_at - 61 * second, manifest.expires_at):
        with pytest.raises(ManifestExpired):
            manifest.check_valid_at(moment)


def test_resources_are_found_by_name(manifest: Manifest) -> None:
    """A resource and its action are found by exact name, and an unknown one is none."""
    orders = manifest.resource("orders")
    assert orders is not None
    assert orders.action("refund") == Action("refund", Risk.HIGH)
    assert orders.action("Refund") is None
    assert manifest.resource("order") is None


def test_levels_are_ordered() -> None:
    """Levels compare by rank among their own kind only, and have one spelling each."""
    assert list(Assurance) == sorted(Assurance, key=lambda level: list(Assurance).index(level))
    assert Assurance.SELF < Assurance.NODE < Assurance.PLATFORM < Assurance.HARDWARE
    assert Risk.LOW < Risk.MEDIUM < Risk.HIGH
    assert Assurance.NODE >= Assurance.NODE > Assurance.SELF
    assert max(Assurance) is Assurance.HARDWARE
    assert [Assurance.parse(str(level)) for level in Assurance] == list(Assurance)
    with pytest.raises(TypeError):
        _ = Assurance.NODE < Risk.HIGH
    for text in ("", "Self", "self ", "root"):
        with pytest.raises(InvalidLevel, match="assurance"):
            Assurance.parse(text)
