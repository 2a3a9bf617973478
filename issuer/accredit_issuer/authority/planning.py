"""When each authority signs first, signs last and goes: what was, and what is planned.

Pure: the plan follows from ``lifecycle`` and the settings, for as long as no operator and no fact
comes in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from accredit_issuer.authority.lifecycle import (
    AuthorityKind,
    Rule,
    Standing,
    State,
    activation,
    active_of,
    end,
    misplaced,
    next_of,
)
from accredit_issuer.settings import Config

Rules = Mapping[AuthorityKind, Rule]
HINTS_AHEAD = 3  # refresh hints that a key is published before it signs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The moments of one authority; those named in ``planned`` have not come yet.

    Attributes:
        activates_from: from when on an operator may activate it; None once it was, or never will.
        active_from: when it signs first; None where it never will.
        last_use: when it signs last; None where it never signs.
        removal: when it leaves the bundle and its key is deleted.
    """

    activates_from: datetime | None
    active_from: datetime | None
    last_use: datetime | None
    removal: datetime
    planned: frozenset[str]


def rules_of(config: Config) -> Rules:
    """The numbers of each kind, in the order in which they depend on each other."""
    lifetimes = config.lifetimes
    ahead = timedelta(seconds=HINTS_AHEAD * config.refresh_hint)
    return {
        AuthorityKind.ROOT: Rule(
            lifetime=lifetimes.root,
            publish_ahead=ahead,
            leaf_lifetime=lifetimes.issuing_ca,
            # Who does not know it cannot even ask for the bundle. Whoever holds an SVID renews it
            # in this time, and learns of the root by that: commands of admins too.
            patience=lifetimes.longest_svid,
        ),
        AuthorityKind.X509: Rule(
            # An issuing CA travels with each leaf: nobody has to know it beforehand.
            lifetime=lifetimes.issuing_ca,
            publish_ahead=timedelta(0),
            leaf_lifetime=lifetimes.longest_svid,
        ),
        AuthorityKind.JWT: Rule(
            lifetime=lifetimes.jwt_key,
            publish_ahead=ahead,
            leaf_lifetime=max(lifetimes.jwt_svid, lifetimes.task_token),
        ),
        # Where they are turned off, too: what was signed before is verified to its end.
        AuthorityKind.WIT: Rule(
            lifetime=lifetimes.jwt_key,
            publish_ahead=ahead,
            leaf_lifetime=lifetimes.wit_svid,
        ),
    }


def wanted_kinds(config: Config) -> tuple[AuthorityKind, ...]:
    """The kinds of which one signs, by the settings; of others none is made any more."""
    return tuple(k for k in AuthorityKind if k is not AuthorityKind.WIT or config.wit_svids)


def plan(standing: Standing, authorities: Sequence[Standing], rules: Rules, now: datetime) -> Plan:
    """The moments of one authority among all that are known."""
    known = [a for a in authorities if a.state is not State.REMOVED]
    rule = rules[standing.kind]
    match standing.state:
        case State.PREPARED:
            from_moment = standing.prepared_at + rule.publish_ahead
            if misplaced(standing, known) or not standing.can_sign(now):
                return _never_used(standing, max(now, standing.prepared_at))
            begin = max(now, activation(standing, known, rule, now))
            active = replace(standing, state=State.ACTIVE, activated_at=begin)
            last = _handover(active.half_life + rule.ahead_unasked, active, now)
            return Plan(
                activates_from=from_moment,
                active_from=begin,
                last_use=last,
                removal=end(replace(active, retired_at=last), rule),
                planned=frozenset({"active_from", "last_use", "removal"}),
            )
        case State.ACTIVE:
            last = _last_use(standing, known, rules, now)
            return Plan(
                activates_from=None,
                active_from=standing.activated_at,
                last_use=last,
                removal=end(replace(standing, retired_at=last), rule, known),
                planned=frozenset({"last_use", "removal"}),
            )
    if standing.activated_at is None:
        return _never_used(standing, max(now, end(standing, rule)))
    return Plan(
        activates_from=None,
        active_from=standing.activated_at,
        last_use=standing.retired_at or standing.expires_at,
        removal=standing.removed_at or max(now, end(standing, rule, known)),
        planned=frozenset() if standing.removed_at else frozenset({"removal"}),
    )


def _last_use(active: Standing, known: Sequence[Standing], rules: Rules, now: datetime) -> datetime:
    """When the one that signs hands over to its successor."""
    rule = rules[active.kind]
    successor = next_of(known, active.kind, now)
    if successor is not None:
        moment = activation(successor, known, rule, now)
    elif misplaced(active, known) or not active.can_sign(now):
        moment = now
    else:
        moment = active.half_life + rule.ahead_unasked
    root = active_of(known, AuthorityKind.ROOT, now)
    if active.kind is AuthorityKind.X509 and root is not None:
        moment = min(moment, _last_use(root, known, rules, now))  # it follows its root
    return _handover(moment, active, now)


def _handover(moment: datetime, active: Standing, now: datetime) -> datetime:
    return max(now, min(moment, active.expires_at))


def _never_used(standing: Standing, removal: datetime) -> Plan:
    return Plan(
        activates_from=None,
        active_from=None,
        last_use=None,
        removal=standing.removed_at or removal,
        planned=frozenset() if standing.removed_at else frozenset({"removal"}),
    )
