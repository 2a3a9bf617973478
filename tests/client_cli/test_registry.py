"""Signers, manifests, agents and admins: from a key to an agent that may attest."""

from pathlib import Path

import pytest
from client_cli.workplace import AGENT_TOML, World, accredit, mode_of, succeed


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A signer's private key."""
    file = tmp_path / "my.key"
    succeed("signer", "keygen", "--out", file)
    return file


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An agent's folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "agent.toml").write_text(AGENT_TOML.format(agent="support/mine"))
    (folder / "main.py").write_text("print(1)\n")
    return folder


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_keygen_writes_a_private_key_for_its_owner_alone(tmp_path: Path, kind: str) -> None:
    """The private key is 0600, its public half beside it, and neither is printed."""
    file = tmp_path / "signer.key"
    result = succeed("signer", "keygen", "--out", file, "--type", kind)
    assert mode_of(file) == 0o600
    assert "BEGIN PUBLIC KEY" in (tmp_path / "signer.key.pub").read_text()
    assert "BEGIN" not in result.out + result.err
    assert "key id" in result.out


@pytest.mark.parametrize("existing", ["signer.key", "signer.key.pub"])
def test_keygen_overwrites_nothing(tmp_path: Path, existing: str) -> None:
    """A key that is in use cannot be lost by typing a command twice."""
    (tmp_path / existing).write_text("precious")
    result = accredit("signer", "keygen", "--out", tmp_path / "signer.key")
    assert result.code == 1
    assert "exists already and is not overwritten" in result.err
    assert [file.name for file in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_private_key_is_not_sent_in_place_of_the_public_one(world: World, key: Path) -> None:
    """Naming the wrong file is refused on this machine, without repeating its content."""
    result = accredit("signer", "add", "wrong", "--key", key, "--namespace", "support")
    assert result.code == 1
    assert "BEGIN PUBLIC KEY" in result.err
    assert "PRIVATE" not in result.err


def test_signer_is_added_and_listed(world: World, key: Path) -> None:
    """What an admin adds is what the list shows, for people and for programs."""
    name = f"signer-{key.parent.name}".lower().replace("_", "-")[:60]
    succeed("signer", "add", name, "--key", f"{key}.pub", "--namespace", "a", "--namespace", "b")
    listed = {each["name"]: each for each in succeed("signer", "list", "--json").document}
    assert listed[name]["namespaces"] == ["a", "b"]
    assert name in succeed("signer", "list").out


def test_manifest_is_signed_and_verified_offline(project: Path, key: Path) -> None:
    """A pipeline signs what it built, and anybody with the public key can check it."""
    signed = succeed("manifest", "sign", project, "--key", key, "--json").document
    file = project / "agent.manifest.json"
    verified = succeed(
        "manifest", "verify", file, "--signer", f"{key}.pub", "--code-root", project, "--json"
    ).document
    assert verified["digest"] == signed["digest"]
    assert verified["code_measured"] is True
    assert "PASS" in succeed("manifest", "verify", file, "--signer", f"{key}.pub").out
    assert "support/mine@1.0.0" in succeed("manifest", "show", file).out


def test_key_comes_from_stdin(project: Path, key: Path) -> None:
    """A pipeline whose secret store prints the key needs no file."""
    succeed("manifest", "sign", project, "--key", "-", stdin=key.read_bytes())


def test_changed_code_does_not_verify(project: Path, key: Path) -> None:
    """One more byte than was signed, and the answer is no."""
    succeed("manifest", "sign", project, "--key", key)
    (project / "main.py").write_text("print(2)\n")
    result = accredit(
        "manifest", "verify", project / "agent.manifest.json", "--signer", f"{key}.pub",
        "--code-root", project,
    )  # fmt: skip
    assert (result.code, result.out) == (1, "")
    assert "the manifest declares sha256:" in result.err


def test_manifest_of_a_foreign_signer_or_namespace_does_not_verify(
    project: Path, key: Path, tmp_path: Path
) -> None:
    """The right key for another namespace is as wrong as another key."""
    succeed("manifest", "sign", project, "--key", key)
    file = project / "agent.manifest.json"
    other = accredit("manifest", "verify", file, "--signer", f"{key}.pub", "--namespace", "else")
    assert other.code == 1
    succeed("signer", "keygen", "--out", tmp_path / "other.key")
    assert accredit("manifest", "verify", file, "--signer", tmp_path / "other.key.pub").code == 1


def test_template_can_be_signed_as_it_is(tmp_path: Path, key: Path) -> None:
    """What ``init`` writes is a good start, and is not written twice."""
    folder = tmp_path / "new"
    folder.mkdir()
    succeed("manifest", "init", folder)
    succeed("manifest", "sign", folder, "--key", key)
    assert accredit("manifest", "init", folder).code == 1


def test_registered_manifest_is_listed_and_shown(world: World) -> None:
    """The issuer's registry, as a table and as one document."""
    agent = world.new_agent()
    listed = succeed("manifest", "list", "--agent", agent.name, "--json").document
    assert [each["agent"] for each in listed] == [agent.name]
    digest = listed[0]["digest"]
    assert digest in succeed("manifest", "list").out
    shown = succeed("manifest", "show", digest)
    assert "tickets: read (low), delete (high) at https://tickets.example.org" in shown.out


def test_agent_is_listed_and_shown_with_its_instances(world: World) -> None:
    """Security sees who owns an agent, and which of its instances live."""
    agent, _ = world.attested()
    rows = {each["agent"]: each for each in succeed("agent", "list", "--json").document}
    assert rows[agent.name]["owner"] == "ada@example.com"
    shown = succeed("agent", "show", agent.name).out
    assert "INSTANCE" in shown
    document = succeed("agent", "show", agent.name, "--json").document
    assert document["living_instances"][0]["instance"] in shown


def test_unknown_agent_is_refused_in_one_line(world: World) -> None:
    """The issuer's words arrive, with its kind of refusal."""
    result = accredit("agent", "show", "support/nobody")
    assert result.code == 1
    assert (
        result.err
        == "error: the issuer refused (not-found): no agent support/nobody is registered\n"
    )


def test_join_token_is_printed_alone_or_written_privately(world: World, tmp_path: Path) -> None:
    """Stdout is the token and nothing else; with --out the token is in the file only."""
    agent = world.new_agent()
    printed = succeed("agent", "enrol", agent.name, "--ttl", "60")
    assert printed.out.startswith("accredit-join.")
    assert len(printed.out.split()) == 1
    out = tmp_path / "token"
    written = succeed("agent", "enrol", agent.name, "--out", out)
    assert mode_of(out) == 0o600
    assert out.read_text().strip() not in written.out + written.err
    again = accredit("agent", "enrol", agent.name, "--out", out, "--json")
    assert (again.code, again.out) == (1, "")


def test_invitation_is_one_document_and_admins_are_listed(world: World) -> None:
    """A new admin's token comes once; the list never has it."""
    invited = succeed(
        "admin", "invite", "ci-bot", "--role", "registrar", "--namespace", "support", "--json"
    ).document
    assert invited["enrolment_token"].startswith("accredit-enrol.")
    listed = succeed("admin", "list", "--json")
    listing = {"name": "ci-bot", "role": "registrar", "namespaces": ["support"]}
    assert {**listing, "state": "active"} in listed.document
    assert "accredit-enrol" not in listed.out
