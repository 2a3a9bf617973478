"""Hosts with a node daemon, their join tokens, and which instance runs where."""

import sqlalchemy as sa
from alembic import op

from accredit_issuer.store.models import Moment

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "node",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("instance", sa.String(), nullable=False),
        sa.Column("attestation", sa.String(), nullable=False),
        sa.Column("namespaces", sa.JSON(), nullable=False),
        sa.Column("ca", sa.String(), nullable=True),
        sa.Column("certificate", sa.String(), nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_node")),
        sa.UniqueConstraint("instance", name=op.f("uq_node_instance")),
    )
    op.create_table(
        "node_join_token",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("redeemed_by", sa.String(), nullable=True),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node_join_token")),
    )
    op.create_index(op.f("ix_node_join_token_node"), "node_join_token", ["node"], unique=False)
    op.add_column("instance", sa.Column("node", sa.String(), nullable=True))
    op.create_index(op.f("ix_instance_node"), "instance", ["node"], unique=False)
