"""The units in ``config/systemd``: what systemd says of them, and a daemon under them."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import requester
from support.calling import AGENT_GID, AGENT_UID, as_root
from support.judges import ask, program
from support.node_daemon import host

from accredit_attestors.statement import manifest_digest

UNITS = Path(__file__).parents[2] / "config" / "systemd"


def exposure(unit: Path) -> float:
    """Systemd's own score: 0 is closed, 10 is open."""
    command = program("systemd-analyze")
    verdict = ask(command, "security", "--offline=true", "--no-pager", unit)
    if "unrecognized option" in verdict.text:
        pytest.skip("the judge systemd-analyze is older than version 250")
    found = re.search(r"exposure level for \S+: ([0-9.]+)", verdict.text)
    assert found, verdict.text
    return float(found[1])


@pytest.mark.parametrize(("name", "most"), [("issuer", 1.5), ("daemon", 5.5)])
def test_units_are_closed(name: str, most: float, tmp_path: Path) -> None:
    """The score is no worse than it was; without the hardening it is far above."""
    unit = UNITS / f"accredit-{name}.service"
    assert exposure(unit) <= most
    bare = tmp_path / unit.name
    bare.write_text("[Service]\n" + re.findall("ExecStart=.*\n", unit.read_text())[0])
    assert exposure(bare) > 9


def under_the_unit(*missing: str) -> tuple[str, ...]:
    """What leaves a command the capabilities of the daemon's unit, but for these."""
    text = (UNITS / "accredit-daemon.service").read_text()
    (line,) = re.findall("^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    kept = [each.removeprefix("CAP_") for each in line.split()]
    assert set(missing) < set(kept)
    wanted = ",".join(f"+{each.lower()}" for each in kept if each not in missing)
    return program("setpriv"), "--bounding-set", f"-all,{wanted}"


@as_root
@pytest.mark.parametrize("missing", [(), ("SYS_PTRACE",)], ids=["all", "without ptrace"])
def test_the_daemon_measures_with_the_units_capabilities(missing: tuple[str, ...]) -> None:
    """With those that the unit leaves to root a workload has its identity; with one less, none."""
    pytest.importorskip("spiffe")
    with host() as place:
        agent = place.agent()
        place.listed()
        place.daemon(before=under_the_unit(*missing))
        answer = place.workload(agent).ask("x509")
    assert ("error" in answer) is bool(missing), answer


@as_root
@pytest.mark.parametrize(
    ("missing", "said"),
    [((), '"code": 3'), (("SETUID",), "PermissionError"), (("SETPCAP",), "CapBnd")],
    ids=["all", "without setuid", "without setpcap"],
)
def test_the_daemon_launches_with_the_units_capabilities(
    missing: tuple[str, ...], said: str
) -> None:
    """With those that the unit leaves to root an agent is started; with one less it is refused."""
    command = ["/bin/sh", "-c", "exit 3"]
    with host() as place:
        agent = place.agent(launch=f"command = {command!r}\n")
        place.listed()
        place.daemon(before=under_the_unit(*missing))
        manifest = json.loads(agent.envelope)["payload"]
        digest = manifest_digest(base64.b64decode(manifest))
        who = [str(AGENT_UID), str(AGENT_GID), str(place.socket), digest]
        asked = subprocess.run(
            [sys.executable, requester.__file__, *who, *command],
            input="wait\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert said in asked.stdout
