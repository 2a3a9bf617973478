"""The lives of authorities, simulated over months: sleeps, downtime and late wake-ups included."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from support.clock import NOW

from accredit_issuer.authority.lifecycle import (
    AuthorityKind,
    Rule,
    Standing,
    State,
    Step,
    after,
    due,
    next_due,
)

HOUR = timedelta(hours=1)
DAY = 24 * HOUR
RULES = {
    "jwt": Rule(lifetime=DAY, publish_ahead=HOUR / 4, leaf_lifetime=HOUR / 12),
    "x509": Rule(lifetime=DAY, publish_ahead=timedelta(0), leaf_lifetime=12 * HOUR),
    "root": Rule(lifetime=30 * DAY, publish_ahead=HOUR / 4, leaf_lifetime=DAY),
    "tight": Rule(lifetime=HOUR, publish_ahead=HOUR / 4, leaf_lifetime=HOUR / 2),
}
KIND = AuthorityKind.JWT


@dataclass
class World:
    """Authorities of one kind, and every promise about them checked at each step."""

    rule: Rule
    now: datetime = NOW
    standings: dict[str, Standing] = field(default_factory=dict)
    signed_until: dict[str, datetime] = field(default_factory=dict)
    gaps: int = 0

    @property
    def active(self) -> list[Standing]:
        """Those that sign now."""
        return [
            s
            for s in self.standings.values()
            if s.state is State.ACTIVE and s.expires_at > self.now
        ]

    def keep_up(self) -> None:
        """Take every step that is due, until nothing is."""
        for _ in range(4):
            steps = due(self.standings.values(), KIND, self.rule, self.now)
            if not steps:
                break
            for step in steps:
                self._take(step.step, step.id)
        else:
            pytest.fail("the authorities do not come to rest")
        assert len([s for s in self.standings.values() if s.state is State.ACTIVE]) == 1
        (active,) = self.active
        # The one that is active signs as late as it can: something that lives as long as it may.
        end = min(self.now + self.rule.leaf_lifetime, active.expires_at + self.rule.leaf_lifetime)
        self.signed_until[active.id] = end

    def _take(self, step: Step, name: str | None) -> None:
        if step is Step.PREPARE:
            name = f"key-{len(self.standings)}"
            self.standings[name] = Standing(
                id=name,
                kind=KIND,
                state=State.PREPARED,
                prepared_at=self.now,
                activated_at=None,
                retired_at=None,
                expires_at=self.now + self.rule.lifetime,
            )
            return
        assert name is not None
        standing = self.standings[name]
        match step:
            case Step.ACTIVATE:
                assert standing.state is State.PREPARED
                published_for = self.now - standing.prepared_at
                if published_for < self.rule.publish_ahead:
                    assert not self.active, "a key signs before everyone can know it"
                    self.gaps += 1
                for other in list(self.standings.values()):
                    if other.state is State.ACTIVE:
                        self.standings[other.id] = after(other, Step.RETIRE, self.now)
            case _:
                assert self.signed_until.get(name, self.now) <= self.now, "something is still valid"
        self.standings[name] = after(standing, step, self.now)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_months_of_waking_when_something_is_due(rule: Rule) -> None:
    """Asked at each next moment there is one active key at rest, and no key signs unknown."""
    world = World(rule)
    world.keep_up()
    first = int(rule.publish_ahead > timedelta(0))
    assert world.gaps == first, "the first key has nothing to wait for"
    for _ in range(400):
        later = next_due(world.standings.values(), KIND, rule, world.now)
        assert later > world.now
        world.now = later
        world.keep_up()
    assert world.gaps == first
    assert len([s for s in world.standings.values() if s.state is not State.REMOVED]) <= 4


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_sleeps_and_downtime(rule: Rule, seed: int) -> None:
    """However late it wakes, from a second to ten lifetimes, every promise holds at once."""
    randomness = random.Random(seed)  # noqa: S311 (a test's dice)
    world = World(rule)
    world.keep_up()
    for _ in range(300):
        spans = (timedelta(seconds=1), rule.publish_ahead, rule.lifetime / 8, rule.lifetime / 2,
                 rule.lifetime, 10 * rule.lifetime)  # fmt: skip
        world.now += randomness.choice(spans) * randomness.random() + timedelta(microseconds=1)
        world.keep_up()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_five_minutes_late_is_in_time(rule: Rule) -> None:
    """The scheduler looks at least every five minutes: that late, no key signs unknown."""
    world = World(rule)
    for _ in range(3000):
        world.keep_up()
        world.now += timedelta(minutes=5)
    assert world.gaps <= 1


def test_a_life_cut_short_is_halved_as_it_is() -> None:
    """An authority that ends early, with its root, is replaced at half of the life it has."""
    rule = RULES["x509"]
    short = Standing(
        id="a",
        kind=KIND,
        state=State.ACTIVE,
        prepared_at=NOW,
        activated_at=NOW,
        retired_at=None,
        expires_at=NOW + 2 * HOUR,
    )
    assert due([short], KIND, rule, NOW + HOUR - timedelta(seconds=1)) == []
    assert [step.step for step in due([short], KIND, rule, NOW + HOUR)] == [Step.PREPARE]
    assert next_due([short], KIND, rule, NOW) == NOW + HOUR


def test_kinds_do_not_mix() -> None:
    """What another kind has is no reason to do without."""
    other = Standing(
        id="a",
        kind=AuthorityKind.X509,
        state=State.ACTIVE,
        prepared_at=NOW,
        activated_at=NOW,
        retired_at=None,
        expires_at=NOW + DAY,
    )
    assert [step.step for step in due([other], KIND, RULES["jwt"], NOW)] == [Step.PREPARE]


def test_what_is_not_wanted_any_more_is_wound_up() -> None:
    """What signs retires, what was prepared goes, and none is made; each leaves when it may."""
    rule = RULES["jwt"]
    world = World(rule)
    world.keep_up()
    world.now += 13 * HOUR
    world.keep_up()

    def steps() -> set[tuple[Step, str | None]]:
        found = due(world.standings.values(), KIND, rule, world.now, wanted_here=False)
        return {(each.step, each.id) for each in found}

    assert steps() == {(Step.RETIRE, "key-0"), (Step.REMOVE, "key-1")}
    retired = after(world.standings["key-0"], Step.RETIRE, world.now)
    world.standings = {"key-0": retired}
    assert steps() == set()
    world.now += rule.leaf_lifetime
    assert steps() == {(Step.REMOVE, "key-0")}
    world.standings = {}
    assert steps() == set()
