"""The units in ``config/systemd``: what systemd says of them, and a daemon under them."""

import re
from pathlib import Path

import pytest
from support.calling import as_root
from support.judges import ask, program
from support.node_daemon import host

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


@as_root
@pytest.mark.parametrize("missing", [(), ("SYS_PTRACE",)], ids=["all", "without ptrace"])
def test_the_daemon_measures_with_the_units_capabilities(missing: tuple[str, ...]) -> None:
    """With those that the unit leaves to root a workload has its identity; with one less, none."""
    pytest.importorskip("spiffe")
    text = (UNITS / "accredit-daemon.service").read_text()
    (line,) = re.findall("^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    kept = [each.removeprefix("CAP_") for each in line.split()]
    assert set(missing) < set(kept)
    wanted = ",".join(f"+{each.lower()}" for each in kept if each not in missing)
    with host() as place:
        agent = place.agent()
        place.listed()
        place.daemon(before=(program("setpriv"), "--bounding-set", f"-all,{wanted}"))
        answer = place.workload(agent).ask("x509")
    assert ("error" in answer) is bool(missing), answer
