"""``accredit subordinate``: naming an issuer below this one, as its admin types it."""

from client_cli.workplace import World, accredit, succeed


def test_naming_and_unnaming(world: World) -> None:
    """An agent is named with namespaces and DNS names, listed, and named no more."""
    name = world.new_agent().name
    assert name not in succeed("subordinate", "list").out
    options = ("--namespaces", "payments, search", "--dns-names", "child.example.org")
    added = succeed("subordinate", "add", name, *options)
    assert "payments, search" in added.out
    assert "child.example.org" in added.out
    (listed,) = succeed("subordinate", "list", "--json").document
    assert listed["agent"] == name
    assert listed["namespaces"] == ["payments", "search"]
    assert listed["dns_names"] == ["child.example.org"]
    assert listed["issuing_cas"] == []
    succeed("subordinate", "remove", name)
    again = accredit("subordinate", "remove", name)
    assert again.code == 1
    assert "is no subordinate issuer" in again.err


def test_an_agent_that_is_not_registered(world: World) -> None:
    """A name that nobody registered is refused in one line."""
    result = accredit("subordinate", "add", "infra/nobody", "--namespaces", "support")
    assert result.code == 1
    assert "no agent infra/nobody is registered" in result.err
    assert accredit("subordinate", "add", "infra/nobody").code == 2
