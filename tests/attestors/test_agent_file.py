"""agent.toml: what an author may write, and the manifest that comes of it."""

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from accredit_attestors.agent_file import TEMPLATE, load
from accredit_attestors.errors import CannotCollect, InvalidAgentFile, InvalidTree
from accredit_attestors.manifest import (
    Action,
    Assurance,
    Delegation,
    Limits,
    Risk,
    Signer,
    sign,
    verify,
)
from accredit_attestors.tree import DEFAULT_EXCLUDE, measure, measure_file
from accredit_credentials.spiffe_id import AgentId

DOCS = Path(__file__).parents[2] / "docs" / "manifest.md"
LEAST = """
[agent]
name = "payments/refund-agent"
version = "1"
owner = "ada@example.com"
purpose = "Refunds"
"""


def _write(root: Path, text: str) -> Path:
    path = root / "agent.toml"
    path.write_text(text)
    return path


def test_template_makes_a_manifest_that_verifies(
    tree: Path, key: ed25519.Ed25519PrivateKey, signer: Signer, now: datetime
) -> None:
    """What ``accredit manifest init`` writes is valid as it stands, and can be signed."""
    path = _write(tree, TEMPLATE)
    manifest = load(path).manifest(now.replace(microsecond=7))
    verified = verify(sign(manifest, key), signers=[signer], now=now)
    assert verified.manifest == manifest
    assert manifest.issued_at == now
    assert manifest.expires_at == now + timedelta(days=90)
    assert manifest.code.digest == measure(tree, manifest.code.selection).digest
    assert manifest.code.exclude == (*DEFAULT_EXCLUDE, ".venv")
    assert set(manifest.resources[0].actions) == {
        Action("read", Risk.LOW),
        Action("refund", Risk.HIGH),
    }


def test_documented_example_is_accepted(tree: Path, now: datetime) -> None:
    """The agent.toml in docs/manifest.md is valid as it stands."""
    found = re.search(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    (tree / "prompts" / "system.md").write_text("Be kind.\n")
    manifest = load(_write(tree, found[1])).manifest(now)
    assert manifest.agent == AgentId.parse("payments/refund-agent")


def test_every_key_is_optional_but_four(tree: Path, now: datetime) -> None:
    """Name, version, owner and purpose are enough; the rest has the documented defaults."""
    manifest = load(_write(tree, LEAST)).manifest(now)
    assert manifest.assurance is Assurance.SELF
    assert not manifest.instance_in_path
    assert manifest.code.include == ("**",)
    assert manifest.code.exclude == DEFAULT_EXCLUDE
    assert manifest.resources == ()
    assert manifest.artefacts == ()
    assert manifest.delegation == Delegation(0, ())
    assert manifest.limits == Limits()


def test_every_key_is_read(tree: Path, now: datetime) -> None:
    """What the author wrote arrives in the manifest."""
    manifest = load(
        _write(
            tree,
            LEAST
            + """
assurance = "node"
instance_in_path = true
[code]
root = "prompts"
include = ["*.md"]
exclude = ["draft", ".git"]
[[artefact]]
role = "prompt"
name = "system"
path = "prompts/system päge.md"
[[resource]]
name = "orders"
audience = "spiffe://example.com/orders"
bearer = true
[resource.actions]
read = "medium"
[delegation]
max_depth = 1
to = ["payments/mailer"]
[limits]
x509_svid_seconds = 60
jwt_svid_seconds = 61
task_token_seconds = 62
[validity]
days = 7
""",
        )
    ).manifest(now)
    assert manifest.assurance is Assurance.NODE
    assert manifest.instance_in_path
    assert manifest.code.include == ("*.md",)
    assert manifest.code.exclude == (*DEFAULT_EXCLUDE, "draft")
    assert manifest.code.digest == measure(tree / "prompts", manifest.code.selection).digest
    artefact = tree / "prompts" / "system päge.md"
    assert manifest.artefacts[0].digest == measure_file(artefact, max_bytes=99)
    resource = manifest.resource("orders")
    assert resource is not None
    assert resource.bearer
    assert resource.actions == (Action("read", Risk.MEDIUM),)
    assert manifest.delegation == Delegation(1, (AgentId.parse("payments/mailer"),))
    assert manifest.limits == Limits(
        x509_svid_seconds=60, jwt_svid_seconds=61, task_token_seconds=62
    )
    assert manifest.expires_at - manifest.issued_at == timedelta(days=7)


_RESOURCE = '[[resource]]\nname = "a"\naudience = "https://a.example"\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "agent"),
        (LEAST + "asurance = 'node'", "agent.toml: agent has the unknown key 'asurance'"),
        (LEAST + "[limit]\n", "agent.toml has the unknown key 'limit'"),
        (LEAST + "[limits]\nx509 = 1", "limits has the unknown key 'x509'"),
        (LEAST + "[code]\nignore = []", "code has the unknown key 'ignore'"),
        (LEAST + "[delegation]\ndepth = 1", "delegation has the unknown key 'depth'"),
        (LEAST + "[validity]\nyears = 1", "validity has the unknown key 'years'"),
        (LEAST + "[[artefact]]\nsha256 = 'x'", r"artefact\[0\] has the unknown key 'sha256'"),
        (LEAST + _RESOURCE + "url = 'x'", r"resource\[0\] has the unknown key 'url'"),
        (LEAST + _RESOURCE, "actions"),
        (LEAST + _RESOURCE + "[resource.actions]", "0 actions"),
        (LEAST + _RESOURCE + "[resource.actions]\nread = 'tiny'", "risk 'tiny'"),
        (LEAST + _RESOURCE + "[resource.actions]\nread = 1", "actions: read must be a string"),
        (LEAST + (_RESOURCE + "[resource.actions]\nr = 'low'\n") * 2, "resource 'a' stands twice"),
        (LEAST + "[resource]\nname = 'a'", "resource must be an array"),
        (LEAST + "[validity]\ndays = 0", "days 0"),
        (LEAST + "[validity]\ndays = 367", "days 367"),
        (LEAST + "[validity]\ndays = true", "days must be a whole number"),
        (LEAST + "[limits]\ntask_token_seconds = 0", "task_token_seconds 0"),
        (LEAST + "instance_in_path = 'no'", "instance_in_path must be true or false"),
        (LEAST + "assurance = 'trust-me'", "assurance 'trust-me'"),
        (LEAST + "[code]\ninclude = []", "include"),
        (LEAST + "[code]\ninclude = '*'", "include must be an array"),
        (LEAST + "[code]\nexclude = ['/etc']", "pattern '/etc'"),
        (LEAST + "[delegation]\nto = ['mailer']", "'mailer'"),
        (LEAST.replace("ada@", "Ada@"), "owner 'Ada@"),
        (LEAST.replace("payments/", ""), "refund-agent"),
        (LEAST.replace('version = "1"', ""), "must have the key 'version'"),
        (LEAST.replace('version = "1"', "version = 1"), "version must be a string"),
        (LEAST + LEAST, "TOML"),
        (LEAST + "x = " + "[" * 20_000, "TOML"),
    ],
)
def test_agent_file_is_refused(tree: Path, text: str, named: str) -> None:
    """What is unknown, missing or out of bounds is refused; the message names file and key."""
    path = _write(tree, text)
    with pytest.raises(InvalidAgentFile, match=named) as refused:
        load(path)
    assert str(path) in str(refused.value)


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Missing, too big and not UTF-8 are refused."""
    with pytest.raises(CannotCollect):
        load(tmp_path / "agent.toml")
    with pytest.raises(CannotCollect):
        load(_write(tmp_path, "#" * 65537))
    (tmp_path / "agent.toml").write_bytes(b"\xff")
    with pytest.raises(InvalidAgentFile):
        load(tmp_path / "agent.toml")


def test_missing_code_and_artefact_are_refused(tree: Path, now: datetime) -> None:
    """A manifest is not made from what cannot be measured."""
    for more in (
        "[code]\nroot = 'src'",
        "[[artefact]]\nrole = 'model'\nname = 'm'\npath = 'no.bin'",
    ):
        with pytest.raises(InvalidTree):
            load(_write(tree, LEAST + more)).manifest(now)
