"""What agents of another trust domain may ask: patterns, allowances, addresses."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accredit_credentials.errors import InvalidFederation
from accredit_credentials.federation import (
    MAX_ACTIONS,
    MAX_ALLOWANCES,
    MAX_RESOURCE_LENGTH,
    MAX_URL_LENGTH,
    Agents,
    Allowance,
    allows,
    check_allowances,
    check_https_url,
)
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

DOMAIN = TrustDomain("b.example")
LEDGER = "https://ledger.a.example"
PAYER = "spiffe://b.example/ns/pay/agent/payer"


def allowance(
    agents: str = PAYER, resource: str = LEDGER, actions: tuple[str, ...] = ("read",)
) -> Allowance:
    """A good allowance, with some of its values changed."""
    return Allowance(Agents.parse(agents), resource, actions)


@pytest.mark.parametrize(
    ("pattern", "client", "covered"),
    [
        (PAYER, PAYER, True),
        (PAYER, "spiffe://B.EXAMPLE/ns/pay/agent/payer", True),
        (PAYER, PAYER + "/instance/1", False),
        (PAYER, PAYER + "s", False),
        (PAYER, "spiffe://b.example/ns/pay/agent/Payer", False),
        (PAYER, "spiffe://c.example/ns/pay/agent/payer", False),
        (PAYER, "spiffe://b.example", False),
        ("spiffe://b.example/ns/pay/*", PAYER, True),
        ("spiffe://b.example/ns/pay/*", "spiffe://b.example/ns/pay/x", True),
        ("spiffe://b.example/ns/pay/*", "spiffe://b.example/ns/pay", False),
        ("spiffe://b.example/ns/pay/*", "spiffe://b.example/ns/payroll/agent/a", False),
        ("spiffe://b.example/ns/pay/*", "spiffe://b.example/NS/pay/agent/a", False),
        ("spiffe://b.example/ns/pay/*", "spiffe://b.example/x/ns/pay/agent/a", False),
        ("spiffe://b.example/ns/pay/*", "spiffe://sub.b.example/ns/pay/agent/a", False),
        ("spiffe://b.example/*", PAYER, True),
        ("spiffe://b.example/*", "spiffe://b.example", False),
        ("spiffe://b.example/*", "spiffe://b.example.evil/ns/pay/agent/payer", False),
    ],
)
def test_a_pattern_covers_whole_segments_of_one_trust_domain(
    pattern: str, client: str, covered: bool
) -> None:
    """One ID, or what is below a segment: never a name that only begins alike."""
    assert Agents.parse(pattern).cover(SpiffeId.parse(client)) is covered


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "/*",
        "spiffe://*",
        "spiffe://b.example",
        "spiffe://b.example/",
        "spiffe://b.example*",
        "spiffe://*.example/*",
        "spiffe://b.example/ns/pay*",
        "spiffe://b.example/ns/*/agent/a",
        "spiffe://b.example/ns/**",
        "spiffe://b.example/ns/*/*",
        "spiffe://b.example//*",
        "spiffe://b.example/ns/../*",
        "spiffe://b.example/ns/pay/*\n",
        "https://b.example/*",
    ],
)
def test_anything_else_is_no_pattern(text: str) -> None:
    """A whole trust domain is spelled with ``/*``; a star stands alone, and last."""
    with pytest.raises(InvalidFederation):
        Agents.parse(text)


@pytest.mark.parametrize("text", [PAYER, "spiffe://b.example/*", "spiffe://b.example/ns/pay/*"])
def test_a_pattern_is_written_as_it_was_read(text: str) -> None:
    """Its text is its one spelling."""
    assert str(Agents.parse(text)) == text


READ_LEDGER = allowance("spiffe://b.example/ns/pay/*", actions=("read", "list"))
WRITE_LEDGER = allowance(actions=("write",))
READ_OTHER = allowance(resource="https://other.a.example", actions=("delete",))
TABLE = (READ_LEDGER, WRITE_LEDGER, READ_OTHER)


@pytest.mark.parametrize(
    ("client", "resource", "actions", "allowed"),
    [
        (PAYER, LEDGER, ["read"], True),
        (PAYER, LEDGER, ["read", "list"], True),
        (PAYER, LEDGER, ["read", "write"], True),  # from two allowances
        (PAYER, LEDGER, ["read", "read"], True),
        (PAYER, LEDGER, [], False),
        (PAYER, LEDGER, ["delete"], False),  # allowed on the other resource only
        (PAYER, LEDGER, ["read", "delete"], False),
        (PAYER, LEDGER, ["Read"], False),
        (PAYER, LEDGER, ["*"], False),
        (PAYER, LEDGER + "/", ["read"], False),
        (PAYER, LEDGER + "/v1", ["read"], False),
        (PAYER, "https://LEDGER.a.example", ["read"], False),
        (PAYER, "", ["read"], False),
        ("spiffe://b.example/ns/pay/agent/other", LEDGER, ["read"], True),
        ("spiffe://b.example/ns/pay/agent/other", LEDGER, ["write"], False),
        ("spiffe://b.example/ns/payroll/agent/payer", LEDGER, ["read"], False),
        ("spiffe://c.example/ns/pay/agent/payer", LEDGER, ["read"], False),
    ],
)
def test_what_is_allowed_is_what_stands_there(
    client: str, resource: str, actions: list[str], allowed: bool
) -> None:
    """Each action asked must be allowed to this client on this resource, or all is refused."""
    assert allows(TABLE, SpiffeId.parse(client), resource, actions) is allowed


def test_an_empty_list_allows_nothing() -> None:
    """A relationship alone gives nobody anything."""
    assert not allows((), SpiffeId.parse(PAYER), LEDGER, ["read"])
    assert not allows((), SpiffeId.parse(PAYER), LEDGER, [])


@given(st.sets(st.sampled_from(["read", "write", "list", "delete"])))
def test_more_actions_are_never_more_allowed(actions: set[str]) -> None:
    """Allowed together is allowed each alone."""
    client = SpiffeId.parse(PAYER)
    each = [allows(TABLE, client, LEDGER, [action]) for action in actions]
    assert allows(TABLE, client, LEDGER, actions) is (bool(each) and all(each))


def test_an_allowance_is_read_back() -> None:
    """The object is its wire form."""
    assert Allowance.of_object(READ_LEDGER.to_object()) == READ_LEDGER
    assert READ_LEDGER.to_object() == {
        "agents": "spiffe://b.example/ns/pay/*",
        "resource": LEDGER,
        "actions": ["read", "list"],
    }


GOOD: dict[str, Any] = {"agents": PAYER, "resource": LEDGER, "actions": ["read"]}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "read",
        {},
        {k: v for k, v in GOOD.items() if k != "agents"},
        {k: v for k, v in GOOD.items() if k != "resource"},
        {k: v for k, v in GOOD.items() if k != "actions"},
        {**GOOD, "unless": "sunday"},
        {**GOOD, "agents": None},
        {**GOOD, "agents": [PAYER]},
        {**GOOD, "agents": "spiffe://b.example"},
        {**GOOD, "resource": ""},
        {**GOOD, "resource": 1},
        {**GOOD, "resource": "*"},
        {**GOOD, "resource": "https://*.a.example"},
        {**GOOD, "resource": "https://a.example/ x"},
        {**GOOD, "resource": "https://a.example\n"},
        {**GOOD, "resource": "x" * (MAX_RESOURCE_LENGTH + 1)},
        {**GOOD, "actions": []},
        {**GOOD, "actions": None},
        {**GOOD, "actions": "read"},
        {**GOOD, "actions": [1]},
        {**GOOD, "actions": [""]},
        {**GOOD, "actions": ["*"]},
        {**GOOD, "actions": ["Read"]},
        {**GOOD, "actions": ["read", "read"]},
        {**GOOD, "actions": [f"a{n}" for n in range(MAX_ACTIONS + 1)]},
    ],
)
def test_any_other_object_is_no_allowance(value: object) -> None:
    """Nothing missing, nothing more, nothing that looks like a wildcard."""
    assert Allowance.of_object(GOOD)
    with pytest.raises(InvalidFederation):
        Allowance.of_object(value)


def test_a_relationship_allows_its_own_agents_only() -> None:
    """Agents of a third trust domain, a doubled allowance and too many are refused."""
    check_allowances(DOMAIN, [READ_LEDGER, WRITE_LEDGER])
    check_allowances(DOMAIN, [allowance(actions=(f"a{n}",)) for n in range(MAX_ALLOWANCES)])
    for wrong in (
        [allowance("spiffe://c.example/*")],
        [READ_LEDGER, READ_LEDGER],
        [allowance(actions=(f"a{n}",)) for n in range(MAX_ALLOWANCES + 1)],
    ):
        with pytest.raises(InvalidFederation):
            check_allowances(DOMAIN, wrong)


@pytest.mark.spec("SPIFFE-86")
@pytest.mark.parametrize(
    "url",
    [
        "https://b.example",
        "HTTPS://B.example/bundle",
        "https://b.example:8443/v1/bundle?format=spiffe&x=%20",
        "https://127.0.0.1:1/",
        "https://[::1]:8443/v1/bundle",
        "https://b.example/@x",
    ],
)
def test_an_endpoint_is_an_https_url(url: str) -> None:
    """Host, port, path and query are not constrained."""
    assert check_https_url(url, "endpoint_url") == url


@pytest.mark.spec("SPIFFE-86")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "b.example/bundle",
        "//b.example/bundle",
        "http://b.example/bundle",
        "httpsx://b.example/bundle",
        "file:///etc/passwd",
        "https:///bundle",
        "https://",
        "https:b.example",
        "https://user@b.example/bundle",
        "https://user:secret@b.example/bundle",
        "https://@b.example/bundle",
        "https://a.example\\@b.example/",
        "https://b.example:0/",
        "https://b.example:99999/",
        "https://b.example:x/",
        "https://[::1/",
        "https://b.example/#keys",
        "https://b.example/ x",
        "https://b.example/\r\nHost: c.example",
        "https://b.example/%zz",
        "https://bü.example/",
        "https://b.example/" + "x" * MAX_URL_LENGTH,
    ],
)
def test_anything_else_is_no_endpoint(url: str) -> None:
    """Another scheme, userinfo, no host, or what no URL is written with; nothing is shown of it."""
    with pytest.raises(InvalidFederation) as refusal:
        check_https_url(url, "endpoint_url")
    assert "secret" not in str(refusal.value)
