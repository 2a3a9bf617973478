"""Where trust starts: files and pins, and their nearest neighbours that are refused."""

from pathlib import Path

import pytest
from cryptography import x509
from support.authority import Authority, deviating, uri_san

from accredit_client.errors import InvalidAnswer, InvalidTrust, IssuerUntrusted
from accredit_client.trust import Trust, newer, pin_of
from accredit_credentials.bundle import TrustBundle


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bundle"
    path.write_text(text)
    return path


def test_a_spiffe_bundle_names_its_trust_domain(tmp_path: Path, authority: Authority) -> None:
    """A bundle document is enough: the trust domain stands in its roots."""
    trust = Trust.from_file(_file(tmp_path, authority.bundle.to_json()))
    assert trust.bundle == authority.bundle


def test_roots_in_pem_are_enough(tmp_path: Path, authority: Authority) -> None:
    """PEM roots give the X.509 authorities; the rest is fetched."""
    trust = Trust.from_file(_file(tmp_path, authority.bundle.x509_pem), "example.org")
    assert trust.bundle is not None
    assert trust.bundle.x509_authorities == authority.bundle.x509_authorities
    assert trust.bundle.trust_domain == authority.trust_domain


def test_another_trust_domain_than_expected_is_refused(
    tmp_path: Path, authority: Authority
) -> None:
    """Where the trust domain is said, the file must be its."""
    with pytest.raises(InvalidTrust, match=r"is of example\.org, expected other\.example"):
        Trust.from_file(_file(tmp_path, authority.bundle.to_json()), "other.example")


def test_roots_of_two_trust_domains_are_refused(
    tmp_path: Path, authority: Authority, other_authority: Authority
) -> None:
    """A file that mixes trust domains is no start: authorities are never merged."""
    mixed = authority.bundle.x509_pem + other_authority.bundle.x509_pem
    with pytest.raises(InvalidTrust, match="one trust domain, has 2"):
        Trust.from_file(_file(tmp_path, mixed))


@pytest.mark.parametrize("text", ["", "{}", '{"keys": []}', "-----BEGIN", "{" * 5000])
def test_what_is_no_bundle_is_refused(tmp_path: Path, text: str) -> None:
    """Empty, torn and nested files are refused by name."""
    with pytest.raises(InvalidTrust, match="trust bundle"):
        Trust.from_file(_file(tmp_path, text))


def test_a_leaf_is_no_root(tmp_path: Path, authority: Authority) -> None:
    """A certificate that is not a CA cannot be trusted as one."""
    with pytest.raises(InvalidTrust, match="not a CA"):
        Trust.from_file(_file(tmp_path, authority.issue().svid.pem))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error says which file, and why not."""
    with pytest.raises(InvalidTrust, match=r"nowhere cannot be read: No such file"):
        Trust.from_file(tmp_path / "nowhere")


def test_a_pin_keeps_one_authority_of_many(
    authority: Authority, other_authority: Authority
) -> None:
    """Of an unverified bundle only the pinned root is believed, and the name inside it."""
    document = TrustBundle(
        other_authority.trust_domain,
        (*other_authority.bundle.x509_authorities, *authority.bundle.x509_authorities),
        other_authority.bundle.jwt_authorities,
    ).to_json()
    anchored = Trust.from_pin(pin_of(authority.root.certificate)).anchor(document.encode())
    assert anchored == TrustBundle(authority.trust_domain, (authority.root.certificate,))


def test_the_pins_failing_twins(authority: Authority, other_authority: Authority) -> None:
    """Another root, a root with the same name and another key, and no bundle at all."""
    trust = Trust.from_pin(pin_of(authority.root.certificate))
    twin = authority.ca(common_name="example.org root")
    for root in (other_authority.root, twin):
        document = TrustBundle(authority.trust_domain, (root.certificate,)).to_json().encode()
        with pytest.raises(IssuerUntrusted, match="no authority of this issuer"):
            trust.anchor(document)
    with pytest.raises(InvalidAnswer):
        trust.anchor(b"[]")


def test_a_pinned_root_that_names_no_trust_domain_is_refused(authority: Authority) -> None:
    """Without a name inside the root, the pin would authenticate a key and not its domain."""
    root = authority.root
    for changed in (
        deviating(root.certificate, root, without=[x509.SubjectAlternativeName]),
        deviating(root.certificate, root, extensions=[(uri_san("spiffe://a/path"), False)]),
        deviating(
            root.certificate, root, extensions=[(uri_san("spiffe://a", "spiffe://b"), False)]
        ),
    ):
        document = TrustBundle(authority.trust_domain, (changed,)).to_json().encode()
        with pytest.raises(InvalidTrust, match="must name its trust domain"):
            Trust.from_pin(pin_of(changed)).anchor(document)


@pytest.mark.parametrize(
    "pin",
    ["", "sha256:", "sha256:" + "a" * 63, "sha256:" + "A" * 64, "a" * 64, f"sha256:{'a' * 64}\n"],
)
def test_a_pin_has_one_spelling(pin: str) -> None:
    """Prefix, length and case are exact."""
    with pytest.raises(InvalidTrust, match="pin must be sha256"):
        Trust.from_pin(pin)


def test_a_bundle_does_not_go_back(authority: Authority) -> None:
    """Of two bundles the later one is held, whichever was fetched last."""
    old, new = (
        TrustBundle(authority.trust_domain, authority.bundle.x509_authorities, sequence=sequence)
        for sequence in (4, 5)
    )
    assert newer(old, new) is new
    assert newer(new, old) is new
    with pytest.raises(InvalidAnswer):
        newer(old, TrustBundle(authority.trust_domain, sequence=6))
