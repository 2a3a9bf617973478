"""docs/settings.md and config/issuer.example.toml say what the settings are."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import annotated_types
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from accredit_issuer.settings import CaInFiles, KeysInToken, KeysOnDisk, ParentAt, Settings, load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "config" / "issuer.example.toml"
TOP = "Top level"


@dataclass(frozen=True)
class Documented:
    """One key as the code has it: where it stands, its default and its bounds as text."""

    section: str
    name: str
    default: str
    bounds: str

    def __str__(self) -> str:
        return f"{self.section}.{self.name}"


def _keys(model: type[BaseModel] = Settings, table: str = "") -> Iterator[Documented]:
    for name, field in model.model_fields.items():
        # A table that may be left out is ``Table | None``.
        kind = next(iter(get_args(field.annotation)), field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{table}.{name}".lstrip("."))
        else:
            yield _key(f"`[{table}]`" if table else TOP, name, field)


def _key(section: str, name: str, field: FieldInfo) -> Documented:
    return Documented(section, name, _default(field.get_default()), _bounds(field))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    plain = str(value) if isinstance(value, Path) else value
    return f"`{json.dumps(plain)}`"


def _bounds(field: FieldInfo) -> str:
    least = [m.ge for m in field.metadata if isinstance(m, annotated_types.Ge)]
    most = [m.le for m in field.metadata if isinstance(m, annotated_types.Le)]
    if least and most:
        return f"{least[0]} to {most[0]}"
    return f"from {least[0]}" if least else ""


def _rows(section: str) -> dict[str, list[str]]:
    """The table of one section: its cells by key."""
    text = re.split(rf"^## {re.escape(section)}$", PAGE, flags=re.MULTILINE)[1]
    text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0].strip("`"): row for row in cells}


KEYS = list(_keys())


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_setting_is_on_the_page(key: Documented) -> None:
    """Each key stands in its section with the default and the bounds that the code has."""
    row = _rows(key.section).get(key.name)
    assert row is not None, f"docs/settings.md lacks {key}"
    _, _, default, bounds, meaning = row
    assert default == key.default
    if key.bounds:
        assert bounds == key.bounds
    assert meaning


def test_the_page_has_nothing_else() -> None:
    """No section and no key is described that the code does not know."""
    sections = {key.section for key in KEYS}
    assert set(re.findall(r"^## (`\[[\w.]+\]`)$", PAGE, flags=re.MULTILINE)) == sections - {TOP}
    for section in sections:
        assert set(_rows(section)) == {key.name for key in KEYS if key.section == section}


def test_the_example_has_every_setting_at_its_default() -> None:
    """Each key is there, written out or commented where there is no default, and only once."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    section, left_out = TOP, False
    found: dict[str, str] = {}
    for line in lines:
        if match := re.fullmatch(r"(# )?(\[[\w.]+\])", line):
            section, left_out = f"`{match[2]}`", bool(match[1])
        elif match := re.fullmatch(r"(# )?(\w+) = (.+)", line):
            name = f"{section}.{match[2]}"
            assert name not in found
            # In a table that is commented as a whole, a comment says nothing of a default.
            found[name] = "none" if match[1] and not left_out else f"`{match[3]}`"
    defaults = {str(key): key.default for key in KEYS if key.default != "required"}
    assert {name: found[name] for name in defaults if name in found} == defaults
    assert set(found) == set(map(str, KEYS))


def test_the_example_loads_as_it_is() -> None:
    """The file in the repository holds, and is the one that the page shows."""
    assert str(load(EXAMPLE).trust_domain) == "example.org"
    assert f"```toml\n{EXAMPLE.read_text(encoding='utf-8')}```\n" in PAGE


def test_the_example_loads_with_everything_in_it(tmp_path: Path) -> None:
    """The keys that are commented out hold as they stand there, too."""
    file = tmp_path / "issuer.toml"
    text = EXAMPLE.read_text(encoding="utf-8")
    full = re.sub(r"^# (\w+ = |\[)", r"\1", text, flags=re.MULTILINE)
    # What excludes each other in one table is tried one by one.
    full, upstream = full.split("[upstream]\n")
    file.write_text(re.sub(r"^(module|token|pin_file) = .*", "", full, flags=re.MULTILINE))
    config = load(file)
    assert config.crl_url == "http://crl.example.org"
    assert config.ocsp_url == "http://ocsp.example.org"
    assert config.status_list_url == "https://issuer.example.org:8443"
    assert config.keys == KeysOnDisk(tmp_path / "data/keys", tmp_path / "issuer.passphrase")
    in_token = full.replace('kind = "disk"', 'kind = "pkcs11"')
    file.write_text(re.sub(r"^passphrase_file = .*", "", in_token, flags=re.MULTILINE))
    assert isinstance(load(file).keys, KeysInToken)
    names = r"^(url|identity_folder) = .*"
    given = re.sub(names, "", upstream.replace('"own"', '"files"'), flags=re.MULTILINE)
    file.write_text(f'trust_domain = "example.org"\n[upstream]\n{given}')
    assert load(file).upstream == CaInFiles(
        tmp_path / "ca.pem", tmp_path / "ca.key", tmp_path / "ca.passphrase"
    )
    names = r"^(certificate_file|key_file|passphrase_file) = .*"
    parent = re.sub(names, "", upstream.replace('"own"', '"accredit"'), flags=re.MULTILINE)
    file.write_text(f'trust_domain = "example.org"\n[upstream]\n{parent}')
    assert load(file).upstream == ParentAt("https://parent.example.org:8443", tmp_path / "parent")
    assert config.https_web is not None
    assert config.https_web.key_file == tmp_path / "web.key"
    assert config.token_issuer == "https://identity.example.org"
