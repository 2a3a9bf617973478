"""``daemon.toml``: each thing that it must not say, and what it says where nothing is said."""

import resource
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority

from accredit_attestors.errors import CannotCollect
from accredit_client.daemon.agents import load_entries
from accredit_client.daemon.limits import Limits
from accredit_client.daemon.running import files_needed, prepare_process
from accredit_client.daemon.settings import (
    MAX_AGENTS,
    MAX_INSTANCES,
    AgentSettings,
    InstanceLimits,
    InvalidSettings,
    load,
    read,
)

NOFILE, CORE = resource.RLIMIT_NOFILE, resource.RLIMIT_CORE

TEXT = """
[daemon]
socket = "/run/accredit/agent.sock"
data = "data"

[issuer]
url = "https://issuer.example.org:8443"
trust = "bundle.json"

[node]
name = "build-7"
join_token_file = "node.token"

[[agent]]
manifest = "summarizer.manifest.json"
code_root = "/opt/summarizer"
selectors = ["unix:user:summarizer", "unix:path:/usr/bin/python3"]

[[agent]]
manifest = "/etc/accredit/triage.manifest.json"
code_root = "/opt/triage"
selectors = ["systemd:unit:triage.service"]
hint = "internal"
"""


@pytest.fixture
def file(tmp_path: Path, authority: Authority) -> Path:
    """Settings that are good."""
    (tmp_path / "bundle.json").write_text(authority.bundle.to_json())
    made = tmp_path / "daemon.toml"
    made.write_text(TEXT)
    for each in tmp_path.iterdir():
        each.chmod(0o644)
    return made


def test_good_settings(file: Path, authority: Authority) -> None:
    """Paths are taken from the file's folder; what is not said has its default."""
    settings = load(file)
    assert settings.socket == Path("/run/accredit/agent.sock")
    assert settings.data == file.parent / "data"
    assert settings.trust.bundle is not None
    assert settings.trust.bundle.trust_domain == authority.trust_domain
    assert settings.node.join_token_file == file.parent / "node.token"
    first, second = settings.agents
    assert first == AgentSettings(
        manifest=file.parent / "summarizer.manifest.json",
        code_root="/opt/summarizer",
        selectors=frozenset({"unix:user:summarizer", "unix:path:/usr/bin/python3"}),
    )
    assert second.manifest == Path("/etc/accredit/triage.manifest.json")
    assert second.hint == "internal"
    assert settings.limits == InstanceLimits()
    assert settings.socket_limits == Limits()
    assert settings.sds
    assert settings.crls
    assert not settings.wit


def test_the_wit_profile_is_turned_on_by_a_word(file: Path) -> None:
    """Off where nothing is said; on by true and by nothing that only looks like it."""
    document = tomllib.loads(TEXT)
    document["daemon"]["wit"] = True
    assert read(document, file).wit


def test_a_node_may_prove_itself_by_a_certificate(file: Path) -> None:
    """In the place of the token."""
    text = TEXT.replace('join_token_file = "node.token"', 'certificate = "c.pem"\nkey = "k.pem"')
    node = read(tomllib.loads(text), file).node
    assert (node.certificate, node.key) == (file.parent / "c.pem", file.parent / "k.pem")
    assert node.join_token_file is None


def _set(*path: Any) -> Callable[[Any], None]:
    *way, key, value = path

    def change(document: Any) -> None:
        for each in way:
            document = document[each]
        if value is None:
            del document[key]
        else:
            document[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_set("colour", {}), "colour"),
        (_set("daemon", "colour", "red"), "colour"),
        (_set("issuer", "colour", "red"), "colour"),
        (_set("node", "colour", "red"), "colour"),
        (_set("agent", 0, "colour", "red"), r"agent\[0\].*colour"),
        (_set("limits", {"colour": 1}), "colour"),
        (_set("daemon", None), "daemon"),
        (_set("daemon", "socket", None), "socket"),
        (_set("daemon", "socket", ""), "socket"),
        (_set("daemon", "data", 7), "data"),
        (_set("daemon", "sds", "yes"), "sds"),
        (_set("daemon", "wit", "true"), "wit"),
        (_set("issuer", "url", "http://issuer"), "https"),
        (_set("issuer", "url", "https://issuer/path"), "https"),
        (_set("issuer", "trust", None), "trust"),
        (_set("issuer", "trust", "sha256:00"), "pin"),
        (_set("issuer", "trust", "missing.json"), "missing.json"),
        (_set("node", "name", "Build"), "node name"),
        (_set("node", "name", "a/b"), "node name"),
        (_set("node", "join_token_file", None), "either join_token_file"),
        (_set("node", "certificate", "c.pem"), "either join_token_file"),
        (_set("limits", {"instances": 0}), "instances must be 1"),
        (_set("limits", {"instances": MAX_INSTANCES + 1}), "instances must be 1"),
        (_set("limits", {"measures": True}), "whole number"),
        (_set("agent", 0, "manifest", None), "manifest"),
        (_set("agent", 0, "selectors", []), "nobody is meant"),
        (_set("agent", 0, "selectors", None), "selectors"),
        (_set("agent", 0, "selectors", ["unix:uid:root"]), "no process has"),
        (_set("agent", 0, "selectors", ["uid:0"]), "must begin with"),
        (_set("agent", 0, "selectors", [f"unix:uid:{n}" for n in range(33)]), "1 to 32"),
        (_set("agent", 0, "code_root", "opt"), "absolute"),
        (_set("agent", 0, "code_root", "/"), "absolute"),
        (_set("agent", 0, "code_root", "/opt/../etc"), "absolute"),
        (_set("agent", 0, "hint", "internal"), "hints must differ"),
        (_set("agent", 0, "hint", "a\nb"), "hint"),
        (_set("agent", 0, "hint", "a" * 1025), "hint"),
        (lambda d: d.update(agent=d["agent"][:1] * (MAX_AGENTS + 1)), "the limit is"),
    ],
)
def test_what_settings_must_not_say(file: Path, change: Callable[[Any], None], named: str) -> None:
    """Each neighbour of good settings is refused, by the name of what is wrong."""
    document = tomllib.loads(TEXT)
    change(document)
    with pytest.raises(InvalidSettings, match=named):
        read(document, file)


def test_what_is_no_file_of_settings(tmp_path: Path) -> None:
    """Missing, no TOML, no text."""
    with pytest.raises(CannotCollect):
        load(tmp_path / "missing.toml")
    for bad in (b"[daemon", b"\xff\xfe"):
        (tmp_path / "bad.toml").write_bytes(bad)
        with pytest.raises(InvalidSettings, match="TOML"):
            load(tmp_path / "bad.toml")


@pytest.mark.parametrize("content", [None, b"", b"{}", b"x" * 100_000])
def test_a_manifest_that_is_none_is_named(
    file: Path, tmp_path: Path, content: bytes | None
) -> None:
    """At the start, not at the first process."""
    if content is not None:
        (tmp_path / "summarizer.manifest.json").write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"summarizer\.manifest\.json"):
        load_entries(load(file).agents)


def test_the_daemon_may_open_as_many_files_as_its_limits_need(file: Path) -> None:
    """Three a connection, two a process with an identity, ten a launched agent, and some."""
    settings = load(file)
    assert files_needed(settings) == 4096 * 3 + 2000 * 2 + 256 * 10 + 512
    before = {each: resource.getrlimit(each) for each in (NOFILE, CORE)}
    try:
        resource.setrlimit(NOFILE, (1024, before[NOFILE][1]))
        prepare_process(settings)
        assert resource.getrlimit(NOFILE)[0] == min(files_needed(settings), before[NOFILE][1])
        assert resource.getrlimit(CORE)[0] == 0
    finally:
        for each, limits in before.items():
            resource.setrlimit(each, limits)


@pytest.mark.parametrize("name", ["daemon.toml", "bundle.json"])
@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_what_others_could_write_decides_nothing(file: Path, name: str, mode: int) -> None:
    """Neither the settings nor where trust starts."""
    (file.parent / name).chmod(mode)
    with pytest.raises(InvalidSettings, match=f"{name}.*nobody else"):
        load(file)
