"""The first tables."""

import sqlalchemy as sa
from alembic import op

from accredit_issuer.store.models import Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "admin",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("namespaces", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_admin")),
    )
    op.create_table(
        "authority",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("public", sa.String(), nullable=False),
        sa.Column("prepared_at", Moment(), nullable=False),
        sa.Column("activated_at", Moment(), nullable=True),
        sa.Column("retired_at", Moment(), nullable=True),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_authority")),
    )
    op.create_table(
        "credential",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=True),
        sa.Column("namespace", sa.String(), nullable=True),
        sa.Column("instance", sa.String(), nullable=False),
        sa.Column("manifest", sa.String(), nullable=True),
        sa.Column("admin", sa.String(), nullable=True),
        sa.Column("task", sa.String(), nullable=True),
        sa.Column("authority", sa.String(), nullable=False),
        sa.Column("decided_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credential")),
    )
    with op.batch_alter_table("credential", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_credential_agent"), ["agent"], unique=False)
        batch_op.create_index(batch_op.f("ix_credential_instance"), ["instance"], unique=False)
        batch_op.create_index("ix_credential_kind_expires_at", ["kind", "expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_credential_manifest"), ["manifest"], unique=False)
        batch_op.create_index(batch_op.f("ix_credential_namespace"), ["namespace"], unique=False)

    op.create_table(
        "crl",
        sa.Column("authority", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("this_update", Moment(), nullable=False),
        sa.Column("next_update", Moment(), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("authority", name=op.f("pk_crl")),
    )
    op.create_table(
        "enrolment_token",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("admin", sa.String(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("redeemed_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_token")),
    )
    op.create_table(
        "fact",
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_fact")),
    )
    with op.batch_alter_table("fact", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_fact_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_fact_target"), ["target"], unique=False)

    op.create_table(
        "instance",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("manifest", sa.String(), nullable=False),
        sa.Column("assurance", sa.String(), nullable=False),
        sa.Column("selectors", sa.JSON(), nullable=False),
        sa.Column("born_at", Moment(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instance_agent"), ["agent"], unique=False)
        batch_op.create_index(batch_op.f("ix_instance_manifest"), ["manifest"], unique=False)

    op.create_table(
        "join_token",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("redeemed_by", sa.String(), nullable=True),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_token")),
    )
    with op.batch_alter_table("join_token", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_join_token_redeemed_by"), ["redeemed_by"])

    op.create_table(
        "log_leaf",
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_log_leaf")),
    )
    op.create_table(
        "log_tile_root",
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "index", name=op.f("pk_log_tile_root")),
    )
    op.create_table(
        "manifest",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("signer", sa.String(), nullable=False),
        sa.Column("envelope", sa.String(), nullable=False),
        sa.Column("registered_at", Moment(), nullable=False),
        sa.Column("registered_by", sa.String(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_manifest")),
    )
    with op.batch_alter_table("manifest", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_manifest_namespace"), ["namespace"], unique=False)
        batch_op.create_index(batch_op.f("ix_manifest_signer"), ["signer"], unique=False)
        batch_op.create_index("uq_manifest_agent_version", ["agent", "version"], unique=True)

    op.create_table(
        "release",
        sa.Column("credential", sa.String(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("credential", name=op.f("pk_release")),
    )
    op.create_table(
        "revoked_certificate",
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("authority", sa.String(), nullable=False),
        sa.Column("fact", sa.Integer(), nullable=False),
        sa.Column("suspended", sa.Boolean(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_revoked_certificate")),
    )
    with op.batch_alter_table("revoked_certificate", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_revoked_certificate_authority"), ["authority"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_revoked_certificate_expires_at"), ["expires_at"], unique=False
        )

    op.create_table(
        "signer",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("namespaces", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_signer")),
        sa.UniqueConstraint("key_id", name=op.f("uq_signer_key_id")),
    )
    op.create_table(
        "singleton",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_singleton")),
    )
    op.create_table(
        "task",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("instance", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("ancestors", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task")),
    )
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_task_instance"), ["instance"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("task", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_task_instance"))

    op.drop_table("task")
    op.drop_table("singleton")
    op.drop_table("signer")
    with op.batch_alter_table("revoked_certificate", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_revoked_certificate_expires_at"))
        batch_op.drop_index(batch_op.f("ix_revoked_certificate_authority"))

    op.drop_table("revoked_certificate")
    op.drop_table("release")
    with op.batch_alter_table("manifest", schema=None) as batch_op:
        batch_op.drop_index("uq_manifest_agent_version")
        batch_op.drop_index(batch_op.f("ix_manifest_signer"))
        batch_op.drop_index(batch_op.f("ix_manifest_namespace"))

    op.drop_table("manifest")
    op.drop_table("log_tile_root")
    op.drop_table("log_leaf")
    with op.batch_alter_table("join_token", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_join_token_redeemed_by"))

    op.drop_table("join_token")
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_instance_manifest"))
        batch_op.drop_index(batch_op.f("ix_instance_agent"))

    op.drop_table("instance")
    with op.batch_alter_table("fact", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_fact_target"))
        batch_op.drop_index(batch_op.f("ix_fact_expires_at"))

    op.drop_table("fact")
    op.drop_table("enrolment_token")
    op.drop_table("crl")
    with op.batch_alter_table("credential", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_credential_namespace"))
        batch_op.drop_index(batch_op.f("ix_credential_manifest"))
        batch_op.drop_index("ix_credential_kind_expires_at")
        batch_op.drop_index(batch_op.f("ix_credential_instance"))
        batch_op.drop_index(batch_op.f("ix_credential_agent"))

    op.drop_table("credential")
    op.drop_table("authority")
    op.drop_table("admin")
