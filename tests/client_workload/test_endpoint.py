"""Where the node daemon is: ``SPIFFE_ENDPOINT_SOCKET``, and what is found first."""

from pathlib import Path
from typing import Any

import pytest

from accredit_client import AgentIdentity, AsyncAgentIdentity, ClientError
from accredit_client.errors import InvalidEndpoint, InvalidFolder, MissingExtra
from accredit_client.workload import endpoint

VARIABLE = "SPIFFE_ENDPOINT_SOCKET"


@pytest.mark.spec("SPIFFE-60")
@pytest.mark.parametrize("address", ["unix:///run/a/agent.sock", "unix:/run/a/agent.sock"])
def test_a_unix_address_is_its_path(address: str) -> None:
    """Scheme unix, no authority, an absolute path: in both spellings of a URI."""
    assert endpoint.parse(address) == Path("/run/a/agent.sock")
    assert endpoint.path_of(address) == Path("/run/a/agent.sock")


@pytest.mark.spec("SPIFFE-60")
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("tcp://127.0.0.1:8000", "TCP"),
        ("tcp:127.0.0.1:8000", "TCP"),
        ("/run/agent.sock", "scheme unix"),
        ("http:///run/agent.sock", "scheme unix"),
        ("unix://run/agent.sock", "no authority"),
        ("unix://user@/run/agent.sock", "no authority"),
        ("unix:run/agent.sock", "absolute"),
        ("unix:", "absolute"),
        ("unix:///", "name a file"),
        ("unix:///run/agent.sock?a=b", "no percent sign"),
        ("unix:///run/agent.sock#a", "no percent sign"),
        ("unix:///run/%61gent.sock", "no percent sign"),
        ("unix:///run/agent .sock", "printable"),
        ("unix:///run/agent.sock\n", "printable"),
        ("", "printable"),
        ("unix:///" + "a" * 107, "more than 107"),
    ],
)
def test_another_address_is_refused(address: str, why: str) -> None:
    """Nothing is guessed: what is no unix socket's address is an error that says why."""
    with pytest.raises(InvalidEndpoint, match=why):
        endpoint.parse(address)


@pytest.mark.parametrize("kind", [AgentIdentity, AsyncAgentIdentity])
def test_the_environment_names_the_daemon(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address it is the variable's; without either it is an error."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(InvalidEndpoint, match=VARIABLE):
        kind.from_daemon()
    monkeypatch.setenv(VARIABLE, "tcp://127.0.0.1:8000")
    with pytest.raises(InvalidEndpoint, match="TCP"):
        kind.from_daemon()
    for address in (Path("/run/a.sock"), "/run/a.sock", "unix:///run/a.sock"):
        assert kind.from_daemon(address)
    with pytest.raises(InvalidEndpoint, match="absolute"):
        kind.from_daemon(Path("a.sock"))


def test_a_folder_is_found_before_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """``discover`` takes the folder, then the daemon, and nothing else."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("ACCREDIT_FOLDER", raising=False)
    with pytest.raises(InvalidFolder, match=VARIABLE):
        AgentIdentity.discover()
    monkeypatch.setenv(VARIABLE, "unix:///nowhere/agent.sock")
    assert "DaemonKeeper" in repr(AgentIdentity.discover()._keeper)
    monkeypatch.setenv("ACCREDIT_FOLDER", "/nowhere")
    assert "FolderKeeper" in repr(AgentIdentity.discover()._keeper)


def test_without_grpc_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The light client has no gRPC: the error names the extra."""

    def without(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("accredit_client.workload.keeper.import_module", without)
    with pytest.raises(MissingExtra) as missing:
        AgentIdentity.from_daemon("/run/a.sock")
    assert isinstance(missing.value, ClientError)
    assert missing.value.hint == "install accredit with its extra 'daemon'"


def test_a_path_may_stand_for_an_address() -> None:
    """An absolute one, taken as it is; what begins otherwise is read as an address."""
    assert endpoint.path_of("/run/100%/agent.sock") == Path("/run/100%/agent.sock")
    for text in ("run/agent.sock", "", "/", "/" + "a" * 107):
        with pytest.raises(InvalidEndpoint):
            endpoint.path_of(text)
