"""Which agents the daemon starts, by what, and for whom: root's word, and nothing beside it."""

from typing import Any

import pytest
from support.node_host import MANIFEST, OTHER, entry

from accredit_attestors.strict import Members
from accredit_client.daemon.agents import AgentEntry, entries_for, entry_to_launch
from accredit_client.daemon.launch_settings import (
    KEYS,
    LaunchSettings,
    launched_selectors,
    read_launch,
)
from accredit_client.daemon.launch_wire import LaunchRequest
from accredit_client.daemon.settings import InvalidSettings
from accredit_client.errors import LaunchRefused

COMMAND = ("/usr/bin/python3", "-Es", "main.py")
OPERATOR = frozenset({"unix:uid:1000", "unix:gid:1000"})


def read(**values: Any) -> LaunchSettings:
    """``[agent.launch]`` with these values."""
    return read_launch(
        Members.of(values, where="daemon.toml: agent[0]", error=InvalidSettings, known=KEYS)
    )


def launchable(command: tuple[str, ...] = COMMAND, **fields: Any) -> AgentEntry:
    """An entry that may be started by an operator."""
    more = fields.pop("more_arguments", False)
    manifest = fields.get("manifest", MANIFEST)
    return entry(
        launch=LaunchSettings(command=command, more_arguments=more),
        selectors=launched_selectors(manifest, command),
        requesters=fields.pop("requesters", frozenset({"unix:uid:1000"})),
        **fields,
    )


def test_what_is_not_said_is_not_allowed() -> None:
    """No arguments, no variables, no other user; and it ends with its identity."""
    assert read(command=list(COMMAND)) == LaunchSettings(
        command=COMMAND, more_arguments=False, user="", environment=(), ends_with_identity=True
    )


def test_all_that_may_be_said() -> None:
    """Each key is taken."""
    said = read(
        command=["/opt/run"],
        more_arguments=True,
        user="summarizer",
        environment=["LANG", "TZ"],
        ends_with_identity=False,
    )
    assert said == LaunchSettings(
        command=("/opt/run",),
        more_arguments=True,
        user="summarizer",
        environment=("LANG", "TZ"),
        ends_with_identity=False,
    )


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"command": []},
        {"command": "/bin/sh"},
        {"command": ["sh"]},
        {"command": ["/bin/sh", "a\0b"]},
        {"command": ["/bin/sh"] * 65},
        {"command": ["/bin/sh", "x" * 5000]},
        {"user": ""},
        {"user": "root"},
        {"user": "0"},
        {"user": "a:b"},
        {"more_arguments": "yes"},
        {"environment": ["LANG", "LANG"]},
        {"environment": [f"V{each}" for each in range(65)]},
        {"environment": ["A=B"]},
        {"environment": [""]},
        {"environment": ["SPIFFE_ENDPOINT_SOCKET"]},
        {"shell": "/bin/sh"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any]) -> None:
    """By name, and where they stand; the neighbour that is good is read."""
    good = {"command": list(COMMAND), "user": "summarizer", "environment": ["LANG"]}
    assert read(**good).user == "summarizer"
    with pytest.raises(InvalidSettings, match="agent"):
        read(**({**good, **values} if values else {}))


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "NODE_OPTIONS"),
        *("OPENSSL_CONF", "OPENSSL_MODULES", "DOTNET_STARTUP_HOOKS", "CLASSPATH", "GEM_PATH"),
    ],
)
def test_variables_that_load_code_are_nobodys_to_set(name: str) -> None:
    """They say what runs before the measured code; names that only look like them are taken."""
    with pytest.raises(InvalidSettings, match=name):
        read(command=list(COMMAND), environment=[name])
    names = [f"MY_{name}", name.lower()]
    assert read(command=list(COMMAND), environment=names).environment == tuple(names)


@pytest.mark.parametrize(
    ("manifest", "command", "requester", "why"),
    [
        (OTHER, COMMAND, OPERATOR, "start no agent of the manifest"),
        (MANIFEST, COMMAND, frozenset({"unix:uid:1001"}), "not for this process"),
        (MANIFEST, COMMAND, frozenset(), "not for this process"),
        (MANIFEST, COMMAND[:-1], OPERATOR, "is started by: /usr/bin/python3 -Es main.py;"),
        (MANIFEST, (*COMMAND, "--more"), OPERATOR, "and by nothing else"),
        (MANIFEST, ("/usr/bin/python3", "-c", "main.py"), OPERATOR, "nothing else"),
        (MANIFEST, ("/usr/bin/python3", "-Es main.py"), OPERATOR, "nothing else"),
    ],
)
def test_what_is_asked_for_is_started_as_it_stands_there_or_not_at_all(
    manifest: str, command: tuple[str, ...], requester: frozenset[str], why: str
) -> None:
    """Another manifest, another requester, another command: each is refused."""
    entries = [entry("observed"), launchable()]
    granted = LaunchRequest(manifest=MANIFEST, command=COMMAND)
    assert entry_to_launch(entries, granted, OPERATOR) is entries[1]
    with pytest.raises(LaunchRefused, match=why) as refused:
        entry_to_launch(entries, LaunchRequest(manifest=manifest, command=command), requester)
    if requester != OPERATOR:
        assert "main.py" not in str(refused.value)  # what runs here is not everybody's to know


def test_more_arguments_stand_behind_the_command_only() -> None:
    """Where the entry allows them; the command itself stays as it is."""
    entries = [launchable(more_arguments=True)]
    for more in ((), ("--ticket", "4711"), ("-c", "evil")):
        request = LaunchRequest(manifest=MANIFEST, command=(*COMMAND, *more))
        assert entry_to_launch(entries, request, OPERATOR) is entries[0]
    for other in (("/usr/bin/python3", "--ticket", "-Es", "main.py"), COMMAND[:2]):
        with pytest.raises(LaunchRefused, match=r"main\.py …"):
            entry_to_launch(entries, LaunchRequest(manifest=MANIFEST, command=other), OPERATOR)


def test_an_entry_without_requesters_starts_nothing() -> None:
    """Empty means refuse."""
    request = LaunchRequest(manifest=MANIFEST, command=COMMAND)
    with pytest.raises(LaunchRefused, match="not for this process"):
        entry_to_launch([launchable(requesters=frozenset())], request, OPERATOR)


def test_birth_is_the_only_way_to_be_meant_by_an_entry_that_is_launched() -> None:
    """Who has the requester's selectors is not the agent; nor is another command's child."""
    one, other = launchable(), launchable(("/usr/bin/python3", "-Es", "other.py"))
    assert entries_for([one, other], OPERATOR) == ()
    assert entries_for([one, other], OPERATOR | one.selectors) == (one,)
    assert one.selectors != launched_selectors(OTHER, COMMAND)
    # One argument with a space is not two.
    assert launched_selectors(MANIFEST, ("/a", "b c")) != launched_selectors(
        MANIFEST, ("/a", "b", "c")
    )
