"""What the life of an authority leaves behind, and relationships with other trust domains."""

import sqlalchemy as sa
from alembic import op

from accredit_issuer.store.models import Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("authority") as batch_op:
        batch_op.add_column(sa.Column("chain", sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("origin", sa.String(), nullable=False, server_default="own"))
        batch_op.add_column(sa.Column("parent", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("tainted_at", Moment(), nullable=True))
        batch_op.add_column(sa.Column("removed_at", Moment(), nullable=True))
    op.create_table(
        "federation",
        sa.Column("trust_domain", sa.String(), nullable=False),
        sa.Column("profile", sa.String(), nullable=False),
        sa.Column("endpoint_url", sa.String(), nullable=False),
        sa.Column("endpoint_spiffe_id", sa.String(), nullable=True),
        sa.Column("feed_url", sa.String(), nullable=True),
        sa.Column("allows", sa.JSON(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("log_index", sa.Integer(), nullable=False),
        sa.Column("bundle", sa.String(), nullable=True),
        sa.Column("fetched_at", Moment(), nullable=True),
        sa.Column("attempted_at", Moment(), nullable=True),
        sa.Column("failure", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("trust_domain", name=op.f("pk_federation")),
    )
