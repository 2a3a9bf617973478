"""What admins see of the registry, as the API shows it.

Read-only; everything is limited to the namespaces that the reader may see.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, func, select

from accredit_attestors.errors import AttestationError
from accredit_attestors.signing import unverified_manifest
from accredit_credentials.revocation import FactKind, FactSet
from accredit_credentials.spiffe_id import AgentId, TrustDomain
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.store.models import admins, credentials, facts, instances, manifests, signers


@dataclass(frozen=True, slots=True)
class Listing:
    """One look at the registry.

    Attributes:
        namespaces: what the reader may see; None is everything.
    """

    connection: Connection
    trust_domain: TrustDomain
    in_force: FactSet
    now: datetime
    namespaces: Collection[str] | None = None

    def manifests(self, agent: str | None = None) -> list[dict[str, Any]]:
        """All manifests, or those of one agent; the newest last."""
        query = select(manifests).order_by(manifests.c.registered_at)
        if agent is not None:
            query = query.where(manifests.c.agent == agent)
        return [self._manifest(row) for row in self.connection.execute(query) if self._sees(row)]

    def manifest(self, digest: str) -> dict[str, Any]:
        """One manifest, with its envelope.

        Raises:
            Refusal: none that the reader may see.
        """
        row = self.connection.execute(select(manifests).where(manifests.c.digest == digest)).first()
        if row is None or not self._sees(row):
            raise Refusal(Kind.NOT_FOUND, f"no manifest {digest[:80]!r} is registered")
        return {**self._manifest(row), "envelope": row.envelope}

    def agents(self) -> list[dict[str, Any]]:
        """All agents, by name."""
        newest: dict[str, Row[Any]] = {}
        for row in self.connection.execute(select(manifests).order_by(manifests.c.registered_at)):
            if self._sees(row):
                newest[row.agent] = row
        living = self._living_instances()
        return [self._agent(row, living.get(name, 0)) for name, row in sorted(newest.items())]

    def agent(self, agent: AgentId) -> dict[str, Any]:
        """One agent, with its manifests and living instances.

        Raises:
            Refusal: none that the reader may see.
        """
        known = self.manifests(str(agent))
        if not known:
            raise Refusal(Kind.NOT_FOUND, f"no agent {agent} is registered")
        overview = next(each for each in self.agents() if each["agent"] == str(agent))
        return {**overview, "manifests": known, "living_instances": self._instances(agent)}

    def signers(self) -> list[dict[str, Any]]:
        """All signers, by name."""
        return [
            {
                "name": row.name,
                "key_id": row.key_id,
                "namespaces": row.namespaces,
                "created_at": text_of(row.created_at),
                "state": self._state((f"signer:{row.name}",)),
            }
            for row in self.connection.execute(select(signers).order_by(signers.c.name))
        ]

    def admins(self) -> list[dict[str, Any]]:
        """All admins, by name."""
        return [
            {
                "name": row.name,
                "role": row.role,
                "namespaces": row.namespaces,
                "created_at": text_of(row.created_at),
                "state": self._state((f"admin:{row.name}",)),
            }
            for row in self.connection.execute(select(admins).order_by(admins.c.name))
        ]

    def facts(self) -> list[dict[str, Any]]:
        """The facts that are still in force for somebody, in order."""
        in_force = {fact.sequence for fact in self.in_force}
        rows = self.connection.execute(select(facts).order_by(facts.c.sequence))
        return [fact_view(row) for row in rows if row.sequence in in_force]

    def _manifest(self, row: Row[Any]) -> dict[str, Any]:
        try:
            declared = unverified_manifest(row.envelope.encode())
        except AttestationError as error:
            raise Refusal(Kind.INTERNAL, f"manifest {row.digest} cannot be read") from error
        return {
            "digest": row.digest,
            "agent": row.agent,
            "version": row.version,
            "owner": row.owner,
            "purpose": declared.purpose,
            "signer": row.signer,
            "assurance": str(declared.assurance),
            "resources": [
                {
                    "name": resource.name,
                    "audience": resource.audience,
                    "actions": {action.name: str(action.risk) for action in resource.actions},
                }
                for resource in declared.resources
            ],
            "registered_at": text_of(row.registered_at),
            "expires_at": text_of(row.expires_at),
            "state": self._manifest_state(row),
        }

    def _agent(self, row: Row[Any], living: int) -> dict[str, Any]:
        agent = AgentId.parse(row.agent)
        return {
            "agent": row.agent,
            "spiffe_id": str(agent.spiffe_id(self.trust_domain)),
            "owner": row.owner,
            "version": row.version,
            "manifest": row.digest,
            "instances": living,
            "state": self._manifest_state(row),
        }

    def _living_instances(self) -> dict[str, int]:
        query = (
            select(instances.c.agent, func.count(credentials.c.instance.distinct()).label("number"))
            .join(instances, instances.c.id == credentials.c.instance)
            .where(credentials.c.kind == "x509", credentials.c.expires_at > self.now)
            .group_by(instances.c.agent)
        )
        return {row.agent: row.number for row in self.connection.execute(query)}

    def _instances(self, agent: AgentId) -> list[dict[str, Any]]:
        query = (
            select(
                credentials.c.instance,
                func.min(instances.c.manifest).label("manifest"),
                func.max(credentials.c.expires_at).label("expires_at"),
            )
            .join(instances, instances.c.id == credentials.c.instance)
            .where(
                instances.c.agent == str(agent),
                credentials.c.kind == "x509",
                credentials.c.expires_at > self.now,
            )
            .group_by(credentials.c.instance)
        )
        return [
            {
                "instance": row.instance,
                "manifest": row.manifest,
                "expires_at": text_of(row.expires_at),
                "state": self._state((f"instance:{row.instance}",)),
            }
            for row in self.connection.execute(query)
        ]

    def _manifest_state(self, row: Row[Any]) -> str:
        state = self._state(
            (
                f"manifest:{row.digest}",
                f"agent:{row.agent}",
                f"namespace:{row.namespace}",
                f"signer:{row.signer}",
                f"owner:{row.owner}",
            )
        )
        return "expired" if state == "active" and row.expires_at <= self.now else state

    def _state(self, marks: tuple[str, ...]) -> str:
        kinds = {fact.kind for mark in marks if (fact := self.in_force.match((mark,))) is not None}
        if FactKind.REVOKED in kinds:
            return "revoked"
        return "suspended" if kinds else "active"

    def _sees(self, row: Row[Any]) -> bool:
        return self.namespaces is None or row.namespace in self.namespaces


def fact_view(row: Row[Any]) -> dict[str, Any]:
    """One fact as the API shows it."""
    return {
        "sequence": row.sequence,
        "target": row.target,
        "kind": row.kind,
        "at": text_of(row.at),
        "expires_at": text_of(row.expires_at),
        "actor": row.actor,
        "reason": row.reason,
    }


@lru_cache(maxsize=1024)  # whole seconds: everything of one second has them in common
def text_of(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC."""
    return f"{moment.isoformat()[:19]}Z"


def record_of(leaf: bytes) -> Any:
    """A leaf of the log as JSON."""
    return json.loads(leaf)
