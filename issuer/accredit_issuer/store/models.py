"""The tables. One class a table; every moment has its time zone; no secret is stored in clear.

What stands here is state; history is the log (``LogLeafRow``), which nothing ever updates.
"""

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    Index,
    LargeBinary,
    MetaData,
    Table,
    TypeDecorator,
)
from sqlmodel import Field, SQLModel


class Moment(TypeDecorator[datetime]):
    """A moment in UTC. Refuses one without a time zone; SQLite gives none back, so it is added."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment must have a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Read UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Model(SQLModel):
    """Base of all tables; the naming convention lets migrations address every constraint."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class SignerRow(Model, table=True):
    """A key that may sign manifests for its namespaces."""

    __tablename__ = "signer"
    name: str = Field(primary_key=True)
    key_id: str = Field(unique=True)
    public_key: str
    namespaces: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    log_index: int


class ManifestRow(Model, table=True):
    """One registered version of an agent."""

    __tablename__ = "manifest"
    __table_args__ = (Index("uq_manifest_agent_version", "agent", "version", unique=True),)
    digest: str = Field(primary_key=True)
    agent: str
    namespace: str = Field(index=True)
    version: str
    owner: str
    signer: str = Field(index=True)
    envelope: str
    registered_at: datetime = Field(sa_type=Moment)
    registered_by: str
    expires_at: datetime = Field(sa_type=Moment)
    log_index: int


class InstanceRow(Model, table=True):
    """One attested process of one manifest."""

    __tablename__ = "instance"
    id: str = Field(primary_key=True)
    agent: str = Field(index=True)
    manifest: str = Field(index=True)
    assurance: str
    selectors: list[str] = Field(sa_column=Column(JSON, nullable=False))
    born_at: datetime = Field(sa_type=Moment)
    log_index: int
    node: str | None = Field(default=None, index=True)  # that measured it, and alone renews it


class JoinTokenRow(Model, table=True):
    """A one-use token that lets one instance of one agent attest."""

    __tablename__ = "join_token"
    id: str = Field(primary_key=True)
    secret_sha256: str
    agent: str
    expires_at: datetime = Field(sa_type=Moment)
    created_by: str
    redeemed_by: str | None = Field(default=None, index=True)
    log_index: int


class AdminRow(Model, table=True):
    """A human or pipeline that administers the issuer."""

    __tablename__ = "admin"
    name: str = Field(primary_key=True)
    role: str
    namespaces: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_type=Moment)
    created_by: str


class EnrolmentTokenRow(Model, table=True):
    """A one-use token that gives an admin its first SVID."""

    __tablename__ = "enrolment_token"
    id: str = Field(primary_key=True)
    secret_sha256: str
    admin: str
    expires_at: datetime = Field(sa_type=Moment)
    redeemed_by: str | None = None


class TaskRow(Model, table=True):
    """One piece of work of one instance."""

    __tablename__ = "task"
    id: str = Field(primary_key=True)
    instance: str = Field(index=True)
    purpose: str
    principal: str
    ancestors: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_type=Moment)


class CredentialRow(Model, table=True):
    """The intent to sign one credential: written before the signature, never changed."""

    __tablename__ = "credential"
    __table_args__ = (Index("ix_credential_kind_expires_at", "kind", "expires_at"),)
    number: int = Field(primary_key=True)  # in the order of writing: rows are only ever appended
    id: str = Field(unique=True)  # serial or jti
    kind: str
    subject: str
    instance: str = Field(index=True)  # whose row says agent and manifest, where it is an agent's
    admin: str | None = None
    task: str | None = None
    authority: str
    decided_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)
    status_list: str | None = None  # where a task token's status stands, and at which index
    status_index: int | None = None


class ReleaseRow(Model, table=True):
    """The outcome: what was signed as intended, and where the log says why."""

    __tablename__ = "release"
    number: int = Field(primary_key=True)  # of the credential
    log_index: int
    sha256: bytes | None = Field(default=None, sa_type=LargeBinary)  # of what was released
    certificate: bytes | None = Field(default=None, sa_type=LargeBinary)  # DER, of an X.509-SVID


class FactRow(Model, table=True):
    """One revocation fact."""

    __tablename__ = "fact"
    sequence: int = Field(primary_key=True)
    target: str = Field(index=True)
    kind: str
    at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment, index=True)
    actor: str
    reason: str
    log_index: int


class RevokedCertificateRow(Model, table=True):
    """One entry of a CRL: an unexpired certificate that a fact matches."""

    __tablename__ = "revoked_certificate"
    serial: str = Field(primary_key=True)
    authority: str = Field(index=True)
    fact: int
    suspended: bool
    at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment, index=True)


class CrlRow(Model, table=True):
    """The newest CRL of one authority; its bytes follow from this and its entries."""

    __tablename__ = "crl"
    authority: str = Field(primary_key=True)
    number: int
    this_update: datetime = Field(sa_type=Moment)
    next_update: datetime = Field(sa_type=Moment)
    scheduled_at: datetime = Field(sa_type=Moment)  # the newest one that no fact asked for
    signature: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class AuthorityRow(Model, table=True):
    """A key that signs: root, issuing CA or JWT key. The private part is in the key manager."""

    __tablename__ = "authority"
    id: str = Field(primary_key=True)  # key id in hex
    kind: str
    state: str
    public: str  # certificate or public key, PEM
    chain: str = ""  # CA certificates between it and the trust anchor, PEM, nearest first
    origin: str = "own"  # who made its certificate: own, files (given) or parent (another issuer)
    parent: str | None = None  # the authority that certified it; None for a root and a JWT key
    prepared_at: datetime = Field(sa_type=Moment)
    activated_at: datetime | None = Field(default=None, sa_type=Moment)
    retired_at: datetime | None = Field(default=None, sa_type=Moment)
    tainted_at: datetime | None = Field(default=None, sa_type=Moment)
    removed_at: datetime | None = Field(default=None, sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)


class FederationRow(Model, table=True):
    """A relationship with another trust domain, and the last good bundle of it."""

    __tablename__ = "federation"
    trust_domain: str = Field(primary_key=True)
    profile: str  # https_web or https_spiffe
    endpoint_url: str
    endpoint_spiffe_id: str | None = None
    feed_url: str | None = None
    allows: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    log_index: int
    bundle: str | None = None  # the newest good one, as we understood it
    fetched_at: datetime | None = Field(default=None, sa_type=Moment)
    attempted_at: datetime | None = Field(default=None, sa_type=Moment)
    failure: str | None = None  # of the newest attempt; None after a success


class SubordinateRow(Model, table=True):
    """An agent that runs an issuer of its own, and how far that may reach."""

    __tablename__ = "subordinate"
    agent: str = Field(primary_key=True)
    namespaces: list[str] = Field(sa_column=Column(JSON, nullable=False))
    dns_names: list[str] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    log_index: int


class SubordinateCaRow(Model, table=True):
    """An issuing CA of a subordinate: known before it is signed, so that a fact can find it."""

    __tablename__ = "subordinate_ca"
    serial: str = Field(primary_key=True)
    id: str = Field(index=True)  # key id in hex; renewed for the same key it is the same
    agent: str = Field(index=True)
    root: str  # the authority that certified it
    issued_at: datetime = Field(sa_type=Moment)
    expires_at: datetime = Field(sa_type=Moment)


class NodeRow(Model, table=True):
    """A host with a node daemon that may run agents of some namespaces."""

    __tablename__ = "node"
    name: str = Field(primary_key=True)
    instance: str = Field(unique=True)  # in all of its SVIDs; another once it was removed
    attestation: str  # the kind of evidence by which it attests
    namespaces: list[str] = Field(sa_column=Column(JSON, nullable=False))
    ca: str | None = None  # of the site, PEM, for x509pop
    certificate: str | None = None  # which certificate of that CA is the node's
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    log_index: int


class NodeJoinTokenRow(Model, table=True):
    """A one-use token that lets one node attest."""

    __tablename__ = "node_join_token"
    id: str = Field(primary_key=True)
    secret_sha256: str
    node: str = Field(index=True)
    expires_at: datetime = Field(sa_type=Moment)
    created_by: str
    redeemed_by: str | None = None  # the node's instance
    log_index: int


class StreamRow(Model, table=True):
    """A receiver of security events, and up to which fact it has accepted everything."""

    __tablename__ = "stream"
    id: str = Field(primary_key=True)  # in every ``jti`` that is sent to it
    name: str = Field(unique=True)
    audience: str
    endpoint_url: str | None = None  # where events are pushed to
    receiver: str | None = None  # the SPIFFE ID that may poll; one of the two is there
    created_at: datetime = Field(sa_type=Moment)
    created_by: str
    log_index: int
    through: int
    accepted_at: datetime | None = Field(default=None, sa_type=Moment)


class LogLeafRow(Model, table=True):
    """One leaf of the log, in the order of the tree."""

    __tablename__ = "log_leaf"
    index: int = Field(primary_key=True)
    leaf: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class LogTileRootRow(Model, table=True):
    """The root of a full tile: 256**level leaves, level 1 and up."""

    __tablename__ = "log_tile_root"
    level: int = Field(primary_key=True)
    index: int = Field(primary_key=True)
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class SingletonRow(Model, table=True):
    """Values of which there is one: the checkpoint, the bundle's sequence."""

    __tablename__ = "singleton"
    name: str = Field(primary_key=True)
    value: str


def _core(model: type[Model]) -> Table:
    """The Core table of a model: queries are written with Core, whose columns have types."""
    table = model.metadata.tables[str(model.__tablename__)]
    assert isinstance(table, Table)  # noqa: S101 (for the type checker)
    return table


signers = _core(SignerRow)
manifests = _core(ManifestRow)
instances = _core(InstanceRow)
join_tokens = _core(JoinTokenRow)
admins = _core(AdminRow)
enrolment_tokens = _core(EnrolmentTokenRow)
tasks = _core(TaskRow)
credentials = _core(CredentialRow)
releases = _core(ReleaseRow)
facts = _core(FactRow)
revoked_certificates = _core(RevokedCertificateRow)
crls = _core(CrlRow)
authorities = _core(AuthorityRow)
federations = _core(FederationRow)
subordinates = _core(SubordinateRow)
subordinate_cas = _core(SubordinateCaRow)
nodes = _core(NodeRow)
node_join_tokens = _core(NodeJoinTokenRow)
streams = _core(StreamRow)
log_leaves = _core(LogLeafRow)
log_tile_roots = _core(LogTileRootRow)
singletons = _core(SingletonRow)
