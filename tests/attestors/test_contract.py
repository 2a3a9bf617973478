"""Evidence, what is made of it, and the plugins that do so."""

import contextlib
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accredit_attestors import code_digest, join_token, manifest
from accredit_attestors.contract import (
    MAX_PAYLOAD_BYTES,
    Assurance,
    Attested,
    Attestor,
    Evidence,
)
from accredit_attestors.errors import (
    AssuranceTooLow,
    InvalidEvidence,
    InvalidPlugin,
)
from accredit_attestors.plugins import GROUP, attestors_of, load_attestors

_GOOD: dict[str, object] = {"kind": "manifest", "nonce": "n-_.~", "payload": {"a": [1, None]}}


def test_evidence_reads_back() -> None:
    """Evidence survives its JSON form, and its repr does not show the payload."""
    evidence = Evidence.parse(_GOOD)
    assert evidence.to_json() == _GOOD
    assert Evidence.parse(evidence.to_json()) == evidence
    assert "None" not in repr(evidence)
    assert hash(evidence)


def test_evidence_does_not_change() -> None:
    """What was checked stays as it was checked."""
    payload: dict[str, object] = {"a": 1}
    evidence = Evidence("manifest", "n", payload)
    payload["b"] = 2
    assert evidence.payload == {"a": 1}
    with pytest.raises(TypeError):
        evidence.payload["a"] = 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"kind": ""}, "kind"),
        ({"kind": "Manifest"}, "kind"),
        ({"kind": "k" * 64}, "kind"),
        ({"kind": "manifest\n"}, "kind"),
        ({"kind": 1}, "kind"),
        ({"nonce": ""}, "nonce"),
        ({"nonce": "n" * 129}, "nonce"),
        ({"nonce": "a b"}, "nonce"),
        ({"nonce": "ä"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"payload": []}, "payload"),
        ({"payload": None}, "payload"),
        ({"payload": {1: 2}}, "payload"),
        ({"payload": {"a": float("nan")}}, "payload"),
        ({"payload": {"a": object()}}, "payload"),
        ({"payload": {"a": "x" * MAX_PAYLOAD_BYTES}}, str(MAX_PAYLOAD_BYTES)),
        ({"more": 1}, "more"),
    ],
)
def test_malformed_evidence_is_refused(changes: dict[str, object], named: str) -> None:
    """Each departure from the form is refused, and the message names it."""
    with pytest.raises(InvalidEvidence, match=named):
        Evidence.parse(_GOOD | changes)


def test_missing_key_is_refused() -> None:
    """Each of the three keys is required."""
    for key in _GOOD:
        with pytest.raises(InvalidEvidence, match=key):
            Evidence.parse({k: v for k, v in _GOOD.items() if k != key})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON | st.fixed_dictionaries({"kind": _JSON, "nonce": _JSON, "payload": _JSON}))
def test_parsing_is_total(value: object) -> None:
    """Any JSON is evidence or refused, and never fails in another way."""
    with contextlib.suppress(InvalidEvidence):
        Evidence.parse(value)


def test_assurance_must_be_enough() -> None:
    """What was measured by someone trusted less than required is refused."""
    attested = Attested("code_digest", (), Assurance.NODE)
    assert attested.at_least(Assurance.SELF) is attested
    assert attested.at_least(Assurance.NODE) is attested
    with pytest.raises(AssuranceTooLow, match="node, expected platform"):
        attested.at_least(Assurance.PLATFORM)


def test_installed_attestors_are_found() -> None:
    """The three kinds of this package are installed and keep the contract."""
    found = load_attestors()
    for module in (code_digest, join_token, manifest):
        attestor = module.ATTESTOR
        assert found[attestor.kind] is attestor
        assert isinstance(attestor, Attestor)
    with pytest.raises(TypeError):
        found["mine"] = found["manifest"]  # type: ignore[index]


def _point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


@pytest.mark.parametrize(
    ("points", "named"),
    [
        ([("manifest", "accredit_attestors.manifest:ATTESTOR")] * 2, "two installed"),
        ([("other", "accredit_attestors.manifest:ATTESTOR")], "other"),
        ([("manifest", "accredit_attestors.manifest:NOTHING")], "cannot be loaded"),
        ([("manifest", "accredit_attestors.nothing:ATTESTOR")], "cannot be loaded"),
        ([("manifest", "accredit_attestors.manifest:sign")], "must have kind"),
    ],
)
def test_plugin_is_refused(points: list[Any], named: str) -> None:
    """A plugin that takes another's place, or does not keep the contract, stops the start."""
    with pytest.raises(InvalidPlugin, match=named):
        attestors_of(_point(name, value) for name, value in points)
