"""``accredit node``: listing hosts, as a security admin types it."""

from datetime import UTC, datetime
from pathlib import Path

from client_cli.workplace import World, accredit, mode_of, succeed
from support.site import SiteCa


def test_from_nothing_to_nothing(world: World, tmp_path: Path) -> None:
    """A node is listed with a token in a private file, shown, changed, and removed."""
    file = tmp_path / "token"
    added = succeed("node", "add", "build-7", "--namespaces", "support, search", "--out", file)
    assert added.out.strip() == str(file)
    assert file.read_text().startswith("accredit-node.")
    assert mode_of(file) == 0o600
    assert "accredit-node." not in added.out + added.err
    (listed,) = succeed("node", "list", "--json").document
    assert listed == succeed("node", "show", "build-7", "--json").document
    assert listed["namespaces"] == ["support", "search"]
    assert listed["attestation"] == "join_token"
    assert listed["svid_expires_at"] is None
    assert "build-7" in succeed("node", "list").out
    assert succeed("node", "token", "build-7").out.startswith("accredit-node.")
    assert "sales" in succeed("node", "change", "build-7", "--namespaces", "sales").out
    assert "removed" in succeed("node", "remove", "build-7").out
    gone = accredit("node", "show", "build-7")
    assert gone.code == 1
    assert "is listed" in gone.err


def test_by_a_certificate_of_the_site(world: World, tmp_path: Path) -> None:
    """The CA's file and the rule go together, and there is no token."""
    ca = tmp_path / "ca.pem"
    ca.write_text(SiteCa(datetime.now(UTC)).pem)
    options = ("--namespaces", "support", "--ca", ca)
    assert accredit("node", "add", "build-8", *options).code == 2
    rule = ("--certificate", "dns:build-8.site.example")
    assert accredit("node", "add", "build-8", "--namespaces", "support", *rule).code == 2
    assert accredit("node", "add", "build-8", *options, *rule, "--out", tmp_path / "x").code == 2
    added = succeed("node", "add", "build-8", *options, *rule)
    assert "dns:build-8.site.example" in added.out
    assert "x509pop" in added.out
    wrong = accredit("node", "add", "build-9", *options, "--certificate", "dns:*")
    assert wrong.code == 1
    assert "without wildcard" in wrong.err
    no_token = accredit("node", "token", "build-8")
    assert no_token.code == 1
    assert "without a token" in no_token.err
    succeed("revoke", "node", "build-8", "--reason", "stolen")
    assert "revoked" in succeed("node", "show", "build-8").out
    succeed("node", "remove", "build-8")
