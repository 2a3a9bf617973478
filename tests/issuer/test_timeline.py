"""The timeline of authorities: what is drawn is what was and what is planned."""

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.clock import NOW
from support.issuer import make_config, serving
from support.offline import Offline

from accredit_issuer.authority.lifecycle import AuthorityKind
from accredit_issuer.cli.timeline import ASCII, BLOCKS, Characters, draw
from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import initialise

HOUR = timedelta(hours=1)


def text(moment: datetime | None) -> str | None:
    """A moment as the API has it."""
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def authority(**changes: Any) -> dict[str, Any]:
    """A JWT key that was prepared four hours ago, and signs for eight hours since three."""
    moments: dict[str, datetime | None] = {
        "prepared_at": NOW - 4 * HOUR,
        "active_from": NOW - 3 * HOUR,
        "last_use": NOW + 5 * HOUR,
        "tainted_at": None,
        "removal": NOW + 6 * HOUR,
    }
    moments |= {name: changes.pop(name) for name in list(changes) if name in moments}
    return {
        "id": "ab" * 20,
        "kind": "jwt",
        "state": "active",
        "revoked": False,
        "origin": "own",
        "planned": ["last_use", "removal"],
        **{name: text(moment) for name, moment in moments.items()},
        **changes,
    }


def lines(*authorities: dict[str, Any], width: int = 100, with_: Characters = ASCII) -> list[str]:
    """The drawing."""
    return list(draw(authorities, NOW, width=width, characters=with_))


def test_a_bar_is_to_scale() -> None:
    """Ten hours on some columns: each phase has its share of them, and now stands where it is."""
    bar = lines(authority(), width=24 + 50 + 1)[2][24:]
    assert bar == "." * 5 + "#" * 15 + "|" + "#" * 25 + "-" * 5


def test_each_moment_is_written_and_each_plan_is_marked() -> None:
    """Below the bars stand the four moments of each key, planned ones with a star."""
    drawn = lines(authority())
    assert drawn[3].split() == ["prepared", "active", "from", "last", "use", "removal"]
    assert drawn[4].split() == [
        "abababababab", "06-01", "08:00", "06-01", "09:00", "06-01", "17:00*", "06-01", "18:00*",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [72, 80, 100, 200])
@pytest.mark.parametrize("characters", [BLOCKS, ASCII])
def test_nothing_is_wider_than_the_terminal(
    offline: Offline, width: int, characters: Characters
) -> None:
    """Whatever the widths of lives and terminals, no line is folded."""
    offline.clock.advance(hours=12, minutes=16)
    for kind in AuthorityKind:
        old = offline.replace(kind)
        offline.issuer.rollover.taint(old, "x", by="test")
        offline.prepare(kind)
    drawn = list(
        draw(offline.issuer.rollover.overview(), offline.clock(), width=width,
             characters=characters)
    )  # fmt: skip
    assert max(map(len, drawn)) <= width
    assert max(map(len, drawn)) > width - 8, "the room is used"


def test_a_short_phase_is_seen() -> None:
    """A quarter of an hour of a year is drawn all the same, and so is one that has just begun."""
    bar = lines(
        authority(
            active_from=NOW - 4 * HOUR + HOUR / 4,
            last_use=NOW,
            tainted_at=NOW,
            removal=NOW + 9000 * HOUR,
            state="tainted",
        )
    )[2]
    assert {".", "#", "|", "x"} <= set(bar)


def test_what_never_signed_is_prepared_until_it_goes() -> None:
    """Without a first and a last use there is one phase, and no moment is made up."""
    drawn = lines(authority(active_from=None, last_use=None, planned=["removal"], state="prepared"))
    assert set(drawn[2][24:]) == {".", "|"}
    assert drawn[4].split()[3:5] == ["-", "-"]


def test_a_fact_is_said_in_the_state() -> None:
    """What is revoked is not shown as if it were merely retired."""
    assert "revoked" in lines(authority(revoked=True, state="retired"))[2]
    assert "removed" in lines(authority(revoked=True, state="removed"))[2]


@pytest.mark.parametrize(
    ("encoding", "fits"),
    [("utf-8", True), ("ascii", False), ("latin-1", False), ("nonsense", False)],
)
def test_blocks_where_the_output_can_show_them(encoding: str, *, fits: bool) -> None:
    """An output that knows no blocks gets plain ASCII."""
    assert BLOCKS.fit(encoding) is fits


def test_the_command_looks_beside_a_running_issuer(tmp_path: Path) -> None:
    """``authority show`` reads while the issuer runs and writes nothing: text, ASCII and JSON."""
    config = make_config(tmp_path)
    initialise(config, system_clock)
    settings = tmp_path / "issuer.toml"
    settings.write_text('trust_domain = "example.org"\n')
    with serving(config) as (issuer, _):
        size = issuer.log.frontier.size
        plain = _show(settings, encoding="ascii")
        blocks = _show(settings, encoding="utf-8")
        document = json.loads(_show(settings, "--json"))
        assert issuer.log.frontier.size == size
        active = [a.id for a in issuer.authorities.now_in_force.authorities]
        assert document["bundle_sequence"] == issuer.bundle.sequence
    assert [each["id"] for each in document["authorities"]] == active
    assert "█" in blocks
    assert plain.isascii()
    for key in active:
        assert key[:12] in plain


def _show(settings: Path, *more: str, encoding: str = "utf-8") -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "accredit-issuer"), "authority", "show", "--config",
         settings, *more],
        capture_output=True, timeout=60, check=True, env={"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    return done.stdout.decode(encoding)
