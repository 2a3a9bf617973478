"""CAs that are limited to namespaces, and what counts below them."""

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from support.authority import HOUR, NOW, Authority, deviating

from accredit_credentials.errors import Untrusted
from accredit_credentials.reach import (
    MAX_NAMESPACE_LENGTH,
    check_reach,
    namespace_attributes,
    namespaces_of,
)
from accredit_credentials.x509_svid import validate

AUTHORITY = Authority()
ALLOWED = ["/ns/support/agent/triage", "/ns/search/agent/x", "/ns/search/agent/x/instance"]
REFUSED = [
    "/ns/payments/agent/triage",
    "/ns/supports/agent/triage",
    "/ns/Support/agent/triage",
    "/ns/support/agent",
    "/ns/support/service/triage",
    "/admin/maria",
    "/accredit/issuer",
    "/support",
]


@pytest.mark.parametrize("path", [*ALLOWED, *REFUSED])
def test_below_a_limited_ca(path: str) -> None:
    """Only agents of the named namespaces count below it; below the issuing CA everybody does."""
    limited = AUTHORITY.ca(
        below=AUTHORITY.root, path_length=0, namespaces=("support", "search"), dns_names=()
    )
    spiffe_id = AUTHORITY.id(path)
    svid = AUTHORITY.issue(spiffe_id, signer=limited).svid
    if path in ALLOWED:
        validate(svid, bundles=AUTHORITY.bundles, now=NOW)
    else:
        with pytest.raises(Untrusted, match="limited to agents of 'support, search'"):
            validate(svid, bundles=AUTHORITY.bundles, now=NOW)
        validate(svid, bundles=AUTHORITY.bundles, now=NOW, any_reach=True)
    validate(AUTHORITY.issue(spiffe_id).svid, bundles=AUTHORITY.bundles, now=NOW)


def test_the_limit_is_the_path_that_was_proved() -> None:
    """A second, unlimited certificate of the same chain does not lift it."""
    limited = AUTHORITY.ca(below=AUTHORITY.root, path_length=0, namespaces=("support",))
    chain = (AUTHORITY.issuing.certificate, limited.certificate)
    svid = AUTHORITY.issue(AUTHORITY.id("/admin/maria"), signer=limited, chain=chain).svid
    with pytest.raises(Untrusted, match="limited"):
        validate(svid, bundles=AUTHORITY.bundles, now=NOW)


def test_each_ca_above_has_to_allow_it() -> None:
    """Of two limits one below the other, both hold."""
    upper = AUTHORITY.ca(below=AUTHORITY.root, path_length=1, namespaces=("support", "search"))
    lower = AUTHORITY.ca(
        below=upper, path_length=0, namespaces=("support", "payments"), common_name="lower"
    )
    above = [lower.certificate, upper.certificate, AUTHORITY.root.certificate]
    check_reach(AUTHORITY.id("/ns/support/agent/x"), above)
    for namespace in ("search", "payments"):
        with pytest.raises(Untrusted):
            check_reach(AUTHORITY.id(f"/ns/{namespace}/agent/x"), above)


def test_other_attributes_limit_nothing() -> None:
    """An organisational unit of somebody else's making is a name, and no limit."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "c"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Payments"),
        ]
    )
    ca = deviating(AUTHORITY.issuing.certificate, AUTHORITY.root, subject=subject)
    assert namespaces_of(ca) is None
    check_reach(AUTHORITY.id("/admin/maria"), [ca])


def test_the_longest_namespace_fits() -> None:
    """What may be granted stays within what X.520 gives an organisational unit."""
    (attribute,) = namespace_attributes(["n" * MAX_NAMESPACE_LENGTH])
    assert len(attribute.value) == 64


@pytest.mark.parametrize(
    ("granted", "name", "holds"),
    [
        (("child.example.org",), "child.example.org", True),
        (("child.example.org",), "a.child.example.org", True),
        (("child.example.org",), "issuer.example.org", False),
        ((), "child.example.org", False),
        (None, "anything.example", True),
    ],
)
def test_names_below_a_limited_ca(
    granted: tuple[str, ...] | None, name: str, *, holds: bool
) -> None:
    """A server's DNS name counts if it was granted; without a grant there is none."""
    limited = AUTHORITY.ca(
        below=AUTHORITY.root, path_length=0, namespaces=("support",), dns_names=granted
    )
    svid = AUTHORITY.issue(signer=limited, dns_names=(name,), not_after=NOW + HOUR).svid
    if holds:
        validate(svid, bundles=AUTHORITY.bundles, now=NOW)
    else:
        with pytest.raises(Untrusted, match="no path"):
            validate(svid, bundles=AUTHORITY.bundles, now=NOW)
