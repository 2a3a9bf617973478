"""Whether the keys answer: asked seldom, told at once, and nobody waits for one that hangs."""

import threading
from dataclasses import dataclass, field

import pytest

from accredit_issuer.errors import Unavailable
from accredit_issuer.keys import probe
from accredit_issuer.keys.memory import MemoryKeys
from accredit_issuer.keys.probe import LASTS_SECONDS, Probe


@dataclass
class Ticks:
    """Seconds, as the test says."""

    now: float = 0.0

    def __call__(self) -> float:
        """The seconds."""
        return self.now


@dataclass
class Flaky(MemoryKeys):
    """Keys that can be away, and that can hang."""

    asked: int = 0
    away: bool = False
    hanging: threading.Event = field(default_factory=threading.Event)
    hangs: bool = False

    def __post_init__(self) -> None:
        MemoryKeys.__init__(self)

    def check(self) -> str:
        """Answer, or not."""
        self.asked += 1
        if self.hangs:
            self.hanging.wait()
        if self.away:
            raise Unavailable("token 'canary' cannot be used")
        return "here"


def test_the_answer_lasts_a_second() -> None:
    """A key manager is not asked for each request, and what changed is told a second later."""
    keys, ticks = Flaky(), Ticks()
    made = Probe(keys, ticks)
    for _ in range(3):
        made.check()
    assert keys.asked == 1
    keys.away = True
    ticks.now += LASTS_SECONDS / 2
    made.check()
    ticks.now += LASTS_SECONDS / 2
    for _ in range(3):
        with pytest.raises(Unavailable, match="the keys cannot be used now") as caught:
            made.check()
        assert "canary" not in str(caught.value)
        assert "canary" in str(caught.value.__cause__)
    assert keys.asked == 2
    keys.away = False
    ticks.now += LASTS_SECONDS
    made.check()


def test_one_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread waits for it; who else asks is told that it does not answer."""
    monkeypatch.setattr(probe, "PATIENCE_SECONDS", 0.01)
    keys = Flaky(hangs=True)
    made = Probe(keys, Ticks())
    waiting = threading.Thread(target=made.check)
    waiting.start()
    try:
        while not keys.asked:
            pass
        with pytest.raises(Unavailable, match="does not answer"):
            made.check()
    finally:
        keys.hanging.set()
        waiting.join()
    made.check()
    assert keys.asked == 1
