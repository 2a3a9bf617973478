"""A token that hangs stops nobody, and one that refused a PIN is not locked by restarts."""

import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from support.softhsm import LABEL, PIN, SoftToken, soft_token

from accredit_credentials.spiffe_id import TrustDomain
from accredit_issuer.api import problems
from accredit_issuer.errors import Unavailable
from accredit_issuer.keys.bounded import Hangs, OwnThread
from accredit_issuer.keys.pkcs11 import Pkcs11Keys
from accredit_issuer.keys.probe import Probe
from accredit_issuer.keys.refused_pin import RefusedPin
from accredit_issuer.settings import KeysInToken

DOMAIN = TrustDomain("example.org")
SHA256 = ec.ECDSA(hashes.SHA256())
SOON, LONG = 0.05, 20.0


@pytest.fixture
def token(tmp_path: Path) -> Iterator[SoftToken]:
    """A token of its own."""
    with soft_token(tmp_path / "token") as made:
        yield made


def opened(token: SoftToken, folder: Path, **options: Any) -> Pkcs11Keys:
    """A manager, as after a start."""
    kept = KeysInToken(token.module, LABEL, token.pin_file)
    return Pkcs11Keys(kept, DOMAIN, refused_pin=folder / "refused-pin", **options)


def test_a_call_that_hangs_is_left_to_itself() -> None:
    """Whoever asks is told in time, the next one at once; once it has returned all goes on."""
    own, let_go, returned = OwnThread("test"), threading.Event(), threading.Event()

    def hangs() -> str:
        let_go.wait()
        return "too late"

    assert own.run(lambda: 1, LONG) == 1
    with pytest.raises(Hangs):
        own.run(hangs, SOON)
    with pytest.raises(Hangs):
        own.run(returned.set, LONG)
    assert not returned.is_set()
    late = own._late
    assert late is not None
    let_go.set()
    assert late.wait(LONG)
    assert own.run(lambda: 2, LONG) == 2


def test_what_a_call_raises_is_raised() -> None:
    """An error arrives where it was asked for, and ends no thread."""
    own = OwnThread("test")
    with pytest.raises(ZeroDivisionError):
        own.run(lambda: 1 // 0, LONG)
    assert own.run(threading.current_thread, LONG).name == "test"


def test_a_module_that_hangs_is_unavailable(
    token: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signing and health say so in time, 503 with Retry-After; afterwards the same key signs."""
    keys = opened(token, tmp_path, hangs_after=0.5)
    made, let_go, ended = keys.generate(), threading.Event(), threading.Event()

    def hangs(*_: object) -> Any:
        let_go.wait()
        ended.set()
        raise Unavailable("after all")

    with monkeypatch.context() as patch:
        patch.setattr(keys, "_handle", hangs)
        with pytest.raises(Unavailable) as refused:
            made.private.sign(b"data", SHA256)
        assert "has not returned" in str(refused.value.__cause__)
    answer = problems.answer_to(refused.value)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    with pytest.raises(Unavailable, match="cannot be used now"):
        Probe(keys).check()
    let_go.set()
    assert ended.wait(LONG)
    from accredit_issuer.keys import pkcs11  # noqa: PLC0415 (its thread, once it is free)

    late = pkcs11._one_call._late
    assert late is None or late.wait(LONG)
    assert made.private.sign(b"data", SHA256)
    Probe(keys).check()
    keys.close()


def test_a_refused_pin_is_not_sent_after_a_restart(token: SoftToken, tmp_path: Path) -> None:
    """Started a hundred times the token sees it once; a new PIN is tried, and clears the memory."""
    memory = tmp_path / "refused-pin"
    token.pin_file.write_text("wrong-horse\n")
    for found in ("PinIncorrect", "was refused before", "was refused before"):
        keys = opened(token, tmp_path)
        with pytest.raises(Unavailable, match=found) as refused:
            keys.check()
        assert str(memory) in str(refused.value)
        keys.close()
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600
    assert "wrong-horse" not in memory.read_text()
    token.pin_file.write_text("other-horse\n")
    keys = opened(token, tmp_path)
    with pytest.raises(Unavailable, match="PinIncorrect"):
        keys.check()
    keys.close()
    token.pin_file.write_text(PIN)
    keys = opened(token, tmp_path)
    assert keys.check()
    assert not memory.exists()
    keys.close()


def test_an_operator_may_have_it_sent_again(token: SoftToken, tmp_path: Path) -> None:
    """With the file removed, a PIN that the token takes by now is tried once more."""
    RefusedPin(tmp_path / "refused-pin", LABEL).remember(PIN)
    keys = opened(token, tmp_path)
    with pytest.raises(Unavailable, match="was refused before"):
        keys.check()
    (tmp_path / "refused-pin").unlink()
    assert keys.check()
    keys.close()


@pytest.mark.parametrize("content", ["", "no hex", "00", "00" * 48, "00" * 49, "ff" * 4096])
def test_a_memory_that_says_nothing_refuses_nothing(content: str, tmp_path: Path) -> None:
    """What is damaged, or of another PIN or token, keeps nobody from logging in."""
    file = tmp_path / "refused-pin"
    file.write_text(content)
    assert not RefusedPin(file, LABEL).is_it(PIN)
    RefusedPin(file, LABEL).remember(PIN)
    assert RefusedPin(file, LABEL).is_it(PIN)
    assert not RefusedPin(file, LABEL).is_it(f"{PIN} ")
    assert not RefusedPin(file, "another").is_it(PIN)


def test_where_nothing_can_be_written_the_process_remembers(tmp_path: Path) -> None:
    """Without its folder it is remembered until the end of the process, and forgotten alike."""
    refused = RefusedPin(tmp_path / "nowhere" / "refused-pin", LABEL)
    refused.remember(PIN)
    assert refused.is_it(PIN)
    refused.forget()
    assert not refused.is_it(PIN)
