"""Nonces: ours, in time, once, and never more of them in memory than there may be."""

import base64
from datetime import timedelta

import pytest
from support.clock import SettableClock

from accredit_credentials.keys import b64url, b64url_decode
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.issuance import nonces as module
from accredit_issuer.issuance.nonces import Nonces

MINUTE = timedelta(seconds=60)


@pytest.fixture
def clock() -> SettableClock:
    """The test's time."""
    return SettableClock()


@pytest.fixture
def nonces() -> Nonces:
    """Nonces of a minute."""
    return Nonces(MINUTE)


def refusal(nonces: Nonces, nonce: str, clock: SettableClock) -> Refusal:
    """The refusal of a nonce."""
    with pytest.raises(Refusal) as refused:
        nonces.redeem(nonce, clock())
    return refused.value


def test_a_nonce_is_good_once(nonces: Nonces, clock: SettableClock) -> None:
    """The first use is accepted, the second refused, to the last moment."""
    nonce, end = nonces.issue(clock())
    assert end == clock() + MINUTE
    clock.now = end - timedelta(microseconds=1)
    nonces.redeem(nonce, clock())
    assert refusal(nonces, nonce, clock).detail == "nonce was used before"


def test_a_nonce_has_its_end(nonces: Nonces, clock: SettableClock) -> None:
    """At its end a nonce is over, and stays over after it was forgotten."""
    nonce, end = nonces.issue(clock())
    spent, _ = nonces.issue(clock())
    nonces.redeem(spent, clock())
    clock.now = end
    for _ in range(2):
        assert "over" in refusal(nonces, nonce, clock).detail
        assert "over" in refusal(nonces, spent, clock).detail
        clock.advance(hours=1)


def test_every_bit_of_a_nonce_counts(nonces: Nonces, clock: SettableClock) -> None:
    """A nonce with any single bit changed is refused: its end above all."""
    raw = b64url_decode(nonces.issue(clock())[0])
    for bit in range(len(raw) * 8):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        assert refusal(nonces, b64url(bytes(forged)), clock).kind is Kind.ATTESTATION_REFUSED


def test_only_our_own_nonces(nonces: Nonces, clock: SettableClock) -> None:
    """Another process's nonces, shortened and lengthened ones, and any text are refused."""
    nonce, _ = nonces.issue(clock())
    foreign, _ = Nonces(MINUTE).issue(clock())
    raw = b64url_decode(nonce)
    padded = base64.urlsafe_b64encode(raw).decode() + "=="
    for text in (foreign, nonce[:-4], nonce + "AAAA", "", "AAAA", "é", "a b", padded, nonce + "\n"):
        refusal(nonces, text, clock)
    nonces.redeem(nonce, clock())


def test_what_is_remembered_is_bounded(
    nonces: Nonces, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the memory of used nonces is full the next one has to wait; in time it is free again."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", 10)
    for _ in range(10):
        nonces.redeem(nonces.issue(clock())[0], clock())
    nonce, _ = nonces.issue(clock())
    assert refusal(nonces, nonce, clock).kind is Kind.BUSY
    clock.advance(seconds=61)
    nonces.redeem(nonces.issue(clock())[0], clock())
    assert len(nonces._used) == 1
