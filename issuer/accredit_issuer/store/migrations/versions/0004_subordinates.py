"""Other issuers of the trust domain that may have an issuing CA of us, and those they have."""

import sqlalchemy as sa
from alembic import op

from accredit_issuer.store.models import Moment

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "subordinate",
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("namespaces", sa.JSON(), nullable=False),
        sa.Column("dns_names", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("agent", name=op.f("pk_subordinate")),
    )
    op.create_table(
        "subordinate_ca",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("root", sa.String(), nullable=False),
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("issued_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_subordinate_ca")),
    )
    with op.batch_alter_table("subordinate_ca") as batch_op:
        batch_op.create_index(batch_op.f("ix_subordinate_ca_id"), ["id"], unique=False)
        batch_op.create_index(batch_op.f("ix_subordinate_ca_agent"), ["agent"], unique=False)
