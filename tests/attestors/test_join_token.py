"""Join tokens: recognised, in time, for one agent, and never shown."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from accredit_attestors.contract import CollectContext, Evidence, VerifyContext
from accredit_attestors.errors import (
    AttestationError,
    CannotCollect,
    InvalidEvidence,
    JoinTokenRefused,
    ManifestRequired,
    WrongNonce,
)
from accredit_attestors.join_token import ATTESTOR, JoinToken, record_of, token_id
from accredit_attestors.manifest import Assurance
from accredit_credentials.spiffe_id import AgentId

AGENT = AgentId.parse("payments/refund-agent")


def _evidence(token: JoinToken, nonce: str) -> Evidence:
    return Evidence("join_token", nonce, {"token": token.reveal()})


def test_token_has_one_spelling() -> None:
    """A token survives its text, and two tokens differ."""
    token, other = JoinToken.new(), JoinToken.new()
    again = JoinToken.parse(token.reveal())
    assert (again.id, again.secret) == (token.id, token.secret)
    assert len(token.id) == 16
    assert len(token.secret) == 32
    assert token.secret != other.secret
    assert token.id != other.id


def test_damaged_token_is_refused() -> None:
    """Each damage to the text is refused, and the text stays out of the message."""
    text = JoinToken("i" * 16, bytes(32)).reveal()
    assert JoinToken.parse(text)
    for twin in (
        "",
        text[:-1],
        text + "A",
        text + "\n",
        text[:-1] + "B",
        text.replace("accredit-join", "accredit-Join"),
        text.replace(".", ":"),
        text.replace("iiii.", "iii."),
        "." * 100_000,
    ):
        with pytest.raises(InvalidEvidence) as refused:
            JoinToken.parse(twin)
        assert text[-20:-1] not in str(refused.value)


def test_secret_is_never_shown(context: VerifyContext, nonce: str) -> None:
    """No repr and no refusal carries the secret or its hash."""
    token = JoinToken.new()
    record = record_of(token, agent=AGENT, expires_at=context.now)
    evidence = _evidence(token, nonce)
    with pytest.raises(JoinTokenRefused) as refused:
        ATTESTOR.verify(evidence, replace(context, join_token=record))
    secret = token.reveal().rsplit(".", 1)[1]
    for text in (repr(token), str(token), repr(record), repr(evidence), repr(refused.value)):
        assert secret not in text
        assert repr(token.secret) not in text
        assert record.secret_sha256 not in text


def test_token_file_is_collected_and_attested(
    tmp_path: Path, context: VerifyContext, nonce: str
) -> None:
    """A private file becomes evidence, and the recorded token is attested for its agent."""
    token = JoinToken.new()
    path = tmp_path / "token"
    path.write_text(token.reveal() + "\n")
    path.chmod(0o400)
    evidence = ATTESTOR.collect(CollectContext(nonce=nonce, join_token_file=path))
    assert evidence is not None
    assert token_id(evidence) == token.id
    record = record_of(token, agent=AGENT, expires_at=context.now + timedelta(seconds=1))
    attested = ATTESTOR.verify(evidence, replace(context, join_token=record))
    assert attested.selectors == (f"join_token:id:{token.id}",)
    assert attested.assurance is Assurance.SELF


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o620, 0o601])
def test_token_file_open_to_others_is_refused(tmp_path: Path, mode: int, nonce: str) -> None:
    """A token that others might have read is refused, with advice on what to do."""
    path = tmp_path / "token"
    path.write_text(JoinToken.new().reveal())
    path.chmod(mode)
    with pytest.raises(CannotCollect, match=f"{mode:04o}") as refused:
        ATTESTOR.collect(CollectContext(nonce=nonce, join_token_file=path))
    assert refused.value.hint is not None
    assert "chmod 600" in refused.value.hint


def test_token_file_of_another_kind_is_refused(tmp_path: Path, nonce: str) -> None:
    """Missing, a directory, a FIFO, too big, or not a token: refused, and never a hang."""
    assert ATTESTOR.collect(CollectContext(nonce=nonce)) is None
    os.mkfifo(tmp_path / "fifo", 0o600)
    big, other = tmp_path / "big", tmp_path / "other"
    for path, content in ((big, b" " * 257), (other, b"\xffcanary")):
        path.write_bytes(content)
        path.chmod(0o600)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "fifo", big, other):
        with pytest.raises(CannotCollect) as refused:
            ATTESTOR.collect(CollectContext(nonce=nonce, join_token_file=path))
        assert "canary" not in str(refused.value)


def test_token_file_behind_a_link_is_accepted(tmp_path: Path, nonce: str) -> None:
    """Kubernetes mounts secrets behind links: the file that is opened is the one that counts."""
    (tmp_path / "real").write_text(JoinToken.new().reveal())
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "token").symlink_to("real")
    context = CollectContext(nonce=nonce, join_token_file=tmp_path / "token")
    assert ATTESTOR.collect(context) is not None


def test_join_token_evidence_is_refused(context: VerifyContext, nonce: str) -> None:
    """Another secret, record, time, agent, nonce or form: each alone is a reason to refuse."""
    token = JoinToken.new()
    record = record_of(token, agent=AGENT, expires_at=context.now + timedelta(seconds=1))
    context = replace(context, join_token=record)
    evidence = _evidence(token, nonce)
    assert ATTESTOR.verify(evidence, context)
    same_id = JoinToken(token.id, JoinToken.new().secret)
    same_secret = JoinToken(JoinToken.new().id, token.secret)
    other_agent = replace(record, agent=AgentId.parse("payments/refund-agent2"))
    twins: list[tuple[Evidence, VerifyContext, type[AttestationError], str]] = [
        (_evidence(same_id, nonce), context, JoinTokenRefused, "not known"),
        (_evidence(same_secret, nonce), context, JoinTokenRefused, "not known"),
        (evidence, replace(context, join_token=None), JoinTokenRefused, "not known"),
        (evidence, replace(context, now=record.expires_at), JoinTokenRefused, "expired"),
        (evidence, replace(context, join_token=other_agent), JoinTokenRefused, "refund-agent2"),
        (evidence, replace(context, manifest=None), ManifestRequired, "manifest"),
        (replace(evidence, nonce="other"), context, WrongNonce, "nonce"),
        (replace(evidence, kind="manifest"), context, InvalidEvidence, "kind"),
        (replace(evidence, payload={"token": 7}), context, InvalidEvidence, "token"),
        (replace(evidence, payload={}), context, InvalidEvidence, "token"),
        (replace(evidence, payload={**evidence.payload, "x": 1}), context, InvalidEvidence, "x"),
    ]
    for twin, its_context, error, named in twins:
        with pytest.raises(error, match=named):
            ATTESTOR.verify(twin, its_context)


def test_expired_is_told_only_to_who_has_the_secret(context: VerifyContext, nonce: str) -> None:
    """Without the secret all answers are one: that the token is not known."""
    token = JoinToken.new()
    record = record_of(token, agent=AGENT, expires_at=context.now)
    guess = JoinToken(token.id, bytes(32))
    with pytest.raises(JoinTokenRefused, match="not known"):
        ATTESTOR.verify(_evidence(guess, nonce), replace(context, join_token=record))


def test_token_id_reads_join_tokens_only(nonce: str) -> None:
    """The id comes from evidence of this kind and form, or not at all."""
    token = JoinToken.new()
    for evidence in (
        Evidence("manifest", nonce, {"token": token.reveal()}),
        Evidence("join_token", nonce, {"token": token.id}),
    ):
        with pytest.raises(InvalidEvidence):
            token_id(evidence)
