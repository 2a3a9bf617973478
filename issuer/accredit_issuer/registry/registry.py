"""What is registered, as values that decisions can use.

Reads the database and keeps what never changes (manifests, instances) in memory. What is revoked
is not its matter: the facts decide that.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Row, Select, select

from accredit_attestors.errors import AttestationError
from accredit_attestors.levels import Assurance
from accredit_attestors.signer_keys import load_signer_public_key
from accredit_attestors.signing import Signer, VerifiedManifest, verify
from accredit_credentials.spiffe_id import AgentId
from accredit_issuer.errors import Kind, Refusal
from accredit_issuer.registry.roles import Admin, Role
from accredit_issuer.store import models
from accredit_issuer.store.database import Database

KEPT = 10_000  # manifests, and instances, in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One attested process of one manifest; ``node`` measured it, None where it did itself."""

    id: str
    agent: AgentId
    manifest: str
    assurance: Assurance
    born_at: datetime
    node: str | None = None


class Registry:
    """Look-ups. ``signers_changed`` is to be called after each change of the signers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._signers: tuple[Signer, ...] | None = None
        self._signers_version = 0
        self._manifests = lru_cache(KEPT)(self._read_manifest)
        self._instances = lru_cache(KEPT)(self._read_instance)

    def signers(self) -> tuple[Signer, ...]:
        """All signers that were added, revoked ones too."""
        known, version = self._signers, self._signers_version
        if known is None:
            known = tuple(map(signer_of, self._rows(select(models.signers))))
            # One that was added while these were read is not forgotten again.
            if version == self._signers_version:
                self._signers = known
        return known

    def signers_changed(self) -> None:
        """Forget what is known of signers."""
        self._signers_version += 1
        self._signers = None

    def manifest(self, digest: str) -> VerifiedManifest:
        """A registered manifest; its signature is checked again when it is read.

        Raises:
            Refusal: not registered.
        """
        return self._manifests(digest)

    def instance(self, instance_id: str) -> Instance:
        """An attested instance.

        Raises:
            Refusal: never attested.
        """
        return self._instances(instance_id)

    def admin(self, name: str) -> Admin:
        """An admin, with the role that it has now.

        Raises:
            Refusal: there is none of this name.
        """
        table = models.admins
        rows = self._rows(select(table).where(table.c.name == name))
        if not rows:
            raise Refusal(Kind.FORBIDDEN, f"no admin is called {name}")
        return Admin(rows[0].name, Role(rows[0].role), tuple(rows[0].namespaces))

    def _read_manifest(self, digest: str) -> VerifiedManifest:
        table = models.manifests
        rows = self._rows(select(table).where(table.c.digest == digest))
        if not rows:
            raise Refusal(Kind.NOT_FOUND, f"no manifest {digest} is registered")
        try:
            # At its registration it was valid; whether it still is, is decided with each use.
            return verify(
                rows[0].envelope.encode(), signers=self.signers(), now=rows[0].registered_at
            )
        except AttestationError as error:
            raise Refusal(
                Kind.INTERNAL, f"manifest {digest} is stored in another form than it was signed"
            ) from error

    def _read_instance(self, instance_id: str) -> Instance:
        table = models.instances
        rows = self._rows(select(table).where(table.c.id == instance_id))
        if not rows:
            raise Refusal(Kind.UNAUTHENTICATED, f"instance {instance_id} was never attested")
        return Instance(
            id=rows[0].id,
            agent=AgentId.parse(rows[0].agent),
            manifest=rows[0].manifest,
            assurance=Assurance.parse(rows[0].assurance),
            born_at=rows[0].born_at,
            node=rows[0].node,
        )

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._database.read() as connection:
            return list(connection.execute(query))


def signer_of(row: Row[Any]) -> Signer:
    """A signer as it stands in its table."""
    key = load_signer_public_key(row.public_key.encode())
    return Signer(row.name, key, tuple(row.namespaces))
